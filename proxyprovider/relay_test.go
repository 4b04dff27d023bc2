package proxyprovider_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
)

func TestRelay(t *testing.T) {
	w := newRelayWorld(t, announcesIss)
	if w.metadata()["authorization_response_iss_parameter_supported"] != true {
		t.Error("iss is not announced")
	}
	id := w.register(desktop, `,"application_type":"native"`)
	want := map[string]any{
		"client_id": "up-1", "client_name": "Desk<b>top", "token_endpoint_auth_method": "none", "application_type": "web",
		"redirect_uris": []any{w.callbackURL()},
	}
	got := w.up.registered[0]
	for name := range got {
		if want[name] == nil {
			delete(got, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("registered upstream (-want +got):\n%s", diff)
	}

	b := w.browser()
	page := b.get(w.authorizeURL(id, "prompt", "login", "nonce", "n-1", "login_hint", "alice", "max_age", "60", "ui_locales", "en", "acr_values", "gold"))
	page.wantConsent()
	for _, text := range []string{"Desk&lt;b&gt;top", "Example MCP", "desktop.example", "Read your notes", "mcp:write", "127.0.0.1"} {
		if !strings.Contains(page.body, text) {
			t.Errorf("the consent page lacks %q:\n%s", text, page.body)
		}
	}
	for _, text := range []string{"connections", "will not be asked again"} {
		if strings.Contains(page.body, text) {
			t.Errorf("the consent page speaks of %s", text)
		}
	}
	if cookies := b.cookiesNamed("__Host-mcp_t_"); len(cookies) != 0 {
		t.Errorf("a transaction before the user has allowed it: %v", cookies)
	}
	sent := page.allow()
	asked := w.up.asked(t, sent)
	state := asked.Get("state")
	if state == "" || state == "st&te" {
		t.Errorf("state upstream: %q", state)
	}
	asked.Del("state")
	if diff := cmp.Diff(url.Values{
		"client_id": {"up-1"}, "response_type": {"code"}, "redirect_uri": {w.callbackURL()},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"}, "scope": {"mcp:read mcp:write"}, "resource": {resource},
		"prompt": {"login"}, "nonce": {"n-1"}, "login_hint": {"alice"}, "max_age": {"60"}, "ui_locales": {"en"}, "acr_values": {"gold"},
	}, asked); diff != "" {
		t.Errorf("asked upstream (-want +got):\n%s", diff)
	}

	back := b.get(w.up.signIn(t, sent))
	code := back.code(id)
	if strings.Contains(code, "upstream-code") || len(b.cookiesNamed("__Host-mcp_t_")) != 0 {
		t.Errorf("code %q, cookies %v", code, b.cookiesNamed("__Host-mcp_t_"))
	}
	w.up.got()
	tokens, err := w.redeem(id, code)
	if err != nil || tokens.AccessToken != "good" {
		t.Fatalf("redeem: %v %v", tokens, err)
	}
	wantToken, _ := url.ParseQuery("grant_type=authorization_code&client_id=up-1&code=upstream-code-1&code_verifier=" + verifier + "&redirect_uri=" + url.QueryEscape(w.callbackURL()) + "&resource=" + url.QueryEscape(resource))
	gotToken, _ := url.ParseQuery(w.up.got()[0].Body)
	if diff := cmp.Diff(wantToken, gotToken); diff != "" {
		t.Errorf("token request upstream (-want +got):\n%s", diff)
	}
	// Replayed within its time it goes upstream, which refuses it.
	if _, err := w.redeem(id, code); err == nil || !strings.Contains(err.Error(), "invalid_grant") || len(w.up.got()) != 1 {
		t.Errorf("replay: %v", err)
	}
	// Nothing is remembered: it could be somebody else's word.
	b.get(w.authorizeURL(id)).wantConsent()
	for _, secret := range []string{"upstream-code", code, state, verifier, "good"} {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("%.12s… was logged", secret)
		}
	}
}

// TestRelayStaticClient: the id is the same upstream, where the operator has
// registered our callback; consent can be skipped for it.
func TestRelayStaticClient(t *testing.T) {
	w := newRelayWorld(t, nil)
	if log := w.log.String(); !strings.Contains(log, "redirect_uri="+w.callbackURL()) || !strings.Contains(log, "level=INFO") {
		t.Errorf("the operator is not told what to register: %s", log)
	}
	b := w.browser()
	sent := b.allowed("app")
	if asked := w.up.asked(t, sent); asked.Get("client_id") != "app" || asked.Get("redirect_uri") != w.callbackURL() {
		t.Errorf("asked upstream: %v", asked)
	}
	if _, err := w.redeem("app", b.get(w.up.signIn(t, sent)).code("app")); err != nil {
		t.Error(err)
	}
	b.get(w.authorizeURL("app", "prompt", "none")).wantError("app", "interaction_required")

	w.restart(func(c *proxyprovider.ProxyConfig) { c.Consent.Skip = []string{"app"} })
	w.up.asked(t, b.get(w.authorizeURL("app", "prompt", "none")))
	b.get(w.authorizeURL("app", "prompt", "consent")).wantConsent()
	b.get(w.authorizeURL("app", "max_age", strings.Repeat("9", 6000))).wantError("app", "invalid_request")
}

// TestRelayCallbackAttacks: what must not bring a code to the client. Each row
// returns the answer of the callback.
func TestRelayCallbackAttacks(t *testing.T) {
	w := newRelayWorld(t, announcesIss)
	id := w.register(desktop)
	for name, row := range map[string]func(b *brokerBrowser, sent *brokerPage) *brokerPage{
		"no cookie": func(b *brokerBrowser, sent *brokerPage) *brokerPage {
			b.client.Jar = nil
			return b.get(w.up.signIn(t, sent))
		},
		"another browser": func(_ *brokerBrowser, sent *brokerPage) *brokerPage {
			other := w.browser()
			w.up.asked(t, other.allowed(id)) // with a login of its own under way
			return other.get(w.up.signIn(t, sent))
		},
		"another login's cookie under this one's name": func(b *brokerBrowser, sent *brokerPage) *brokerPage {
			name := b.cookiesNamed("__Host-mcp_t_")[0].Name
			other := w.browser()
			other.allowed(id)
			cookie := other.cookiesNamed("__Host-mcp_t_")[0]
			cookie.Name = name
			b.setCookies(cookie)
			return b.get(w.up.signIn(t, sent))
		},
		"state of nobody": func(b *brokerBrowser, sent *brokerPage) *brokerPage {
			return b.get(w.up.signIn(t, sent, "state", randomState("x")))
		},
		"no state": func(b *brokerBrowser, sent *brokerPage) *brokerPage {
			return b.get(w.up.signIn(t, sent, "state", ""))
		},
		"replayed": func(b *brokerBrowser, sent *brokerPage) *brokerPage {
			back := w.up.signIn(t, sent)
			b.get(back).code(id)
			return b.get(back)
		},
		"tampered cookie": func(b *brokerBrowser, sent *brokerPage) *brokerPage {
			cookie := b.cookiesNamed("__Host-mcp_t_")[0]
			cookie.Value = cookie.Value[:60] + "AAAA" + cookie.Value[64:]
			b.setCookies(cookie)
			return b.get(w.up.signIn(t, sent))
		},
		"too late": func(b *brokerBrowser, sent *brokerPage) *brokerPage {
			w.clock.advance(11 * time.Minute)
			return b.get(w.up.signIn(t, sent))
		},
		"the cookie of a login that nobody allowed": func(b *brokerBrowser, sent *brokerPage) *brokerPage {
			// What the consent form carries is no transaction.
			_, form := b.get(w.authorizeURL(id)).form()
			cookie := b.cookiesNamed("__Host-mcp_t_")[0]
			cookie.Value = form.Get("request")
			b.setCookies(cookie)
			return b.get(w.up.signIn(t, sent))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := w.browser()
			p := row(b, b.allowed(id))
			if p.location != "" || p.status != http.StatusBadRequest || !strings.Contains(p.body, "<h1>") {
				t.Errorf("status %d, location %q\n%s", p.status, p.location, p.body)
			}
		})
	}
}

