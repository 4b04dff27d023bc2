package proxyprovider_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
)

func TestNewProxyRefuses(t *testing.T) {
	u := newUpstream(t, nil)
	rows := []struct {
		name   string
		change func(*proxyprovider.ProxyConfig)
		want   string
	}{
		{"no issuer of ours", func(c *proxyprovider.ProxyConfig) { c.Issuer = "" }, "needs the issuer"},
		{"no verifier", func(c *proxyprovider.ProxyConfig) { c.Verifier = nil }, "needs a verifier"},
		{"neither issuer nor token URL", func(c *proxyprovider.ProxyConfig) { c.TokenURL = "" }, "or both its authorization URL and its token URL"},
		{"neither issuer nor authorization URL", func(c *proxyprovider.ProxyConfig) { c.AuthorizationURL = "" }, "or both its authorization URL and its token URL"},
		{"nobody could be a client", func(c *proxyprovider.ProxyConfig) { c.Clients, c.RegistrationURL = nil, "" }, "add a client"},
		{"registration off and no client", func(c *proxyprovider.ProxyConfig) { c.Clients, c.Register = nil, new(false) }, "use the broker mode"},
		{"registration on without URL", func(c *proxyprovider.ProxyConfig) { c.RegistrationURL, c.Register = "", new(true) }, "registration URL"},
		{"revocation on without URL", func(c *proxyprovider.ProxyConfig) { c.RevocationURL, c.Revoke = "", new(true) }, "revocation URL"},
		{"one client twice", func(c *proxyprovider.ProxyConfig) { c.Clients = append(c.Clients, c.Clients[0]) }, "confused deputy"},
		{"a client without id", func(c *proxyprovider.ProxyConfig) { c.Clients[0].ClientID = "" }, "no client_id"},
		{"a client without redirect URI", func(c *proxyprovider.ProxyConfig) { c.Clients[0].RedirectURIs = nil }, "no redirect URI"},
		{"http", func(c *proxyprovider.ProxyConfig) { c.TokenURL = "http://idp.example.com/token" }, "token URL: write https"},
		{"http on a private address", func(c *proxyprovider.ProxyConfig) { c.TokenURL = "http://10.0.0.1/token" }, "token URL: write https"},
		{"another scheme", func(c *proxyprovider.ProxyConfig) { c.RevocationURL = "ftp://127.0.0.1/revoke" }, "revocation URL: write https"},
		{"relative", func(c *proxyprovider.ProxyConfig) { c.RegistrationURL = "/register" }, "registration URL: write an absolute URL"},
		{"fragment", func(c *proxyprovider.ProxyConfig) { c.AuthorizationURL = "https://idp.example.com/a#x" }, "authorization URL: drop the #"},
		{"empty fragment", func(c *proxyprovider.ProxyConfig) { c.AuthorizationURL = "https://idp.example.com/a#" }, "authorization URL: drop the #"},
		{"userinfo", func(c *proxyprovider.ProxyConfig) { c.TokenURL = "https://u:p@idp.example.com/token" }, "drop the user name"},
		{"blank", func(c *proxyprovider.ProxyConfig) { c.TokenURL = "https://idp.example.com/to ken" }, "percent-encode"},
		{"line break", func(c *proxyprovider.ProxyConfig) { c.TokenURL = "https://idp.example.com/\r\nX: y" }, "absolute URL"},
		{"unknown client authentication", func(c *proxyprovider.ProxyConfig) { c.ClientAuth = "jwt" }, "basic, post or none"},
		{"http issuer", func(c *proxyprovider.ProxyConfig) { c.UpstreamIssuer = "http://idp.example.com" }, "must be https"},
		{"shared discovery without issuer", func(c *proxyprovider.ProxyConfig) { c.Discovery = discovery(t, u) }, "beside it"},
		{"faulty redirect policy", func(c *proxyprovider.ProxyConfig) {
			c.RedirectPolicy = &oauth.RedirectPolicy{ClientSets: []string{"nobody"}}
		}, "unknown client set"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cfg := config(t, u)
			row.change(&cfg)
			if _, err := proxyprovider.NewProxy(cfg); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("NewProxy: %v, want %q", err, row.want)
			}
		})
	}
	cfg := config(t, u)
	cfg.AllowInsecureUpstream = true
	cfg.TokenURL = "http://10.0.0.1/token"
	if _, err := proxyprovider.NewProxy(cfg); err != nil {
		t.Errorf("http that was allowed: %v", err)
	}
}

