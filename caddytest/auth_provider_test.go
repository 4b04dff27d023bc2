package caddytest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddyserver/caddy/v2"
)

// authenticationRoutes is a server whose `authentication` handler uses
// mcp_bearer, beside other providers if there are any, and an mcp_bearer handler
// for the metadata.
func authenticationRoutes(c *caddyInstance, idp, upstream string, others map[string]any) map[string]any {
	provider := map[string]any{
		"resource":              map[string]any{"url": c.Origin + "/mcp", "scopes": []string{"mcp:read"}, "forward": map[string]any{"kind": "identity", "fields": []string{"email"}}},
		"authorization_servers": []string{idp},
	}
	handler := map[string]any{"handler": "mcp_bearer"}
	for name, value := range provider {
		handler[name] = value
	}
	providers := map[string]any{"mcp_bearer": provider}
	for name, value := range others {
		providers[name] = value
	}
	return map[string]any{
		"listen":          []string{fmt.Sprintf("localhost:%d", c.Port)},
		"automatic_https": map[string]any{"disable": true},
		"logs":            map[string]any{},
		"routes": []any{
			map[string]any{"match": []any{map[string]any{"path": []string{"/.well-known/oauth-protected-resource*"}}}, "handle": []any{handler}},
			map[string]any{"match": []any{map[string]any{"path": []string{"/mcp*", "/tools/*"}}}, "handle": []any{
				map[string]any{"handler": "authentication", "providers": providers},
				map[string]any{
					"handler": "reverse_proxy", "upstreams": []any{map[string]any{"dial": upstream}},
					"headers": map[string]any{"request": map[string]any{"set": map[string]any{
						"X-Seen": []string{"{http.auth.user.id} {http.auth.user.client_id} {http.auth.user.scopes} {http.auth.user.claims.tenant}"},
					}}},
				},
			}},
		},
		"errors": map[string]any{"routes": []any{map[string]any{"handle": []any{
			map[string]any{"handler": "static_response", "body": "error page"},
		}}}},
	}
}

// loadAuthentication loads the routes through the admin API.
func loadAuthentication(t *testing.T, others map[string]any) (*caddyInstance, *scriptedIDP, *backend) {
	t.Helper()
	idp, b := newScriptedIDP(t), newBackend(t)
	c := newCaddy(t)
	socket := c.dir + "/admin.sock"
	empty := fmt.Sprintf(`{"admin":{"listen":"unix/%s"},"storage":{"module":"file_system","root":%q},"logging":{"logs":{"default":{"level":"DEBUG","writer":{"output":"file","filename":%q}}}}}`,
		socket, c.dir+"/storage", c.logFile())
	if err := caddy.Load([]byte(empty), true); err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"http": map[string]any{"servers": map[string]any{"srv0": authenticationRoutes(c, idp.URL, b.addr(), others)}}})
	if err != nil {
		t.Fatal(err)
	}
	adminRequest(t, socket, "PUT", "/config/apps", string(config), 200)
	return c, idp, b
}

