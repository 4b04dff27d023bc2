package proxyprovider_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuer   = "https://mcp.example.com"
	resource = "https://mcp.example.com/mcp"
	callback = "https://app.example.com/callback"
)

// request is what the upstream got.
type request struct {
	Method, URL, ContentType, Accept, Authorization, Body string
}

// fakeUpstream is an identity provider that answers by script and keeps what
// it was asked.
type fakeUpstream struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	script   http.HandlerFunc
	metadata map[string]any // served as metadata document, unless nil
	loads    int            // of the metadata
}

// newUpstream starts an upstream that answers every request with script.
func newUpstream(t testing.TB, script http.HandlerFunc) *fakeUpstream {
	t.Helper()
	u := &fakeUpstream{script: script}
	u.Server = httptest.NewServer(http.HandlerFunc(u.serve))
	t.Cleanup(u.Close)
	return u
}

func (u *fakeUpstream) serve(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/.well-known/") {
		u.mu.Lock()
		u.loads++
		metadata := u.metadata
		u.mu.Unlock()
		if metadata == nil {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(metadata)
		return
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	u.mu.Lock()
	u.requests = append(u.requests, request{
		r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), r.Header.Get("Accept"), r.Header.Get("Authorization"), string(body),
	})
	script := u.script
	u.mu.Unlock()
	script(w, r)
}

// set changes the script.
func (u *fakeUpstream) set(script http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.script = script
}

// got returns the requests since the last call.
func (u *fakeUpstream) got() []request {
	u.mu.Lock()
	defer u.mu.Unlock()
	requests := u.requests
	u.requests = nil
	return requests
}

// discoverable makes the upstream serve metadata; a nil value drops a member.
func (u *fakeUpstream) discoverable(changes map[string]any) {
	m := map[string]any{
		"issuer": u.URL, "authorization_endpoint": u.URL + "/authorize", "token_endpoint": u.URL + "/token",
		"revocation_endpoint": u.URL + "/revoke", "registration_endpoint": u.URL + "/register",
	}
	for name, value := range changes {
		if value == nil {
			delete(m, name)
		} else {
			m[name] = value
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.metadata = m
}

// answers is a script that always answers the same.
func answers(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func answersJSON(status int, body string) http.HandlerFunc {
	return answers(status, "application/json", body)
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// keys returns a ring that is the same in all tests.
func keys() (*seal.Ring, error) {
	key, err := seal.ParseKey(strings.Repeat("A", 43))
	if err != nil {
		return nil, err
	}
	return seal.NewRing(key)
}

// staticClient is a confidential client with a secret.
func staticClient(id, secret, method string) oauth.Client {
	return oauth.Client{
		ClientMetadata:    oauth.ClientMetadata{RedirectURIs: []string{callback}, TokenEndpointAuthMethod: method},
		ClientInformation: oauth.ClientInformation{ClientID: id, ClientSecret: secret},
	}
}

func newClient(t testing.TB) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// config is a proxy configuration in front of u with explicit endpoints and one
// static client.
func config(t testing.TB, u *fakeUpstream) proxyprovider.ProxyConfig {
	t.Helper()
	return proxyprovider.ProxyConfig{
		Issuer:           issuer,
		AuthorizationURL: u.URL + "/authorize",
		TokenURL:         u.URL + "/token",
		RevocationURL:    u.URL + "/revoke",
		RegistrationURL:  u.URL + "/register",
		Clients:          []oauth.Client{staticClient("app", "s3cret-of-app", "")},
		Verifier: bearer.VerifierFunc(func(_ context.Context, token string) (*oauth.TokenInfo, error) {
			if token != "good" {
				return nil, oauth.ErrInvalidToken
			}
			return &oauth.TokenInfo{Token: token, ClientID: "app"}, nil
		}),
		Keys:   keys,
		Client: newClient(t),
		Logger: slog.New(slog.DiscardHandler),
		Now:    func() time.Time { return time.Unix(1_900_000_000, 0) },
	}
}

func newProxy(t testing.TB, cfg proxyprovider.ProxyConfig) proxyprovider.Proxy {
	t.Helper()
	p, err := proxyprovider.NewProxy(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// client returns a client of the proxy by its id.
func client(t testing.TB, p proxyprovider.Proxy, id string) *oauth.Client {
	t.Helper()
	c, err := p.Clients().GetClient(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// revoker returns the proxy's revocation, which must be there.
func revoker(t testing.TB, p proxyprovider.Proxy) authserver.Revoker {
	t.Helper()
	r, ok := p.(authserver.Revoker)
	if !ok {
		t.Fatal("the proxy offers no revocation")
	}
	return r
}

// registrar returns the proxy's registration, which must be there.
func registrar(t testing.TB, p proxyprovider.Proxy) authserver.Registrar {
	t.Helper()
	r, ok := p.Clients().(authserver.Registrar)
	if !ok {
		t.Fatal("the proxy offers no registration")
	}
	return r
}

// code is what a client sees of an error: code and status.
func code(err error) string {
	var e *oauth.Error
	if err == nil {
		return ""
	}
	if !errors.As(err, &e) {
		return "not an OAuth error: " + err.Error()
	}
	return e.Code + " " + http.StatusText(e.HTTPStatus())
}

// seen is all that a client sees of an error.
func seen(t testing.TB, err error) string {
	t.Helper()
	b, jsonErr := json.Marshal(oauth.AsError(err))
	if jsonErr != nil {
		t.Fatal(jsonErr)
	}
	return string(b)
}

// refreshToken gets a relayed refresh token for the client.
func refreshToken(t testing.TB, u *fakeUpstream, p proxyprovider.Proxy, c *oauth.Client, upstreamToken string) string {
	t.Helper()
	u.set(answersJSON(200, `{"access_token":"at","token_type":"Bearer","refresh_token":"`+upstreamToken+`"}`))
	tokens, err := p.ExchangeCode(t.Context(), c, authserver.CodeExchange{Code: "code", Verifier: "verifier"})
	if err != nil {
		t.Fatal(err)
	}
	u.got()
	return tokens.RefreshToken
}
