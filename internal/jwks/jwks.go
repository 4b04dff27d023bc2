// Package jwks reads the public keys that servers publish to verify signatures.
package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/MicahParks/jwkset"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
)

const (
	// maxKeys bounds a document.
	maxKeys = 100
	// Bounds of an RSA modulus, in bits: below is weak (RFC 7518 §3.3), above
	// costs more time than a signature should.
	minRSABits = 2048
	maxRSABits = 8192
)

// Key is a public key that may verify signatures.
type Key struct {
	ID     string           // kid, "" if the key has none
	Alg    string           // alg, "" if the key does not tell
	Public crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// Parse reads a JWKS document (RFC 7517 §5). Keys that cannot verify signatures,
// are weak or are not understood are left out (§5: implementations SHOULD
// ignore them); a document without a single usable key is an error, so that a
// server's mishap does not throw away keys that work.
func Parse(data []byte) ([]Key, error) {
	var document map[string]json.RawMessage
	if err := strictjson.Unmarshal(data, &document); err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(document["keys"], &raw); err != nil {
		return nil, errors.New("the document has no array of keys")
	}
	if len(raw) > maxKeys {
		return nil, fmt.Errorf("the document has %d keys, more than %d", len(raw), maxKeys)
	}
	var keys []Key
	var ignored []error
	for i, data := range raw {
		key, err := parseKey(data)
		if err != nil {
			ignored = append(ignored, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.Join(append([]error{errors.New("the document has no key that verifies signatures")}, ignored...)...)
	}
	return keys, nil
}

func parseKey(data []byte) (Key, error) {
	var jwk jwkset.JWKMarshal
	if err := json.Unmarshal(data, &jwk); err != nil {
		return Key{}, errors.New("not a JSON Web Key")
	}
	switch {
	case jwk.USE != "" && jwk.USE != jwkset.UseSig:
		return Key{}, errors.New("its use is not sig")
	case len(jwk.KEYOPS) > 0 && !slices.Contains(jwk.KEYOPS, jwkset.KeyOpsVerify):
		return Key{}, errors.New("its key_ops have no verify")
	case jwk.D != "" || jwk.K != "":
		// Whoever publishes it lets anybody sign with it.
		return Key{}, errors.New("it holds the private key")
	case len(jwk.E) > 8: // 6 bytes; what is longer would be cut to 8 bytes by jwkset
		return Key{}, errors.New("its exponent is too large")
	}
	// The certificates are not what we trust, and x5u would name a URL.
	jwk.X5C, jwk.X5U, jwk.X5T, jwk.X5TS256 = nil, "", "", ""
	parsed, err := jwkset.NewJWKFromMarshal(jwk, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipAll: true})
	if err != nil {
		return Key{}, err
	}
	switch key := parsed.Key().(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return Key{}, fmt.Errorf("an RSA key of %d bits", bits)
		}
		if key.E < 3 || key.E > math.MaxInt32 || key.E%2 == 0 {
			return Key{}, errors.New("its exponent is not usable")
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return Key{}, errors.New("its type is not for signatures")
	}
	return Key{ID: jwk.KID, Alg: string(jwk.ALG), Public: parsed.Key()}, nil
}
