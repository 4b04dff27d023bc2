package proxyprovider_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// TestRegistrationMethod: how the client authenticates after what the upstream
// answered.
func TestRegistrationMethod(t *testing.T) {
	rows := []struct {
		name, asked, answer string
		wantMethod          string
		wantSecret          string
		wantExpires         int64
	}{
		{"public", "none", `{"client_id":"u"}`, "none", "", 0},
		{"public with a needless secret", "none", `{"client_id":"u","client_secret":"s","client_secret_expires_at":9}`, "none", "", 0},
		{"as asked if nothing is said", "client_secret_post", `{"client_id":"u","client_secret":"s"}`, "client_secret_post", "s", 0},
		{"the RFC's default", "", `{"client_id":"u","client_secret":"s"}`, "client_secret_basic", "s", 0},
		{"the upstream decides for who leaves it open", "", `{"client_id":"u","client_secret":"s","token_endpoint_auth_method":"client_secret_post"}`, "client_secret_post", "s", 0},
		{"the upstream decides", "none", `{"client_id":"u","client_secret":"s","token_endpoint_auth_method":"client_secret_post","client_secret_expires_at":9}`, "client_secret_post", "s", 9},
		{"made public", "client_secret_post", `{"client_id":"u","token_endpoint_auth_method":"none"}`, "none", "", 0},
		{"no secret, so public", "client_secret_post", `{"client_id":"u","client_secret":null,"client_secret_expires_at":9}`, "none", "", 0},
		{"empty strings are absent", "client_secret_post", `{"client_id":"u","client_secret":"s","token_endpoint_auth_method":""}`, "client_secret_post", "s", 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			u := newUpstream(t, answersJSON(200, row.answer))
			p := newProxy(t, config(t, u))
			got := register(t, p, asked(row.asked))
			for what, c := range map[string]*oauth.Client{"answer": got, "GetClient": client(t, p, got.ClientID)} {
				method := row.wantMethod
				if what == "GetClient" && row.asked == "" && row.wantSecret != "" {
					method = "" // it may use any
				}
				if c.TokenEndpointAuthMethod != method || c.ClientSecret != row.wantSecret || c.ClientSecretExpiresAt != row.wantExpires {
					t.Errorf("%s: method %q, secret %q, expires %d", what, c.TokenEndpointAuthMethod, c.ClientSecret, c.ClientSecretExpiresAt)
				}
				if diff := cmp.Diff([]string{callback, loopback}, c.RedirectURIs); diff != "" {
					t.Errorf("%s: redirect URIs that the upstream left out: %s", what, diff)
				}
			}
			if got.ClientIDIssuedAt != 1_900_000_000 {
				t.Errorf("issued at %d", got.ClientIDIssuedAt)
			}
		})
	}
}

// TestRegisteredWithoutMethod: who registered no method of client authentication
// may send the secret either way; the upstream gets it as it said. Who registered
// one is held to it.
func TestRegisteredWithoutMethod(t *testing.T) {
	for _, row := range []struct {
		asked, upstream string
		basic           bool
		status          int
	}{
		{"", "client_secret_basic", true, http.StatusOK},
		{"", "client_secret_basic", false, http.StatusOK},
		{"", "client_secret_post", true, http.StatusOK},
		{"", "client_secret_post", false, http.StatusOK},
		{"client_secret_basic", "client_secret_basic", false, http.StatusUnauthorized},
		{"client_secret_post", "client_secret_post", true, http.StatusUnauthorized},
	} {
		u := newUpstream(t, answersJSON(201, `{"client_id":"up-1","client_secret":"up-secret","token_endpoint_auth_method":"`+row.upstream+`"}`))
		p := newProxy(t, config(t, u))
		server, err := authserver.New(authserver.Config{Issuer: issuer, Provider: p, RateLimits: authserver.RateLimits{Off: true}})
		if err != nil {
			t.Fatal(err)
		}
		c := register(t, p, asked(row.asked))
		u.got()
		u.set(answersJSON(200, `{"access_token":"at","token_type":"Bearer"}`))
		form := url.Values{"grant_type": {"authorization_code"}, "code": {"c"}, "code_verifier": {strings.Repeat("v", 43)}, "redirect_uri": {callback}}
		if !row.basic {
			form.Set("client_id", c.ClientID)
			form.Set("client_secret", c.ClientSecret)
		}
		r := newRequest(t)
		r.Method, r.URL.Path, r.Body = http.MethodPost, "/token", io.NopCloser(strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", formType)
		if row.basic {
			r.SetBasicAuth(c.ClientID, c.ClientSecret)
		}
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		if w.Code != row.status {
			t.Errorf("%+v: %d %s", row, w.Code, w.Body)
			continue
		}
		for _, sent := range u.got() {
			if (sent.Authorization != "") != (row.upstream == "client_secret_basic") {
				t.Errorf("%+v: the upstream got %+v", row, sent)
			}
		}
	}
}
