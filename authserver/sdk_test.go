package authserver_test

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// The rows of the TypeScript SDK's behaviour that no other test of this
// package shows; docs/sdk-compatibility.md has them all.

// SDK 1.1: what the SDK does not have either.
func TestSDKEndpointsThatDoNotExist(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"/jwks", "/.well-known/jwks.json", "/introspect", "/userinfo", "/.well-known/openid-configuration"} {
		a := s.do("GET", path, "")
		if code, _ := a.oauthError(t); a.Status != 404 || code != "not_found" {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		if a := s.do(method, "/register/some-client", ""); a.Status != 404 {
			t.Errorf("%s: client management answers %d", method, a.Status)
		}
	}
}

// SDK 1.1 reads the body before it counts, so that a body that cannot be read
// is free there; here it costs.
func TestSDKUnreadableBodiesAreCounted(t *testing.T) {
	s := newSite(t, limits(2))
	for _, path := range []string{"/register", "/token", "/revoke"} {
		for i, want := range []string{"1", "0"} {
			if got := s.do("POST", path, "{", "Content-Type", "text/plain").Header.Get("RateLimit-Remaining"); got != want {
				t.Errorf("%s, request %d: %q remaining, want %q", path, i+1, got, want)
			}
		}
		if a := s.do("POST", path, "{", "Content-Type", "text/plain"); a.Status != 429 {
			t.Errorf("%s: %d", path, a.Status)
		}
	}
}

// SDK 1.2: both forms of a resource path with a slash at its end answer.
func TestSDKResourceWithASlashAtItsEnd(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) { c.ResourceServerURL = "https://mcp.example.com/v1/mcp/" })
	for _, path := range []string{"/v1/mcp/", "/v1/mcp"} {
		a := s.do("GET", "/.well-known/oauth-protected-resource"+path, "")
		if a.Status != 200 || !strings.Contains(a.Body, `"resource":"https://mcp.example.com/v1/mcp/"`) {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	if a := s.do("GET", "/.well-known/oauth-protected-resource/v1/mcp/deeper", ""); a.Status != 404 {
		t.Errorf("a deeper path: %d", a.Status)
	}
}

// SDK 1.7 lets nobody cache metadata; here it may be kept for five minutes.
func TestSDKMetadataCanBeCached(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) { c.ResourceServerURL = "https://mcp.example.com/mcp" })
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource/mcp"} {
		for _, method := range []string{"GET", "HEAD"} {
			if got := s.do(method, path, "").Header.Get("Cache-Control"); got != "public, max-age=300" {
				t.Errorf("%s %s: Cache-Control %q", method, path, got)
			}
		}
	}
}

// SDK 1.8: a 429 can be read by web pages; limits of one endpoint can be
// changed or turned off without the others.
func TestSDKRateLimitOptions(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) {
		c.RateLimits = authserver.RateLimits{
			Authorize: &authserver.RateLimit{Off: true},
			Token:     &authserver.RateLimit{Count: 1, Window: time.Minute},
			Revoke:    &authserver.RateLimit{Off: true},
		}
	})
	for range 700 {
		if a := s.do("GET", "/authorize", ""); a.Status == 429 || len(rateHeaders(a.Header)) != 0 {
			t.Fatalf("authorize: %d %v", a.Status, rateHeaders(a.Header))
		}
	}
	for range 60 {
		if a := s.postForm("/revoke", "client_id=nobody"); a.Status == 429 || len(rateHeaders(a.Header)) != 0 {
			t.Fatalf("revoke: %d %v", a.Status, rateHeaders(a.Header))
		}
	}
	s.postForm("/token", "client_id=nobody")
	a := s.postForm("/token", "client_id=nobody")
	if a.Status != 429 || a.Header.Get("RateLimit-Policy") != "1;w=60" || a.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("token: %d %v", a.Status, a.Header)
	}
	if got := s.postJSON("/register", "{}").Header.Get("RateLimit-Policy"); got != "300;w=900" {
		t.Errorf("register: RateLimit-Policy %q", got)
	}
}

