package proxyprovider_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

func newRequest(t testing.TB) *http.Request {
	t.Helper()
	return httptest.NewRequestWithContext(t.Context(), http.MethodGet, issuer+"/authorize", nil)
}

// authorize returns the Location that the proxy sends the browser to.
func authorize(t testing.TB, p proxyprovider.Proxy, id string, x authserver.AuthorizationParams) string {
	t.Helper()
	w := httptest.NewRecorder()
	if err := p.Authorize(w, newRequest(t), client(t, p, id), x); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusFound || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Referrer-Policy") != "no-referrer" || w.Body.Len() > 0 {
		t.Errorf("status %d, header %v, body %q", w.Code, w.Header(), w.Body)
	}
	return w.Header().Get("Location")
}

func TestAuthorize(t *testing.T) {
	u := newUpstream(t, nil)
	full := authserver.AuthorizationParams{
		State: "st&te", Scopes: []string{"mcp:read", "mcp:write"}, RedirectURI: callback, CodeChallenge: "ch4llenge", Resource: resource,
	}
	minimal := authserver.AuthorizationParams{RedirectURI: callback, CodeChallenge: "ch4llenge"}
	const (
		head         = "client_id=app&response_type=code&redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback&code_challenge=ch4llenge&code_challenge_method=S256"
		scope        = "&scope=mcp%3Aread+mcp%3Awrite"
		resourcePart = "&resource=https%3A%2F%2Fmcp.example.com%2Fmcp"
	)
	rows := []struct {
		name   string
		url    string // after the upstream's origin
		change func(*proxyprovider.ProxyConfig)
		params authserver.AuthorizationParams
		want   string
	}{
		{"in the SDK's order", "/authorize", nil, full, "/authorize?" + head + "&state=st%26te" + scope + resourcePart},
		{"what is not asked for is not sent", "/authorize", nil, minimal, "/authorize?" + head},
		{"a configured query survives", "/authorize?audience=xyz", nil, minimal, "/authorize?audience=xyz&" + head},
		{"byte for byte", "/authorize?a=%7e+b&a=2&&c", nil, minimal, "/authorize?a=%7e+b&a=2&c&" + head},
		{"an empty configured query", "/authorize?", nil, minimal, "/authorize?" + head},
		{
			"ours replace configured ones of the same name", "/authorize?client_id=evil&redirect%5furi=x&scope=y&state=z&audience=a", nil, full,
			"/authorize?audience=a&" + head + "&state=st%26te" + scope + resourcePart,
		},
		{"a configured scope is the default", "/authorize?scope=openid&prompt=consent", nil, minimal, "/authorize?scope=openid&prompt=consent&" + head},
		{"a configured state is not sent for the client", "/authorize?state=z", nil, minimal, "/authorize?" + head},
		{
			"no resource for an upstream that refuses it", "/authorize", func(c *proxyprovider.ProxyConfig) { c.OmitResource = true }, full,
			"/authorize?" + head + "&state=st%26te" + scope,
		},
		{
			"dropped scopes", "/authorize", func(c *proxyprovider.ProxyConfig) { c.DropScopes = []string{"mcp:write", "offline_access"} }, full,
			"/authorize?" + head + "&state=st%26te&scope=mcp%3Aread" + resourcePart,
		},
		{
			"no scope left", "/authorize", func(c *proxyprovider.ProxyConfig) { c.DropScopes = []string{"mcp:write", "mcp:read"} }, full,
			"/authorize?" + head + "&state=st%26te" + resourcePart,
		},
		{
			"OpenID Connect parameters", "/authorize?prompt=none", nil,
			authserver.AuthorizationParams{
				RedirectURI: callback, CodeChallenge: "ch4llenge",
				Prompt: "login", Nonce: "n", LoginHint: "a@example.com", MaxAge: "60", UILocales: "de en", ACRValues: "urn:x",
			},
			"/authorize?" + head + "&prompt=login&nonce=n&login_hint=a%40example.com&max_age=60&ui_locales=de+en&acr_values=urn%3Ax",
		},
		{
			"nothing can be injected", "/authorize", nil,
			authserver.AuthorizationParams{RedirectURI: callback, CodeChallenge: "ch4llenge", State: "x\r\nSet-Cookie: a=b&scope=admin#"},
			"/authorize?" + head + "&state=x%0D%0ASet-Cookie%3A+a%3Db%26scope%3Dadmin%23",
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cfg := config(t, u)
			cfg.AuthorizationURL = u.URL + row.url
			if row.change != nil {
				row.change(&cfg)
			}
			if got := authorize(t, newProxy(t, cfg), "app", row.params); got != u.URL+row.want {
				t.Errorf("Location\n got %s\nwant %s", got, u.URL+row.want)
			}
		})
	}
	if requests := u.got(); len(requests) > 0 {
		t.Errorf("authorization made upstream calls: %v", requests)
	}
}

