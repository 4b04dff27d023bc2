package idp_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/idp"
)

func TestOIDCSignIn(t *testing.T) {
	w := newWorld(t)
	w.discovered(issuer, issuer, nil)
	w.answer(issuer+"/token", 200, w.tokens(w.idToken(idClaims(issuer, object{
		"email": "alice@example.com", "email_verified": true, "name": "Alice\nExample", "groups": []string{"eng", "ops", "eng"},
		"preferred_username": "alice", "picture": "not kept",
	}))))
	u := w.oidc(nil)
	if w.count(issuer+"/.well-known/openid-configuration") != 0 {
		t.Error("the constructor did I/O")
	}

	place, q := authorize(t, u, request())
	if place != issuer+"/authorize" || q.Get("scope") != "openid profile email" || q.Get("nonce") != nonce {
		t.Errorf("authorization URL %s %v", place, q)
	}
	id, tokens := exchange(t, u)
	if diff := cmp.Diff(&idp.Identity{
		Issuer: issuer, Subject: "user-1", Email: "alice@example.com", EmailVerified: true, Name: "Alice Example",
		Groups: []string{"eng", "ops"}, Claims: map[string]any{"preferred_username": "alice"},
	}, id); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(&idp.Tokens{AccessToken: access, RefreshToken: refresh, Expiry: clock.Add(time.Hour), Scope: "openid email"}, tokens); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(url.Values{
		"grant_type": {"authorization_code"}, "code": {"code-1"}, "redirect_uri": {callback}, "code_verifier": {verifier},
	}, w.form(issuer+"/token")); diff != "" {
		t.Error(diff)
	}
	header := w.header(issuer + "/token")
	r := http.Request{Header: header}
	name, password, _ := r.BasicAuth()
	if name != clientID || password != url.QueryEscape(secret) { // RFC 6749 §2.3.1
		t.Errorf("basic authentication %q %q", name, password)
	}
	if header.Get("Accept") != "application/json" {
		t.Errorf("Accept %q", header.Get("Accept"))
	}
	if w.count(issuer+"/userinfo") != 0 {
		t.Error("userinfo was asked although the id_token has the mail address")
	}
}

func TestClientAuthentication(t *testing.T) {
	for _, test := range []struct {
		name    string
		methods []string
		change  func(*idp.OIDCOptions)
		want    string
	}{
		{"nothing announced is basic", nil, nil, "basic"},
		{"only post announced", []string{"client_secret_post"}, nil, "post"},
		{"both announced is basic", []string{"client_secret_post", "client_secret_basic"}, nil, "basic"},
		{"the option wins", []string{"client_secret_basic"}, func(o *idp.OIDCOptions) { o.ClientAuth = "post" }, "post"},
		{"no secret is public", []string{"client_secret_basic"}, func(o *idp.OIDCOptions) { o.ClientSecret = "" }, "none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			methods := object{"token_endpoint_auth_methods_supported": nil}
			if test.methods != nil {
				methods["token_endpoint_auth_methods_supported"] = test.methods
			}
			w.discovered(issuer, issuer, methods)
			w.answer(issuer+"/token", 200, w.tokens(w.idToken(idClaims(issuer, object{"email": "a@example.com"}))))
			exchange(t, w.oidc(test.change))
			form, basic := w.form(issuer+"/token"), w.header(issuer+"/token").Get("Authorization") != ""
			got := "none"
			switch {
			case basic && !form.Has("client_secret"):
				got = "basic"
			case form.Get("client_secret") == secret && form.Get("client_id") == clientID && !basic:
				got = "post"
			case basic || form.Has("client_secret") || form.Get("client_id") != clientID:
				got = "wrong"
			}
			if got != test.want {
				t.Errorf("%s, want %s: %v", got, test.want, form)
			}
		})
	}
}

