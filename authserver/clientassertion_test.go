package authserver_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const keysURL = "https://client.example/oauth/jwks.json"

// signer is a key of a client.
type signer struct {
	id     string
	method jwt.SigningMethod
	key    crypto.Signer
}

func newSigner(t testing.TB, id, alg string) *signer {
	t.Helper()
	s := &signer{id: id, method: jwt.GetSigningMethod(alg)}
	var err error
	switch alg {
	case "RS256", "PS256":
		s.key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		s.key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, s.key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// jwks is the document with the public keys.
func jwks(t testing.TB, signers ...*signer) string {
	t.Helper()
	keys := []jwkset.JWKMarshal{}
	for _, s := range signers {
		jwk, err := jwkset.NewJWKFromKey(s.key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: s.id, USE: jwkset.UseSig}})
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, jwk.Marshal())
	}
	body, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// claims are those of a good assertion; pairs override, nil removes.
func (s *clientsSite) claims(pairs ...any) jwt.MapClaims {
	now := s.clock.Now().Unix()
	c := jwt.MapClaims{
		"iss": documentURL, "sub": documentURL, "aud": issuer,
		"iat": now, "exp": now + 60, "jti": rand.Text(),
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == nil {
			delete(c, pairs[i].(string))
		} else {
			c[pairs[i].(string)] = pairs[i+1]
		}
	}
	return c
}

func (s *signer) sign(t testing.TB, claims jwt.MapClaims, header ...any) string {
	t.Helper()
	token := jwt.NewWithClaims(s.method, claims)
	if s.id != "" {
		token.Header["kid"] = s.id
	}
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == nil {
			delete(token.Header, header[i].(string))
		} else {
			token.Header[header[i].(string)] = header[i+1]
		}
	}
	compact, err := token.SignedString(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// asserted is a redemption by a client that authenticates with the assertion.
func asserted(code, assertion string, pairs ...string) string {
	return redemption(code, append([]string{
		"client_id", documentURL, "client_assertion_type", assertionType, "client_assertion", assertion,
	}, pairs...)...)
}

// newAssertionSite has a document that offers only private_key_jwt, with the
// keys at its jwks_uri.
func newAssertionSite(t testing.TB, signers ...*signer) *clientsSite {
	t.Helper()
	s := newClientsSite(t)
	s.web.put(documentURL, page{body: document(t, "token_endpoint_auth_method", "private_key_jwt", "jwks_uri", keysURL)})
	s.web.put(keysURL, page{body: jwks(t, signers...)})
	return s
}

func TestAssertionFlow(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		for _, where := range []string{"jwks_uri", "jwks"} {
			t.Run(alg+" by "+where, func(t *testing.T) {
				k := newSigner(t, "k1", alg)
				s := newAssertionSite(t, newSigner(t, "k0", alg), k)
				if where == "jwks" {
					s.web.put(documentURL, page{body: document(t, "token_endpoint_auth_method", "private_key_jwt", "jwks", json.RawMessage(jwks(t, k)))})
				}
				a := s.postForm("/token", asserted(s.code("client_id", documentURL), k.sign(t, s.claims())))
				if a.Status != http.StatusOK {
					t.Fatalf("status %d: %s", a.Status, a.Body)
				}
				var tokens oauth.Tokens
				if err := json.Unmarshal([]byte(a.Body), &tokens); err != nil {
					t.Fatal(err)
				}
				// client_id may be absent: the assertion names the client.
				form := url.Values{
					"grant_type": {"refresh_token"}, "refresh_token": {tokens.RefreshToken},
					"client_assertion_type": {assertionType}, "client_assertion": {k.sign(t, s.claims("aud", issuer+"/token"))},
				}
				if a := s.postForm("/token", form.Encode()); a.Status != http.StatusOK {
					t.Fatalf("refresh: status %d: %s", a.Status, a.Body)
				}
				form = url.Values{
					"token": {tokens.AccessToken}, "client_assertion_type": {assertionType},
					"client_assertion": {k.sign(t, s.claims("aud", []string{issuer}))},
				}
				if a := s.postForm("/revoke", form.Encode()); a.Status != http.StatusOK {
					t.Fatalf("revoke: status %d: %s", a.Status, a.Body)
				}
			})
		}
	}
}

