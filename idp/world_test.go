package idp_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuer   = "https://idp.example.com"
	clientID = "client-1"
	secret   = "s3cret/+%"
	callback = "https://mcp.example.com/mcp-auth/callback"
	state    = "state-1"
	nonce    = "nonce-1"
	verifier = "0123456789012345678901234567890123456789-verifier"
	access   = "access-1"
	refresh  = "refresh-1"
)

// clock is what all upstreams of these tests take for the time.
var clock = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

func now() time.Time { return clock }

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return newRSAKey() })

func newRSAKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

// world is the internet as the code under test sees it: every host is one test
// server, whose handlers are named by host and path.
type world struct {
	t      *testing.T
	client *http.Client
	log    *strings.Builder
	logger *slog.Logger

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc
	asked    []string                // host and path of each request
	forms    map[string][]url.Values // posted there
	headers  map[string]http.Header  // of the last request
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, log: &strings.Builder{}, handlers: map[string]http.HandlerFunc{},
		forms: map[string][]url.Values{}, headers: map[string]http.Header{},
	}
	w.logger = slog.New(slog.NewTextHandler(&locked{mu: &w.mu, w: w.log}, nil))
	server := httptest.NewServer(w)
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
	}
	w.client = &http.Client{Transport: transport, Timeout: 5 * time.Second}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.CloseClientConnections()
		server.Close()
	})
	return w
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	place := r.Host + r.URL.Path
	w.mu.Lock()
	w.asked = append(w.asked, place)
	w.headers[place] = r.Header.Clone()
	if r.Method == http.MethodPost {
		_ = r.ParseForm()
		w.forms[place] = append(w.forms[place], r.PostForm)
	}
	handler := w.handlers[place]
	w.mu.Unlock()
	if handler == nil {
		http.NotFound(rw, r)
		return
	}
	handler(rw, r)
}

func (w *world) handle(place string, h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handlers[strings.TrimPrefix(place, "https://")] = h
}