func TestScopes(t *testing.T) {
	for _, test := range []struct {
		name      string
		supported []string
		scopes    []string
		minimal   bool
		want      string
	}{
		{"the default", nil, nil, false, "openid profile email"},
		{"offline_access where it is listed", []string{"openid", "offline_access"}, nil, false, "openid profile email offline_access"},
		{"configured scopes stand", []string{"offline_access"}, []string{"openid", "api"}, false, "openid api"},
		{"openid is always there", nil, []string{"email"}, false, "openid email"},
		{"minimal", []string{"offline_access"}, []string{"openid", "email", "groups", "api", "offline_access"}, true, "openid email groups"},
		{"minimal by default", []string{"offline_access"}, nil, true, "openid profile email"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.discovered(issuer, issuer, object{"scopes_supported": test.supported})
			r := request()
			r.MinimalScope = test.minimal
			_, q := authorize(t, w.oidc(func(o *idp.OIDCOptions) { o.Scopes = test.scopes }), r)
			if q.Get("scope") != test.want {
				t.Errorf("scope %q, want %q", q.Get("scope"), test.want)
			}
		})
	}
}

func TestAuthorizationURLKeepsWhatIsConfigured(t *testing.T) {
	w := newWorld(t)
	w.discovered(issuer, issuer, object{"authorization_endpoint": issuer + "/authorize?realm=staff&state=evil"})
	u := w.oidc(func(o *idp.OIDCOptions) { o.Params = map[string]string{"audience": "api", "prompt": "consent"} })
	r := request()
	r.LoginHint = "alice@example.com"
	_, q := authorize(t, u, r) // checks state
	if q.Get("realm") != "staff" || q.Get("audience") != "api" || q.Get("prompt") != "consent" || q.Get("login_hint") != r.LoginHint {
		t.Errorf("%v", q)
	}
	r.Prompt = "login"
	if _, q = authorize(t, u, r); q.Get("prompt") != "login" {
		t.Errorf("the request's prompt does not win: %v", q)
	}
}

func TestAuthorizationURLRefusesAnIncompleteRequest(t *testing.T) {
	w := newWorld(t)
	w.discovered(issuer, issuer, nil)
	u := w.oidc(nil)
	for name, change := range map[string]func(*idp.AuthRequest){
		"no state":        func(r *idp.AuthRequest) { r.State = "" },
		"no nonce":        func(r *idp.AuthRequest) { r.Nonce = "" },
		"no redirect URI": func(r *idp.AuthRequest) { r.RedirectURI = "" },
		"short verifier":  func(r *idp.AuthRequest) { r.CodeVerifier = "short" },
	} {
		r := request()
		change(&r)
		if address, err := u.AuthorizationURL(t.Context(), r); kind(t, err) != "trouble" {
			t.Errorf("%s: %s, %v", name, address, err)
		}
	}
}

func TestUserInfoFillsInWhatTheIDTokenLacks(t *testing.T) {
	for _, test := range []struct {
		name            string
		inToken, atInfo object
		groups          bool
		status          int
		wantAsked       bool
		want            *idp.Identity
		wantKind        string
		noEndpoint      bool
	}{
		{
			name: "mail", inToken: object{"name": "Signed"}, status: 200, wantAsked: true,
			atInfo: object{"sub": "user-1", "email": "a@example.com", "email_verified": true, "name": "Unsigned"},
			want:   &idp.Identity{Issuer: issuer, Subject: "user-1", Email: "a@example.com", EmailVerified: true, Name: "Signed"},
		},
		{
			name: "an email_verified without an address is not borrowed", inToken: object{"email_verified": true}, status: 200, wantAsked: true,
			atInfo: object{"sub": "user-1", "email": "a@example.com"},
			want:   &idp.Identity{Issuer: issuer, Subject: "user-1", Email: "a@example.com"},
		},
		{
			name: "groups if they are needed", inToken: object{"email": "a@example.com"}, groups: true, status: 200, wantAsked: true,
			atInfo: object{"sub": "user-1", "groups": []string{"eng"}, "email": "b@example.com", "email_verified": true},
			want:   &idp.Identity{Issuer: issuer, Subject: "user-1", Email: "a@example.com", Groups: []string{"eng"}},
		},
		{
			name: "not for groups that nobody needs", inToken: object{"email": "a@example.com"}, status: 200,
			atInfo: object{"sub": "user-1", "groups": []string{"eng"}},
			want:   &idp.Identity{Issuer: issuer, Subject: "user-1", Email: "a@example.com"},
		},
		{
			name: "another subject", inToken: object{}, status: 200, wantAsked: true,
			atInfo: object{"sub": "user-2", "email": "a@example.com"}, wantKind: "trouble",
		},
		{name: "no subject", inToken: object{}, status: 200, wantAsked: true, atInfo: object{"email": "a@example.com"}, wantKind: "trouble"},
		{name: "it is down", inToken: object{}, status: 503, wantAsked: true, atInfo: object{}, wantKind: "trouble"},
		{name: "it refuses the token", inToken: object{}, status: 401, wantAsked: true, atInfo: object{}, wantKind: "dead"},
		{name: "there is none", inToken: object{}, noEndpoint: true, want: &idp.Identity{Issuer: issuer, Subject: "user-1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			more := object{}
			if test.noEndpoint {
				more["userinfo_endpoint"] = nil
			}
			w.discovered(issuer, issuer, more)
			w.answer(issuer+"/token", 200, w.tokens(w.idToken(idClaims(issuer, test.inToken))))
			w.answer(issuer+"/userinfo", test.status, test.atInfo)
			u := w.oidc(func(o *idp.OIDCOptions) { o.Groups = test.groups })
			id, _, err := u.Exchange(t.Context(), back("code=code-1"))
			if kind(t, err) != test.wantKind {
				t.Fatalf("error %v, want %s", err, test.wantKind)
			}
			if diff := cmp.Diff(test.want, id); diff != "" {
				t.Error(diff)
			}
			if asked := w.count(issuer+"/userinfo") > 0; asked != test.wantAsked {
				t.Errorf("asked %t", asked)
			}
			if test.wantAsked && w.header(issuer+"/userinfo").Get("Authorization") != "Bearer "+access {
				t.Error("userinfo was asked without the access token")
			}
		})
	}
}

