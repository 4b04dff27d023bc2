package authserver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
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
	maxClientKeys = 32
	// maxKeyTries bounds the keys tried for an assertion that names none.
	maxKeyTries = 4
	// Bounds of an RSA modulus, in bits: below is weak (RFC 7518 §3.3), above
	// costs more time than a signature should.
	minRSABits = 2048
	maxRSABits = 8192
)

// clientKey is a public key with which a client signs assertions.
type clientKey struct {
	id  string
	alg string // the one algorithm that the key is for
	key crypto.PublicKey
}

// clientKeys are the usable keys of a client.
type clientKeys struct{ keys []clientKey }

// parseClientKeys reads a JWKS (RFC 7517 §5). Keys that are not for one of our
// algorithms are left out; if none stays that is an error.
func parseClientKeys(data []byte) (*clientKeys, error) {
	if err := strictjson.Check(data); err != nil {
		return nil, &documentError{text: "its JWKS: " + err.Error()}
	}
	var document map[string]json.RawMessage
	var raw []json.RawMessage
	if json.Unmarshal(data, &document) != nil || json.Unmarshal(document["keys"], &raw) != nil {
		return nil, &documentError{text: "its JWKS has no array of keys"}
	}
	if len(raw) > maxClientKeys {
		return nil, &documentError{text: fmt.Sprintf("its JWKS has more than %d keys", maxClientKeys)}
	}
	set := &clientKeys{}
	for _, data := range raw {
		if key, err := parseClientKey(data); err == nil {
			set.keys = append(set.keys, *key)
		}
	}
	if len(set.keys) == 0 {
		return nil, &documentError{text: "its JWKS has no public key for RS256, ES256 or EdDSA"}
	}
	return set, nil
}

func parseClientKey(data []byte) (*clientKey, error) {
	var jwk jwkset.JWKMarshal
	if err := json.Unmarshal(data, &jwk); err != nil {
		return nil, errors.New("not a JSON Web Key")
	}
	switch {
	case jwk.USE != "" && jwk.USE != jwkset.UseSig,
		len(jwk.KEYOPS) > 0 && !slices.Contains(jwk.KEYOPS, jwkset.KeyOpsVerify):
		return nil, errors.New("not for signatures")
	case jwk.D != "" || jwk.K != "":
		return nil, errors.New("it holds the private key")
	case len(jwk.E) > 8: // what is longer would be cut by jwkset
		return nil, errors.New("its exponent is too large")
	}
	// A certificate is not what we trust, and x5u would name a URL.
	jwk.X5C, jwk.X5U, jwk.X5T, jwk.X5TS256 = nil, "", "", ""
	parsed, err := jwkset.NewJWKFromMarshal(jwk, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipAll: true})
	if err != nil {
		return nil, err
	}
	key := &clientKey{id: jwk.KID, key: parsed.Key()}
	switch k := parsed.Key().(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits || k.E < 3 || k.E > math.MaxInt32 || k.E%2 == 0 {
			return nil, errors.New("its size or exponent is not usable")
		}
		key.alg = "RS256"
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, errors.New("its curve is not P-256")
		}
		key.alg = "ES256"
	case ed25519.PublicKey:
		key.alg = "EdDSA"
	default:
		return nil, errors.New("its type is not for signatures")
	}
	if named := string(jwk.ALG); named != "" && named != key.alg && (named != "Ed25519" || key.alg != "EdDSA") {
		return nil, errors.New("it is for another algorithm")
	}
	return key, nil
}

// find returns the keys that an assertion with this key id ("" for none) and
// algorithm may be signed with. known is false if no key has that id.
func (s *clientKeys) find(id, alg string) (fitting []crypto.PublicKey, known bool) {
	for _, key := range s.keys {
		if id != "" && key.id != id {
			continue
		}
		known = true
		if key.alg == alg && len(fitting) < maxKeyTries {
			fitting = append(fitting, key.key)
		}
	}
	return fitting, known
}
