package bearer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/internal/jwks"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxTries bounds the keys tried for one token that does not name its key.
const maxTries = 4

// errUnknownKey is the cause of a refusal for a key that is not in the JWKS.
var errUnknownKey = errors.New("no such key in the JWKS")

// algorithms are the signature algorithms that are understood. None of them is
// symmetric: a verifier holds only what is public.
func algorithms() map[string]jwt.SigningMethod {
	known := map[string]jwt.SigningMethod{}
	for _, method := range []jwt.SigningMethod{
		jwt.SigningMethodRS256, jwt.SigningMethodRS384, jwt.SigningMethodRS512,
		jwt.SigningMethodPS256, jwt.SigningMethodPS384, jwt.SigningMethodPS512,
		jwt.SigningMethodES256, jwt.SigningMethodES384, jwt.SigningMethodES512,
		jwt.SigningMethodEdDSA,
	} {
		known[method.Alg()] = method
	}
	return known
}

// fits reports whether signatures of the method may be checked with the key.
// That is decided by the key, never by the token alone: otherwise an RSA key
// could be talked into serving as something else.
func fits(k *jwks.Key, method jwt.SigningMethod) bool {
	if k.Alg != "" && k.Alg != method.Alg() {
		return false
	}
	switch method := method.(type) {
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		_, ok := k.Public.(*rsa.PublicKey)
		return ok
	case *jwt.SigningMethodECDSA:
		// RFC 7518 §3.4: each algorithm has its one curve.
		key, ok := k.Public.(*ecdsa.PublicKey)
		return ok && key.Curve.Params().BitSize == method.CurveBits
	case *jwt.SigningMethodEd25519:
		_, ok := k.Public.(ed25519.PublicKey)
		return ok
	}
	return false
}

// keySet is one version of a JWKS.
type keySet struct{ keys []jwks.Key }

func parseKeySet(data []byte) (*keySet, error) {
	keys, err := jwks.Parse(data)
	if err != nil {
		return nil, err
	}
	return &keySet{keys}, nil
}

// find returns the keys with which a token that names the key id ("" for none)
// may be verified. known is false if no key has that id.
func (s *keySet) find(id string, method jwt.SigningMethod) (fitting []any, known bool) {
	for i := range s.keys {
		key := &s.keys[i]
		if id != "" && key.ID != id {
			continue
		}
		known = true
		if fits(key, method) && len(fitting) < maxTries {
			fitting = append(fitting, key.Public)
		}
	}
	return fitting, known
}

// keySource loads the JWKS from a URL, or from where the metadata of an
// authorization server says it is.
type keySource struct {
	uri       string // "" asks discovery
	discovery *Discovery
	client    *http.Client
	document  *fresh[keySet]
	// last is what was loaded last. A document without a change is the same set,
	// so that tokens need not be verified anew.
	last atomic.Pointer[loadedKeys]
}

type loadedKeys struct {
	data []byte
	set  *keySet
}

func newKeySource(c JWTConfig) *keySource {
	s := &keySource{uri: c.JWKSURI, discovery: c.Discovery, client: upstreamClient(c.Client)}
	s.document = &fresh[keySet]{
		load:     s.load,
		interval: c.RefreshInterval,
		gap:      c.RefetchInterval,
		trouble:  "The signing keys of the authorization server cannot be loaded at the moment. Try again later.",
		now:      c.Now,
		logger:   c.Logger.With(slog.String("document", "jwks"), slog.String("issuer", c.Issuer)),
	}
	return s
}

func (s *keySource) load(ctx context.Context) (*keySet, error) {
	address, err := s.address(ctx)
	if err != nil {
		return nil, err
	}
	data, err := get(ctx, s.client, address)
	if answered(err, http.StatusNotFound) && s.uri == "" {
		// The JWKS may have moved.
		if refreshErr := s.discovery.Refresh(ctx); refreshErr != nil {
			return nil, errors.Join(err, refreshErr)
		}
		moved, addressErr := s.address(ctx)
		if addressErr != nil || moved == address {
			return nil, errors.Join(err, addressErr)
		}
		address = moved
		data, err = get(ctx, s.client, address)
	}
	if err != nil {
		return nil, err
	}
	if last := s.last.Load(); last != nil && bytes.Equal(last.data, data) {
		return last.set, nil
	}
	set, err := parseKeySet(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	s.last.Store(&loadedKeys{data, set})
	return set, nil
}

func (s *keySource) address(ctx context.Context) (string, error) {
	if s.uri != "" {
		return s.uri, nil
	}
	return s.discovery.endpoint(ctx, "jwks_uri", func(m *oauth.Metadata) string { return m.JWKSURI })
}

// verify calls check with each key that the token may be signed with until one
// of them verifies it. If the JWKS at hand lacks the key, it is loaded anew,
// throttled. The error is oauth.ErrInvalidToken, or
// oauth.ErrTemporarilyUnavailable if the keys cannot be loaded, or are too old to
// tell: the issuer may have a new key since, and anybody can use up the throttle
// with a key id of his own. issued is the latest time at which the token may have
// been signed by our clock, zero if it does not tell.
//
// The returned set is the one that decided, nil if none did: then the JWKS could
// not be loaded, is too old, or has no such key.
func (s *keySource) verify(ctx context.Context, id string, method jwt.SigningMethod, issued time.Time, check func(key any) error) (*keySet, error) {
	set, err := s.document.get(ctx)
	if err != nil {
		return nil, err
	}
	known, err := set.verify(id, method, check)
	// A token that names no key may be signed with one that is new.
	if err == nil || known && id != "" {
		return set, err
	}
	newer, asked, loadErr := s.document.renew(ctx)
	switch {
	case loadErr != nil && known:
		return set, err // keys that were tried are answer enough
	case loadErr != nil:
		return nil, loadErr
	case newer.value != set:
		known, err = newer.value.verify(id, method, check)
	}
	switch {
	case err == nil:
	case !asked && (issued.IsZero() || !issued.Before(newer.began)):
		return nil, oauth.ErrTemporarilyUnavailable.
			Describe("The key of the token is not known, and the authorization server was asked for its keys a moment ago. Try again later.").Because(err)
	case !known:
		return nil, err
	}
	return newer.value, err
}

// current reports whether set is still what the issuer publishes.
func (s *keySource) current(ctx context.Context, set *keySet) bool {
	now, err := s.document.get(ctx)
	return err == nil && now == set
}

func (s *keySet) verify(id string, method jwt.SigningMethod, check func(key any) error) (known bool, err error) {
	keys, known := s.find(id, method)
	if !known {
		return false, oauth.ErrInvalidToken.Describe("Token is signed with a key that the authorization server does not publish").
			Because(fmt.Errorf("kid %.100q: %w", id, errUnknownKey))
	}
	if len(keys) == 0 {
		return true, oauth.ErrInvalidToken.Describe("Token signature is not valid").
			Because(fmt.Errorf("the key %.100q is not for algorithm %s", id, method.Alg()))
	}
	for _, key := range keys {
		if err = check(key); err == nil {
			return true, nil
		}
	}
	return true, oauth.ErrInvalidToken.Describe("Token signature is not valid").Because(err)
}
