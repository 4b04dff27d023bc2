package proxyprovider_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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

const upstreamIssuer = "https://idp.example.com"

// grantsClock is a clock that only tests move.
type grantsClock struct{ ms atomic.Int64 }

func newGrantsClock() *grantsClock {
	c := &grantsClock{}
	c.ms.Store(time.Date(2026, 7, 28, 12, 0, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *grantsClock) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *grantsClock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// faultyStore is a store whose connection can fail: before a write, or after it
// so that its caller cannot know.
type faultyStore struct {
	store.Store
	down      atomic.Bool
	loseAfter atomic.Int32 // answers of writes to lose
	reads     atomic.Int32
	writes    atomic.Int32
}

var errDown = errors.New("connection refused")

func (s *faultyStore) Get(ctx context.Context, key string) ([]byte, error) {
	s.reads.Add(1)
	if s.down.Load() {
		return nil, errDown
	}
	return s.Store.Get(ctx, key)
}

func (s *faultyStore) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	s.writes.Add(1)
	if s.down.Load() {
		return errDown
	}
	err := s.Store.Update(ctx, key, fn)
	if err == nil && s.loseAfter.Load() > 0 {
		s.loseAfter.Add(-1)
		return errDown
	}
	return err
}

// grantsWorld is a store with any number of nodes on it, an upstream and a clock.
type grantsWorld struct {
	t        testing.TB
	clock    *grantsClock
	inner    *memory.Store
	faulty   *faultyStore
	ring     *seal.Ring
	upstream *sessionUpstream
	config   proxyprovider.GrantsConfig
	log      *strings.Builder
	created  byte
}

func newGrantsWorld(t testing.TB, change ...func(*proxyprovider.GrantsConfig)) *grantsWorld {
	t.Helper()
	w := &grantsWorld{t: t, clock: newGrantsClock(), log: &strings.Builder{}}
	w.inner = memory.New(memory.Options{Now: w.clock.now})
	t.Cleanup(func() { _ = w.inner.Close() })
	w.faulty = &faultyStore{Store: w.inner}
	ring, err := seal.NewRing(seal.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	w.ring = ring
	w.upstream = newSessionUpstream(w.clock)
	w.config = proxyprovider.GrantsConfig{
		Issuer:   issuer,
		Upstream: w.upstream,
		Keys:     func() (*seal.Ring, error) { return w.ring, nil },
		Store:    func() (store.Store, error) { return w.sealed() },
		Now:      w.clock.now,
		Logger:   slog.New(slog.NewTextHandler(&lockedWriter{b: w.log}, nil)),
	}
	for _, c := range change {
		c(&w.config)
	}
	return w
}

type lockedWriter struct {
	mu sync.Mutex
	b  *strings.Builder
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *grantsWorld) sealed() (store.Store, error) {
	return store.Sealed(w.faulty, store.SealedOptions{Ring: w.ring, Issuer: issuer, Now: w.clock.now})
}

// node is one more process on the store.
func (w *grantsWorld) node() *proxyprovider.Grants {
	w.t.Helper()
	g, err := proxyprovider.NewGrants(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func publicClient(id string) *oauth.Client {
	return &oauth.Client{
		ClientMetadata:    oauth.ClientMetadata{ClientName: "Client " + id, RedirectURIs: []string{callback}, TokenEndpointAuthMethod: oauth.AuthMethodNone},
		ClientInformation: oauth.ClientInformation{ClientID: id},
	}
}

func alice() *idp.Identity {
	return &idp.Identity{
		Issuer: upstreamIssuer, Subject: "alice", Email: "alice@example.com", EmailVerified: true, Name: "Alice Example",
		Groups: []string{"engineering"},
	}
}

// newGrant is a login of alice through client app.
func (w *grantsWorld) newGrant(change ...func(*proxyprovider.NewGrant)) proxyprovider.NewGrant {
	w.created++
	n := proxyprovider.NewGrant{
		ID: [16]byte{1, w.created}, Client: publicClient("app"), RedirectURI: callback, CodeChallenge: challenge,
		Scopes: []string{"mcp:read", "mcp:write"}, Resource: resource, Identity: alice(), Upstream: w.upstream.login(),
	}
	for _, c := range change {
		c(&n)
	}
	return n
}

func (w *grantsWorld) code(g *proxyprovider.Grants, change ...func(*proxyprovider.NewGrant)) string {
	w.t.Helper()
	code, err := g.Create(w.t.Context(), w.newGrant(change...))
	if err != nil {
		w.t.Fatal(err)
	}
	return code
}

func exchange(code string) authserver.CodeExchange {
	return authserver.CodeExchange{Code: code, Verifier: verifier, RedirectURI: callback, Resource: resource}
}

// tokens signs alice in.
func (w *grantsWorld) tokens(g *proxyprovider.Grants, change ...func(*proxyprovider.NewGrant)) *oauth.Tokens {
	w.t.Helper()
	n := w.newGrant(change...)
	code, err := g.Create(w.t.Context(), n)
	if err != nil {
		w.t.Fatal(err)
	}
	tokens, err := g.ExchangeCode(w.t.Context(), n.Client, exchange(code))
	if err != nil {
		w.t.Fatal(err)
	}
	return tokens
}

func (w *grantsWorld) refresh(g *proxyprovider.Grants, token string, scopes ...string) (*oauth.Tokens, error) {
	return g.ExchangeRefreshToken(w.t.Context(), publicClient("app"), authserver.RefreshExchange{RefreshToken: token, Scopes: scopes})
}

func (w *grantsWorld) mustRefresh(g *proxyprovider.Grants, token string) *oauth.Tokens {
	w.t.Helper()
	tokens, err := w.refresh(g, token)
	if err != nil {
		w.t.Fatal(err)
	}
	return tokens
}

// wantError checks the code of an OAuth error; "" is none.
func wantError(t testing.TB, what string, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = oauth.AsError(err).Code
	}
	if got != want {
		t.Errorf("%s: error %v, want %q", what, err, want)
	}
}

func (w *grantsWorld) wantVerify(g *proxyprovider.Grants, what, token, want string) {
	w.t.Helper()
	_, err := g.VerifyAccessToken(w.t.Context(), token)
	wantError(w.t, what, err, want)
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sessionUpstream is an identity provider with rotating refresh tokens, each
// good once.
type sessionUpstream struct {
	clock *grantsClock

	mu        sync.Mutex
	next      int
	good      map[string]bool // refresh tokens
	identity  *idp.Identity   // what it says of everybody
	err       error           // of Refresh and UserInfo
	errAfter  error           // of Refresh, beside new tokens
	able      idp.Capabilities
	refreshes int
	userinfos int
	revoked   []string
	hold      chan struct{} // Refresh waits for it before it does anything, unless nil
	holdLate  chan struct{} // the same, when it has rotated the token
	holding   chan struct{} // gets a value when Refresh waits
	keep      bool          // Refresh does not rotate
	silent    bool          // Refresh tells no identity
	life      time.Duration // of access tokens, an hour if 0
}

func newSessionUpstream(c *grantsClock) *sessionUpstream {
	return &sessionUpstream{
		clock: c, good: make(map[string]bool), identity: alice(),
		able: idp.Capabilities{Refresh: true, UserInfo: true, Revoke: true},
	}
}

// set changes the upstream.
func (u *sessionUpstream) set(fn func(*sessionUpstream)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fn(u)
}

// login returns the tokens of a new session.
func (u *sessionUpstream) login() *idp.Tokens {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.issue()
}

func (u *sessionUpstream) issue() *idp.Tokens {
	u.next++
	token := fmt.Sprintf("up-refresh-%d", u.next)
	u.good[token] = true
	return &idp.Tokens{AccessToken: fmt.Sprintf("up-access-%d", u.next), RefreshToken: token, Expiry: u.clock.now().Add(cmp.Or(u.life, time.Hour))}
}

func (u *sessionUpstream) Name() string   { return "Example" }
func (u *sessionUpstream) Issuer() string { return upstreamIssuer }
func (u *sessionUpstream) AuthorizationURL(context.Context, idp.AuthRequest) (string, error) {
	return "", idp.ErrTrouble
}

func (u *sessionUpstream) Exchange(context.Context, idp.Callback) (*idp.Identity, *idp.Tokens, error) {
	return nil, nil, idp.ErrTrouble
}

func (u *sessionUpstream) Refresh(ctx context.Context, t idp.Tokens) (*idp.Identity, *idp.Tokens, error) {
	u.mu.Lock()
	hold, late, holding := u.hold, u.holdLate, u.holding
	u.mu.Unlock()
	if err := wait(ctx, hold, holding); err != nil {
		return nil, nil, err
	}
	identity, tokens, err := u.refresh(t)
	if err := wait(ctx, late, holding); err != nil {
		return nil, nil, err // the answer is lost
	}
	return identity, tokens, err
}

func wait(ctx context.Context, hold, holding chan struct{}) error {
	if hold == nil {
		return nil
	}
	holding <- struct{}{}
	select {
	case <-hold:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", idp.ErrTrouble, ctx.Err())
	}
}

func (u *sessionUpstream) refresh(t idp.Tokens) (*idp.Identity, *idp.Tokens, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refreshes++
	if u.err != nil {
		return nil, nil, u.err
	}
	if !u.good[t.RefreshToken] {
		return nil, nil, idp.ErrDead
	}
	if u.keep {
		return u.identity, &idp.Tokens{AccessToken: "up-access-again"}, nil
	}
	delete(u.good, t.RefreshToken)
	tokens := u.issue()
	if u.errAfter != nil {
		return nil, tokens, u.errAfter
	}
	if u.silent {
		return nil, tokens, nil
	}
	return u.identity, tokens, nil
}

func (u *sessionUpstream) UserInfo(_ context.Context, t idp.Tokens) (*idp.Identity, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.userinfos++
	if u.err != nil {
		return nil, u.err
	}
	if t.Expired(u.clock.now()) {
		return nil, idp.ErrDead
	}
	return u.identity, nil
}

func (u *sessionUpstream) Revoke(_ context.Context, t idp.Tokens) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.revoked = append(u.revoked, t.RefreshToken)
	return nil
}

func (u *sessionUpstream) Capabilities() idp.Capabilities {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.able
}

func (u *sessionUpstream) Run(ctx context.Context) { <-ctx.Done() }
