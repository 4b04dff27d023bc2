package idp_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/idp"
)

const google = "https://accounts.google.com"

// googleWorld answers as Google does: the endpoints are on other hosts than the
// issuer, scope is repeated in full, and no refresh token comes at refresh.
func googleWorld(t *testing.T, claims object) *world {
	w := newWorld(t)
	w.discovered(google, "https://oauth2.googleapis.com", object{
		"authorization_endpoint":                google + "/o/oauth2/v2/auth",
		"userinfo_endpoint":                     "https://openidconnect.googleapis.com/v1/userinfo",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic"},
		"scopes_supported":                      []string{"openid", "email", "profile"},
	})
	w.answer("oauth2.googleapis.com/token", 200, object{
		"access_token": access, "expires_in": 3599, "token_type": "Bearer", "refresh_token": refresh,
		"scope":    "openid https://www.googleapis.com/auth/userinfo.email https://www.googleapis.com/auth/userinfo.profile",
		"id_token": w.idToken(idClaims(google, object{"azp": clientID, "sub": "110248495921238986420"}.with(claims))),
	})
	return w
}

func TestGoogle(t *testing.T) {
	for _, test := range []struct {
		name     string
		claims   object
		hosted   string
		verified bool
		hd       string
		kind     string
	}{
		{"Workspace", object{"email": "a@example.com", "email_verified": true, "hd": "Example.com"}, "", true, "example.com", ""},
		{"Gmail", object{"email": "a@gmail.com", "email_verified": true}, "", true, "", ""},
		{"a private account with mail elsewhere", object{"email": "a@example.com", "email_verified": true}, "", false, "", ""},
		{"unverified", object{"email": "a@gmail.com", "email_verified": false}, "", false, "", ""},
		{"a domain that ends in gmail.com", object{"email": "a@notgmail.com", "email_verified": true}, "", false, "", ""},
		{"the hosted domain", object{"email": "a@example.com", "email_verified": true, "hd": "example.com"}, "example.com", true, "example.com", ""},
		{"another hosted domain", object{"email": "a@evil.com", "email_verified": true, "hd": "evil.com"}, "example.com", false, "", "denied"},
		{"no hosted domain", object{"email": "a@example.com", "email_verified": true}, "example.com", false, "", "denied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := googleWorld(t, test.claims)
			u := mustUpstream(t)(idp.NewGoogle(idp.GoogleOptions{Common: w.common(), HostedDomain: test.hosted}))
			id, _, err := u.Exchange(t.Context(), back("code=code-1&scope=email+openid&authuser=0&prompt=consent"))
			if kind(t, err) != test.kind {
				t.Fatalf("error %v", err)
			}
			_, _, err = u.Refresh(t.Context(), idp.Tokens{RefreshToken: refresh})
			if test.kind != "" {
				if kind(t, err) != "dead" || errorCode(err) != "access_denied" {
					t.Errorf("refresh of an account that has left the domain: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if id.Issuer != google || id.Subject != "110248495921238986420" || id.EmailVerified != test.verified || id.HostedDomain != test.hd {
				t.Errorf("%+v", id)
			}
		})
	}
}

func TestGoogleAsksForARefreshToken(t *testing.T) {
	w := googleWorld(t, nil)
	u := mustUpstream(t)(idp.NewGoogle(idp.GoogleOptions{Common: w.common(), HostedDomain: "example.com"}))
	for _, test := range []struct {
		name, prompt string
		minimal      bool
		want         []string // access_type and prompt
	}{
		{"always", "", false, []string{"offline", "consent"}},
		{"with a choice of accounts", "select_account", false, []string{"offline", "consent select_account"}},
		{"login is a choice of accounts", "login", false, []string{"offline", "consent select_account"}},
		{"never silently", "none", false, []string{"offline", "none"}},
		{"not for connections", "", true, []string{"", ""}},
		{"not for connections, with a choice", "select_account", true, []string{"", "select_account"}},
	} {
		r := request()
		r.Prompt, r.MinimalScope = test.prompt, test.minimal
		place, q := authorize(t, u, r)
		if diff := cmp.Diff(test.want, []string{q.Get("access_type"), q.Get("prompt")}); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
		if place != google+"/o/oauth2/v2/auth" || q.Get("scope") != "openid email profile" || q.Get("hd") != "example.com" {
			t.Errorf("%s: %s %v", test.name, place, q)
		}
	}
}

func TestGoogleRevocationEndsOtherGrants(t *testing.T) {
	w := googleWorld(t, nil)
	w.answer("oauth2.googleapis.com/revoke", 200, object{})
	u := mustUpstream(t)(idp.NewGoogle(idp.GoogleOptions{Common: w.common()}))
	if err := u.Revoke(t.Context(), idp.Tokens{RefreshToken: refresh}); err != nil || u.Capabilities().Revoke || w.count("oauth2.googleapis.com/revoke") != 0 {
		t.Errorf("revoked all the same: %v", err)
	}
	u = mustUpstream(t)(idp.NewGoogle(idp.GoogleOptions{Common: w.common(), RevokeUpstream: true}))
	if err := u.Revoke(t.Context(), idp.Tokens{RefreshToken: refresh}); err != nil || !u.Capabilities().Revoke || w.count("oauth2.googleapis.com/revoke") != 1 {
		t.Errorf("not revoked: %v", err)
	}
}

const (
	microsoft = "https://login.microsoftonline.com/"
	tenant    = "8f4e1c7a-1111-4222-8333-944455556666"
	consumers = "9188040d-6c67-4c5b-b112-36a304b66dad"
)

func TestEntraTenants(t *testing.T) {
	for _, test := range []struct {
		name, tenant, document string // issuer of the metadata document
		token, tid             string // of the id_token
		want                   string // issuer, "" is refused
		verified               bool
	}{
		{"pinned by id", tenant, tenant, tenant, tenant, tenant, true},
		{"pinned by domain", "example.onmicrosoft.com", tenant, tenant, tenant, tenant, true},
		{"pinned, a token of another tenant", tenant, tenant, consumers, consumers, "", false},
		{"pinned, the document of another tenant", tenant, consumers, tenant, tenant, "", false},
		{"pinned, a template", tenant, "{tenantid}", tenant, tenant, "", false},
		{"common", "common", "{tenantid}", tenant, tenant, tenant, false},
		{"common, personal", "common", "{tenantid}", consumers, consumers, consumers, false},
		{"common, tid and iss differ", "common", "{tenantid}", tenant, consumers, "", false},
		{"common, no tid", "common", "{tenantid}", tenant, "", "", false},
		{"common, the template itself", "common", "{tenantid}", "{tenantid}", "{tenantid}", "", false},
		{"common, a tid with a path", "common", "{tenantid}", "x/../" + tenant, "x/../" + tenant, "", false},
		{"organizations", "organizations", "{tenantid}", tenant, tenant, tenant, false},
		{"organizations, personal", "organizations", "{tenantid}", consumers, consumers, "", false},
		{"consumers", "consumers", consumers, consumers, consumers, consumers, false},
		{"consumers by template", "consumers", "{tenantid}", consumers, consumers, consumers, false},
		{"consumers, a tenant", "consumers", "{tenantid}", tenant, tenant, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.discovered(microsoft+test.tenant+"/v2.0", microsoft+test.tenant+"/oauth2/v2.0", object{
				"issuer": microsoft + test.document + "/v2.0",
			})
			w.answer(microsoft+test.tenant+"/oauth2/v2.0/token", 200, w.tokens(w.idToken(idClaims(microsoft+test.token+"/v2.0", object{
				"tid": test.tid, "oid": "o-1", "email": "a@example.com", "name": "A", "ver": "2.0",
			}))))
			u := mustUpstream(t)(idp.NewEntra(idp.EntraOptions{Common: w.common(), Tenant: test.tenant}))
			id, _, err := u.Exchange(t.Context(), back("code=code-1&session_state=x"))
			if test.want == "" {
				if kind(t, err) != "trouble" {
					t.Errorf("identity %+v, error %v", id, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&idp.Identity{
				Issuer: microsoft + test.want + "/v2.0", Subject: "user-1", Email: "a@example.com", EmailVerified: test.verified, Name: "A",
				Claims: map[string]any{"oid": "o-1", "tid": test.tid},
			}, id); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEntraQuirks(t *testing.T) {
	w := newWorld(t)
	iss := microsoft + tenant + "/v2.0"
	w.discovered(iss, microsoft+tenant+"/oauth2/v2.0", object{"userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo"})
	w.answer(microsoft+tenant+"/oauth2/v2.0/token", 200, w.tokens(w.idToken(idClaims(iss, object{
		"tid": tenant, "_claim_names": object{"groups": "src1"},
		"_claim_sources": object{"src1": object{"endpoint": "https://graph.windows.net/me"}},
	}))))
	common := w.common()
	common.Groups = true
	common.Scopes = []string{"openid", "offline_access", "api://app/mcp"}
	u := mustUpstream(t)(idp.NewEntra(idp.EntraOptions{Common: common, Tenant: strings.ToUpper(tenant)}))
	_, q := authorize(t, u, request())
	if q.Has("resource") || q.Get("scope") != "openid offline_access api://app/mcp" {
		t.Errorf("%v", q)
	}
	id, tokens := exchange(t, u)
	if id.Groups != nil || !strings.Contains(w.logged(), "more groups than Entra puts into a token") {
		t.Errorf("groups %v, log %s", id.Groups, w.logged())
	}
	if _, _, err := u.Refresh(t.Context(), *tokens); err != nil {
		t.Error(err)
	}
	form := w.form(microsoft + tenant + "/oauth2/v2.0/token")
	if form.Get("scope") != "openid offline_access api://app/mcp" || form.Has("resource") {
		t.Errorf("refresh: %v", form)
	}
	if w.count("graph.microsoft.com/oidc/userinfo") != 0 || u.Capabilities() != (idp.Capabilities{Refresh: true}) {
		t.Errorf("%+v", u.Capabilities())
	}
}

func TestOkta(t *testing.T) {
	for server, iss := range map[string]string{"": "https://example.okta.com", "default": "https://example.okta.com/oauth2/default"} {
		w := newWorld(t)
		w.discovered(iss, iss+"/v1", nil)
		w.answer(iss+"/v1/token", 200, w.tokens(w.idToken(idClaims(iss, object{"email": "a@example.com", "email_verified": true, "groups": []string{"Everyone"}}))))
		common := w.common()
		common.Groups = true
		u := mustUpstream(t)(idp.NewOkta(idp.OktaOptions{Common: common, Domain: "Example.okta.com", AuthorizationServer: server}))
		_, q := authorize(t, u, request())
		if q.Get("scope") != "openid profile email offline_access groups" {
			t.Errorf("%v", q)
		}
		r := request()
		r.MinimalScope = true
		if _, q = authorize(t, u, r); q.Get("scope") != "openid profile email groups" {
			t.Errorf("minimal: %v", q)
		}
		id, _ := exchange(t, u)
		if id.Issuer != iss || !id.EmailVerified || !cmp.Equal(id.Groups, []string{"Everyone"}) {
			t.Errorf("%+v", id)
		}
	}
}

func TestAuth0(t *testing.T) {
	w := newWorld(t)
	const iss = "https://example.eu.auth0.com/"
	w.discovered(iss, "https://example.eu.auth0.com/oauth", object{"token_endpoint_auth_methods_supported": []string{"client_secret_post"}})
	w.answer("example.eu.auth0.com/oauth/token", 200, w.tokens(w.idToken(idClaims(iss, object{
		"sub": "auth0|5f7c8ec7c33c6c004bbafe82", "email": "a@example.com", "email_verified": true, "https://example.com/groups": []string{"eng"},
	}))))
	u := mustUpstream(t)(idp.NewAuth0(idp.Auth0Options{
		Common: w.common(), Domain: "example.eu.auth0.com", Audience: "https://api.example.com", GroupsClaim: "https://example.com/groups",
	}))
	_, q := authorize(t, u, request())
	if q.Get("audience") != "https://api.example.com" || q.Get("scope") != "openid profile email offline_access" {
		t.Errorf("%v", q)
	}
	id, _ := exchange(t, u)
	if id.Issuer != iss || id.Subject != "auth0|5f7c8ec7c33c6c004bbafe82" || !cmp.Equal(id.Groups, []string{"eng"}) {
		t.Errorf("%+v", id)
	}
	if w.form("example.eu.auth0.com/oauth/token").Get("client_secret") != secret {
		t.Error("the secret was not posted")
	}
}

func TestKeycloak(t *testing.T) {
	const realm = "https://sso.example.com/realms/example"
	accessToken := func(t *testing.T, key any, change object) string {
		return sign(t, jwt.SigningMethodRS256, key, "k1", object{
			"iss": realm, "sub": "user-1", "azp": clientID, "typ": "Bearer", "aud": "account", "exp": clock.Add(5 * time.Minute).Unix(),
			"realm_access": object{"roles": []string{"admin", "offline_access"}},
		}.with(change))
	}
	for _, test := range []struct {
		name   string
		token  func(t *testing.T) string
		idRole []string
		groups []string
	}{
		{"roles of the access token", func(t *testing.T) string { return accessToken(t, rsaKey(), nil) }, nil, []string{"eng", "eng/ops", "role:admin", "role:offline_access"}},
		{"roles of the id_token win", func(t *testing.T) string { return accessToken(t, rsaKey(), nil) }, []string{"user"}, []string{"eng", "eng/ops", "role:user"}},
		{"an opaque access token", func(*testing.T) string { return "opaque" }, nil, []string{"eng", "eng/ops"}},
		{"a forged one", func(t *testing.T) string { return accessToken(t, newRSAKey(), nil) }, nil, []string{"eng", "eng/ops"}},
		{"one of another user", func(t *testing.T) string { return accessToken(t, rsaKey(), object{"sub": "user-2"}) }, nil, []string{"eng", "eng/ops"}},
		{"one of another client", func(t *testing.T) string { return accessToken(t, rsaKey(), object{"azp": "other"}) }, nil, []string{"eng", "eng/ops"}},
		{"one of another realm", func(t *testing.T) string { return accessToken(t, rsaKey(), object{"iss": realm + "2"}) }, nil, []string{"eng", "eng/ops"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.discovered(realm, realm+"/protocol/openid-connect", object{"authorization_response_iss_parameter_supported": true})
			token := test.token(t)
			claims := idClaims(realm, object{
				"at_hash": atHash(token), "azp": clientID, "email": "a@example.com", "email_verified": false, "groups": []string{"/eng", "/eng/ops"},
			})
			if test.idRole != nil {
				claims["realm_access"] = object{"roles": test.idRole}
			}
			w.answer(realm+"/protocol/openid-connect/token", 200, w.tokens(w.idToken(claims)).with(object{"access_token": token}))
			common := w.common()
			common.Groups = true
			u := mustUpstream(t)(idp.NewKeycloak(idp.KeycloakOptions{Common: common, RealmURL: realm + "/"}))
			id, _, err := u.Exchange(t.Context(), back("code=code-1&session_state=s&iss="+url.QueryEscape(realm)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.groups, id.Groups); diff != "" || id.EmailVerified {
				t.Error(diff, id)
			}
		})
	}
}

func TestCognito(t *testing.T) {
	w := newWorld(t)
	const pool = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI"
	const hosted = "https://example.auth.eu-west-1.amazoncognito.com/oauth2"
	w.discovered(pool, hosted, object{"scopes_supported": []string{"openid", "email", "phone", "profile"}})
	w.answer(hosted+"/token", 200, w.tokens(w.idToken(idClaims(pool, object{
		"email": "a@example.com", "email_verified": true, "cognito:groups": []string{"eng"}, "cognito:username": "a", "token_use": "id",
	}))))
	w.answer(hosted+"/userinfo", 200, object{"sub": "user-1", "email": "a@example.com", "email_verified": "true", "username": "a"})
	common := w.common()
	common.Scopes = []string{"openid", "email", "offline_access", "https://api.example.com/mcp"}
	u := mustUpstream(t)(idp.NewCognito(idp.CognitoOptions{Common: common, PoolURL: pool}))
	place, q := authorize(t, u, request())
	if place != hosted+"/authorize" || q.Get("scope") != "openid email https://api.example.com/mcp" {
		t.Errorf("%s %v", place, q)
	}
	id, _ := exchange(t, u)
	if id.Issuer != pool || !cmp.Equal(id.Groups, []string{"eng"}) || !id.EmailVerified {
		t.Errorf("%+v", id)
	}
	if id, err := u.UserInfo(t.Context(), idp.Tokens{AccessToken: access}); err != nil || !id.EmailVerified {
		t.Errorf("%+v, %v", id, err)
	}
	common.Groups = true
	u = mustUpstream(t)(idp.NewCognito(idp.CognitoOptions{Common: common, PoolURL: pool}))
	if u.Capabilities().UserInfo {
		t.Error("userinfo, which knows no groups, is offered where groups are needed")
	}
}

func TestOAuth2(t *testing.T) {
	const api = "https://id.example.net"
	options := func(w *world) idp.OAuth2Options {
		common := w.common()
		common.Scopes = []string{"identity"}
		return idp.OAuth2Options{
			Common: common, AuthorizationURL: api + "/authorize?x=1", TokenURL: api + "/token", UserInfoURL: api + "/me",
			SubjectClaim: "data.id", EmailClaim: "data.mail", EmailVerifiedClaim: "data.confirmed", NameClaim: "data.display", GroupsClaim: "data.teams",
		}
	}
	for _, test := range []struct {
		name string
		me   string
		want *idp.Identity
	}{
		{
			"an integer subject keeps its digits",
			`{"data":{"id":123456789012345678901,"mail":"a@example.com","confirmed":true,"display":"A","teams":["x"]}}`,
			&idp.Identity{Issuer: api, Subject: "123456789012345678901", Email: "a@example.com", EmailVerified: true, Name: "A", Groups: []string{"x"}},
		},
		{"a string subject", `{"data":{"id":"u-1","teams":"one"}}`, &idp.Identity{Issuer: api, Subject: "u-1", Groups: []string{"one"}}},
		{"a fraction is no subject", `{"data":{"id":1.5}}`, nil},
		{"an exponent is no subject", `{"data":{"id":1e3}}`, nil},
		{"true is no subject", `{"data":{"id":true}}`, nil},
		{"no subject", `{"data":{}}`, nil},
		{"no object", `[]`, nil},
		{"two subjects", `{"data":{"id":"a","id":"b"}}`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.answer(api+"/token", 200, "access_token=access-1&token_type=bearer&expires_in=60&refresh_token=refresh-1")
			w.answer(api+"/me", 200, test.me)
			u := mustUpstream(t)(idp.NewOAuth2(options(w)))
			place, q := authorize(t, u, request())
			if place != api+"/authorize" || q.Get("x") != "1" || q.Get("scope") != "identity" {
				t.Errorf("%s %v", place, q)
			}
			id, tokens, err := u.Exchange(t.Context(), back("code=code-1&iss=whatever"))
			if test.want == nil {
				if kind(t, err) != "trouble" {
					t.Errorf("%+v, %v", id, err)
				}
				// The refresh token was rotated all the same.
				if _, tokens, err := u.Refresh(t.Context(), idp.Tokens{RefreshToken: "refresh-0"}); kind(t, err) != "trouble" || tokens == nil || tokens.RefreshToken != refresh {
					t.Errorf("refresh: %+v, %v", tokens, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, id); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(&idp.Tokens{AccessToken: access, RefreshToken: refresh, Expiry: clock.Add(time.Minute)}, tokens); diff != "" {
				t.Error(diff)
			}
			id, _, err = u.Refresh(t.Context(), *tokens)
			if diff := cmp.Diff(test.want, id); diff != "" || err != nil {
				t.Error(diff, err)
			}
		})
	}
	w := newWorld(t)
	o := options(w)
	o.Issuer = api
	u := mustUpstream(t)(idp.NewOAuth2(o))
	if _, _, err := u.Exchange(t.Context(), back("code=code-1&iss=https%3A%2F%2Fevil.example.com")); kind(t, err) != "trouble" || w.count(api+"/token") != 0 {
		t.Errorf("a mixed-up iss: %v", err)
	}
}

func TestNamesAndRequiresAllow(t *testing.T) {
	c := idp.Common{ClientID: "c", ClientSecret: "s"}
	must := mustUpstream(t)
	for _, test := range []struct {
		u            idp.Upstream
		name, issuer string
		open         bool
	}{
		{must(idp.NewGoogle(idp.GoogleOptions{Common: c})), "Google", google, true},
		{must(idp.NewGitHub(idp.GitHubOptions{Common: c})), "GitHub", "https://github.com", true},
		{must(idp.NewEntra(idp.EntraOptions{Common: c, Tenant: "Common"})), "Microsoft", microsoft + "common/v2.0", true},
		{must(idp.NewEntra(idp.EntraOptions{Common: c, Tenant: "organizations"})), "Microsoft", microsoft + "organizations/v2.0", true},
		{must(idp.NewEntra(idp.EntraOptions{Common: c, Tenant: "consumers"})), "Microsoft", microsoft + "consumers/v2.0", true},
		{must(idp.NewEntra(idp.EntraOptions{Common: c, Tenant: tenant})), "Microsoft", microsoft + tenant + "/v2.0", false},
		{must(idp.NewOkta(idp.OktaOptions{Common: c, Domain: "example.okta.com"})), "Okta", "https://example.okta.com", false},
		{must(idp.NewAuth0(idp.Auth0Options{Common: c, Domain: "example.auth0.com"})), "Auth0", "https://example.auth0.com/", false},
		{must(idp.NewOIDC(idp.OIDCOptions{Common: c, Issuer: issuer})), "idp.example.com", issuer, false},
		{must(idp.NewKeycloak(idp.KeycloakOptions{Common: c, RealmURL: issuer + "/realms/a"})), "idp.example.com", issuer + "/realms/a", false},
	} {
		if test.u.Name() != test.name || test.u.Issuer() != test.issuer || idp.RequiresAllow(test.u) != test.open {
			t.Errorf("%s %s %t, want %+v", test.u.Name(), test.u.Issuer(), idp.RequiresAllow(test.u), test)
		}
	}
}