// The provider learns that a client with only private_key_jwt came without an
// assertion, and that the grant is not for it.
func TestAssertionCannotBeLeftOut(t *testing.T) {
	k := newSigner(t, "k1", "ES256")
	s := newAssertionSite(t, k)
	var authorized, redeemed string
	s.provider.authorize = func(w http.ResponseWriter, r *http.Request, c *oauth.Client, p authserver.AuthorizationParams) error {
		authorized = c.TokenEndpointAuthMethod
		return s.provider.memory.Authorize(w, r, c, p)
	}
	s.provider.challengeForCode = func(c *oauth.Client, code string) (string, error) {
		if redeemed = c.TokenEndpointAuthMethod; redeemed != authorized {
			return "", oauth.ErrInvalidClient
		}
		return s.provider.memory.ChallengeForCode(context.Background(), c, code)
	}
	code := s.code("client_id", documentURL)
	a := s.postForm("/token", redemption(code, "client_id", documentURL))
	if got, _ := a.oauthError(t); got != "invalid_client" || authorized != "private_key_jwt" || redeemed != "none" {
		t.Errorf("%s: authorized as %s, redeemed as %s", got, authorized, redeemed)
	}
	if a := s.postForm("/token", asserted(code, k.sign(t, s.claims()))); a.Status != http.StatusOK || redeemed != "private_key_jwt" {
		t.Errorf("status %d: %s", a.Status, a.Body)
	}
}

// A document that offers none as well is public; its assertion is verified all
// the same.
func TestAssertionOfPublicDocument(t *testing.T) {
	k, other := newSigner(t, "k1", "RS256"), newSigner(t, "k1", "RS256")
	s := newAssertionSite(t, k)
	s.web.put(documentURL, page{body: document(t, "token_endpoint_auth_method", "private_key_jwt",
		"token_endpoint_auth_methods_supported", []string{"none", "private_key_jwt"}, "jwks_uri", keysURL)})
	code := s.code("client_id", documentURL)
	a := s.postForm("/token", asserted(code, other.sign(t, s.claims())))
	if got, _ := a.oauthError(t); got != "invalid_client" {
		t.Errorf("with another key: %d %s", a.Status, got)
	}
	if a := s.postForm("/token", asserted(code, k.sign(t, s.claims()))); a.Status != http.StatusOK {
		t.Errorf("status %d: %s", a.Status, a.Body)
	}
	if a := s.postForm("/token", redemption(s.code("client_id", documentURL), "client_id", documentURL)); a.Status != http.StatusOK {
		t.Errorf("without: status %d: %s", a.Status, a.Body)
	}
}

func TestAssertionOfClientsWithoutKeys(t *testing.T) {
	k := newSigner(t, "k1", "ES256")
	s := newAssertionSite(t, k)
	public := s.register(`{"redirect_uris":["` + callback + `"],"token_endpoint_auth_method":"none"}`)
	plain := "https://client.example/plain"
	s.web.put(plain, page{body: document(t, "client_id", plain)})
	for id, want := range map[string]string{public.ClientID: "not registered for private_key_jwt", plain: "no usable keys", "unknown": "not registered"} {
		a := s.postForm("/token", asserted("x", k.sign(t, s.claims("iss", id, "sub", id)), "client_id", id))
		if code, description := a.oauthError(t); code != "invalid_client" || !strings.Contains(description, want) {
			t.Errorf("%.40s: %s: %s", id, code, description)
		}
	}
	alg := "https://client.example/alg"
	s.web.put(alg, page{body: document(t, "client_id", alg, "token_endpoint_auth_method", "private_key_jwt", "token_endpoint_auth_signing_alg", "RS256", "jwks_uri", keysURL)})
	a := s.postForm("/token", asserted("x", k.sign(t, s.claims("iss", alg, "sub", alg)), "client_id", alg))
	if code, description := a.oauthError(t); code != "invalid_client" || !strings.Contains(description, "signing_alg") {
		t.Errorf("%s: %s", code, description)
	}
}

func TestAssertionReplay(t *testing.T) {
	k := newSigner(t, "k1", "ES256")
	s := newAssertionSite(t, k)
	assertion := k.sign(t, s.claims("jti", "once"))
	use := func(assertion string) answer {
		return s.postForm("/token", asserted(s.code("client_id", documentURL), assertion))
	}
	if a := use(assertion); a.Status != http.StatusOK {
		t.Fatal(a.Body)
	}
	for _, again := range []string{assertion, k.sign(t, s.claims("jti", "once", "exp", s.clock.Now().Unix()+200))} {
		a := use(again)
		if code, description := a.oauthError(t); code != "invalid_client" || !strings.Contains(description, "used before") {
			t.Errorf("%s: %s", code, description)
		}
	}
	// At the other endpoint too.
	a := s.postForm("/revoke", url.Values{"token": {"x"}, "client_assertion_type": {assertionType}, "client_assertion": {assertion}}.Encode())
	if code, _ := a.oauthError(t); code != "invalid_client" {
		t.Errorf("at /revoke: %d %s", a.Status, code)
	}
	// One that was refused is not used up, and so cannot be used up by a stranger.
	wrong := newSigner(t, "k1", "ES256").sign(t, s.claims("jti", "twice"))
	if a := use(wrong); a.Status != http.StatusUnauthorized {
		t.Errorf("status %d", a.Status)
	}
	if a := use(k.sign(t, s.claims("jti", "twice"))); a.Status != http.StatusOK {
		t.Errorf("after a stranger tried its jti: %s", a.Body)
	}
	// Within the skew after its exp it still is a replay.
	s.clock.advance(80 * time.Second)
	a = use(assertion)
	if _, description := a.oauthError(t); !strings.Contains(description, "used before") {
		t.Errorf("in the skew: %s", description)
	}
	s.clock.advance(10 * time.Second)
	if a := use(k.sign(t, s.claims("jti", "once"))); a.Status != http.StatusOK {
		t.Errorf("when the first has expired: %s", a.Body)
	}
}