func TestRefresh(t *testing.T) {
	old := idp.Tokens{AccessToken: "access-0", RefreshToken: "refresh-0", Scope: "openid email"}
	for _, test := range []struct {
		name       string
		answer     func(w *world) object
		wantID     string
		wantTokens *idp.Tokens
		wantKind   string
	}{
		{
			name: "a rotated refresh token and an id_token without nonce",
			answer: func(w *world) object {
				return w.tokens(w.idToken(idClaims(issuer, object{"nonce": nil, "email": "a@example.com"})))
			},
			wantID:     "user-1",
			wantTokens: &idp.Tokens{AccessToken: access, RefreshToken: refresh, Expiry: clock.Add(time.Hour), Scope: "openid email"},
		},
		{
			name:       "what is omitted stays",
			answer:     func(*world) object { return object{"access_token": access, "token_type": "bearer"} },
			wantTokens: &idp.Tokens{AccessToken: access, RefreshToken: "refresh-0", Scope: "openid email"},
		},
		{
			name: "a bad id_token: the rotated tokens are not lost",
			answer: func(w *world) object {
				return w.tokens(w.idToken(idClaims("https://evil.example.com", nil)))
			},
			wantTokens: &idp.Tokens{AccessToken: access, RefreshToken: refresh, Expiry: clock.Add(time.Hour), Scope: "openid email"},
			wantKind:   "trouble",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.discovered(issuer, issuer, nil)
			w.answer(issuer+"/token", 200, test.answer(w))
			id, tokens, err := w.oidc(nil).Refresh(t.Context(), old)
			if kind(t, err) != test.wantKind {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(test.wantTokens, tokens); diff != "" {
				t.Error(diff)
			}
			if test.wantID == "" && id != nil || test.wantID != "" && (id == nil || id.Subject != test.wantID) {
				t.Errorf("identity %v", id)
			}
			if diff := cmp.Diff(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"refresh-0"}}, w.form(issuer+"/token")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUserInfo(t *testing.T) {
	w := newWorld(t)
	w.discovered(issuer, issuer, nil)
	w.answer(issuer+"/userinfo", 200, object{"sub": "user-1", "email": "a@example.com", "email_verified": "true"})
	u := w.oidc(nil)
	id, err := u.UserInfo(t.Context(), idp.Tokens{AccessToken: access})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&idp.Identity{Issuer: issuer, Subject: "user-1", Email: "a@example.com", EmailVerified: true}, id); diff != "" {
		t.Error(diff)
	}
	asked := w.count(issuer + "/userinfo")
	expired := clock.Add(-time.Second)
	if _, err := u.UserInfo(t.Context(), idp.Tokens{AccessToken: access, Expiry: expired}); kind(t, err) != "dead" {
		t.Errorf("an expired token and no refresh token: %v", err)
	}
	if _, err := u.UserInfo(t.Context(), idp.Tokens{AccessToken: access, RefreshToken: refresh, Expiry: expired}); kind(t, err) != "trouble" {
		t.Errorf("an expired token that could be refreshed: %v", err)
	}
	if w.count(issuer+"/userinfo") != asked {
		t.Error("the provider was asked with an expired token")
	}
	for status, want := range map[int]string{401: "dead", 403: "trouble", 429: "trouble", 500: "trouble", 302: "trouble", 404: "trouble"} {
		w.answer(issuer+"/userinfo", status, object{})
		if _, err := u.UserInfo(t.Context(), idp.Tokens{AccessToken: access, Expiry: clock.Add(time.Minute)}); kind(t, err) != want {
			t.Errorf("%d: %v, want %s", status, err, want)
		}
	}
}

func TestRevoke(t *testing.T) {
	for _, test := range []struct {
		name   string
		tokens idp.Tokens
		status int
		body   any
		want   string // token and hint
		kind   string
	}{
		{"the refresh token", idp.Tokens{AccessToken: access, RefreshToken: refresh}, 200, "", "refresh-1 refresh_token", ""},
		{"the access token if there is no other", idp.Tokens{AccessToken: access}, 200, "", "access-1 access_token", ""},
		{"gone already", idp.Tokens{RefreshToken: refresh}, 400, object{"error": "invalid_token"}, "refresh-1 refresh_token", ""},
		{"refused", idp.Tokens{RefreshToken: refresh}, 401, object{"error": "invalid_client"}, "refresh-1 refresh_token", "trouble"},
		{"down", idp.Tokens{RefreshToken: refresh}, 502, "<html>", "refresh-1 refresh_token", "trouble"},
		{"nothing to revoke", idp.Tokens{}, 200, "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.discovered(issuer, issuer, nil)
			w.answer(issuer+"/revoke", test.status, test.body)
			if err := w.oidc(nil).Revoke(t.Context(), test.tokens); kind(t, err) != test.kind {
				t.Errorf("error %v", err)
			}
			if test.want == "" {
				if w.count(issuer+"/revoke") != 0 {
					t.Error("asked")
				}
				return
			}
			form := w.form(issuer + "/revoke")
			if got := form.Get("token") + " " + form.Get("token_type_hint"); got != test.want {
				t.Errorf("%s", got)
			}
		})
	}
	w := newWorld(t)
	w.discovered(issuer, issuer, object{"revocation_endpoint": nil})
	if err := w.oidc(nil).Revoke(t.Context(), idp.Tokens{RefreshToken: refresh}); err != nil {
		t.Errorf("no endpoint: %v", err)
	}
}

func TestGroupsAndClaimsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.discovered(issuer, issuer, nil)
	groups := []any{"first", "", 7, "bad\x01", strings.Repeat("g", 257)}
	for range 600 {
		groups = append(groups, fmt.Sprint("group ", len(groups)))
	}
	long := map[string]any{"big": strings.Repeat("x", 2000), "small": "s", "n": 12345678901234567, "o": object{"p": true}}
	w.answer(issuer+"/token", 200, w.tokens(w.idToken(idClaims(issuer, object{
		"email": "a@b@example.com", "name": strings.Repeat("é", 300), "groups": groups, "x": long,
	}))))
	w.answer(issuer+"/userinfo", 200, object{"sub": "user-1"})
	id, _ := exchange(t, w.oidc(func(o *idp.OIDCOptions) { o.Claims = []string{"x.big", "x.small", "x.n", "x.o", "none", "x"} }))
	if len(id.Groups) != 500 || id.Groups[0] != "first" || len(id.Name) > 256 || id.Email != "" {
		t.Errorf("%d groups, name of %d, email %q", len(id.Groups), len(id.Name), id.Email)
	}
	for _, g := range id.Groups {
		if g == "" || len(g) > 256 || strings.Contains(g, "\x01") {
			t.Errorf("group %q", g)
		}
	}
	if _, big := id.Claims["x.big"]; big || id.Claims["x.small"] != "s" || len(id.Claims) != 3 {
		t.Errorf("claims %v", id.Claims)
	}
	if !strings.Contains(w.logged(), "groups") {
		t.Error("dropped groups are not logged")
	}
}