func discovery(t testing.TB, u *fakeUpstream) *bearer.Discovery {
	t.Helper()
	d, err := bearer.NewDiscovery(bearer.DiscoveryConfig{Issuer: u.URL, Client: newClient(t)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestEndpointsExistByInterface: the Server advertises what it finds.
func TestEndpointsExistByInterface(t *testing.T) {
	u := newUpstream(t, nil)
	discovered := func(c *proxyprovider.ProxyConfig) {
		c.UpstreamIssuer = u.URL
		c.AuthorizationURL, c.TokenURL, c.RevocationURL, c.RegistrationURL = "", "", "", ""
	}
	rows := []struct {
		name               string
		change             func(*proxyprovider.ProxyConfig)
		registers, revokes bool
	}{
		{"URLs given", func(*proxyprovider.ProxyConfig) {}, true, true},
		{"no registration URL", func(c *proxyprovider.ProxyConfig) { c.RegistrationURL = "" }, false, true},
		{"no revocation URL", func(c *proxyprovider.ProxyConfig) { c.RevocationURL = "" }, true, false},
		{"discovered", discovered, true, true},
		{"discovered, both turned off", func(c *proxyprovider.ProxyConfig) {
			discovered(c)
			c.Register, c.Revoke = new(false), new(false)
		}, false, false},
		{"URLs given, both turned off", func(c *proxyprovider.ProxyConfig) { c.Register, c.Revoke = new(false), new(false) }, false, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cfg := config(t, u)
			row.change(&cfg)
			p := newProxy(t, cfg)
			if _, ok := p.Clients().(authserver.Registrar); ok != row.registers {
				t.Errorf("offers registration: %v", ok)
			}
			if _, ok := p.(authserver.Revoker); ok != row.revokes {
				t.Errorf("offers revocation: %v", ok)
			}
			if !p.SkipPKCE() || p.SupportsIssParameter() {
				t.Error("PKCE is the upstream's matter, and so is iss")
			}
		})
	}
	if len(u.got()) > 0 || u.loads > 0 {
		t.Error("NewProxy asked the upstream")
	}
}

func TestChallengeForCodeIsEmpty(t *testing.T) {
	p := newProxy(t, config(t, newUpstream(t, nil)))
	if got, err := p.ChallengeForCode(t.Context(), client(t, p, "app"), "code"); got != "" || err != nil {
		t.Errorf("ChallengeForCode = %q, %v", got, err)
	}
}

func TestVerifyDelegates(t *testing.T) {
	p := newProxy(t, config(t, newUpstream(t, nil)))
	if info, err := p.VerifyAccessToken(t.Context(), "good"); err != nil || info.ClientID != "app" {
		t.Errorf("VerifyAccessToken = %v, %v", info, err)
	}
	if _, err := p.VerifyAccessToken(t.Context(), "bad"); !errors.Is(err, oauth.ErrInvalidToken) {
		t.Errorf("VerifyAccessToken = %v", err)
	}
}

// TestKeysOpenOnFirstUse: a store that holds the keys may be closed at first.
func TestKeysOpenOnFirstUse(t *testing.T) {
	u := newUpstream(t, answersJSON(200, `{"access_token":"at","refresh_token":"rt"}`))
	calls := 0
	failing := true
	cfg := config(t, u)
	cfg.Keys = func() (*seal.Ring, error) {
		calls++
		if failing {
			return nil, errors.New("the disk is on fire")
		}
		return keys()
	}
	p := newProxy(t, cfg)
	c := client(t, p, "app")
	if calls != 0 {
		t.Fatal("keys were opened before they were needed")
	}
	_, err := p.ExchangeRefreshToken(t.Context(), c, authserver.RefreshExchange{RefreshToken: "x"})
	if code(err) != "server_error Internal Server Error" || strings.Contains(seen(t, err), "fire") {
		t.Errorf("with keys that do not open: %v, seen %s", err, seen(t, err))
	}
	if !strings.Contains(err.Error(), "fire") {
		t.Errorf("the operator is not told why: %v", err)
	}
	failing = false
	for range 3 {
		if _, err := p.ExchangeCode(t.Context(), c, authserver.CodeExchange{Code: "x"}); err != nil {
			t.Error(err)
		}
	}
	if calls != 2 {
		t.Errorf("keys were opened %d times", calls)
	}
}

// TestKeysOpenOnce: concurrent first uses share one attempt.
func TestKeysOpenOnce(t *testing.T) {
	u := newUpstream(t, answersJSON(200, `{"access_token":"at","refresh_token":"rt"}`))
	var calls atomic.Int32
	release := make(chan struct{})
	cfg := config(t, u)
	cfg.Keys = func() (*seal.Ring, error) {
		calls.Add(1)
		<-release
		return keys()
	}
	p := newProxy(t, cfg)
	c := client(t, p, "app")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := p.ExchangeCode(t.Context(), c, authserver.CodeExchange{Code: "x"}); err != nil {
				t.Error(err)
			}
		})
	}
	for calls.Load() == 0 {
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("keys were opened %d times", n)
	}
}

func TestNoKeys(t *testing.T) {
	u := newUpstream(t, answersJSON(200, `{"access_token":"at","refresh_token":"rt"}`))
	var log logBuffer
	cfg := config(t, u)
	cfg.Keys, cfg.Logger = nil, log.logger()
	p := newProxy(t, cfg)
	c := client(t, p, "app")
	token := refreshToken(t, u, p, c, "rt")
	if _, err := p.ExchangeRefreshToken(t.Context(), c, authserver.RefreshExchange{RefreshToken: token}); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "register again after a restart"); n != 1 {
		t.Errorf("warned %d times: %s", n, log.String())
	}
}

