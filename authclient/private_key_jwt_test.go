package authclient_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
)

func newKey(t *testing.T, alg string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case "RS256", "PS256":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// remoteKey is a key of which this program has only the interface.
type remoteKey struct{ key crypto.Signer }

func (r remoteKey) Public() crypto.PublicKey { return r.key.Public() }

func (r remoteKey) Sign(random io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return r.key.Sign(random, digest, o)
}

// TestPrivateKeyJWT: the assertion verifies with every algorithm, by another
// implementation, and has the claims of RFC 7523 §3.
func TestPrivateKeyJWT(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			s := newGrants(t, granted)
			s.set("token_endpoint_auth_methods_supported", []string{"private_key_jwt"})
			key := newKey(t, alg)
			p, err := authclient.NewPrivateKeyJWT(authclient.PrivateKeyJWTOptions{
				ClientID: "id", ExpectedIssuer: s.URL, Claims: map[string]any{"tenant": "acme"},
				Key: authclient.SigningKey{Signer: remoteKey{key}, Algorithm: alg, ID: "key-1"},
				Now: func() time.Time { return now },
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.auth(t, p); err != nil {
				t.Fatal(err)
			}
			form := s.to("/token")[0].Form
			if form.Get("client_assertion_type") != assertionType || form.Get("client_id") != "id" || form.Has("client_secret") {
				t.Errorf("form: %v", form)
			}
			parsed, err := jwt.Parse(form.Get("client_assertion"), func(*jwt.Token) (any, error) { return key.Public(), nil },
				jwt.WithValidMethods([]string{alg}), jwt.WithTimeFunc(func() time.Time { return now }))
			if err != nil {
				t.Fatal(err)
			}
			claims := parsed.Claims.(jwt.MapClaims)
			if jti, _ := claims["jti"].(string); len(jti) != 22 {
				t.Errorf("jti = %v", claims["jti"])
			}
			delete(claims, "jti")
			want := jwt.MapClaims{
				"iss": "id", "sub": "id", "aud": s.URL, "tenant": "acme",
				"iat": float64(now.Unix()), "exp": float64(now.Unix() + 120),
			}
			if diff := cmp.Diff(want, claims); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(map[string]any{"typ": "JWT", "alg": alg, "kid": "key-1"}, parsed.Header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAssertionAudience: the issuer, unless there are no metadata or the caller
// knows better.
func TestAssertionAudience(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		noMetadata bool
		audience   string
		want       func(issuer string) string
	}{
		"issuer":                     {want: func(issuer string) string { return issuer }},
		"token endpoint, old server": {noMetadata: true, want: func(issuer string) string { return issuer + "/token" }},
		"what the caller has said":   {audience: "https://x.example", want: func(string) string { return "https://x.example" }},
		"the same without metadata":  {noMetadata: true, audience: "https://x.example", want: func(string) string { return "https://x.example" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGrants(t, granted)
			if test.noMetadata {
				s.status("/.well-known/oauth-authorization-server", http.StatusNotFound)
			}
			p, err := authclient.NewPrivateKeyJWT(authclient.PrivateKeyJWTOptions{
				ClientID: "id", Key: authclient.SigningKey{Signer: newECKey(t)}, Audience: test.audience, ExpectedIssuer: s.URL + "/",
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.auth(t, p); err != nil {
				t.Fatal(err)
			}
			if got := audienceOf(t, s.to("/token")[0].Form.Get("client_assertion")); got != test.want(s.URL) {
				t.Errorf("aud = %q, want %q", got, test.want(s.URL))
			}
		})
	}
}

func audienceOf(t *testing.T, token string) string {
	t.Helper()
	var claims jwt.MapClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err != nil {
		t.Fatal(err)
	}
	audience, _ := claims["aud"].(string)
	return audience
}

// TestAssertionIsUsedOnce: two requests have two assertions.
func TestAssertionIsUsedOnce(t *testing.T) {
	t.Parallel()
	s := newGrants(t, func(*http.Request) (int, any) {
		return http.StatusOK, map[string]any{"access_token": "at", "token_type": "Bearer"} // of unknown life
	})
	p, err := authclient.NewPrivateKeyJWT(authclient.PrivateKeyJWTOptions{
		ClientID: "id", Key: authclient.SigningKey{Signer: newECKey(t)}, ExpectedIssuer: s.URL,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.auth(t, p); err != nil {
			t.Fatal(err)
		}
	}
	calls := s.to("/token")
	if len(calls) != 2 || calls[0].Form.Get("client_assertion") == calls[1].Form.Get("client_assertion") {
		t.Errorf("%d requests, the same assertion", len(calls))
	}
}
