package authserver_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// SDK 2.1: before the redirect URI is proven, errors are answered directly.
func TestAuthorizeDirectErrors(t *testing.T) {
	storeErr := error(nil)
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.store = storeFunc(func(id string) (*oauth.Client, error) {
			if storeErr != nil {
				return nil, storeErr
			}
			return p.GetClient(t.Context(), id)
		})
	})
	s.addClient(&oauth.Client{
		ClientInformation: oauth.ClientInformation{ClientID: "old"},
		ClientMetadata:    oauth.ClientMetadata{RedirectURIs: []string{"http://app.example.com/cb"}},
	})
	s.addClient(&oauth.Client{ClientInformation: oauth.ClientInformation{ClientID: "none"}})
	for name, row := range map[string]struct {
		query    string
		storeErr error
		status   int
		code     string
		contains string
	}{
		"client_id missing":               {authorization("client_id", ""), nil, 400, "invalid_request", "client_id is required"},
		"client_id empty":                 {authorization("client_id", "") + "&client_id=", nil, 400, "invalid_request", "client_id is required"},
		"client_id repeated":              {authorization() + "&client_id=public", nil, 400, "invalid_request", "client_id is repeated"},
		"redirect_uri repeated":           {authorization() + "&redirect_uri=https://evil.example", nil, 400, "invalid_request", "redirect_uri is repeated"},
		"redirect_uri no URL":             {authorization("redirect_uri", "nothing"), nil, 400, "invalid_request", "Unregistered redirect_uri"},
		"unknown client":                  {authorization("client_id", "nobody"), nil, 400, "invalid_client", "Invalid client_id"},
		"store fails":                     {authorization(), errors.New("disk full"), 500, "server_error", "Internal Server Error"},
		"store fails with an OAuth error": {authorization(), oauth.ErrTemporarilyUnavailable.Describe("later"), 503, "temporarily_unavailable", "later"},
		"redirect_uri not registered":     {authorization("redirect_uri", "https://evil.example/cb"), nil, 400, "invalid_request", "Unregistered redirect_uri"},
		"redirect_uri omitted, two":       {authorization("client_id", "two", "redirect_uri", ""), nil, 400, "invalid_request", "redirect_uri must be specified when client has multiple registered URIs"},
		"redirect_uri omitted, none":      {authorization("client_id", "none", "redirect_uri", ""), nil, 400, "invalid_request", "redirect_uri must be specified"},
		"redirect_uri omitted, loopback":  {authorization("client_id", "loopback", "redirect_uri", ""), nil, 400, "invalid_request", "redirect_uri must be specified"},
		"policy of today":                 {authorization("client_id", "old", "redirect_uri", "http://app.example.com/cb"), nil, 400, "invalid_request", "does not allow"},
		"invalid escape":                  {authorization() + "&x=%", nil, 400, "invalid_request", "percent escape"},
		"CRLF in state":                   {authorization("state", "a\r\nSet-Cookie: a=b"), nil, 400, "invalid_request", "control character"},
		"NUL in scope":                    {authorization("scope", "a\x00"), nil, 400, "invalid_request", "control character"},
		"query over 16 KiB":               {authorization("x", strings.Repeat("a", 16<<10)), nil, 400, "invalid_request", "longer than 16384"},
	} {
		t.Run(name, func(t *testing.T) {
			storeErr = row.storeErr
			a := s.do("GET", "/authorize?"+row.query, "")
			code, description := a.oauthError(t)
			if a.Status != row.status || code != row.code || !strings.Contains(description, row.contains) {
				t.Errorf("%d %s: %s", a.Status, code, description)
			}
			if a.Header.Get("Location") != "" {
				t.Errorf("redirected to %s", a.Header.Get("Location"))
			}
		})
	}
}

