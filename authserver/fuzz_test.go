package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// unlimited is for fuzzing, where every request comes from one address.
func unlimited(c *authserver.Config, _ *scripted) { c.RateLimits.Off = true }

// Whatever the query, the browser is sent to a registered URI or nowhere, and
// no header is broken.
func FuzzAuthorizeQuery(f *testing.F) {
	f.Add(authorization())
	f.Add(authorization("client_id", "two", "redirect_uri", "https://app.example.com/other"))
	f.Add(authorization("client_id", "loopback", "redirect_uri", "http://localhost:1234/cb"))
	f.Add(authorization("redirect_uri", ""))
	f.Add(authorization("redirect_uri", "https://app.example.com/cb@evil.example"))
	f.Add(authorization("response_type", "token", "state", "é\u2028"))
	f.Add(authorization() + "&redirect_uri=https://evil.example")
	f.Add("client_id=public&state=%0d%0aX:y")
	f.Add("client_id=loopback&redirect_uri=http://localhost:1@evil.example/cb")
	s := newSite(f, unlimited)
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/authorize", nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		s.server.ServeHTTP(w, r)
		for name, values := range w.Header() {
			for _, v := range values {
				if strings.ContainsFunc(v, unicode.IsControl) {
					t.Fatalf("%s: %q", name, v)
				}
			}
		}
		location := w.Header().Get("Location")
		if (location != "") != (w.Code == http.StatusFound) {
			t.Fatalf("%d with Location %q", w.Code, location)
		}
		if location == "" {
			if w.Code < 400 || !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			return
		}
		u, err := url.Parse(location)
		if err != nil {
			t.Fatal(err)
		}
		if u.Query().Get("iss") != issuer || u.Query().Has("code") == u.Query().Has("error") {
			t.Fatalf("%s", location)
		}
		u.RawQuery = ""
		switch target := u.String(); target {
		case callback, "https://app.example.com/other":
		default:
			if u.Scheme != "http" || u.Hostname() != "localhost" || u.Path != "/cb" || u.User != nil || u.Fragment != "" {
				t.Fatalf("sent to %s", target)
			}
		}
	})
}

// Whatever the document, the answer is OAuth JSON, and what is registered is
// within the policy.
func FuzzRegister(f *testing.F) {
	f.Add(`{"redirect_uris":["https://app.example.com/cb"]}`)
	f.Add(`{"redirect_uris":["http://evil.example","cursor://a/cb","http://localhost/cb"],"client_name":"\u202ex","token_endpoint_auth_method":"none"}`)
	f.Add(`{"redirect_uris":["https://app.example.com/cb"],"grant_types":["implicit","authorization_code"],"client_id":"x","client_secret":"x","scope":" a  b"}`)
	f.Add(`{"redirect_uris":null,"logo_uri":"javascript:x","jwks":{"keys":[]}}`)
	f.Add(`[]`)
	f.Add(`{"redirect_uris":["https://a.example/cb"],"Redirect_URIs":["javascript:x"]}`)
	s := newSite(f, unlimited, func(_ *authserver.Config, p *scripted) {
		p.store = registrarFunc(func(c *oauth.Client) (*oauth.Client, error) { return c, nil })
	})
	policy := (*oauth.RedirectPolicy)(nil)
	f.Fuzz(func(t *testing.T, document string) {
		r := httptest.NewRequest("POST", "/register", strings.NewReader(document))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.server.ServeHTTP(w, r)
		if w.Code != http.StatusCreated {
			var e oauth.Error
			if (w.Code != 400 && w.Code != 413) || json.Unmarshal(w.Body.Bytes(), &struct {
				Code *string `json:"error"`
			}{&e.Code}) != nil || e.Code == "" {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			return
		}
		var c oauth.Client
		if err := json.Unmarshal(w.Body.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if len(c.ClientID) != 32 || len(c.RedirectURIs) == 0 || c.Extra != nil || !c.AllowsGrant(oauth.GrantTypeAuthorizationCode) {
			t.Fatalf("%s", w.Body)
		}
		if (c.ClientSecret == "") != (c.TokenEndpointAuthMethod == oauth.AuthMethodNone) {
			t.Fatalf("%s", w.Body)
		}
		for _, uri := range c.RedirectURIs {
			if err := policy.Check(uri, c.ApplicationType); err != nil {
				t.Fatal(err)
			}
		}
		if strings.ContainsFunc(c.ClientName, unicode.IsControl) || strings.ContainsAny(c.ClientName, "\u202a\u202b\u202d\u202e\u2066\u2067\u2068") {
			t.Fatalf("client_name %q", c.ClientName)
		}
	})
}