func TestConstructorsCheckTheirOptions(t *testing.T) {
	good := idp.Common{ClientID: "c", ClientSecret: "s"}
	for _, test := range []struct {
		name string
		make func() (idp.Upstream, error)
		want string // "" is accepted
	}{
		{"oidc", func() (idp.Upstream, error) { return idp.NewOIDC(idp.OIDCOptions{Common: good, Issuer: issuer}) }, ""},
		{"oidc: no client id", func() (idp.Upstream, error) { return idp.NewOIDC(idp.OIDCOptions{Issuer: issuer}) }, "client_id"},
		{"oidc: no issuer", func() (idp.Upstream, error) { return idp.NewOIDC(idp.OIDCOptions{Common: good}) }, "issuer"},
		{"oidc: http", func() (idp.Upstream, error) {
			return idp.NewOIDC(idp.OIDCOptions{Common: good, Issuer: "http://idp.example.com"})
		}, "https"},
		{"oidc: loopback", func() (idp.Upstream, error) {
			return idp.NewOIDC(idp.OIDCOptions{Common: good, Issuer: "http://localhost:9000"})
		}, ""},
		{"oidc: basic without a secret", func() (idp.Upstream, error) {
			return idp.NewOIDC(idp.OIDCOptions{Common: idp.Common{ClientID: "c", ClientAuth: "basic"}, Issuer: issuer})
		}, "client_secret"},
		{"oidc: unknown authentication", func() (idp.Upstream, error) {
			return idp.NewOIDC(idp.OIDCOptions{Common: idp.Common{ClientID: "c", ClientAuth: "jwt"}, Issuer: issuer})
		}, "basic, post or none"},
		{"oidc: two scopes in one", func() (idp.Upstream, error) {
			return idp.NewOIDC(idp.OIDCOptions{Common: idp.Common{ClientID: "c", Scopes: []string{"a b"}}, Issuer: issuer})
		}, "scope"},
		{"oidc: a parameter of ours", func() (idp.Upstream, error) {
			return idp.NewOIDC(idp.OIDCOptions{Common: idp.Common{ClientID: "c", Params: map[string]string{"redirect_uri": "x"}}, Issuer: issuer})
		}, "redirect_uri"},
		{"oauth2: no userinfo", func() (idp.Upstream, error) {
			return idp.NewOAuth2(idp.OAuth2Options{Common: good, AuthorizationURL: issuer, TokenURL: issuer})
		}, "userinfo_url"},
		{"google: hosted domain", func() (idp.Upstream, error) {
			return idp.NewGoogle(idp.GoogleOptions{Common: good, HostedDomain: "*"})
		}, "domain"},
		{"github: base URL with a path", func() (idp.Upstream, error) {
			return idp.NewGitHub(idp.GitHubOptions{Common: good, BaseURL: "https://github.example.com/api"})
		}, "host only"},
		{"entra: no tenant", func() (idp.Upstream, error) { return idp.NewEntra(idp.EntraOptions{Common: good}) }, "tenant"},
		{"entra: resource", func() (idp.Upstream, error) {
			return idp.NewEntra(idp.EntraOptions{Common: idp.Common{ClientID: "c", Params: map[string]string{"resource": "x"}}, Tenant: "common"})
		}, "resource"},
		{"okta: a URL", func() (idp.Upstream, error) {
			return idp.NewOkta(idp.OktaOptions{Common: good, Domain: "https://example.okta.com"})
		}, "without https"},
		{"okta: a server with a path", func() (idp.Upstream, error) {
			return idp.NewOkta(idp.OktaOptions{Common: good, Domain: "example.okta.com", AuthorizationServer: "a/b"})
		}, "authorization server"},
		{"auth0: no domain", func() (idp.Upstream, error) { return idp.NewAuth0(idp.Auth0Options{Common: good}) }, "domain"},
		{"keycloak: no realm", func() (idp.Upstream, error) {
			return idp.NewKeycloak(idp.KeycloakOptions{Common: good, RealmURL: "https://sso.example.com"})
		}, "/realms/"},
		{"cognito: the hosted UI", func() (idp.Upstream, error) {
			return idp.NewCognito(idp.CognitoOptions{Common: good, PoolURL: "https://example.auth.eu-west-1.amazoncognito.com"})
		}, "not the domain"},
	} {
		t.Run(test.name, func(t *testing.T) {
			u, err := test.make()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || u != nil) {
				t.Errorf("%v, error %v, want %q", u, err, test.want)
			}
		})
	}
}