func TestAuthenticationProvider(t *testing.T) {
	c, idp, b := loadAuthentication(t, nil)
	good := idp.token(map[string]any{"aud": c.Origin + "/mcp", "email": "a@example.com", "tenant": "t1"})
	const metadata = "/.well-known/oauth-protected-resource/mcp"

	header := bearerHeader(good)
	header["X-MCP-User"] = []string{"root"}
	header["x_mcp_user_groups"] = []string{"admins"}
	for _, path := range []string{"/mcp", "/tools/x"} { // all of the route, whatever the resource's path
		resp, body := c.send("POST", path, header, "{}")
		requests := b.take()
		if resp.StatusCode != 200 || len(requests) != 1 {
			t.Fatalf("%s: %d %s", path, resp.StatusCode, body)
		}
		got := map[string]string{}
		for name := range requests[0].Header {
			if strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "x-mcp-") || name == "Authorization" || name == "X-Seen" {
				got[name] = requests[0].Header.Get(name)
			}
		}
		want := map[string]string{
			"X-Mcp-User": "alice", "X-Mcp-Client": "c1", "X-Mcp-Scope": "mcp:read", "X-Mcp-User-Email": "a@example.com",
			"X-Seen": "alice c1 mcp:read t1",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}

	for _, row := range []struct {
		name, token string
		status      int
		challenge   []string
	}{
		{"no token", "", 401, []string{`resource_metadata="` + c.Origin + metadata + `"`, `scope="mcp:read"`}},
		{"garbage", "garbage", 401, []string{`error="invalid_token"`}},
		{"another audience", idp.token(map[string]any{"aud": "https://other.example"}), 401, []string{`error="invalid_token"`}},
		{"too few scopes", idp.token(map[string]any{"aud": c.Origin + "/mcp", "scope": "other"}), 403, []string{`error="insufficient_scope"`, `scope="mcp:read"`}},
	} {
		header := http.Header{}
		if row.token != "" {
			header = bearerHeader(row.token)
		}
		resp, body := c.send("POST", "/mcp", header, "{}")
		if resp.StatusCode != row.status || len(b.take()) > 0 {
			t.Errorf("%s: %d %s", row.name, resp.StatusCode, body)
		}
		for _, part := range row.challenge {
			if got := resp.Header.Values("WWW-Authenticate"); len(got) != 1 || !strings.Contains(got[0], part) {
				t.Errorf("%s: challenge %q", row.name, got)
			}
		}
		var answer struct{ Error string }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Error == "" || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: body %q", row.name, body)
		}
	}
	if resp, body := c.send("POST", "/mcp", http.Header{"Authorization": {"Bearer " + good}, "Origin": {"https://evil.example"}}, "{}"); resp.StatusCode != 403 || resp.Header.Get("WWW-Authenticate") != "" || len(b.take()) > 0 {
		t.Errorf("foreign origin: %d %s", resp.StatusCode, body)
	}
	if resp, body := c.send("GET", metadata, nil, ""); resp.StatusCode != 200 || !strings.Contains(body, c.Origin+"/mcp") {
		t.Errorf("metadata: %d %s", resp.StatusCode, body)
	}
	found := false
	for line := range strings.Lines(c.log()) {
		found = found || strings.Contains(line, "handled request") && strings.Contains(line, `"user_id":"alice"`) && strings.Contains(line, `"client_id":"c1"`)
		if strings.Contains(line, good) {
			t.Errorf("the token is in the log: %s", line)
		}
	}
	if !found {
		t.Error("no line of the access log names user and client")
	}
}

// TestAuthenticationProviderBesideAnother: a token or a password opens the route,
// and what neither opens is 401 with a challenge.
func TestAuthenticationProviderBesideAnother(t *testing.T) {
	c, idp, b := loadAuthentication(t, map[string]any{"http_basic": map[string]any{
		"accounts": []any{map[string]any{"username": "alice", "password": hash(t, "correct horse")}},
	}})
	good := idp.token(map[string]any{"aud": c.Origin + "/mcp"})
	if resp, body := c.send("POST", "/mcp", bearerHeader(good), "{}"); resp.StatusCode != 200 || b.take()[0].Header.Get("X-Mcp-User") != "alice" {
		t.Errorf("token: %d %s", resp.StatusCode, body)
	}
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth("alice", "correct horse")
	if resp, body := c.send("POST", "/mcp", r.Header, "{}"); resp.StatusCode != 200 || len(b.take()) != 1 {
		t.Errorf("password: %d %s", resp.StatusCode, body)
	}
	for name, header := range map[string]http.Header{"nothing": {}, "garbage": bearerHeader("garbage")} {
		resp, body := c.send("POST", "/mcp", header, "{}")
		if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") == "" || len(b.take()) > 0 {
			t.Errorf("%s: %d %s %v", name, resp.StatusCode, body, resp.Header)
		}
	}
}