// SDK 2.2 with the rules of the issue: exact, or loopback with any port.
func TestAuthorizeRedirectURIMatch(t *testing.T) {
	s := newSite(t)
	s.addClient(&oauth.Client{
		ClientInformation: oauth.ClientInformation{ClientID: "many"},
		ClientMetadata: oauth.ClientMetadata{RedirectURIs: []string{
			"http://localhost/cb", "http://127.0.0.1:1234/cb", "https://a.example/cb", "http://localhost/q?x=1", "cursor://anysphere.cursor-mcp/cb",
		}},
	})
	for uri, want := range map[string]bool{
		"http://localhost/cb":              true,
		"http://localhost:9999/cb":         true,
		"http://127.0.0.1:9999/cb":         true,
		"http://127.0.0.1/cb":              true,
		"http://localhost:1/q?x=1":         true,
		"https://a.example/cb":             true,
		"cursor://anysphere.cursor-mcp/cb": true,

		"http://localhost:9999/cb#f":          false, // the SDK keeps the fragment
		"http://u:p@localhost:9999/cb":        false, // the SDK ignores userinfo
		"HTTP://LOCALHOST:9999/cb":            false,
		"http://localhost/x/../cb":            false,
		"http://[::1]/cb":                     false,
		"https://localhost/cb":                false,
		"http://localhost/CB":                 false,
		"http://localhost/cb?x=1":             false,
		"http://localhost/q?x=2":              false,
		"http://localhost.evil.example/cb":    false,
		"http://localhost:80@evil.example/cb": false,
		"https://A.example/cb":                false,
		"https://a.example:443/cb":            false,
		"https://a.example/cb/":               false,
		"https://a.example/cb?":               false,
		"https://a.example.evil.example/cb":   false,
		"https://a.example/cb\\@evil.example": false,
		"cursor://anysphere.cursor-mcp:1/cb":  false,
		"javascript:alert(1)":                 false,
	} {
		a := s.do("GET", "/authorize?"+authorization("client_id", "many", "redirect_uri", uri), "")
		if got := a.Status == 302; got != want {
			t.Errorf("%s: %d %s", uri, a.Status, a.Body)
		}
		if want && !strings.HasPrefix(a.Header.Get("Location"), uri) {
			t.Errorf("%s: redirected to %s", uri, a.Header.Get("Location"))
		}
	}
}

func TestAuthorizeUsesTheOnlyRedirectURI(t *testing.T) {
	var got authserver.AuthorizationParams
	s := newSite(t, recordParams(&got))
	s.do("GET", "/authorize?"+authorization("redirect_uri", ""), "")
	if got.RedirectURI != callback || !got.RedirectURIOmitted {
		t.Errorf("%+v", got)
	}
}

// recordParams makes the provider record what it is called with.
func recordParams(got *authserver.AuthorizationParams) func(*authserver.Config, *scripted) {
	return func(_ *authserver.Config, p *scripted) {
		p.authorize = func(w http.ResponseWriter, r *http.Request, c *oauth.Client, params authserver.AuthorizationParams) error {
			*got = params
			return p.memory.Authorize(w, r, c, params)
		}
	}
}

