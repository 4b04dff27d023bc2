package idp

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/caddy-mcp/mcpauth/internal/jwks"
)

// signingKeys are the provider's keys. They are an oidc.KeySet that, unlike the
// one of go-oidc, forgets what the provider no longer publishes and reads no
// unbounded document.
type signingKeys struct {
	fresh[keySet]
	caller *caller
}

// keySet is one version of a JWKS.
type keySet struct{ keys []jwks.Key }

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
		if id != "" && key.ID != id {
			continue
		}
		known = true
		if key.Alg == "" || key.Alg == alg {
			fitting = append(fitting, key.Public)
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

func parseKeySet(data []byte) (*keySet, error) {
	keys, err := jwks.Parse(data)
	if err != nil {
		return nil, err
	}
	return &keySet{keys}, nil
}
