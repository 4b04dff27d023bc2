package authclient_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func exchange(t *testing.T, s *scripted) (*authclient.Tokens, error) {
	t.Helper()
	return authclient.ExchangeAuthorization(t.Context(), server(s, nil), authclient.CodeExchange{
		Client: clientWith("", ""), Code: "c", CodeVerifier: "v", RedirectURL: callbackURL, Resource: "https://a.example/mcp",
	})
}

func TestExchangeAuthorizationRequest(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.json("/token", 200, map[string]any{"access_token": "a", "token_type": "Bearer"})
	tokens, err := exchange(t, s)
	if err != nil || tokens.Issuer != s.URL || !tokens.ExpiresAt.IsZero() || tokens.RefreshToken != "" {
		t.Fatalf("tokens %+v, error %v", tokens, err)
	}
	r := s.to("/token")[0]
	if diff := cmp.Diff(map[string][]string{
		"grant_type": {"authorization_code"}, "code": {"c"}, "code_verifier": {"v"}, "redirect_uri": {callbackURL},
		"resource": {"https://a.example/mcp"}, "client_id": {"id"},
	}, map[string][]string(r.Form)); diff != "" {
		t.Error(diff)
	}
	if r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.Header.Get("Accept") != "application/json" {
		t.Errorf("headers %v", r.Header)
	}
}

func TestExchangeAuthorizationChecksIss(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	as := server(s, &oauth.Metadata{Issuer: s.URL, TokenEndpoint: s.URL + "/token"})
	_, err := authclient.ExchangeAuthorization(t.Context(), as, authclient.CodeExchange{Client: clientWith("", ""), Code: "c", Iss: "https://evil.example"})
	if !errors.Is(err, authclient.ErrIssuerMismatch) || len(s.seen()) != 0 {
		t.Errorf("error %v, requests %v", err, s.lines())
	}
}

func TestTokenResponse(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	hour := now.Add(time.Hour)
	for _, test := range []struct {
		name    string
		status  int
		kind    string // content type
		body    string
		err     error // nil: accepted
		expires time.Time
	}{
		{"expires_in a number", 200, "", `{"access_token":"a","token_type":"bearer","expires_in":3600}`, nil, hour},
		{"expires_in a string", 200, "", `{"access_token":"a","token_type":"Bearer","expires_in":"3600"}`, nil, hour},
		{"expires_in 0 is expired, not for ever", 200, "", `{"access_token":"a","token_type":"Bearer","expires_in":0}`, nil, now},
		{"expires_in absent", 200, "", `{"access_token":"a","token_type":"Bearer"}`, nil, time.Time{}},
		{"members that nobody knows", 200, "", `{"access_token":"a","token_type":"Bearer","x":{"y":1},"issuer":"https://evil.example"}`, nil, time.Time{}},
		{"a form, as GitHub sends it", 200, "application/x-www-form-urlencoded", `access_token=a&token_type=bearer&expires_in=3600`, nil, hour},
		{"no access_token", 200, "", `{"token_type":"Bearer"}`, authclient.ErrUnavailable, time.Time{}},
		{"no token_type", 200, "", `{"access_token":"a"}`, authclient.ErrUnavailable, time.Time{}},
		{"an access token that breaks a header", 200, "", `{"access_token":"a\r\nX: y","token_type":"Bearer"}`, authclient.ErrUnavailable, time.Time{}},
		{"an empty access token", 200, "", `{"access_token":"","token_type":"Bearer"}`, authclient.ErrUnavailable, time.Time{}},
		{"two access tokens", 200, "", `{"access_token":"a","access_token":"b","token_type":"Bearer"}`, authclient.ErrUnavailable, time.Time{}},
		{"an error with status 200", 200, "", `{"error":"invalid_grant","error_description":"gone"}`, oauth.ErrInvalidGrant, time.Time{}},
		{"an error in a form with status 200", 200, "application/x-www-form-urlencoded", `error=bad_verification_code`, oauth.NewError("bad_verification_code", ""), time.Time{}},
		{"an error", 400, "", `{"error":"invalid_grant"}`, oauth.ErrInvalidGrant, time.Time{}},
		{"an error of a code that nobody knows", 400, "", `{"error":"bad_token"}`, oauth.NewError("bad_token", ""), time.Time{}},
		{"temporarily_unavailable with status 400", 400, "", `{"error":"temporarily_unavailable"}`, authclient.ErrUnavailable, time.Time{}},
		{"invalid_grant with status 500", 500, "", `{"error":"invalid_grant"}`, authclient.ErrUnavailable, time.Time{}},
		{"400 that says nothing", 400, "", `no`, authclient.ErrUnavailable, time.Time{}},
		{"400 with other JSON", 400, "", `{"message":"no"}`, authclient.ErrUnavailable, time.Time{}},
		{"empty", 200, "", ``, authclient.ErrUnavailable, time.Time{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
				if test.kind == "" {
					test.kind = "application/json"
				}
				w.Header().Set("Content-Type", test.kind)
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			})
			as := server(s, nil)
			as.Options.Now = func() time.Time { return now }
			tokens, err := authclient.ExchangeAuthorization(t.Context(), as, authclient.CodeExchange{Client: clientWith("", ""), Code: "c"})
			if test.err != nil {
				if !errors.Is(err, test.err) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || tokens.AccessToken != "a" || !tokens.ExpiresAt.Equal(test.expires) || tokens.Issuer != s.URL {
				t.Errorf("tokens %+v, error %v", tokens, err)
			}
		})
	}
}

func TestRefreshAuthorization(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name                   string
		answer                 map[string]any
		refreshToken, newScope string
	}{
		{"the old refresh token and scope are kept", map[string]any{}, "old", "a b"},
		{"a rotated refresh token is taken", map[string]any{"refresh_token": "new"}, "new", "a b"},
		{"a narrower scope is taken", map[string]any{"scope": "a"}, "old", "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.json("/token", 200, merged(map[string]any{"access_token": "a", "token_type": "Bearer"}, test.answer))
			tokens, err := authclient.RefreshAuthorization(t.Context(), server(s, nil), authclient.RefreshRequest{
				Client: clientWith("", ""), Tokens: &authclient.Tokens{Tokens: oauth.Tokens{RefreshToken: "old", Scope: "a b"}, Issuer: s.URL}, Resource: "r",
			})
			if err != nil || tokens.RefreshToken != test.refreshToken || tokens.Scope != test.newScope {
				t.Fatalf("tokens %+v, error %v", tokens, err)
			}
			if diff := cmp.Diff(map[string][]string{
				"grant_type": {"refresh_token"}, "refresh_token": {"old"}, "resource": {"r"}, "client_id": {"id"},
			}, map[string][]string(s.to("/token")[0].Form)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
