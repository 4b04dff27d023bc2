package bearer

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// APIKeyPrefix is how the keys begin that NewAPIKey makes, so that scanners
	// for leaked secrets can be told to look for them.
	APIKeyPrefix = "mcpk-"
	// maxKeyHashing is how many argon2id hashes are computed at once; a little
	// queue waits for them.
	maxKeyHashing = 2
	maxKeyQueue   = 32
)

// StaticConfig says which API keys are accepted. Keys, File or both are
// required.
type StaticConfig struct {
	// Keys are accepted besides those of File.
	Keys []APIKey
	// File is a JSON file with more of them: {"keys": [...]}, each as APIKey
	// says. It is read anew within 2 s after it has changed; a file that cannot be
	// read, or holds a mistake, is logged, and the keys from before stay.
	File string
	// HMACKey is the secret of hashes that begin with hmac-sha256: at least 32
	// bytes.
	HMACKey string
	// Audience is what keys without resources of their own are for.
	Audience []string
	// Logger gets what goes wrong with the file; nil discards it.
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// StaticVerifier is a Verifier of API keys that the operator hands out. It does
// not ask anybody.
//
// A key without an expiry has none in TokenInfo.ExpiresAt either.
type StaticVerifier struct {
	config  StaticConfig
	keys    atomic.Pointer[keyring]
	file    *watchedFile // nil without one
	hashing chan struct{}
	waiting atomic.Int32
}

// keyring is one version of the keys.
type keyring struct {
	// byDigest holds the keys that are known by a digest of the whole token.
	// Guessing one means guessing a token, so that it does not matter how long a
	// look takes.
	byDigest map[[sha256.Size]byte]*apiKey
	// byID holds those with a slow hash, by what the token begins with.
	byID map[string]*apiKey
	// ids are those of all keys, in tokens that begin with one.
	ids map[string]bool
}

// NewStaticVerifier checks the configuration and reads the file.
func NewStaticVerifier(c StaticConfig) (*StaticVerifier, error) {
	if len(c.Keys) == 0 && c.File == "" {
		return nil, errors.New("name API keys, or a file with them")
	}
	if c.HMACKey != "" && len(c.HMACKey) < 32 {
		return nil, errors.New("the HMAC key has less than 32 characters; make one with: openssl rand -base64 32")
	}
	c.Now, c.Logger = clockOr(c.Now), loggerOr(c.Logger)
	v := &StaticVerifier{config: c, hashing: make(chan struct{}, maxKeyHashing)}
	var fromFile []APIKey
	if c.File != "" {
		v.file = &watchedFile{path: c.File, now: c.Now}
		data, err := v.file.read()
		if err != nil {
			return nil, err
		}
		if fromFile, err = parseKeyFile(data); err != nil {
			return nil, fmt.Errorf("%s: %w", c.File, err)
		}
	}
	keys, err := v.newKeyring(fromFile)
	if err != nil {
		return nil, err
	}
	v.keys.Store(keys)
	return v, nil
}

func (v *StaticVerifier) newKeyring(fromFile []APIKey) (*keyring, error) {
	ring := &keyring{byDigest: map[[sha256.Size]byte]*apiKey{}, byID: map[string]*apiKey{}, ids: map[string]bool{}}
	for _, keys := range [][]APIKey{v.config.Keys, fromFile} {
		for i := range keys {
			key, err := keys[i].compile(v.config.HMACKey != "")
			if err != nil {
				return nil, fmt.Errorf("key %q: %w", keys[i].ID, err)
			}
			if key.audience == nil {
				key.audience = v.config.Audience
			}
			if len(key.audience) == 0 {
				return nil, fmt.Errorf("key %q: it is for no resource; name its resources", keys[i].ID)
			}
			if ring.ids[key.ID] {
				return nil, fmt.Errorf("key %q is there twice", key.ID)
			}
			ring.ids[key.ID] = true
			if now := v.config.Now(); !key.Expires.IsZero() && !now.Before(key.Expires) {
				v.config.Logger.Warn("an API key has expired and is refused; remove it, or give a new one to its user",
					slog.String("key", key.ID), slog.Time("expires", key.Expires))
			}
			if key.slow != nil {
				ring.byID[key.ID] = key
				continue
			}
			if ring.byDigest[key.digest] != nil {
				return nil, fmt.Errorf("key %q has the same hash as key %q", key.ID, ring.byDigest[key.digest].ID)
			}
			ring.byDigest[key.digest] = key
		}
	}
	return ring, nil
}

// current returns the keys, those of a changed file included.
func (v *StaticVerifier) current() *keyring {
	if v.file == nil || !v.file.due() {
		return v.keys.Load()
	}
	defer v.file.release()
	data, err := v.file.changed()
	if data == nil && err == nil {
		return v.keys.Load()
	}
	var fromFile []APIKey
	if err == nil {
		fromFile, err = parseKeyFile(data)
	}
	var ring *keyring
	if err == nil {
		ring, err = v.newKeyring(fromFile)
	}
	if err != nil {
		v.config.Logger.Error("the file of API keys cannot be used, the keys from before stay in use",
			slog.String("file", v.config.File), slog.Any("error", err))
		return v.keys.Load()
	}
	v.config.Logger.Info("the file of API keys was loaded anew", slog.String("file", v.config.File), slog.Int("keys", len(fromFile)))
	v.keys.Store(ring)
	return ring
}

// Recognizes reports whether the token is one of the keys, or looks like one.
func (v *StaticVerifier) Recognizes(token string) bool {
	if len(token) > maxToken {
		return false
	}
	id, _, found := strings.Cut(token, "_")
	ring := v.current()
	return strings.HasPrefix(token, APIKeyPrefix) || found && ring.ids[id] || v.byDigest(ring, token) != nil
}

// byDigest finds a key by the digests of the whole token.
func (v *StaticVerifier) byDigest(ring *keyring, token string) *apiKey {
	digest := sha256.Sum256([]byte(token))
	if key := ring.byDigest[digest]; key != nil && !key.keyed && subtle.ConstantTimeCompare(digest[:], key.digest[:]) == 1 {
		return key
	}
	if v.config.HMACKey == "" {
		return nil
	}
	mac := hmac.New(sha256.New, []byte(v.config.HMACKey))
	mac.Write([]byte(token))
	mac.Sum(digest[:0])
	if key := ring.byDigest[digest]; key != nil && key.keyed && hmac.Equal(digest[:], key.digest[:]) {
		return key
	}
	return nil
}

// VerifyAccessToken finds the key. Errors are those that Verifier names.
func (v *StaticVerifier) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	verdict, err := v.Verdict(ctx, token)
	return verdict.Info, err
}

