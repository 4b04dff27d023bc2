package authserver_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuer   = "https://auth.example.com"
	verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	callback = "https://app.example.com/cb"
)

// scripted is the in-memory provider with single methods replaced.
type scripted struct {
	*memory
	store            authserver.ClientStore
	authorize        func(http.ResponseWriter, *http.Request, *oauth.Client, authserver.AuthorizationParams) error
	challengeForCode func(*oauth.Client, string) (string, error)
	exchangeCode     func(context.Context, *oauth.Client, authserver.CodeExchange) (*oauth.Tokens, error)
	exchangeRefresh  func(*oauth.Client, authserver.RefreshExchange) (*oauth.Tokens, error)
	revoke           func(*oauth.Client, authserver.Revocation) error
	skipPKCE         bool
	noIss            bool
}

func (s *scripted) Clients() authserver.ClientStore {
	if s.store != nil {
		return s.store
	}
	return s.memory
}

func (s *scripted) SkipPKCE() bool { return s.skipPKCE }

func (s *scripted) SupportsIssParameter() bool { return !s.noIss }

func (s *scripted) Authorize(w http.ResponseWriter, r *http.Request, c *oauth.Client, p authserver.AuthorizationParams) error {
	if s.authorize != nil {
		return s.authorize(w, r, c, p)
	}
	return s.memory.Authorize(w, r, c, p)
}

func (s *scripted) ChallengeForCode(ctx context.Context, c *oauth.Client, code string) (string, error) {
	if s.challengeForCode != nil {
		return s.challengeForCode(c, code)
	}
	return s.memory.ChallengeForCode(ctx, c, code)
}

func (s *scripted) ExchangeCode(ctx context.Context, c *oauth.Client, x authserver.CodeExchange) (*oauth.Tokens, error) {
	if s.exchangeCode != nil {
		return s.exchangeCode(ctx, c, x)
	}
	return s.memory.ExchangeCode(ctx, c, x)
}

func (s *scripted) ExchangeRefreshToken(ctx context.Context, c *oauth.Client, x authserver.RefreshExchange) (*oauth.Tokens, error) {
	if s.exchangeRefresh != nil {
		return s.exchangeRefresh(c, x)
	}
	return s.memory.ExchangeRefreshToken(ctx, c, x)
}

func (s *scripted) RevokeToken(ctx context.Context, c *oauth.Client, x authserver.Revocation) error {
	if s.revoke != nil {
		return s.revoke(c, x)
	}
	return s.memory.RevokeToken(ctx, c, x)
}

// storeFunc is a client store without registration.
type storeFunc func(id string) (*oauth.Client, error)

func (f storeFunc) GetClient(_ context.Context, id string) (*oauth.Client, error) { return f(id) }

// clock is a clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// site is a Server behind real HTTP.
type site struct {
	t        testing.TB
	server   *authserver.Server
	provider *scripted
	clock    *clock
	url      string
	browser  *http.Client
}

// newSite starts a Server. Clients: "public", "secret" (any method),
// "basic", "post", "two" (two redirect URIs), "loopback".
func newSite(t testing.TB, configure ...func(*authserver.Config, *scripted)) *site {
	t.Helper()
	s := &site{
		t:        t,
		provider: &scripted{memory: newMemory()},
		clock:    &clock{now: time.Unix(1_800_000_000, 0)},
	}
	add := func(id, secret, method string, uris ...string) {
		s.addClient(&oauth.Client{
			ClientInformation: oauth.ClientInformation{ClientID: id, ClientSecret: secret},
			ClientMetadata:    oauth.ClientMetadata{RedirectURIs: uris, TokenEndpointAuthMethod: method},
		})
	}
	add("public", "", oauth.AuthMethodNone, callback)
	add("secret", "s3cret", "", callback)
	add("basic", "s3cret", oauth.AuthMethodClientSecretBasic, callback)
	add("post", "s3cret", oauth.AuthMethodClientSecretPost, callback)
	add("two", "", oauth.AuthMethodNone, callback, "https://app.example.com/other")
	add("loopback", "", oauth.AuthMethodNone, "http://localhost/cb")

	config := authserver.Config{Issuer: issuer, Provider: s.provider, Now: s.clock.Now}
	for _, c := range configure {
		c(&config, s.provider)
	}
	server, err := authserver.New(config)
	if err != nil {
		t.Fatal(err)
	}
	s.server = server
	httpServer := httptest.NewServer(server)
	t.Cleanup(httpServer.Close)
	s.url = httpServer.URL
	s.browser = httpServer.Client()
	s.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s
}

