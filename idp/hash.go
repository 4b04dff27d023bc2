package idp

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Bounds of the parameters of a password hash: below, a stolen configuration is
// soon cracked; above, a sign-in takes too long or too much memory.
const (
	minBcryptCost, maxBcryptCost     = 10, 16
	minArgonMemory, maxArgonMemory   = 7 << 10, 256 << 10 // KiB
	minArgonWork, maxArgonWork       = 32 << 10, 1 << 20  // KiB times passes
	maxArgonPasses, maxArgonThreads  = 16, 16
	minArgonSalt, maxArgonSalt       = 8, 64  // bytes
	minArgonOutput, maxArgonOutput   = 16, 64 // bytes
	maxPassword, maxBcryptPassword   = 128, 72
	bcryptNanoseconds, argonKiBNanos = 50_000, 1000 // rough costs, to compare hashes
)

// passwordHash is a parsed hash.
type passwordHash struct {
	bcrypt []byte // the whole string; nil for argon2id
	cost   int

	memory, passes uint32
	threads        uint8
	salt, key      []byte
}

// parseHash reads a bcrypt hash ($2a$, $2b$, $2y$) or an argon2id one in the
// PHC format, each as it is or in base64, as older versions of caddy
// hash-password print it.
func parseHash(s string) (*passwordHash, error) {
	if !strings.HasPrefix(s, "$") {
		decoded, err := base64.StdEncoding.DecodeString(s)
		if err != nil || len(decoded) == 0 || decoded[0] != '$' {
			return nil, errors.New("it is no password hash: make one with caddy hash-password")
		}
		s = string(decoded)
	}
	switch {
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		return parseBcrypt(s)
	case strings.HasPrefix(s, "$argon2id$"):
		return parseArgon(s)
	}
	return nil, errors.New("its kind of hash is not supported: make a bcrypt or argon2id one with caddy hash-password")
}

func parseBcrypt(s string) (*passwordHash, error) {
	const salt = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	cost, err := bcrypt.Cost([]byte(s))
	switch {
	case err != nil || len(s) != 60 || strings.Trim(s[7:], salt) != "":
		return nil, errors.New("the bcrypt hash is malformed: was a $ in it taken for a variable?")
	case cost < minBcryptCost || cost > maxBcryptCost:
		return nil, fmt.Errorf("the bcrypt cost %d is not between %d and %d", cost, minBcryptCost, maxBcryptCost)
	}
	return &passwordHash{bcrypt: []byte(s), cost: cost}, nil
}

// parseArgon reads $argon2id$v=19$m=47104,t=1,p=1$salt$key
// (https://github.com/P-H-C/phc-string-format).
func parseArgon(s string) (*passwordHash, error) {
	malformed := errors.New("the argon2id hash is malformed: was a $ in it taken for a variable?")
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return nil, malformed
	}
	params := strings.Split(parts[3], ",")
	if len(params) != 3 {
		return nil, malformed
	}
	var n [3]uint64
	for i, prefix := range []string{"m=", "t=", "p="} {
		digits, ok := strings.CutPrefix(params[i], prefix)
		v, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil {
			return nil, malformed
		}
		n[i] = v
	}
	salt, err := base64.RawStdEncoding.Strict().DecodeString(parts[4])
	if err != nil {
		return nil, malformed
	}
	key, err := base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if err != nil {
		return nil, malformed
	}
	memory, passes, threads := n[0], n[1], n[2]
	switch {
	case memory < minArgonMemory || memory > maxArgonMemory:
		return nil, fmt.Errorf("the argon2id memory of %d KiB is not between %d and %d", memory, minArgonMemory, maxArgonMemory)
	case passes < 1 || passes > maxArgonPasses:
		return nil, fmt.Errorf("the argon2id time of %d is not between 1 and %d", passes, maxArgonPasses)
	case memory*passes < minArgonWork || memory*passes > maxArgonWork:
		return nil, fmt.Errorf("the argon2id memory times time of %d KiB is not between %d and %d", memory*passes, minArgonWork, maxArgonWork)
	case threads < 1 || threads > maxArgonThreads:
		return nil, fmt.Errorf("the argon2id parallelism of %d is not between 1 and %d", threads, maxArgonThreads)
	case len(salt) < minArgonSalt || len(salt) > maxArgonSalt:
		return nil, fmt.Errorf("the argon2id salt of %d bytes is not between %d and %d", len(salt), minArgonSalt, maxArgonSalt)
	case len(key) < minArgonOutput || len(key) > maxArgonOutput:
		return nil, fmt.Errorf("the argon2id output of %d bytes is not between %d and %d", len(key), minArgonOutput, maxArgonOutput)
	}
	return &passwordHash{memory: uint32(memory), passes: uint32(passes), threads: uint8(threads), salt: salt, key: key}, nil
}

// matches takes as long for a wrong password as for the right one. What is too
// long for bcrypt does not match, but takes its time as well.
func (h *passwordHash) matches(password string) bool {
	if h.bcrypt != nil {
		cut := password[:min(len(password), maxBcryptPassword)]
		return bcrypt.CompareHashAndPassword(h.bcrypt, []byte(cut)) == nil && len(password) <= maxBcryptPassword
	}
	key := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.threads, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

// work is roughly how long matches takes, in nanoseconds.
func (h *passwordHash) work() int64 {
	if h.bcrypt != nil {
		return bcryptNanoseconds << h.cost
	}
	return argonKiBNanos * int64(h.memory) * int64(h.passes)
}