// TestRelayUpstreamAnswers: what the client is told, and that the cookie goes in
// every case.
func TestRelayUpstreamAnswers(t *testing.T) {
	w := newRelayWorld(t, announcesIss)
	id := w.register(desktop)
	for name, row := range map[string]struct {
		change []string
		want   string
	}{
		"denied":                           {[]string{"code", "", "error", "access_denied", "error_description", "<upstream words>"}, "access_denied"},
		"needs the user":                   {[]string{"code", "", "error", "login_required"}, "login_required"},
		"Auth0's rule":                     {[]string{"code", "", "error", "unauthorized"}, "access_denied"},
		"scope":                            {[]string{"code", "", "error", "invalid_scope"}, "invalid_scope"},
		"resource":                         {[]string{"code", "", "error", "invalid_target"}, "invalid_target"},
		"trouble":                          {[]string{"code", "", "error", "temporarily_unavailable"}, "temporarily_unavailable"},
		"its fault":                        {[]string{"code", "", "error", "server_error"}, "temporarily_unavailable"},
		"our fault":                        {[]string{"code", "", "error", "unauthorized_client"}, "server_error"},
		"words of its own":                 {[]string{"code", "", "error", "<upstream words>"}, "server_error"},
		"neither code nor error":           {[]string{"code", ""}, "server_error"},
		"an endless code":                  {[]string{"code", strings.Repeat("x", 5000)}, "server_error"},
		"a code with a line break":         {[]string{"code", "a\nb"}, "server_error"},
		"mix-up: another issuer's answer":  {[]string{"iss", "https://evil.example"}, "server_error"},
		"mix-up: another issuer's refusal": {[]string{"iss", "https://evil.example", "code", "", "error", "access_denied"}, "server_error"},
		"mix-up: iss left out":             {[]string{"iss", ""}, "server_error"},
		"our own issuer":                   {[]string{"iss", w.issuer}, "server_error"},
	} {
		t.Run(name, func(t *testing.T) {
			b := w.browser()
			p := b.get(w.up.signIn(t, b.allowed(id), row.change...))
			p.wantError(id, row.want)
			if strings.Contains(p.location, "words") || strings.Contains(p.location, "evil") {
				t.Errorf("the upstream's words are passed on: %s", p.location)
			}
			if cookies := b.cookiesNamed("__Host-mcp_t_"); len(cookies) != 0 {
				t.Errorf("the cookie is still there: %v", cookies)
			}
		})
	}
	if !strings.Contains(w.log.String(), "<upstream words>") {
		t.Error("the operator is not told what the upstream said")
	}
	b := w.browser()
	b.get(w.up.signIn(t, b.allowed(id))+"&iss="+url.QueryEscape(w.up.URL)).wantError(id, "server_error")
	// A callback that only looks uses nothing up.
	b = w.browser()
	back := w.up.signIn(t, b.allowed(id))
	if p := b.do(http.MethodHead, back, nil); p.status != http.StatusNoContent {
		t.Errorf("HEAD: %d", p.status)
	}
	b.get(back).code(id)
	b.get(w.authorizeURL(id)).submit("decision", "deny").wantError(id, "access_denied")
}

