package proxyprovider_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/memory"
)

const brokerIdP = "https://idp.example.com"

// brokerClock is a clock that only tests move.
type brokerClock struct{ ms atomic.Int64 }

func newBrokerClock() *brokerClock {
	c := &brokerClock{}
	c.ms.Store(time.Date(2026, 7, 28, 12, 0, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *brokerClock) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *brokerClock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// brokerLog keeps what is logged.
type brokerLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *brokerLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *brokerLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// loginUpstream is an identity provider that signs in whom the test says. A code
// of it is good once, for one verifier and nonce.
type loginUpstream struct {
	clock *brokerClock

	mu        sync.Mutex
	requests  map[string]idp.AuthRequest // by state
	codes     map[string]upstreamCode
	users     map[string]*idp.Identity
	err       error // of AuthorizationURL and Exchange
	exchanges int
	givenUp   int // exchanges whose context ended
	next      int
	revoked   []string
	hold      chan struct{} // Exchange waits for it, unless nil
	holding   chan struct{} // gets a value when Exchange waits
}

type upstreamCode struct {
	user  string
	state string
}

func (u *loginUpstream) Name() string   { return "Example ID" }
func (u *loginUpstream) Issuer() string { return brokerIdP }

func (u *loginUpstream) AuthorizationURL(_ context.Context, r idp.AuthRequest) (string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err != nil {
		return "", u.err
	}
	u.requests[r.State] = r
	return brokerIdP + "/authorize?" + url.Values{"state": {r.State}, "redirect_uri": {r.RedirectURI}}.Encode(), nil
}

// signIn is what the user does at the provider: it returns where the browser is
// sent.
func (u *loginUpstream) signIn(t testing.TB, location, user string) string {
	t.Helper()
	to, err := url.Parse(location)
	if err != nil || !strings.HasPrefix(location, brokerIdP+"/authorize?") {
		t.Fatalf("the browser is not sent to the provider, but to %q", location)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next++
	code := fmt.Sprintf("code-%d", u.next)
	state := to.Query().Get("state")
	u.codes[code] = upstreamCode{user, state}
	return to.Query().Get("redirect_uri") + "?" + url.Values{"code": {code}, "state": {state}}.Encode()
}

func (u *loginUpstream) Exchange(ctx context.Context, c idp.Callback) (*idp.Identity, *idp.Tokens, error) {
	u.mu.Lock()
	hold, holding := u.hold, u.holding
	u.mu.Unlock()
	if hold != nil {
		holding <- struct{}{}
		select {
		case <-hold:
		case <-ctx.Done():
			u.set(func(u *loginUpstream) { u.givenUp++ })
			return nil, nil, fmt.Errorf("%w: %w", idp.ErrTrouble, ctx.Err())
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.exchanges++
	if u.err != nil {
		return nil, nil, u.err
	}
	if c.Query.Has("error") {
		return nil, nil, idp.ErrDenied
	}
	code, ok := u.codes[c.Query.Get("code")]
	if !ok {
		return nil, nil, idp.ErrDead
	}
	delete(u.codes, c.Query.Get("code"))
	asked := u.requests[code.state]
	if asked.CodeVerifier != c.CodeVerifier || asked.Nonce != c.Nonce || asked.RedirectURI != c.RedirectURI || c.Nonce == "" || c.CodeVerifier == "" {
		return nil, nil, idp.ErrDead
	}
	return u.users[code.user], &idp.Tokens{AccessToken: "up-" + code.user, RefreshToken: "refresh-" + code.user, Expiry: u.clock.now().Add(time.Hour)}, nil
}

func (u *loginUpstream) Refresh(context.Context, idp.Tokens) (*idp.Identity, *idp.Tokens, error) {
	return nil, nil, idp.ErrTrouble
}

func (u *loginUpstream) UserInfo(context.Context, idp.Tokens) (*idp.Identity, error) {
	return nil, idp.ErrTrouble
}

func (u *loginUpstream) Revoke(_ context.Context, t idp.Tokens) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.revoked = append(u.revoked, t.AccessToken)
	return nil
}

func (u *loginUpstream) Capabilities() idp.Capabilities {
	return idp.Capabilities{Refresh: true, Revoke: true}
}
func (u *loginUpstream) Run(context.Context) {}

func (u *loginUpstream) set(fn func(*loginUpstream)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fn(u)
}

func (u *loginUpstream) request(state string) idp.AuthRequest {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.requests[state]
}

// brokerClients is a client store that tests change.
type brokerClients struct {
	mu            sync.Mutex
	clients       map[string]*oauth.Client
	preregistered map[string]bool
	err           error
}

func (s *brokerClients) GetClient(_ context.Context, id string) (*oauth.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if c := s.clients[id]; c != nil {
		return c, nil
	}
	return nil, oauth.ErrInvalidClient
}

func (s *brokerClients) Preregistered(c *oauth.Client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.preregistered[c.ClientID]
}

func (s *brokerClients) set(fn func(*brokerClients)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(s)
}

// The clients of the tests.
const (
	webClient              = "web"
	otherClient            = "other"
	loopbackClient         = "loopback"
	appClient              = "app"
	knownClient            = "known"
	documentClient         = "https://client.example/oauth/client.json"
	loopbackDocumentClient = "http://localhost:8080/oauth/client.json"
)

func brokerClient(id, name string, redirects ...string) *oauth.Client {
	return &oauth.Client{
		ClientMetadata:    oauth.ClientMetadata{ClientName: name, RedirectURIs: redirects, TokenEndpointAuthMethod: oauth.AuthMethodNone},
		ClientInformation: oauth.ClientInformation{ClientID: id},
	}
}

func newBrokerClients() *brokerClients {
	s := &brokerClients{clients: make(map[string]*oauth.Client), preregistered: map[string]bool{knownClient: true}}
	for _, c := range []*oauth.Client{
		brokerClient(webClient, "Web client", "https://client.example/cb", "https://client.example/other"),
		brokerClient(otherClient, "Other client", "https://other.example/cb"),
		brokerClient(loopbackClient, "Desktop client", "http://127.0.0.1/cb"),
		brokerClient(appClient, "Phone client", "com.example.app:/cb", "com.example.app://host/cb"),
		brokerClient(knownClient, "Known client", "https://known.example/cb"),
		brokerClient(documentClient, "Document client", "https://client.example/cb"),
		brokerClient(loopbackDocumentClient, "Document client", "http://localhost:8080/cb"),
	} {
		s.clients[c.ClientID] = c
	}
	return s
}

// brokerWorld is a broker behind an authserver.Server, over real HTTPS.
type brokerWorld struct {
	t      testing.TB
	clock  *brokerClock
	server *httptest.Server
	issuer string
	ring   *seal.Ring
	// oldestKey is the key that the ring began with.
	oldestKey seal.Key
	upstream  *loginUpstream
	clients   *brokerClients
	store     *memory.Store
	log       *brokerLog
	config    proxyprovider.BrokerConfig
	grants    proxyprovider.GrantsConfig
	broker    *proxyprovider.Broker
	handler   atomic.Pointer[http.Handler]
}

const secondResource = "https://mcp.example.com/second"

func newBrokerWorld(t testing.TB, change ...func(*brokerWorld)) *brokerWorld {
	t.Helper()
	w := &brokerWorld{t: t, clock: newBrokerClock(), clients: newBrokerClients(), log: &brokerLog{}}
	w.upstream = &loginUpstream{
		clock: w.clock, requests: make(map[string]idp.AuthRequest), codes: make(map[string]upstreamCode),
		users: map[string]*idp.Identity{
			"alice": {
				Issuer: brokerIdP, Subject: "alice", Email: "alice@example.com", EmailVerified: true, Name: "Alice Example",
				Groups: []string{"engineering"},
			},
			"bob": {Issuer: brokerIdP, Subject: "bob", Email: "bob@example.com", EmailVerified: true},
			"eve": {Issuer: brokerIdP, Subject: "eve", Email: "eve@evil.example", EmailVerified: true},
		},
	}
	w.store = memory.New(memory.Options{Now: w.clock.now})
	t.Cleanup(func() { _ = w.store.Close() })
	w.oldestKey = seal.GenerateKey()
	ring, err := seal.NewRing(w.oldestKey)
	if err != nil {
		t.Fatal(err)
	}
	w.ring = ring
	w.server = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*w.handler.Load()).ServeHTTP(rw, r) }))
	t.Cleanup(w.server.Close)
	w.issuer = w.server.URL
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	resources, err := oauth.NewResourceSet([]string{resource, secondResource}, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.grants = proxyprovider.GrantsConfig{
		Issuer: w.issuer, Upstream: w.upstream, Now: w.clock.now, Logger: logger,
		Keys: func() (*seal.Ring, error) { return w.ring, nil },
		Store: func() (store.Store, error) {
			return store.Sealed(w.store, store.SealedOptions{Ring: w.ring, Issuer: w.issuer, Now: w.clock.now})
		},
	}
	w.config = proxyprovider.BrokerConfig{
		Issuer: w.issuer, Upstream: w.upstream, Allow: idp.Rules{{Email: "*@example.com"}},
		ClientStore: w.clients, Keys: func() (*seal.Ring, error) { return w.ring, nil },
		Resources: resources, ResourceNames: map[string]string{resource: "Example MCP"},
		ScopeDescriptions: map[string]string{"mcp:read": "Read your notes"},
		GrantableScopes:   func(string) []string { return []string{"mcp:read", "mcp:write", "mcp:admin"} },
		DefaultScopes:     func(string) []string { return []string{"mcp:read"} },
		Now:               w.clock.now, Logger: logger,
	}
	for _, c := range change {
		c(w)
	}
	w.start()
	return w
}

// start begins a process: it shares nothing with the one before but the
// configuration and the store.
func (w *brokerWorld) start() {
	w.t.Helper()
	var err error
	if w.config.Grants, err = proxyprovider.NewGrants(w.grants); err != nil {
		w.t.Fatal(err)
	}
	if w.broker, err = proxyprovider.NewBroker(w.config); err != nil {
		w.t.Fatal(err)
	}
	server, err := authserver.New(authserver.Config{
		Issuer: w.config.Issuer, BaseURL: w.config.BaseURL, Provider: w.broker, Resources: w.config.Resources,
		RateLimits: authserver.RateLimits{Off: true}, Logger: w.config.Logger, Now: w.clock.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	endpoints := w.broker.Endpoints()
	handler := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if h := endpoints[r.URL.Path]; h != nil {
			h.ServeHTTP(rw, r)
			return
		}
		server.ServeHTTP(rw, r)
	}))
	w.handler.Store(&handler)
}