func (s *site) addClient(c *oauth.Client) {
	_, _ = s.provider.RegisterClient(context.Background(), c)
}

// answer is what a test looks at.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

// oauthError is the error in a JSON body.
func (a answer) oauthError(t testing.TB) (code, description string) {
	t.Helper()
	var e struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	if ct := a.Header.Get("Content-Type"); ct != "application/json" {
		t.Fatalf("Content-Type is %q, body %q", ct, a.Body)
	}
	if err := json.Unmarshal([]byte(a.Body), &e); err != nil {
		t.Fatalf("body %q: %v", a.Body, err)
	}
	return e.Code, e.Description
}

// location is the query of the redirect.
func (a answer) location(t testing.TB) url.Values {
	t.Helper()
	if a.Status != http.StatusFound {
		t.Fatalf("status %d, body %q", a.Status, a.Body)
	}
	u, err := url.Parse(a.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

func (s *site) do(method, path, body string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := s.browser.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

func (s *site) postForm(path, form string, header ...string) answer {
	s.t.Helper()
	return s.do("POST", path, form, append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)...)
}

func (s *site) postJSON(path, body string, header ...string) answer {
	s.t.Helper()
	return s.do("POST", path, body, append([]string{"Content-Type", "application/json"}, header...)...)
}

// with returns the encoded parameters; pairs override base, an empty value
// removes.
func with(base url.Values, pairs ...string) string {
	v := url.Values{}
	for name, values := range base {
		v[name] = values
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			v.Del(pairs[i])
		} else {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v.Encode()
}

// authorization is a good authorization request of the public client.
func authorization(pairs ...string) string {
	return with(url.Values{
		"client_id":             {"public"},
		"redirect_uri":          {callback},
		"response_type":         {"code"},
		"code_challenge":        {oauth.ChallengeS256(verifier)},
		"code_challenge_method": {"S256"},
		"state":                 {"xyz"},
	}, pairs...)
}

// code gets a code by a good authorization request.
func (s *site) code(pairs ...string) string {
	s.t.Helper()
	code := s.do("GET", "/authorize?"+authorization(pairs...), "").location(s.t).Get("code")
	if code == "" {
		s.t.Fatal("no code")
	}
	return code
}

// redemption is a good token request for the code.
func redemption(code string, pairs ...string) string {
	return with(url.Values{
		"grant_type":    {"authorization_code"},
		"client_id":     {"public"},
		"code":          {code},
		"code_verifier": {verifier},
		"redirect_uri":  {callback},
	}, pairs...)
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	provider := newMemory()
	for name, config := range map[string]authserver.Config{
		"no provider":                       {Issuer: issuer},
		"no issuer":                         {Provider: provider},
		"issuer http":                       {Provider: provider, Issuer: "http://auth.example.com"},
		"issuer with query":                 {Provider: provider, Issuer: issuer + "?a=b"},
		"issuer with fragment":              {Provider: provider, Issuer: issuer + "#a"},
		"base URL http":                     {Provider: provider, Issuer: issuer, BaseURL: "http://mcp.example.com"},
		"service documentation no URL":      {Provider: provider, Issuer: issuer, ServiceDocumentation: "docs"},
		"scope with a space":                {Provider: provider, Issuer: issuer, ScopesSupported: []string{"a b"}},
		"resource path without slash":       {Provider: provider, Issuer: issuer, ResourcePaths: []string{"mcp"}},
		"resource with fragment":            {Provider: provider, Issuer: issuer, ResourceServerURL: issuer + "/#x"},
		"resource name without resource":    {Provider: provider, Issuer: issuer, ResourceName: "MCP"},
		"negative secret expiry":            {Provider: provider, Issuer: issuer, ClientSecretExpiry: -1},
		"rate limit of nothing":             {Provider: provider, Issuer: issuer, RateLimits: authserver.RateLimits{Token: &authserver.RateLimit{Window: time.Minute}}},
		"redirect policy with a faulty set": {Provider: provider, Issuer: issuer, RedirectPolicy: &oauth.RedirectPolicy{ClientSets: []string{"nobody"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := authserver.New(config); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestNewAcceptsDevelopmentIssuers(t *testing.T) {
	for _, config := range []authserver.Config{
		{Issuer: "http://localhost:3000", Provider: newMemory()},
		{Issuer: "http://127.0.0.1:3000", Provider: newMemory()},
		{Issuer: "http://dev.example", InsecureIssuer: true, Provider: newMemory()},
	} {
		if _, err := authserver.New(config); err != nil {
			t.Error(err)
		}
	}
}

func TestEndpointMatchesPathsExactly(t *testing.T) {
	s := newSite(t)
	for path, want := range map[string]bool{
		"/authorize": true, "/authorize/": true, "/token": true, "/token/": true, "/register": true, "/revoke": true,
		"/.well-known/oauth-authorization-server": true, "/.well-known/openid-configuration": true,
		"/AUTHORIZE": false, "/authorize//": false, "/token/sub": false, "/": false, "": false, "/mcp": false,
		"//token": false, "/.well-known/oauth-protected-resource": false, "/.well-known/oauth-authorization-server/mcp": false,
	} {
		if got := s.server.Endpoint(path) != nil; got != want {
			t.Errorf("Endpoint(%q) is there: %v, want %v", path, got, want)
		}
	}
	a := s.do("GET", "/nothing", "")
	if code, _ := a.oauthError(t); a.Status != 404 || code != "not_found" {
		t.Errorf("unknown path: %d %s", a.Status, a.Body)
	}
}

// SDK 1.1: an endpoint exists only if its interface does.
func TestEndpointsOfUnsupportedFeatures(t *testing.T) {
	server, err := authserver.New(authserver.Config{Issuer: issuer, Provider: struct{ authserver.Provider }{
		&scripted{memory: newMemory(), store: storeFunc(func(string) (*oauth.Client, error) { return nil, oauth.ErrInvalidClient })},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/authorize": true, "/token": true, "/register": false, "/revoke": false} {
		if got := server.Endpoint(path) != nil; got != want {
			t.Errorf("Endpoint(%q) is there: %v, want %v", path, got, want)
		}
	}
	if m := server.Metadata(); m.RegistrationEndpoint != "" || m.RevocationEndpoint != "" || m.RevocationEndpointAuthMethodsSupported != nil {
		t.Errorf("advertised: %+v", m)
	}
}

// SDK 1.2 drops the paths of issuer and base URL; here they are honoured.
func TestBaseURLPathIsHonoured(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) {
		c.Issuer = "https://auth.example.com/tenant/a"
		c.BaseURL = "https://mcp.example.com/base/"
	})
	if got, want := s.server.Metadata().TokenEndpoint, "https://mcp.example.com/base/token"; got != want {
		t.Errorf("token_endpoint %s, want %s", got, want)
	}
	if s.server.Endpoint("/base/token") == nil || s.server.Endpoint("/token") != nil {
		t.Error("the token endpoint is not at the path of the base URL")
	}
	if got := s.server.Issuer(); got != "https://auth.example.com/tenant/a" {
		t.Errorf("issuer %s", got)
	}
}
