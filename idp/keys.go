package idp

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"

	"github.com/MicahParks/jwkset"
	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	maxKeys = 100 // in a JWKS document
	// Bounds of an RSA modulus, in bits: below is weak (RFC 7518 §3.3), above
	// costs more time than a signature should.
	minRSABits = 2048
	maxRSABits = 8192
)

// signingKeys are the provider's keys. They are an oidc.KeySet that, unlike the
// one of go-oidc, forgets what the provider no longer publishes and reads no
// unbounded document.
type signingKeys struct {
	fresh[keySet]
	caller *caller
}

// keySet is one version of a JWKS.
type keySet struct{ keys []signingKey }

type signingKey struct {
	id  string
	alg string // "" if the JWKS does not bind the key to one
	key crypto.PublicKey
}

func newSigningKeys(c *caller) *signingKeys {
	k := &signingKeys{caller: c}
	k.fresh = fresh[keySet]{load: k.fetch, now: c.Now, logger: c.Logger.With(slog.String("document", "jwks"))}
	return k
}

func (k *signingKeys) fetch(ctx context.Context) (*keySet, error) {
	m, err := k.caller.metadata(ctx)
	if err != nil {
		return nil, err
	}
	body, err := fetch(ctx, k.caller.Client, m.jwksURI)
	if err != nil {
		// It may have moved: the next attempt asks where the metadata says then.
		_, _ = k.caller.discovery.renew(ctx)
		return nil, err
	}
	return parseKeySet(body)
}

// errKeys says that the keys cannot be loaded now.
var errKeys = errors.New("its signing keys cannot be loaded")

// VerifySignature returns the payload of a JWS that is signed with one of the
// keys. oidc.IDTokenVerifier has checked the algorithm before.
func (k *signingKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	id, alg, err := parseHeader(token)
	if err != nil {
		return nil, err
	}
	set, err := k.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errKeys, err)
	}
	payload, known, err := set.verify(ctx, id, alg, token)
	if err == nil || known && id != "" {
		return payload, err
	}
	// OpenID Connect Core §10.1.1: a key that is not known may be new.
	newer, renewErr := k.renew(ctx)
	if renewErr != nil {
		return nil, fmt.Errorf("%w: %w", errKeys, renewErr)
	}
	payload, _, err = newer.verify(ctx, id, alg, token)
	return payload, err
}

func (s *keySet) verify(ctx context.Context, id, alg, token string) (payload []byte, known bool, err error) {
	var fitting []crypto.PublicKey
	for _, key := range s.keys {
		if id != "" && key.id != id {
			continue
		}
		known = true
		if key.alg == "" || key.alg == alg {
			fitting = append(fitting, key.key)
		}
	}
	if len(fitting) == 0 {
		return nil, known, errors.New("the id_token is signed with a key that the provider does not publish")
	}
	payload, err = (&oidc.StaticKeySet{PublicKeys: fitting}).VerifySignature(ctx, token)
	return payload, known, err
}

// parseHeader reads what of a JWS header chooses the key.
func parseHeader(token string) (id, alg string, err error) {
	first, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return "", "", errors.New("the header of the id_token is malformed")
	}
	var header map[string]any
	if err := unmarshal(raw, &header); err != nil {
		return "", "", errors.New("the header of the id_token is malformed")
	}
	return claims(header).str("kid"), claims(header).str("alg"), nil
}

// parseKeySet reads a JWKS (RFC 7517 §5). Keys that cannot verify signatures,
// are weak or are not understood are left out.
func parseKeySet(data []byte) (*keySet, error) {
	var document map[string]json.RawMessage
	if err := unmarshal(data, &document); err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(document["keys"], &raw); err != nil {
		return nil, errors.New("the JWKS has no array of keys")
	}
	if len(raw) > maxKeys {
		return nil, fmt.Errorf("the JWKS has %d keys, more than %d", len(raw), maxKeys)
	}
	set := &keySet{}
	for _, data := range raw {
		if key, err := parseKey(data); err == nil {
			set.keys = append(set.keys, *key)
		}
	}
	if len(set.keys) == 0 {
		return nil, errors.New("the JWKS has no key that verifies signatures")
	}
	return set, nil
}

func parseKey(data []byte) (*signingKey, error) {
	var jwk jwkset.JWKMarshal
	if err := json.Unmarshal(data, &jwk); err != nil {
		return nil, errors.New("not a JSON Web Key")
	}
	switch {
	case jwk.USE != "" && jwk.USE != jwkset.UseSig:
		return nil, errors.New("its use is not sig")
	case len(jwk.KEYOPS) > 0 && !slices.Contains(jwk.KEYOPS, jwkset.KeyOpsVerify):
		return nil, errors.New("its key_ops have no verify")
	case jwk.D != "" || jwk.K != "":
		return nil, errors.New("it is no public key")
	case len(jwk.E) > 8: // 6 bytes; what is longer would be cut to 8 bytes by jwkset
		return nil, errors.New("its exponent is too large")
	}
	// The certificates are not what we trust, and x5u would name a URL.
	jwk.X5C, jwk.X5U, jwk.X5T, jwk.X5TS256 = nil, "", "", ""
	parsed, err := jwkset.NewJWKFromMarshal(jwk, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipAll: true})
	if err != nil {
		return nil, err
	}
	switch key := parsed.Key().(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits", bits)
		}
		if key.E < 3 || key.E > math.MaxInt32 || key.E%2 == 0 {
			return nil, errors.New("its exponent is not usable")
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, errors.New("its type is not for signatures")
	}
	return &signingKey{id: jwk.KID, alg: string(jwk.ALG), key: parsed.Key()}, nil
}