// answer scripts an answer: a status, and a body that is a string or becomes
// JSON.
func (w *world) answer(place string, status int, body any) {
	w.handle(place, func(rw http.ResponseWriter, _ *http.Request) {
		if s, ok := body.(string); ok {
			rw.WriteHeader(status)
			_, _ = io.WriteString(rw, s)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(status)
		_ = json.NewEncoder(rw).Encode(body)
	})
}

// form is the last one posted there.
func (w *world) form(place string) url.Values {
	w.mu.Lock()
	defer w.mu.Unlock()
	forms := w.forms[strings.TrimPrefix(place, "https://")]
	if len(forms) == 0 {
		w.t.Fatalf("nothing was posted to %s; asked: %v", place, w.asked)
	}
	return forms[len(forms)-1]
}

func (w *world) header(place string) http.Header {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.headers[strings.TrimPrefix(place, "https://")]
}

func (w *world) count(place string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, a := range w.asked {
		if a == strings.TrimPrefix(place, "https://") {
			n++
		}
	}
	return n
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func (w *world) common() idp.Common {
	return idp.Common{ClientID: clientID, ClientSecret: secret, Client: w.client, Logger: w.logger, Now: now}
}

// object is a JSON object.
type object map[string]any

// with returns a copy with other members; nil drops one.
func (o object) with(others object) object {
	c := object{}
	for k, v := range o {
		c[k] = v
	}
	for k, v := range others {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

func jwk(key *rsa.PrivateKey, kid string) object {
	return object{
		"kty": "RSA", "use": "sig", "kid": kid, "alg": "RS256",
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}
}

// discovered publishes metadata for an issuer; the endpoints lie below base.
func (w *world) discovered(iss, base string, more object) {
	w.answer(strings.TrimSuffix(iss, "/")+"/.well-known/openid-configuration", 200, object{
		"issuer":                                iss,
		"authorization_endpoint":                base + "/authorize",
		"token_endpoint":                        base + "/token",
		"userinfo_endpoint":                     base + "/userinfo",
		"revocation_endpoint":                   base + "/revoke",
		"jwks_uri":                              base + "/keys",
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
	}.with(more))
	w.answer(base+"/keys", 200, object{"keys": []any{jwk(rsaKey(), "k1")}})
}

// atHash is OpenID Connect Core §3.1.3.6 for RS256.
func atHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func idClaims(iss string, more object) object {
	return object{
		"iss": iss, "sub": "user-1", "aud": clientID, "exp": clock.Add(time.Hour).Unix(), "iat": clock.Unix(),
		"nonce": nonce, "at_hash": atHash(access),
	}.with(more)
}

func sign(t *testing.T, method jwt.SigningMethod, key any, kid string, claims object) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	if kid != "" {
		token.Header["kid"] = kid
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) idToken(claims object) string {
	return sign(w.t, jwt.SigningMethodRS256, rsaKey(), "k1", claims)
}

func (w *world) tokens(idToken string) object {
	o := object{"access_token": access, "token_type": "Bearer", "expires_in": 3600, "refresh_token": refresh, "scope": "openid email"}
	if idToken != "" {
		o["id_token"] = idToken
	}
	return o
}

// mustUpstream is for constructors.
func mustUpstream(t *testing.T) func(u idp.Upstream, err error) idp.Upstream {
	return func(u idp.Upstream, err error) idp.Upstream {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
}

func (w *world) oidc(change func(o *idp.OIDCOptions)) idp.Upstream {
	o := idp.OIDCOptions{Common: w.common(), Issuer: issuer}
	if change != nil {
		change(&o)
	}
	return mustUpstream(w.t)(idp.NewOIDC(o))
}

func request() idp.AuthRequest {
	return idp.AuthRequest{RedirectURI: callback, State: state, Nonce: nonce, CodeVerifier: verifier}
}

func back(query string) idp.Callback {
	q, err := url.ParseQuery(query)
	if err != nil {
		panic(err)
	}
	return idp.Callback{Query: q, RedirectURI: callback, Nonce: nonce, CodeVerifier: verifier}
}

// authorize returns the place and the query of the authorization URL.
func authorize(t *testing.T, u idp.Upstream, r idp.AuthRequest) (string, url.Values) {
	t.Helper()
	raw, err := u.AuthorizationURL(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	q := parsed.Query()
	if q.Get("code_challenge") != oauth.ChallengeS256(verifier) || q.Get("code_challenge_method") != "S256" {
		t.Errorf("%s has not our S256 challenge", raw)
	}
	if q.Get("state") != state || q.Get("redirect_uri") != callback || q.Get("client_id") != clientID || q.Get("response_type") != "code" {
		t.Errorf("%s lacks a parameter", raw)
	}
	parsed.RawQuery = ""
	return parsed.String(), q
}

// exchange ends a sign-in with a good code.
func exchange(t *testing.T, u idp.Upstream) (*idp.Identity, *idp.Tokens) {
	t.Helper()
	id, tokens, err := u.Exchange(t.Context(), back("code=code-1&state="+state))
	if err != nil {
		t.Fatal(err)
	}
	return id, tokens
}

// kind is the name of the error's kind; exactly one matches.
func kind(t *testing.T, err error) string {
	t.Helper()
	var kinds []string
	for name, target := range map[string]error{"dead": idp.ErrDead, "denied": idp.ErrDenied, "trouble": idp.ErrTrouble} {
		if errors.Is(err, target) {
			kinds = append(kinds, name)
		}
	}
	if err == nil {
		return ""
	}
	if len(kinds) != 1 {
		t.Errorf("error %v is of kinds %v", err, kinds)
		return "?"
	}
	for _, secret := range []string{secret, access, refresh, "code-1", verifier, nonce, url.QueryEscape(secret)} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("error %v holds a secret", err)
		}
	}
	return kinds[0]
}

func errorCode(err error) string {
	var e *idp.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