// TestOfflineAccessIsOurs: we advertise offline_access, so it must not break
// the login at an upstream that does not know it (Google, Cognito).
func TestOfflineAccessIsOurs(t *testing.T) {
	for name, row := range map[string]struct {
		supported any
		want      string
	}{
		"not listed":      {[]string{"openid", "mcp:read"}, "scope=mcp%3Aread"},
		"listed":          {[]string{"mcp:read", "offline_access"}, "scope=mcp%3Aread+offline_access"},
		"nothing is said": {nil, "scope=mcp%3Aread+offline_access"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t, nil)
			u.discoverable(map[string]any{"scopes_supported": row.supported})
			cfg := config(t, u)
			cfg.UpstreamIssuer, cfg.AuthorizationURL = u.URL, ""
			got := authorize(t, newProxy(t, cfg), "app", authserver.AuthorizationParams{
				RedirectURI: callback, CodeChallenge: "c", Scopes: []string{"mcp:read", "offline_access"},
			})
			if !strings.HasSuffix(got, "&"+row.want) {
				t.Errorf("Location = %s, want …&%s", got, row.want)
			}
		})
	}
}

// TestExplicitURLWins over what is discovered, one by one.
func TestExplicitURLWins(t *testing.T) {
	u := newUpstream(t, answersJSON(200, `{"access_token":"at"}`))
	u.discoverable(nil)
	cfg := config(t, u)
	cfg.UpstreamIssuer, cfg.AuthorizationURL, cfg.TokenURL = u.URL, u.URL+"/mine", ""
	p := newProxy(t, cfg)
	x := authserver.AuthorizationParams{RedirectURI: callback, CodeChallenge: "c"}
	if got := authorize(t, p, "app", x); !strings.HasPrefix(got, u.URL+"/mine?") {
		t.Errorf("Location = %s", got)
	}
	if _, err := p.ExchangeCode(t.Context(), client(t, p, "app"), authserver.CodeExchange{Code: "x"}); err != nil {
		t.Fatal(err)
	}
	if got := u.got(); len(got) != 1 || got[0].URL != "/token" {
		t.Errorf("requests %v", got)
	}
}

func TestAuthorizeUnknownClient(t *testing.T) {
	p := newProxy(t, config(t, newUpstream(t, nil)))
	w := httptest.NewRecorder()
	c := &oauth.Client{ClientInformation: oauth.ClientInformation{ClientID: "https://app.example.com/client.json"}}
	if err := p.Authorize(w, newRequest(t), c, authserver.AuthorizationParams{}); code(err) != "invalid_client Unauthorized" || len(w.Header()) > 0 {
		t.Errorf("Authorize: %v, header %v", err, w.Header())
	}
}

// TestDefaultResource: clients from before MCP 2025-06-18 name no resource. The
// upstream is told the one that they mean, if that can be known.
func TestDefaultResource(t *testing.T) {
	const other = "https://mcp.example.com/other"
	named := url.Values{"resource": {resource}}
	for _, row := range []struct {
		name         string
		resources    []string
		defaultIndex int
		url          string // after the upstream's origin
		omit         bool
		ask          string
		authorize    string // the resource that the upstream is told
		token        string
	}{
		{"the only one", []string{resource}, -1, "/authorize", false, "", resource, resource},
		{"named", []string{resource, other}, 0, "/authorize", false, other, other, other},
		{"the default of several, which the grant may not be for", []string{resource, other}, 0, "/authorize", false, "", resource, ""},
		{"several", []string{resource, other}, -1, "/authorize", false, "", "", ""},
		{"not known here", nil, -1, "/authorize", false, "", "", ""},
		{"the upstream refuses it", []string{resource}, -1, "/authorize", true, "", "", ""},
		{"configured", []string{resource}, -1, "/authorize?" + named.Encode(), false, "", resource, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			u := newUpstream(t, nil)
			cfg := config(t, u)
			cfg.AuthorizationURL, cfg.OmitResource = u.URL+row.url, row.omit
			if row.resources != nil {
				set, err := oauth.NewResourceSet(row.resources, row.defaultIndex)
				if err != nil {
					t.Fatal(err)
				}
				cfg.Resources = set
			}
			p := newProxy(t, cfg)
			location, err := url.Parse(authorize(t, p, "app", authserver.AuthorizationParams{RedirectURI: callback, CodeChallenge: "c", Resource: row.ask}))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(location.Query()["resource"], " "); got != row.authorize {
				t.Errorf("the authorization request names %q, want %q", got, row.authorize)
			}
			c := client(t, p, "app")
			u.set(answersJSON(200, `{"access_token":"at","token_type":"Bearer","refresh_token":"rt"}`))
			tokens, err := p.ExchangeCode(t.Context(), c, authserver.CodeExchange{Code: "code", Verifier: "verifier", Resource: row.ask})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.ExchangeRefreshToken(t.Context(), c, authserver.RefreshExchange{RefreshToken: tokens.RefreshToken, Resource: row.ask}); err != nil {
				t.Fatal(err)
			}
			for _, sent := range u.got() {
				form, err := url.ParseQuery(sent.Body)
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(form["resource"], " "); got != row.token {
					t.Errorf("%s names %q, want %q", form.Get("grant_type"), got, row.token)
				}
			}
		})
	}
}