// SDK 2.4: scopes are the provider's matter, whatever the client registered
// and the server advertises.
func TestSDKScopesAreTheProvidersMatter(t *testing.T) {
	var got authserver.AuthorizationParams
	s := newSite(t, recordParams(&got), func(c *authserver.Config, _ *scripted) { c.ScopesSupported = []string{"a"} })
	s.addClient(&oauth.Client{
		ClientInformation: oauth.ClientInformation{ClientID: "narrow"},
		ClientMetadata:    oauth.ClientMetadata{RedirectURIs: []string{callback}, Scope: "a"},
	})
	s.do("GET", "/authorize?"+authorization("client_id", "narrow", "scope", "a other"), "")
	if diff := cmp.Diff([]string{"a", "other"}, got.Scopes); diff != "" {
		t.Error(diff)
	}
}

// SDK 2.1 takes an empty parameter for a present one; RFC 6749 §3.1 has it
// absent.
func TestSDKEmptyParametersAreAbsent(t *testing.T) {
	var got authserver.AuthorizationParams
	s := newSite(t, recordParams(&got))
	a := s.do("GET", "/authorize?"+authorization("redirect_uri", "", "state", "")+"&redirect_uri=&state=&scope=&resource=", "")
	q := a.location(t)
	if q.Get("code") == "" || q.Has("state") || !got.RedirectURIOmitted || got.Scopes != nil || got.Resource != "" {
		t.Errorf("%v %+v", q, got)
	}
	if code := s.do("GET", "/authorize?"+authorization("code_challenge", "")+"&code_challenge=", "").location(t).Get("error"); code != "invalid_request" {
		t.Errorf("empty code_challenge: %q", code)
	}
}

// SDK 3.2 checks PKCE and then keeps the verifier from the provider; here it
// gets it.
func TestSDKVerifierReachesTheProvider(t *testing.T) {
	var got authserver.CodeExchange
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.exchangeCode = func(ctx context.Context, c *oauth.Client, x authserver.CodeExchange) (*oauth.Tokens, error) {
			got = x
			return p.memory.ExchangeCode(ctx, c, x)
		}
	})
	if a := s.postForm("/token", redemption(s.code())); a.Status != 200 || got.Verifier != verifier || got.RedirectURI != callback {
		t.Errorf("%d %+v", a.Status, got)
	}
}

// SDK 4: the answer of a registration, byte for byte but for its credentials.
func TestSDKRegistrationAnswer(t *testing.T) {
	s := newSite(t)
	a := s.postJSON("/register", `{"client_name":"C","redirect_uris":["https://app.example.com/cb"],"client_uri":"","jwks_uri":"","logo_uri":"","scope":null}`)
	if a.Status != 201 || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v %s", a.Status, a.Header, a.Body)
	}
	names := regexp.MustCompile(`"(\w+)":`).FindAllStringSubmatch(a.Body, -1)
	var got []string
	for _, name := range names {
		got = append(got, name[1])
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(a.Body), &members); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"redirect_uris", "grant_types", "response_types", "client_name",
		"client_id", "client_id_issued_at", "client_secret", "client_secret_expires_at",
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	for _, name := range []string{"registration_access_token", "registration_client_uri"} {
		if _, there := members[name]; there {
			t.Errorf("%s is there", name)
		}
	}
}

