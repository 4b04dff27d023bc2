package proxyprovider_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

func TestIntrospect(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	srv := httptest.NewServer(w.node().Introspect(func(r *http.Request) (string, bool) {
		name, secret, ok := r.BasicAuth()
		// The resource servers mcp and other.
		return "https://mcp.example.com/" + name, ok && secret == "secret" && r.PostForm != nil
	}))
	defer srv.Close()
	call := func(caller, contentType, body string) (status int, m map[string]any) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		if caller != "" {
			r.SetBasicAuth(caller, "secret")
		}
		answer, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("header %v", answer.Header)
		}
		if err := json.NewDecoder(answer.Body).Decode(&m); err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, m
	}
	const form = "application/x-www-form-urlencoded"
	tokens := w.tokens(g)
	token := url.Values{"token": {tokens.AccessToken}}.Encode()

	status, m := call("mcp", form, token)
	for _, name := range []string{"jti", "iat", proxyprovider.GrantIDClaim} {
		if m[name] == nil {
			t.Errorf("no %s", name)
		}
		delete(m, name)
	}
	want := map[string]any{
		"active": true, "token_type": "Bearer", "iss": issuer, "sub": "alice", "aud": resource, "client_id": "app",
		"scope": "mcp:read mcp:write", "exp": float64(w.clock.now().Unix() + 900),
	}
	if diff := cmp.Diff(want, m); diff != "" || status != 200 {
		t.Errorf("status %d, -want +got:\n%s", status, diff)
	}
	inactive := map[string]any{"active": false}
	for name, row := range map[string]struct{ caller, token string }{
		"another resource asks": {"other", tokens.AccessToken},
		"a refresh token":       {"mcp", tokens.RefreshToken},
		"nonsense":              {"mcp", "nonsense"},
	} {
		if status, m := call(row.caller, form, url.Values{"token": {row.token}}.Encode()); status != 200 || !cmp.Equal(m, inactive) {
			t.Errorf("%s: %d %v", name, status, m)
		}
	}
	for name, row := range map[string]struct {
		caller, kind, body, want string
		status                   int
	}{
		"nobody asks":   {"", form, token, "invalid_client", 401},
		"no token":      {"mcp", form, "", "invalid_request", 400},
		"two tokens":    {"mcp", form, token + "&" + token, "invalid_request", 400},
		"JSON":          {"mcp", "application/json", `{"token":"x"}`, "invalid_request", 400},
		"a broken form": {"mcp", form, "token=%zz", "invalid_request", 400},
		"a long body":   {"mcp", form, "token=" + strings.Repeat("x", 65<<10), "invalid_request", 413},
	} {
		if status, m := call(row.caller, row.kind, row.body); status != row.status || m["error"] != row.want {
			t.Errorf("%s: %d %v", name, status, m)
		}
	}
	if err := g.RevokeToken(t.Context(), publicClient("app"), authserver.Revocation{Token: tokens.RefreshToken}); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(5e9)
	if status, m := call("mcp", form, token); status != 200 || !cmp.Equal(m, inactive) {
		t.Errorf("revoked: %d %v", status, m)
	}
	next := w.tokens(g)
	w.faulty.down.Store(true)
	if status, m := call("mcp", form, url.Values{"token": {next.AccessToken}}.Encode()); status != 503 || m["error"] != "temporarily_unavailable" {
		t.Errorf("store down: %d %v", status, m)
	}
}