// Verdict finds the key. It holds as long as the keys do not change.
func (v *StaticVerifier) Verdict(ctx context.Context, token string) (Verdict, error) {
	if token == "" || len(token) > maxToken {
		return Verdict{}, refuse("API key is malformed", fmt.Errorf("it has %d bytes", len(token)))
	}
	ring := v.current()
	now := v.config.Now()
	key, err := v.find(ctx, ring, token)
	switch {
	case errors.Is(err, errWrongKey):
		return Verdict{Until: now.Add(maxRefusal)}, refuse("API key is not valid", err)
	case err != nil:
		return Verdict{}, err
	case !key.Expires.IsZero() && !now.Before(key.Expires):
		return Verdict{}, refuse("API key has expired", fmt.Errorf("key %q expired %s ago", key.ID, now.Sub(key.Expires)))
	}
	until := now.Add(maxVerdict)
	if !key.Expires.IsZero() {
		until = key.Expires
	}
	return Verdict{Info: key.info(token), Until: until, Recheck: func(context.Context) error {
		if v.current() != ring {
			return ErrVerifyAnew
		}
		return nil
	}}, nil
}

// errWrongKey is the cause of a refusal that has cost a slow hash.
var errWrongKey = errors.New("the hash of the key that it names is another")

// find returns the key of the token. Only a token that names a key with a slow
// hash costs one.
func (v *StaticVerifier) find(ctx context.Context, ring *keyring, token string) (*apiKey, error) {
	if key := v.byDigest(ring, token); key != nil {
		return key, nil
	}
	id, _, found := strings.Cut(token, "_")
	key := ring.byID[id]
	if !found || key == nil {
		return nil, refuse("API key is not valid", errors.New("there is no such key"))
	}
	matches, err := v.hash(ctx, key.slow, token)
	switch {
	case err != nil:
		return nil, err
	case !matches:
		return nil, errWrongKey
	}
	return key, nil
}

// hash compares with a slow hash, few at once.
func (v *StaticVerifier) hash(ctx context.Context, h *argon2id, token string) (bool, error) {
	if v.waiting.Add(1) > maxKeyQueue {
		v.waiting.Add(-1)
		return false, unverifiable(errors.New("too many API keys are being hashed at once"))
	}
	defer v.waiting.Add(-1)
	select {
	case v.hashing <- struct{}{}:
	case <-ctx.Done():
		return false, unverifiable(ctx.Err())
	}
	defer func() { <-v.hashing }()
	got := argon2.IDKey([]byte(token), h.salt, h.time, h.memory, h.threads, uint32(len(h.key))) //nolint:gosec // bounded
	return subtle.ConstantTimeCompare(got, h.key) == 1, nil
}