func TestAssertionReplayRace(t *testing.T) {
	k := newSigner(t, "k1", "EdDSA")
	s := newAssertionSite(t, k)
	if _, err := s.clients.GetClient(t.Context(), documentURL); err != nil {
		t.Fatal(err)
	}
	assertion := k.sign(t, s.claims())
	var accepted atomic.Int32
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			_, err := s.clients.VerifyAssertion(context.Background(), "", assertion, []string{issuer})
			if err == nil {
				accepted.Add(1)
			} else if !errors.Is(err, oauth.ErrInvalidClient) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if accepted.Load() != 1 {
		t.Errorf("accepted %d times", accepted.Load())
	}
}

// One client cannot wash the others' assertions out of the memory.
func TestAssertionMemoryIsBounded(t *testing.T) {
	k := newSigner(t, "k1", "EdDSA")
	s := newAssertionSite(t, k)
	var err error
	n := 0
	for ; n < 5000 && err == nil; n++ {
		_, err = s.clients.VerifyAssertion(t.Context(), "", k.sign(t, s.claims()), []string{issuer})
	}
	if !errors.Is(err, oauth.ErrTooManyRequests) || n != 2049 {
		t.Errorf("after %d: %v", n, err)
	}
	s.clock.advance(2 * time.Minute)
	if _, err = s.clients.VerifyAssertion(t.Context(), "", k.sign(t, s.claims()), []string{issuer}); err != nil {
		t.Errorf("when they have expired: %v", err)
	}
}

// A memory shared by nodes replaces the one in the process.
func TestAssertionSharedMemory(t *testing.T) {
	seen := map[[32]byte]time.Time{}
	k := newSigner(t, "k1", "EdDSA")
	s := newClientsSite(t, func(c *authserver.ClientsConfig, _ *authserver.DocumentsConfig) {
		c.SeenAssertion = func(_ context.Context, hash [32]byte, until time.Time) (bool, error) {
			_, before := seen[hash]
			seen[hash] = until
			return before, nil
		}
	})
	s.web.put(documentURL, page{body: document(t, "token_endpoint_auth_method", "private_key_jwt", "jwks", json.RawMessage(jwks(t, k)))})
	assertion := k.sign(t, s.claims())
	for i, want := range []bool{true, false} {
		if _, err := s.clients.VerifyAssertion(t.Context(), "", assertion, []string{issuer}); (err == nil) != want {
			t.Errorf("use %d: %v", i, err)
		}
	}
	for _, until := range seen {
		if want := s.clock.Now().Add(90 * time.Second); !until.Equal(want) || len(seen) != 1 {
			t.Errorf("%d entries, until %s, want %s", len(seen), until, want)
		}
	}
}

func TestAssertionKeyRotation(t *testing.T) {
	old, next := newSigner(t, "k1", "ES256"), newSigner(t, "k2", "ES256")
	s := newAssertionSite(t, old)
	use := func(k *signer) int {
		return s.postForm("/token", asserted(s.code("client_id", documentURL), k.sign(t, s.claims()))).Status
	}
	if got := use(old); got != http.StatusOK {
		t.Fatal(got)
	}
	s.web.put(keysURL, page{body: jwks(t, next)})
	// An unknown key makes us look again, but not all the time.
	if got := use(next); got != http.StatusUnauthorized || s.web.hitsOf(keysURL) != 1 {
		t.Errorf("at once: %d, %d fetches", got, s.web.hitsOf(keysURL))
	}
	s.clock.advance(time.Minute)
	if got := use(next); got != http.StatusOK || s.web.hitsOf(keysURL) != 2 {
		t.Errorf("after a minute: %d, %d fetches", got, s.web.hitsOf(keysURL))
	}
	if got := use(old); got != http.StatusUnauthorized || s.web.hitsOf(keysURL) != 2 {
		t.Errorf("the old key: %d, %d fetches", got, s.web.hitsOf(keysURL))
	}
	// Trouble with the keys is the client's misfortune, not its fault.
	s.web.put(keysURL, page{status: 500})
	s.clock.advance(2 * time.Hour)
	if got := use(next); got != http.StatusOK {
		t.Errorf("keys of two hours ago: %d", got)
	}
	s.clock.advance(23 * time.Hour)
	if got := use(next); got != http.StatusServiceUnavailable {
		t.Errorf("keys of a day ago: %d", got)
	}
}
