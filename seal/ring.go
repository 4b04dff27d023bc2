package seal

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// Ring holds the operator's keys: the first seals, all of them open. It is
// immutable and safe for concurrent use.
type Ring struct{ keys []Key }

// NewRing returns a ring of the keys, at least one, none of them twice.
func NewRing(keys ...Key) (*Ring, error) {
	if len(keys) == 0 {
		return nil, errors.New("at least one encryption key is needed")
	}
	for i, k := range keys {
		if k.secret == nil {
			return nil, fmt.Errorf("encryption key %d is empty", i+1)
		}
		if j := slices.IndexFunc(keys[:i], k.equal); j >= 0 {
			return nil, fmt.Errorf("encryption keys %d and %d are the same", j+1, i+1)
		}
	}
	return &Ring{keys: slices.Clone(keys)}, nil
}

// Fingerprint names the key that seals, in 16 hex digits. It tells nothing of
// the key and may be logged and stored, so that nodes can see that they seal
// alike.
func (r *Ring) Fingerprint() string { return r.keys[0].fingerprint() }

// Knows reports whether the ring can open what a ring of that Fingerprint
// seals.
func (r *Ring) Knows(fingerprint string) bool {
	return slices.ContainsFunc(r.keys, func(k Key) bool { return k.fingerprint() == fingerprint })
}

// String returns the fingerprint, never a secret.
func (r *Ring) String() string { return "key ring " + r.Fingerprint() }

// Sealer returns a sealer for one purpose and one issuer, which may be empty
// for what belongs to none. It derives the subkeys once; keep it.
func (r *Ring) Sealer(purpose Purpose, issuer string) *Sealer {
	s := &Sealer{purpose: purpose, issuer: issuer}
	for _, k := range r.keys {
		secret := k.derive("subkey", 3*KeySize, string(purpose), issuer)
		aead, err := chacha20poly1305.NewX(secret[:KeySize])
		if err != nil { // only for a key of another length
			panic("seal: " + err.Error())
		}
		s.keys = append(s.keys, &subkey{
			id:    [keyIDSize]byte(k.derive("key id", keyIDSize)),
			aead:  aead,
			nonce: secret[KeySize : 2*KeySize],
			mac:   secret[2*KeySize:],
		})
	}
	return s
}

// subkey is what one root key yields for one purpose and issuer.
type subkey struct {
	id    [keyIDSize]byte
	aead  cipher.AEAD
	nonce []byte // key of the synthetic nonces
	mac   []byte // key of Sealer.MAC
}