// SDK 2.3, with state always, iss, and the codes of RFC 6749 §4.1.2.1.
func TestAuthorizeRedirectErrors(t *testing.T) {
	resources, err := oauth.NewResourceSet([]string{"https://auth.example.com/mcp"}, -1)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(c *authserver.Config, _ *scripted) { c.Resources = resources })
	s.addClient(&oauth.Client{
		ClientInformation: oauth.ClientInformation{ClientID: "machine"},
		ClientMetadata:    oauth.ClientMetadata{RedirectURIs: []string{callback}, GrantTypes: []string{"client_credentials"}},
	})
	s.addClient(&oauth.Client{
		ClientInformation: oauth.ClientInformation{ClientID: "tokens"},
		ClientMetadata:    oauth.ClientMetadata{RedirectURIs: []string{callback}, ResponseTypes: []string{"token"}},
	})
	for name, row := range map[string]struct {
		query, code, contains string
	}{
		"response_type missing":             {authorization("response_type", ""), "invalid_request", "response_type is required"},
		"response_type token":               {authorization("response_type", "token"), "unsupported_response_type", "code"},
		"response_type code token":          {authorization("response_type", "code token"), "unsupported_response_type", "code"},
		"response_mode fragment":            {authorization("response_mode", "fragment"), "invalid_request", "response_mode"},
		"code_challenge missing":            {authorization("code_challenge", ""), "invalid_request", "code_challenge is required"},
		"code_challenge ill-formed":         {authorization("code_challenge", "short"), "invalid_request", "43 characters"},
		"code_challenge repeated":           {authorization() + "&code_challenge=" + oauth.ChallengeS256(verifier), "invalid_request", "code_challenge is repeated"},
		"code_challenge_method plain":       {authorization("code_challenge_method", "plain"), "invalid_request", "must be S256"},
		"code_challenge_method missing":     {authorization("code_challenge_method", ""), "invalid_request", "must be S256"},
		"code_challenge_method case counts": {authorization("code_challenge_method", "s256"), "invalid_request", "must be S256"},
		"scope repeated":                    {authorization() + "&scope=a&scope=b", "invalid_request", "scope is repeated"},
		"scope ill-formed":                  {authorization("scope", `a "b"`), "invalid_scope", "character"},
		"resource repeated":                 {authorization() + "&resource=https://auth.example.com/mcp&resource=https://auth.example.com/mcp", "invalid_request", "resource is repeated"},
		"resource unknown":                  {authorization("resource", "https://other.example/mcp"), "invalid_target", "resource"},
		"resource relative":                 {authorization("resource", "/mcp"), "invalid_target", "resource"},
		"resource with fragment":            {authorization("resource", "https://auth.example.com/mcp#x"), "invalid_target", "fragment"},
		"client without the grant":          {authorization("client_id", "machine"), "unauthorized_client", "authorization_code"},
		"client without the response type":  {authorization("client_id", "tokens"), "unauthorized_client", "code"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do("GET", "/authorize?"+row.query, "")
			q := a.location(t)
			if q.Get("error") != row.code || !strings.Contains(q.Get("error_description"), row.contains) {
				t.Errorf("%s: %s", q.Get("error"), q.Get("error_description"))
			}
			if q.Get("state") != "xyz" || q.Get("iss") != issuer {
				t.Errorf("state %q, iss %q", q.Get("state"), q.Get("iss"))
			}
			if !strings.HasPrefix(a.Header.Get("Location"), callback+"?") || a.Header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("%v", a.Header)
			}
		})
	}
}

func TestAuthorizeState(t *testing.T) {
	s := newSite(t)
	for name, row := range map[string]struct{ query, wantState, wantError string }{
		"comes back unchanged": {authorization("state", "a b+c&d=é%"), "a b+c&d=é%", ""},
		"absent":               {authorization("state", ""), "", ""},
		"of 2 KiB":             {authorization("state", strings.Repeat("a", 2048)), strings.Repeat("a", 2048), ""},
		"over 2 KiB":           {authorization("state", strings.Repeat("a", 2049)), "", "invalid_request"},
		"repeated":             {authorization() + "&state=other", "", "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			q := s.do("GET", "/authorize?"+row.query, "").location(t)
			if q.Get("state") != row.wantState || q.Get("error") != row.wantError {
				t.Errorf("%v", q)
			}
			if _, there := q["state"]; there != (row.wantState != "") {
				t.Errorf("state is there: %v", there)
			}
		})
	}
}