// SDK 4, "Safe URL": what its schema takes for a redirect URI, and what
// happens here.
func TestSDKRedirectURIs(t *testing.T) {
	s := newSite(t)
	for uri, allowed := range map[string]bool{
		"https://app.example.com/cb":   true,
		"cursor://anysphere/cb":        true,
		"com.app:/cb":                  true,
		"http://localhost:1234/cb":     true,
		"http://evil.example/cb":       false,
		"https://app.example.com/cb#f": false,
		"file:///etc/passwd":           false,
		"blob:https://a.example/1":     false,
		"mailto:a@example.com":         false,
		"about:blank":                  false,
		"localhost:3000/cb":            false,
		" https://app.example.com/cb ": false,
		"relative/cb":                  false,
		"//app.example.com/cb":         false,
		"https://":                     false,
		"":                             false,
		"javascript:alert(1)":          false,
		"JavaScript:alert(1)":          false,
		"data:text/html,x":             false,
		"vbscript:x":                   false,
	} {
		document, err := json.Marshal(map[string]any{"redirect_uris": []string{uri}})
		if err != nil {
			t.Fatal(err)
		}
		a := s.postJSON("/register", string(document))
		if allowed {
			if a.Status != 201 {
				t.Errorf("%q: %d %s", uri, a.Status, a.Body)
			}
			continue
		}
		if code, _ := a.oauthError(t); a.Status != 400 || code != "invalid_redirect_uri" {
			t.Errorf("%q: %d %s", uri, a.Status, a.Body)
		}
	}
}

// SDK 8: every error, thrown by a provider. The SDK answers 400 but for
// ServerError; here each has its own status. At /authorize each becomes a
// redirect with its code.
func TestSDKErrorClasses(t *testing.T) {
	var thrown error
	s := newSite(t, func(c *authserver.Config, p *scripted) {
		c.RateLimits.Off = true
		p.exchangeRefresh = func(*oauth.Client, authserver.RefreshExchange) (*oauth.Tokens, error) { return nil, thrown }
		p.revoke = func(*oauth.Client, authserver.Revocation) error { return thrown }
		p.authorize = func(http.ResponseWriter, *http.Request, *oauth.Client, authserver.AuthorizationParams) error {
			return thrown
		}
	})
	for _, row := range []struct {
		err    *oauth.Error
		code   string
		status int
	}{
		{oauth.ErrInvalidRequest, "invalid_request", 400},
		{oauth.ErrInvalidClient, "invalid_client", 401},
		{oauth.ErrInvalidGrant, "invalid_grant", 400},
		{oauth.ErrUnauthorizedClient, "unauthorized_client", 400},
		{oauth.ErrUnsupportedGrantType, "unsupported_grant_type", 400},
		{oauth.ErrInvalidScope, "invalid_scope", 400},
		{oauth.ErrAccessDenied, "access_denied", 403},
		{oauth.ErrServerError, "server_error", 500},
		{oauth.ErrTemporarilyUnavailable, "temporarily_unavailable", 503},
		{oauth.ErrUnsupportedResponseType, "unsupported_response_type", 400},
		{oauth.ErrUnsupportedTokenType, "unsupported_token_type", 400},
		{oauth.ErrInvalidToken, "invalid_token", 401},
		{oauth.ErrMethodNotAllowed, "method_not_allowed", 405},
		{oauth.ErrTooManyRequests, "too_many_requests", 429},
		{oauth.ErrInvalidClientMetadata, "invalid_client_metadata", 400},
		{oauth.ErrInsufficientScope, "insufficient_scope", 403},
		{oauth.ErrInvalidTarget, "invalid_target", 400},
		{oauth.ErrInvalidRedirectURI, "invalid_redirect_uri", 400},
		{oauth.NewError("custom_code", ""), "custom_code", 400},
	} {
		t.Run(row.code, func(t *testing.T) {
			thrown = row.err.Describe("why")
			a := s.postForm("/token", "client_id=public&grant_type=refresh_token&refresh_token=r")
			if code, description := a.oauthError(t); a.Status != row.status || code != row.code || description != "why" {
				t.Errorf("token: %d %s", a.Status, a.Body)
			}
			a = s.postForm("/revoke", "client_id=public&token=t")
			if row.code == "invalid_token" { // RFC 7009 §2.2
				if a.Status != 200 {
					t.Errorf("revoke: %d %s", a.Status, a.Body)
				}
			} else if code, _ := a.oauthError(t); a.Status != row.status || code != row.code {
				t.Errorf("revoke: %d %s", a.Status, a.Body)
			}
			if q := s.do("GET", "/authorize?"+authorization(), "").location(t); q.Get("error") != row.code || q.Get("error_description") != "why" {
				t.Errorf("authorize: %v", q)
			}
		})
	}
}