// TestRun: background discovery belongs to Run and ends with its context.
func TestRun(t *testing.T) {
	u := newUpstream(t, nil)
	u.discoverable(nil)
	cfg := config(t, u)
	cfg.UpstreamIssuer = u.URL
	cfg.AuthorizationURL = ""
	p := newProxy(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	if got := authorize(t, p, "app", authserver.AuthorizationParams{RedirectURI: callback, CodeChallenge: "c"}); !strings.HasPrefix(got, u.URL+"/authorize?") {
		t.Errorf("Location = %q", got)
	}
	cancel()
	<-done

	t.Run("nothing to discover", func(t *testing.T) {
		newProxy(t, config(t, u)).Run(t.Context())
	})
	t.Run("a shared discovery is run by its owner", func(t *testing.T) {
		cfg := config(t, u)
		cfg.UpstreamIssuer, cfg.Discovery = u.URL, discovery(t, u)
		newProxy(t, cfg).Run(t.Context())
	})
}

// TestDiscoveryFails: the upstream is down, which delays nothing but its own
// logins.
func TestDiscoveryFails(t *testing.T) {
	u := newUpstream(t, answersJSON(200, `{"access_token":"at"}`))
	cfg := config(t, u)
	cfg.UpstreamIssuer, cfg.AuthorizationURL, cfg.TokenURL = u.URL, "", ""
	p := newProxy(t, cfg)
	if _, err := p.ExchangeCode(t.Context(), client(t, p, "app"), authserver.CodeExchange{Code: "x"}); code(err) != "temporarily_unavailable Service Unavailable" {
		t.Errorf("without metadata: %v", err)
	}
}

// TestDiscoveryNamesNoEndpoint: lazy discovery may find less than was offered.
func TestDiscoveryNamesNoEndpoint(t *testing.T) {
	u := newUpstream(t, answersJSON(200, `{"access_token":"at"}`))
	u.discoverable(map[string]any{"revocation_endpoint": nil, "registration_endpoint": nil, "authorization_endpoint": nil, "token_endpoint": "http://idp.example.com/token"})
	var log logBuffer
	cfg := config(t, u)
	cfg.UpstreamIssuer, cfg.Logger = u.URL, log.logger()
	cfg.AuthorizationURL, cfg.TokenURL, cfg.RevocationURL, cfg.RegistrationURL = "", "", "", ""
	p := newProxy(t, cfg)
	c := client(t, p, "app")
	for range 2 {
		_, err := registrar(t, p).RegisterClient(t.Context(), &oauth.Client{ClientMetadata: oauth.ClientMetadata{RedirectURIs: []string{callback}}})
		if code(err) != "access_denied Forbidden" || !strings.Contains(seen(t, err), "offers no dynamic registration") {
			t.Errorf("registration: %v", err)
		}
		err = revoker(t, p).RevokeToken(t.Context(), c, authserver.Revocation{Token: "x"})
		if code(err) != "unsupported_token_type Bad Request" {
			t.Errorf("revocation: %v", err)
		}
		err = p.Authorize(nil, newRequest(t), c, authserver.AuthorizationParams{})
		if code(err) != "server_error Internal Server Error" {
			t.Errorf("authorization: %v", err)
		}
		_, err = p.ExchangeCode(t.Context(), c, authserver.CodeExchange{Code: "x"})
		if code(err) != "temporarily_unavailable Service Unavailable" {
			t.Errorf("a token endpoint on http: %v", err)
		}
	}
	for _, name := range []string{"registration", "revocation", "authorization", "token"} {
		if n := strings.Count(log.String(), "endpoint="+name+" "); n != 1 {
			t.Errorf("%s: the operator is told %d times:\n%s", name, n, log.String())
		}
	}
	if requests := u.got(); len(requests) > 0 {
		t.Errorf("asked %v", requests)
	}
}

// TestMovedEndpoint: a 404 of a discovered endpoint asks for fresh metadata.
func TestMovedEndpoint(t *testing.T) {
	u := newUpstream(t, nil)
	u.discoverable(map[string]any{"token_endpoint": u.URL + "/old"})
	u.set(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/old" {
			u.discoverable(map[string]any{"token_endpoint": u.URL + "/new"})
			w.WriteHeader(http.StatusNotFound)
			return
		}
		answersJSON(200, `{"access_token":"at"}`)(w, r)
	})
	cfg := config(t, u)
	cfg.UpstreamIssuer, cfg.TokenURL = u.URL, ""
	p := newProxy(t, cfg)
	c := client(t, p, "app")
	if _, err := p.ExchangeCode(t.Context(), c, authserver.CodeExchange{Code: "x"}); code(err) != "temporarily_unavailable Service Unavailable" {
		t.Errorf("where it was: %v", err)
	}
	if _, err := p.ExchangeCode(t.Context(), c, authserver.CodeExchange{Code: "x"}); err != nil {
		t.Errorf("where it is now: %v", err)
	}
}
