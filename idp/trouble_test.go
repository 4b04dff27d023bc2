package idp_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/idp"
)

// The three-way map: what the token endpoint answers, and what becomes of it
// when a code or a refresh token is redeemed.
func TestTokenErrors(t *testing.T) {
	const html = "<html><body>Bad Gateway = sorry</body></html>"
	for _, test := range []struct {
		name              string
		status            int
		body              any
		atCode, atRefresh string // kind
		code              string // of ErrDenied, and of ErrDead at refresh
		logged            bool
	}{
		{"invalid_grant", 400, object{"error": "invalid_grant", "error_description": "Token is not active"}, "dead", "dead", "", false},
		{"invalid_grant with 401", 401, object{"error": "invalid_grant"}, "dead", "dead", "", false},
		{"invalid_grant with 200", 200, object{"error": "invalid_grant"}, "dead", "dead", "", false},
		{"invalid_grant beside a token", 200, object{"error": "invalid_grant", "access_token": access}, "dead", "dead", "", false},
		{"invalid_grant in a form", 200, "error=invalid_grant&error_description=gone", "dead", "dead", "", false},
		{"invalid_grant from a server in trouble", 503, object{"error": "invalid_grant"}, "trouble", "trouble", "", false},
		{"invalid_grant from a server that throttles", 429, object{"error": "invalid_grant"}, "trouble", "trouble", "", false},
		{"a policy refuses the user", 403, object{"error": "access_denied"}, "denied", "dead", "access_denied", false},
		{"the user has to do something", 400, object{"error": "interaction_required"}, "denied", "dead", "interaction_required", false},
		{"our secret is wrong", 401, object{"error": "invalid_client", "error_description": "AADSTS7000215"}, "trouble", "trouble", "", true},
		{"our scopes are wrong", 400, object{"error": "invalid_scope"}, "trouble", "trouble", "", true},
		{"we may not", 400, object{"error": "unauthorized_client"}, "trouble", "trouble", "", true},
		{"an unknown word", 400, object{"error": "slow_down"}, "trouble", "trouble", "", false},
		{"INVALID_GRANT is no code", 400, object{"error": "INVALID_GRANT"}, "trouble", "trouble", "", false},
		{"401 and nothing", 401, "", "trouble", "trouble", "", false},
		{"400 and nothing", 400, object{}, "trouble", "trouble", "", false},
		{"500", 500, html, "trouble", "trouble", "", false},
		{"HTML with 200", 200, html, "trouble", "trouble", "", false},
		{"empty with 200", 200, "", "trouble", "trouble", "", false},
		{"no access token", 200, object{"token_type": "Bearer"}, "trouble", "trouble", "", false},
		{"a token of another type", 200, object{"access_token": "x", "token_type": "DPoP"}, "trouble", "trouble", "", false},
		{"a token that is no string", 200, object{"access_token": 5}, "trouble", "trouble", "", false},
		{"a token with a line break", 200, object{"access_token": "a\nb"}, "trouble", "trouble", "", false},
		{"a token of 17 KiB", 200, object{"access_token": strings.Repeat("x", 17<<10)}, "trouble", "trouble", "", false},
		{"a member twice", 200, `{"access_token":"a","access_token":"b"}`, "trouble", "trouble", "", false},
		{"a form with a parameter twice", 200, "access_token=a&access_token=b", "trouble", "trouble", "", false},
		{"cut JSON", 200, `{"access_token":"a"`, "trouble", "trouble", "", false},
		{"10 MB", 200, strings.Repeat(" ", 10<<20), "trouble", "trouble", "", false},
		{"a redirect", 302, "", "trouble", "trouble", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.discovered(issuer, issuer, nil)
			w.answer(issuer+"/token", test.status, test.body)
			u := w.oidc(nil)
			_, _, err := u.Exchange(t.Context(), back("code=code-1"))
			if got := kind(t, err); got != test.atCode {
				t.Errorf("code: %v is %q, want %q", err, got, test.atCode)
			}
			if got := errorCode(err); got != test.code {
				t.Errorf("code: %q, want %q", got, test.code)
			}
			_, tokens, err := u.Refresh(t.Context(), idp.Tokens{RefreshToken: refresh})
			if got := kind(t, err); got != test.atRefresh || tokens != nil {
				t.Errorf("refresh: %v is %q, want %q; tokens %v", err, got, test.atRefresh, tokens)
			}
			if got := errorCode(err); got != test.code {
				t.Errorf("refresh: %q, want %q", got, test.code)
			}
			if n := strings.Count(w.logged(), "level=ERROR"); test.logged != (n == 1) || n > 1 {
				t.Errorf("%d errors logged: %s", n, w.logged())
			}
		})
	}
}

