package seal

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// KeySize is the length of a root key, in bytes.
const KeySize = 32

// MinPassphrase is the least length of a passphrase, in characters.
const MinPassphrase = 32

// Key is a root key. It never prints its secret; Encode does on purpose. The
// zero value is no key, and NewRing refuses it.
type Key struct {
	// A function, because fmt prints the fields of a nested struct without asking
	// for its String method, and with the wrong verb even follows pointers.
	secret func() []byte
}

func newKey(b [KeySize]byte) Key {
	return Key{func() []byte { return b[:] }}
}

// ErrKey is returned by ParseKey for what is neither form of a key. The text
// tells the operator what to write and does not repeat the input.
var ErrKey = errors.New("an encryption key is the base64 form of 32 random bytes (openssl rand -base64 32), or a passphrase of at least 32 characters on one line")

// ParseKey reads a key: the base64 form, standard or URL alphabet, padded or
// not, of exactly 32 bytes; or else a passphrase of at least 32 characters.
// White space around it is dropped, because files end in a newline.
//
// A passphrase becomes a key by argon2id (RFC 9106) with 19 MiB and two
// passes, some 50 ms once at start. A plain hash would not do: anyone can
// register, gets a sealed value in return and can then try passphrases against
// it at home, and 32 characters of a sentence hold far fewer bits than 32 random
// bytes. The salt is fixed, since all nodes must arrive at the same key and have
// nothing else in common.
func ParseKey(s string) (Key, error) {
	s = strings.TrimSpace(s)
	if b, ok := decodeKey(s); ok {
		return newKey(b), nil
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) || utf8.RuneCountInString(s) < MinPassphrase {
		return Key{}, ErrKey
	}
	const passes, memoryKiB, threads = 2, 19 << 10, 1
	derived := [KeySize]byte(argon2.IDKey([]byte(s), []byte("mcpauth encryption_key v1"), passes, memoryKiB, threads, KeySize))
	return newKey(derived), nil
}

// decodeKey reads 32 bytes of base64 in any of its usual spellings.
func decodeKey(s string) (b [KeySize]byte, ok bool) {
	if strings.ContainsAny(s, "\r\n") { // encoding/base64 skips these
		return b, false
	}
	s = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimSuffix(s, "="))
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != KeySize {
		return b, false
	}
	return [KeySize]byte(raw), true
}

// GenerateKey returns a new random key.
func GenerateKey() Key {
	var b [KeySize]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return newKey(b)
}

// Encode returns the key in the form that ParseKey reads, base64url without
// padding. It is the secret itself.
func (k Key) Encode() string {
	if k.secret == nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(k.secret())
}

// String returns the key's fingerprint, never the secret.
func (k Key) String() string { return "key " + k.fingerprint() }

// GoString is String, for %#v.
func (k Key) GoString() string { return k.String() }

// LogValue is String, for slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// fingerprint tells keys apart without telling anything of the secret.
func (k Key) fingerprint() string {
	if k.secret == nil {
		return "none"
	}
	return hex.EncodeToString(k.derive("fingerprint", 8))
}

func (k Key) equal(other Key) bool {
	return subtle.ConstantTimeCompare(k.secret(), other.secret()) == 1
}

// derive returns n bytes of HKDF-SHA256 (RFC 5869) over the key. The parts of
// info are prefixed with their lengths.
func (k Key) derive(label string, n int, info ...string) []byte {
	full := appendParts([]byte("mcpauth seal v1 "), append([]string{label}, info...)...)
	out, err := hkdf.Key(sha256.New, k.secret(), nil, string(full), n)
	if err != nil { // only for n above 255 hashes or keys too short for FIPS mode
		panic("seal: " + err.Error())
	}
	return out
}
