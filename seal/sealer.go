package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	// MaxString is the longest sealed string, in characters.
	MaxString = 64 << 10
	// MaxBytes is the longest sealed value in its binary form, in bytes.
	MaxBytes = 1 << 20
	// Overhead is how many bytes a sealed value has more than its plaintext.
	Overhead = headerSize + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead

	version    = 1
	keyIDSize  = 4
	expirySize = 5 // seconds in 40 bits last for 34 000 years
	headerSize = 1 + keyIDSize + expirySize
	maxExpiry  = 1<<(8*expirySize) - 1
)

var (
	// ErrInvalid is the one error for a value that does not open: altered,
	// truncated, sealed with a key that the ring does not hold, for another
	// purpose or issuer, or with other associated data. It does not tell which.
	ErrInvalid = errors.New("the sealed value is not valid")
	// ErrExpired is an ErrInvalid, with the same text, for a genuine value whose
	// time is over; only errors.Is tells it from the others.
	ErrExpired = fmt.Errorf("%w", ErrInvalid)
	// ErrTooLarge is returned for a plaintext that does not fit.
	ErrTooLarge = errors.New("the value is too large to be sealed")
)

// Sealer seals and opens for one purpose and issuer. It is immutable and safe
// for concurrent use.
type Sealer struct {
	purpose Purpose
	issuer  string
	keys    []*subkey // the first seals
}

// String returns what the sealer is for, never a secret.
func (s *Sealer) String() string { return fmt.Sprintf("sealer for %q of %q", s.purpose, s.issuer) }

// Seal returns the sealed form of the plaintext, base64url without padding, a
// different one each time. It opens until expiry, counted in whole seconds, or
// for ever if expiry is the zero time, and only with the same associated data,
// which is authenticated and not contained. The only error is ErrTooLarge.
func (s *Sealer) Seal(plaintext []byte, expiry time.Time, ad ...string) (string, error) {
	return encode(s.seal(plaintext, expiry, ad, s.randomNonce))
}

// SealDeterministic is Seal with a synthetic nonce, an HMAC over everything
// that goes in: the same input gives the same string, and nothing more is
// learned than that two inputs were equal.
func (s *Sealer) SealDeterministic(plaintext []byte, expiry time.Time, ad ...string) (string, error) {
	return encode(s.seal(plaintext, expiry, ad, s.syntheticNonce))
}

// SealBytes is Seal in binary form, for values in a store.
func (s *Sealer) SealBytes(plaintext []byte, expiry time.Time, ad ...string) ([]byte, error) {
	return s.seal(plaintext, expiry, ad, s.randomNonce)
}

// Open returns the plaintext of a string made by Seal or SealDeterministic, or
// ErrInvalid, or ErrExpired if now is at or after the expiry.
func (s *Sealer) Open(sealed string, now time.Time, ad ...string) ([]byte, error) {
	if len(sealed) > MaxString {
		return nil, ErrInvalid
	}
	// Strict refuses trailing bits. The decoder also skips line breaks: the
	// length shows them.
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil || base64.RawURLEncoding.EncodedLen(len(raw)) != len(sealed) {
		return nil, ErrInvalid
	}
	return s.OpenBytes(raw, now, ad...)
}

// OpenBytes is Open for the binary form.
func (s *Sealer) OpenBytes(sealed []byte, now time.Time, ad ...string) ([]byte, error) {
	if len(sealed) < Overhead || len(sealed) > MaxBytes || sealed[0] != version {
		return nil, ErrInvalid
	}
	header, rest := sealed[:headerSize], sealed[headerSize:]
	nonce, ciphertext := rest[:chacha20poly1305.NonceSizeX], rest[chacha20poly1305.NonceSizeX:]
	full := s.associatedData(header, ad)
	for _, k := range s.keys {
		if [keyIDSize]byte(header[1:1+keyIDSize]) != k.id {
			continue
		}
		plaintext, err := k.aead.Open(nil, nonce, ciphertext, full)
		if err != nil {
			continue // another key may have the same id, one in 2³² does
		}
		if expiry := readExpiry(header); expiry != 0 && now.Unix() >= expiry {
			return nil, ErrExpired
		}
		return plaintext, nil
	}
	return nil, ErrInvalid
}

func (s *Sealer) seal(plaintext []byte, expiry time.Time, ad []string, newNonce func(full, plaintext []byte) []byte) ([]byte, error) {
	if len(plaintext) > MaxBytes-Overhead {
		return nil, ErrTooLarge
	}
	k := s.keys[0]
	out := make([]byte, 0, Overhead+len(plaintext))
	out = append(out, version)
	out = append(out, k.id[:]...)
	out = appendExpiry(out, expiry)
	full := s.associatedData(out, ad)
	nonce := newNonce(full, plaintext)
	out = append(out, nonce...)
	return k.aead.Seal(out, nonce, plaintext, full), nil
}

func (s *Sealer) randomNonce([]byte, []byte) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the program instead
	return nonce
}

// syntheticNonce makes the nonce from all of the input, as SIV does (RFC 5297):
// two inputs share a nonce only if they are equal. The full associated data is
// self-delimiting, so nothing can move between it and the plaintext.
func (s *Sealer) syntheticNonce(full, plaintext []byte) []byte {
	h := hmac.New(sha256.New, s.keys[0].nonce)
	h.Write(full)
	h.Write(plaintext)
	return h.Sum(nil)[:chacha20poly1305.NonceSizeX]
}

// associatedData binds a value to its header, purpose and issuer and to what
// the caller gave.
func (s *Sealer) associatedData(header []byte, ad []string) []byte {
	full := appendParts(nil, string(header), string(s.purpose), s.issuer)
	full = binary.BigEndian.AppendUint32(full, uint32(len(ad))) //nolint:gosec // a handful of arguments
	return appendParts(full, ad...)
}

// appendParts appends each part after its length.
func appendParts(b []byte, parts ...string) []byte {
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

func appendExpiry(b []byte, expiry time.Time) []byte {
	var seconds uint64
	if !expiry.IsZero() {
		// Not 0, which is never: a time before 1970 is over.
		seconds = uint64(min(max(expiry.Unix(), 1), maxExpiry)) //nolint:gosec // positive
	}
	full := binary.BigEndian.AppendUint64(nil, seconds)
	return append(b, full[8-expirySize:]...)
}

func readExpiry(header []byte) int64 {
	var full [8]byte
	copy(full[8-expirySize:], header[1+keyIDSize:headerSize])
	return int64(binary.BigEndian.Uint64(full[:])) //nolint:gosec // 40 bits
}

func encode(raw []byte, err error) (string, error) {
	if err != nil {
		return "", err
	}
	if base64.RawURLEncoding.EncodedLen(len(raw)) > MaxString {
		return "", ErrTooLarge
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}