// An upstream that announces no iss need not send it; if it does, it must be its
// own.
func TestRelayOptionalIss(t *testing.T) {
	w := newRelayWorld(t, nil)
	b := w.browser()
	b.get(w.up.signIn(t, b.allowed("app"), "iss", "")).code("app")
	b.get(w.up.signIn(t, b.allowed("app"))).code("app")
	b.get(w.up.signIn(t, b.allowed("app"), "iss", "https://evil.example")).wantError("app", "server_error")
}

// TestRelayCodeAttacks: a code is its client's, for its redirect URI and
// verifier, for a minute. The upstream is not asked about any other.
func TestRelayCodeAttacks(t *testing.T) {
	w := newRelayWorld(t, announcesIss)
	id, thief := w.register(desktop), w.register("https://thief.example/cb")
	exchange := func(form url.Values) (status int, body string) {
		t.Helper()
		resp, err := w.server.Client().PostForm(w.issuer+"/token", form)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var m map[string]any
		_ = json.NewDecoder(resp.Body).Decode(&m)
		return resp.StatusCode, fmt.Sprint(m["error"])
	}
	for name, change := range map[string]func(url.Values){
		"another client's":             func(f url.Values) { f.Set("client_id", thief) },
		"a static client's":            func(f url.Values) { f.Set("client_id", "app") },
		"another redirect URI":         func(f url.Values) { f.Set("redirect_uri", "https://thief.example/cb") },
		"our callback as redirect URI": func(f url.Values) { f.Set("redirect_uri", w.callbackURL()) },
		"no redirect URI":              func(f url.Values) { f.Del("redirect_uri") },
		"another verifier":             func(f url.Values) { f.Set("code_verifier", strings.Repeat("v", 43)) },
		"tampered":                     func(f url.Values) { c := f.Get("code"); f.Set("code", c[:50]+"AAAA"+c[54:]) },
		"truncated":                    func(f url.Values) { f.Set("code", f.Get("code")[:80]) },
		"the upstream's own":           func(f url.Values) { f.Set("code", "upstream-code-1") },
		"expired":                      func(url.Values) { w.clock.advance(61 * time.Second) },
		"sealed for something else":    func(f url.Values) { f.Set("code", id) },
	} {
		t.Run(name, func(t *testing.T) {
			b := w.browser()
			form := url.Values{
				"grant_type": {"authorization_code"}, "client_id": {id}, "redirect_uri": {desktop}, "code_verifier": {verifier}, "resource": {resource},
				"code": {b.get(w.up.signIn(t, b.allowed(id))).code(id)},
			}
			change(form)
			w.up.got()
			if status, code := exchange(form); status != 400 || code != "invalid_grant" {
				t.Errorf("%d %s", status, code)
			}
			if n := len(w.up.got()); n != 0 {
				t.Errorf("the upstream was asked %d times", n)
			}
		})
	}
	// RFC 6749 §4.1.3: needed only if the authorization request had it.
	b := w.browser()
	to, _ := url.Parse(w.authorizeURL(id))
	q := to.Query()
	q.Del("redirect_uri")
	to.RawQuery = q.Encode()
	code := b.get(w.up.signIn(t, b.get(to.String()).allow())).code(id)
	if status, e := exchange(url.Values{"grant_type": {"authorization_code"}, "client_id": {id}, "code_verifier": {verifier}, "code": {code}}); status != 200 {
		t.Errorf("without redirect URI in both requests: %d %s", status, e)
	}
	// Sealed with another key.
	w.restart(func(c *proxyprovider.ProxyConfig) {
		c.Keys = func() (*seal.Ring, error) { return seal.NewRing(seal.GenerateKey()) }
	})
	if status, e := exchange(url.Values{"grant_type": {"authorization_code"}, "client_id": {"app"}, "code_verifier": {verifier}, "code": {code}}); status != 400 || e != "invalid_grant" {
		t.Errorf("another server's code: %d %s", status, e)
	}
}