// SDK 2.3: errors of the provider go to the redirect URI.
func TestAuthorizeProviderErrors(t *testing.T) {
	var providerErr error
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.authorize = func(http.ResponseWriter, *http.Request, *oauth.Client, authserver.AuthorizationParams) error {
			return providerErr
		}
	})
	for name, row := range map[string]struct {
		err  error
		want url.Values
	}{
		"OAuth error": {
			oauth.ErrAccessDenied.Describe("not you").WithURI("https://auth.example.com/why"),
			url.Values{"error": {"access_denied"}, "error_description": {"not you"}, "error_uri": {"https://auth.example.com/why"}, "state": {"xyz"}, "iss": {issuer}},
		},
		"custom code without description": {
			oauth.NewError("interaction_required", ""),
			url.Values{"error": {"interaction_required"}, "state": {"xyz"}, "iss": {issuer}},
		},
		"any other error hides its text": {
			errors.New("password is hunter2"),
			url.Values{"error": {"server_error"}, "error_description": {"Internal Server Error"}, "state": {"xyz"}, "iss": {issuer}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			providerErr = row.err
			if diff := cmp.Diff(row.want, s.do("GET", "/authorize?"+authorization(), "").location(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// RFC 9207: iss on success and error, unless the provider says otherwise.
func TestAuthorizeIss(t *testing.T) {
	for name, row := range map[string]struct {
		noIss bool
		want  []string
	}{
		"supported":     {false, []string{issuer}},
		"not supported": {true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(_ *authserver.Config, p *scripted) { p.noIss = row.noIss })
			for _, query := range []string{authorization(), authorization("response_type", "")} {
				if diff := cmp.Diff(row.want, s.do("GET", "/authorize?"+query, "").location(t)["iss"]); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// SDK 2.4: what reaches the provider.
func TestAuthorizeParams(t *testing.T) {
	resources, err := oauth.NewResourceSet([]string{"https://auth.example.com/mcp", "https://auth.example.com/other"}, -1)
	if err != nil {
		t.Fatal(err)
	}
	var got authserver.AuthorizationParams
	full := authorization("scope", " mcp:read  offline_access mcp:read", "resource", "https://AUTH.example.com:443/mcp/", "prompt", "consent",
		"nonce", "n", "login_hint", "alice", "max_age", "60", "ui_locales", "de", "acr_values", "high", "unknown", "x", "response_mode", "query")
	want := authserver.AuthorizationParams{
		State: "xyz", Scopes: []string{"mcp:read", "offline_access"}, RedirectURI: callback,
		CodeChallenge: oauth.ChallengeS256(verifier), Resource: "https://auth.example.com/mcp", Issuer: issuer,
		Prompt: "consent", Nonce: "n", LoginHint: "alice", MaxAge: "60", UILocales: "de", ACRValues: "high",
	}
	s := newSite(t, recordParams(&got), func(c *authserver.Config, _ *scripted) { c.Resources = resources })

	s.do("GET", "/authorize?"+full, "")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("GET: %s", diff)
	}
	got = authserver.AuthorizationParams{}
	// The query of a POST does not count.
	if a := s.postForm("/authorize?client_id=nobody&scope=evil", full); a.Status != 302 {
		t.Errorf("POST: %d %s", a.Status, a.Body)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("POST: %s", diff)
	}
	s.do("GET", "/authorize?"+authorization(), "")
	if got.Scopes != nil || got.Resource != "" {
		t.Errorf("absent scope and resource: %+v", got)
	}
}

// Without a ResourceSet the resource is passed on verbatim.
func TestAuthorizeResourceVerbatim(t *testing.T) {
	var got authserver.AuthorizationParams
	s := newSite(t, recordParams(&got))
	const resource = "https://MCP.example.com/"
	if s.do("GET", "/authorize?"+authorization("resource", resource), ""); got.Resource != resource {
		t.Errorf("resource %q", got.Resource)
	}
	for _, bad := range []string{"/mcp", "mcp", "https://mcp.example.com/#", "%"} {
		if code := s.do("GET", "/authorize?"+authorization("resource", bad), "").location(t).Get("error"); code != "invalid_target" {
			t.Errorf("%s: %q", bad, code)
		}
	}
}

// People get a page, programs JSON; the page holds nothing that was sent.
func TestAuthorizeErrorPage(t *testing.T) {
	s := newSite(t)
	const evil = `"><script>alert(1)</script>`
	a := s.do("GET", "/authorize?"+authorization("client_id", evil, "state", evil), "", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	if a.Status != 400 || a.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v", a.Status, a.Header)
	}
	for _, want := range []string{"remove this server and add it again", "invalid_client"} {
		if !strings.Contains(a.Body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(a.Body, "script") {
		t.Error("the page repeats the request")
	}
	if csp := a.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'nonce-") || !strings.Contains(csp, "frame-ancestors 'none'") {
		t.Errorf("CSP %q", csp)
	}
	if a := s.do("GET", "/authorize?client_id=nobody", "", "Accept", "*/*"); a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("*/*: %v", a.Header)
	}
}

// Trouble of this server is shown as such, with when to come back.
func TestAuthorizeTroublePage(t *testing.T) {
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.store = storeFunc(func(string) (*oauth.Client, error) { return nil, oauth.ErrTemporarilyUnavailable })
	})
	a := s.do("GET", "/authorize?"+authorization(), "", "Accept", "text/html")
	if a.Status != 503 || a.Header.Get("Retry-After") == "" || a.Header.Get("Vary") != "Accept" ||
		!strings.Contains(a.Body, "Something went wrong on this server") {
		t.Errorf("%d %v %s", a.Status, a.Header, a.Body)
	}
}

type preregistered struct{ *memory }

func (preregistered) Preregistered(c *oauth.Client) bool { return c.ClientID == "trusted" }

// Clients that the operator wrote down are not held to the policy, but no
// scheme that runs code is ever used.
func TestPreregisteredRedirectURI(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, p *scripted) {
		p.store = preregistered{p.memory}
		c.RedirectPolicy = &oauth.RedirectPolicy{NoPrivateSchemes: true}
	})
	uris := []string{"http://intranet/cb", "myapp:/cb", "javascript:alert(1)//", "data:text/html,x", "https://app.example.com/cb#f"}
	for _, id := range []string{"trusted", "stranger"} {
		s.addClient(&oauth.Client{ClientInformation: oauth.ClientInformation{ClientID: id}, ClientMetadata: oauth.ClientMetadata{RedirectURIs: uris}})
		for i, uri := range uris {
			want := 400
			if id == "trusted" && i < 2 {
				want = 302
			}
			if a := s.do("GET", "/authorize?"+authorization("client_id", id, "redirect_uri", uri), ""); a.Status != want {
				t.Errorf("%s %s: %d %s", id, uri, a.Status, a.Body)
			}
		}
	}
}

func TestRedirectKeepsTheQueryOfTheURI(t *testing.T) {
	p := authserver.AuthorizationParams{RedirectURI: "https://app.example.com/cb?a=b%20c", State: "s", Issuer: issuer}
	got, err := p.SuccessURL("code/1")
	if want := "https://app.example.com/cb?a=b%20c&code=code%2F1&state=s&iss=https%3A%2F%2Fauth.example.com"; err != nil || got != want {
		t.Errorf("%s %v", got, err)
	}
}

func TestRedirectEscapesItsBody(t *testing.T) {
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.authorize = func(w http.ResponseWriter, r *http.Request, _ *oauth.Client, _ authserver.AuthorizationParams) error {
			authserver.Redirect(w, r, r.FormValue("login_hint"))
			return nil
		}
	})
	a := s.do("GET", "/authorize?"+authorization("login_hint", `https://a.example/"><script>`), "")
	if strings.Contains(a.Body, "<script>") || a.Header.Get("Location") != `https://a.example/"><script>` {
		t.Errorf("%v %s", a.Header, a.Body)
	}
	if a := s.do("GET", "/authorize?"+authorization(), ""); a.Status != 500 || a.Header.Get("Location") != "" {
		t.Errorf("empty location: %d %v", a.Status, a.Header)
	}
}