// authorizeURL is what a client opens.
func (w *brokerWorld) authorizeURL(client string, change ...string) string {
	q := url.Values{
		"client_id": {client}, "response_type": {"code"}, "redirect_uri": {w.redirectOf(client)}, "state": {"st&te"},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"}, "scope": {"mcp:read mcp:write"}, "resource": {resource},
	}
	for i := 0; i < len(change); i += 2 {
		q.Set(change[i], change[i+1])
	}
	return w.issuer + "/authorize?" + q.Encode()
}

func (w *brokerWorld) redirectOf(client string) string {
	if client == loopbackClient {
		return "http://127.0.0.1:33418/cb"
	}
	c, err := w.clients.GetClient(w.t.Context(), client)
	if err != nil {
		return "https://client.example/cb"
	}
	return c.RedirectURIs[0]
}

// grantCount is how many grants there are.
func (w *brokerWorld) grantCount() int {
	n := 0
	_ = w.store.Scan(w.t.Context(), "", func(key string, _ []byte) error {
		if strings.Contains(key, "grant/") {
			n++
		}
		return nil
	})
	return n
}

// redeem exchanges a code as the client.
func (w *brokerWorld) redeem(client, code string) (*oauth.Tokens, error) {
	w.t.Helper()
	resp, err := w.server.Client().PostForm(w.issuer+"/token", url.Values{
		"grant_type": {"authorization_code"}, "client_id": {client}, "code": {code},
		"redirect_uri": {w.redirectOf(client)}, "code_verifier": {verifier}, "resource": {resource},
	})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(string(data))
	}
	tokens := new(oauth.Tokens)
	return tokens, tokens.UnmarshalJSON(data)
}

// issuerSuffix ends the names of an issuer's cookies.
func issuerSuffix(issuer string) string {
	sum := sha256.Sum256([]byte(issuer))
	return fmt.Sprintf("%x", sum[:3])
}

// randomState is a state that nobody began a login with.
func randomState(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// subjectOf is the key of a user of the upstream.
func subjectOf(user string) string { return proxyprovider.SubjectKey(brokerIdP, user) }