func TestConnectionTroubleIsTrouble(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"reset": func(rw http.ResponseWriter, _ *http.Request) {
			conn, _, err := rw.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
		},
		"cut": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "100")
			_, _ = rw.Write([]byte(`{"access_token":`))
		},
		"hang": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"endless": func(rw http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := rw.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
	} {
		for _, place := range []string{"/.well-known/openid-configuration", "/token", "/keys", "/userinfo"} {
			t.Run(name+" at "+place, func(t *testing.T) {
				w := newWorld(t)
				w.discovered(issuer, issuer, nil)
				w.answer(issuer+"/token", 200, w.tokens(w.idToken(idClaims(issuer, nil))))
				w.answer(issuer+"/userinfo", 200, object{"sub": "user-1"})
				w.handle(issuer+place, handler)
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				if name != "hang" {
					ctx = t.Context()
				}
				_, _, err := w.oidc(nil).Exchange(ctx, back("code=code-1"))
				if kind(t, err) != "trouble" {
					t.Errorf("error %v", err)
				}
			})
		}
	}
}

func TestMetadataIsChecked(t *testing.T) {
	for _, test := range []struct {
		name   string
		change object
		want   string
	}{
		{"another issuer", object{"issuer": issuer + "/"}, "byte for byte"},
		{"no issuer", object{"issuer": nil}, "byte for byte"},
		{"no token endpoint", object{"token_endpoint": nil}, "token_endpoint"},
		{"http", object{"token_endpoint": "http://idp.example.com/token"}, "token_endpoint"},
		{"keys over http", object{"jwks_uri": "http://idp.example.com/keys"}, "jwks_uri"},
		{"no keys", object{"jwks_uri": nil}, "jwks_uri"},
		{"javascript", object{"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"},
		{"a wrong type", object{"token_endpoint": 5}, "wrong type"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.discovered(issuer, issuer, test.change)
			_, err := w.oidc(nil).AuthorizationURL(t.Context(), request())
			if kind(t, err) != "trouble" || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestAMovedEndpointIsFound(t *testing.T) {
	w := newWorld(t)
	w.discovered(issuer, issuer, nil)
	current := clock
	u := w.oidc(func(o *idp.OIDCOptions) { o.Now = func() time.Time { return current } })
	if _, err := u.AuthorizationURL(t.Context(), request()); err != nil {
		t.Fatal(err)
	}
	w.discovered(issuer, issuer, object{"token_endpoint": issuer + "/v2/token"})
	w.answer(issuer+"/v2/token", 200, object{"access_token": access})
	current = current.Add(11 * time.Second)
	for range 3 {
		_, _, err := u.Refresh(t.Context(), idp.Tokens{RefreshToken: refresh})
		if err == nil {
			break
		}
		if kind(t, err) != "trouble" {
			t.Fatal(err)
		}
	}
	if n := w.count(issuer + "/.well-known/openid-configuration"); n != 2 {
		t.Errorf("the metadata was asked for %d times", n)
	}
	if w.count(issuer+"/v2/token") != 1 {
		t.Error("the new endpoint was not found")
	}
}

func TestDiscoveryIsNotStormed(t *testing.T) {
	w := newWorld(t)
	place := issuer + "/.well-known/openid-configuration"
	w.answer(place, 503, "")
	current := clock
	u := w.oidc(func(o *idp.OIDCOptions) { o.Now = func() time.Time { return current } })
	for range 5 {
		if _, err := u.AuthorizationURL(t.Context(), request()); kind(t, err) != "trouble" {
			t.Fatal(err)
		}
	}
	if n := w.count(place); n != 1 {
		t.Errorf("%d requests within a second", n)
	}
	w.discovered(issuer, issuer, nil)
	current = current.Add(time.Second)
	if _, err := u.AuthorizationURL(t.Context(), request()); err != nil {
		t.Errorf("after a second: %v", err)
	}
}

func TestTheOldMetadataStaysInUse(t *testing.T) {
	w := newWorld(t)
	w.discovered(issuer, issuer, nil)
	current := clock
	u := w.oidc(func(o *idp.OIDCOptions) { o.Now = func() time.Time { return current } })
	authorize(t, u, request())
	asked := make(chan struct{}, 1)
	w.handle(issuer+"/.well-known/openid-configuration", func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusServiceUnavailable)
		asked <- struct{}{}
	})
	current = current.Add(time.Hour)
	authorize(t, u, request()) // is answered at once, and asks in the background
	<-asked
	authorize(t, u, request())
}

func TestComplaintsAreThrottled(t *testing.T) {
	w := newWorld(t)
	w.discovered(issuer, issuer, nil)
	w.answer(issuer+"/token", 401, object{"error": "invalid_client"})
	current := clock
	u := w.oidc(func(o *idp.OIDCOptions) { o.Now = func() time.Time { return current } })
	for range 10 {
		_, _, _ = u.Refresh(t.Context(), idp.Tokens{RefreshToken: refresh})
	}
	if n := strings.Count(w.logged(), "level=ERROR"); n != 1 {
		t.Errorf("%d entries", n)
	}
	current = current.Add(time.Minute)
	_, _, _ = u.Refresh(t.Context(), idp.Tokens{RefreshToken: refresh})
	if n := strings.Count(w.logged(), "level=ERROR"); n != 2 {
		t.Errorf("%d entries after a minute", n)
	}
}

// The callback's parameters come through the user's browser.
func TestCallback(t *testing.T) {
	for _, test := range []struct {
		name, query string
		announced   bool
		kind, code  string
		logged      bool
	}{
		{"a code", "code=code-1", false, "", "", false},
		{"our issuer", "code=code-1&iss=https%3A%2F%2Fidp.example.com", true, "", "", false},
		{"another issuer: mix-up", "code=code-1&iss=https%3A%2F%2Fevil.example.com", false, "trouble", "", false},
		{"an issuer that differs in a slash", "code=code-1&iss=https%3A%2F%2Fidp.example.com%2F", true, "trouble", "", false},
		{"an empty issuer", "code=code-1&iss=", false, "trouble", "", false},
		{"no issuer although announced", "code=code-1", true, "trouble", "", false},
		{"an error of another issuer", "error=access_denied&iss=https%3A%2F%2Fevil.example.com", true, "trouble", "", false},
		{"an error without issuer although announced", "error=access_denied", true, "trouble", "", false},
		{"two codes", "code=code-1&code=code-2", false, "trouble", "", false},
		{"two issuers", "code=code-1&iss=https%3A%2F%2Fidp.example.com&iss=x", false, "trouble", "", false},
		{"no code", "state=state-1", false, "trouble", "", false},
		{"a huge code", "code=" + strings.Repeat("x", 5000), false, "trouble", "", false},
		{"denied", "error=access_denied&error_description=no", false, "denied", "access_denied", false},
		{"denied beside a code", "error=access_denied&code=code-1", false, "denied", "access_denied", false},
		{"login_required", "error=login_required", false, "denied", "login_required", false},
		{"interaction_required", "error=interaction_required", false, "denied", "interaction_required", false},
		{"unauthorized", "error=unauthorized", false, "denied", "access_denied", false},
		{"server_error", "error=server_error", false, "trouble", "", false},
		{"temporarily_unavailable", "error=temporarily_unavailable", false, "trouble", "", false},
		{"our scopes are wrong", "error=invalid_scope", false, "trouble", "", true},
		{"anything else", "error=%0aevil%22", false, "trouble", "", false},
		{"an empty error", "error=&code=code-1", false, "trouble", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.discovered(issuer, issuer, object{"authorization_response_iss_parameter_supported": test.announced})
			w.answer(issuer+"/token", 200, w.tokens(w.idToken(idClaims(issuer, object{"email": "a@example.com"}))))
			_, _, err := w.oidc(nil).Exchange(t.Context(), back(test.query))
			if got := kind(t, err); got != test.kind || errorCode(err) != test.code {
				t.Errorf("%v is %q with code %q, want %q with %q", err, got, errorCode(err), test.kind, test.code)
			}
			if err != nil && w.count(issuer+"/token") != 0 {
				t.Error("the code was sent to the token endpoint all the same")
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error %q has line breaks", err)
			}
			if test.logged != strings.Contains(w.logged(), "level=ERROR") {
				t.Errorf("log: %s", w.logged())
			}
		})
	}
}

func TestErrorsKeepTheirCause(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.oidc(nil).AuthorizationURL(ctx, request()); !errors.Is(err, context.Canceled) || !errors.Is(err, idp.ErrTrouble) {
		t.Errorf("error %v", err)
	}
}

func TestRunLoadsAndStops(t *testing.T) {
	w := newWorld(t)
	w.discovered(issuer, issuer, nil)
	loaded := make(chan struct{}, 8)
	w.handle(issuer+"/keys", func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusServiceUnavailable)
		loaded <- struct{}{}
	})
	u := w.oidc(nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); u.Run(ctx) }()
	<-loaded
	<-loaded // again after the first failure
	cancel()
	<-done
}