// TestRelayPKCE: our own check stands in for an upstream that has none.
func TestRelayPKCE(t *testing.T) {
	for name, row := range map[string]struct {
		methods any
		sent    bool
	}{
		"knows S256":         {[]string{"S256", "plain"}, true},
		"says nothing of it": {nil, true},
		"knows plain only":   {[]string{"plain"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newRelayWorld(t, map[string]any{"code_challenge_methods_supported": row.methods})
			b := w.browser()
			sent := b.allowed("app")
			if asked := w.up.asked(t, sent); asked.Has("code_challenge") != row.sent || asked.Has("code_challenge_method") != row.sent {
				t.Errorf("asked upstream: %v", asked)
			}
			code := b.get(w.up.signIn(t, sent)).code("app")
			resp, err := w.server.Client().PostForm(w.issuer+"/token", url.Values{
				"grant_type": {"authorization_code"}, "client_id": {"app"}, "code": {code},
				"redirect_uri": {callback}, "code_verifier": {strings.Repeat("v", 43)},
			})
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 400 || len(w.up.got()) != 0 {
				t.Errorf("another verifier: %d", resp.StatusCode)
			}
			if _, err := w.redeem("app", code); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRelayConsentForm: it is good in the browser and for the request that it
// was shown for, and sends nobody anywhere otherwise.
func TestRelayConsentForm(t *testing.T) {
	w := newRelayWorld(t, announcesIss)
	id := w.register(desktop)
	page := w.browser().get(w.authorizeURL(id))
	action, values := page.form()
	values.Set("decision", "allow")
	w.browser().do(http.MethodPost, action, values).wantPage(400, "cookie")
	page.b.do(http.MethodPost, action, values, "Sec-Fetch-Site", "cross-site").wantPage(403, "another website")
	page.b.do(http.MethodPost, action, values, "Origin", "https://evil.example").wantPage(403, "another website")
	page.b.get(action).wantPage(405, "nothing to do")
	if got := page.header.Get("Content-Security-Policy"); !strings.Contains(got, "frame-ancestors 'none'") || page.header.Get("X-Frame-Options") != "DENY" {
		t.Errorf("clickjacking: %q", got)
	}
	w.up.asked(t, page.b.do(http.MethodPost, action, values))

	// A login does not outlive its client, nor go to another upstream.
	page, sent := w.browser().get(w.authorizeURL("app")), w.browser().allowed("app")
	w.restart(func(c *proxyprovider.ProxyConfig) { c.Clients[0].RedirectURIs = []string{"https://moved.example/cb"} })
	page.submit("decision", "allow").wantPage(400, "not known here")
	sent.b.get(w.up.signIn(t, sent)).wantPage(400, "not known here")

	page, sent = w.browser().get(w.authorizeURL("app")), w.browser().allowed("app")
	other := newRelayUpstream(t, announcesIss)
	back := w.up.signIn(t, sent)
	w.restart(func(c *proxyprovider.ProxyConfig) { c.UpstreamIssuer = other.URL })
	page.submit("decision", "allow").wantPage(400, "not valid")
	sent.b.get(back).wantPage(400, "not known in this browser")
}

// TestRelayNamesNoResource: a request that names no resource is about the default
// one, which the upstream is told.
func TestRelayNamesNoResource(t *testing.T) {
	w := newRelayWorld(t, nil, func(c *proxyprovider.ProxyConfig) {
		c.DefaultScopes = func(string) []string { return []string{"mcp:read"} }
	})
	page := w.browser().get(strings.NewReplacer("resource=", "unused=", "scope=", "unheard=").Replace(w.authorizeURL("app")))
	page.wantConsent()
	if !strings.Contains(page.body, resource) || !strings.Contains(page.body, "Read your notes") {
		t.Errorf("page:\n%s", page.body)
	}
	if asked := w.up.asked(t, page.allow()); asked.Get("resource") != resource || asked.Get("scope") != "mcp:read" {
		t.Errorf("asked upstream: %v", asked)
	}
}

func TestRelayConfig(t *testing.T) {
	for want, change := range map[string]func(*proxyprovider.ProxyConfig){
		"relay or direct": func(c *proxyprovider.ProxyConfig) { c.Callback = "sideways" },
		"endpoint prefix": func(c *proxyprovider.ProxyConfig) { c.Callback, c.EndpointPrefix = "relay", "x" },
		"cannot be skip":  func(c *proxyprovider.ProxyConfig) { c.Callback, c.Consent.Skip = "relay", []string{"nobody"} },
	} {
		cfg := config(t, newUpstream(t, nil))
		change(&cfg)
		if _, err := proxyprovider.NewProxy(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// On an http loopback issuer the upstream learns of a native client.
	u := newRelayUpstream(t, nil)
	cfg := config(t, u.fakeUpstream)
	cfg.Issuer, cfg.Callback = "http://localhost:8080", "relay"
	c := &oauth.Client{ClientMetadata: oauth.ClientMetadata{RedirectURIs: []string{desktop}, ApplicationType: oauth.ApplicationTypeWeb}}
	if _, err := registrar(t, newProxy(t, cfg)).RegisterClient(t.Context(), c); err != nil || u.registered[0]["application_type"] != "native" {
		t.Errorf("%v %v", err, u.registered)
	}
}

// Cookies of the relay reach nobody else; those of others stay.
func TestRelayStripsCookies(t *testing.T) {
	w := newRelayWorld(t, nil)
	b := w.browser()
	b.allowed("app")
	r := httptest.NewRequest(http.MethodGet, w.issuer+"/mcp", nil)
	r.Header.Set("Cookie", "theirs=1")
	for _, c := range b.cookiesNamed("") {
		r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
	}
	if len(r.Cookies()) < 3 {
		t.Fatalf("cookies: %v", r.Cookies())
	}
	w.proxy.StripCookies(r)
	if got := r.Header.Get("Cookie"); got != "theirs=1" {
		t.Errorf("cookies that are passed on: %q", got)
	}
}
