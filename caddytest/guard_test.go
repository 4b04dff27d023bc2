package caddytest_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// guardedSite is a site in resource-server mode; %s are what stands before
// mcp_auth, the settings of mcp_auth, the issuer and the backend.
const guardedSite = `
{ORIGIN} {
	%s
	mcp_auth {ORIGIN} {
		authorization_server %s
		%s
	}
	reverse_proxy %s
}
`

func loadGuarded(t *testing.T, before, settings string) (*caddyInstance, *scriptedIDP, *backend) {
	t.Helper()
	idp, b := newScriptedIDP(t), newBackend(t)
	return loadCaddy(t, fmt.Sprintf(guardedSite, before, idp.URL, settings, b.addr())), idp, b
}

func bearerHeader(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

func TestGuardReadings(t *testing.T) {
	c, _, b := loadGuarded(t, "", "resource /mcp {\n\t\t\tscopes mcp:read\n\t\t}")
	for _, row := range []struct {
		target string
		status int // what a caller without a token gets
	}{
		{"/mcp", 401},
		{"/mcp/", 401},
		{"/mcp/x", 401},
		{"/MCP", 401},
		{"/Mcp/x", 401},
		{"/%6dcp", 400}, // not in the resource as it is spelled
		{"/mcp?x=1", 401},
		{"//mcp", 400}, // the same
		{"/mcpfoo", 200},
		{"/other", 200},
		{"/", 200},
		{"/x/../mcp", 400},
		{"/mcp/../other", 400},
		{"/mcp%2fx", 400},
		{"/mcp%5cx", 400},
		{"/x%2f..%2fmcp", 400},
		{"/mcp;x", 400},
		{"/mcp/a;b", 400},
		{"/mcp/%00", 400},
		{"/./mcp", 400},
		{"/%2e/mcp", 400},
		{"/%252e%252e/mcp", 400},
		{"http://localhost/mcp", 401},
	} {
		resp, body := c.send("POST", row.target, nil, "{}")
		if resp.StatusCode != row.status {
			t.Errorf("%s: %d %s, want %d", row.target, resp.StatusCode, body, row.status)
		}
		if reached := len(b.take()) > 0; reached != (row.status == 200) {
			t.Errorf("%s: reached the backend: %t", row.target, reached)
		}
		if resp.StatusCode == 401 && !strings.Contains(resp.Header.Get("WWW-Authenticate"), `resource_metadata="`+c.Origin+`/.well-known/oauth-protected-resource/mcp"`) {
			t.Errorf("%s: challenge %q", row.target, resp.Header.Get("WWW-Authenticate"))
		}
	}
}

func TestGuardSeesThroughRewrites(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "mcp"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, before, target string }{
		{"rewrite into the resource", "rewrite /door /mcp", "/door"},
		{"rewrite out of the resource", "rewrite /mcp /open", "/mcp"},
		{"uri strip_prefix into the resource", "uri strip_prefix /api", "/api/mcp"},
		{"uri strip_prefix out of the resource", "uri strip_prefix /mcp", "/mcp/x"},
		{"uri replace", "uri replace /a /mcp", "/a/x"},
		{"try_files", "root * " + root + "\n\ttry_files {path} /mcp", "/nothing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, idp, b := loadGuarded(t, row.before, "resource /mcp {\n\t\t\tscopes mcp:read\n\t\t}")
			resp, body := c.send("GET", row.target, nil, "")
			if resp.StatusCode != 401 || len(b.take()) > 0 {
				t.Errorf("without a token: %d %s", resp.StatusCode, body)
			}
			resp, body = c.send("GET", row.target, bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp"})), "")
			if resp.StatusCode != 200 || len(b.take()) != 1 {
				t.Errorf("with a token: %d %s", resp.StatusCode, body)
			}
		})
	}
}

func TestRewriteBetweenResourcesNeedsBothScopes(t *testing.T) {
	c, idp, b := loadGuarded(t, "rewrite /a /b", "resource /a {\n scopes a:read\n}\nresource /b {\n scopes b:read\n}")
	for scope, status := range map[string]int{"a:read": 403, "b:read": 403, "a:read b:read": 200} {
		token := idp.token(map[string]any{"aud": []string{c.Origin + "/a", c.Origin + "/b"}, "scope": scope})
		resp, _ := c.send("GET", "/a", bearerHeader(token), "")
		if resp.StatusCode != status || len(b.take()) > 0 != (status == 200) {
			t.Errorf("scope %q: %d, want %d", scope, resp.StatusCode, status)
		}
	}
}

// TestGuardTokens is the list of attacks on a resource server. The backend must
// see none of them.
func TestGuardTokens(t *testing.T) {
	c, idp, b := loadGuarded(t, "", "resource /mcp {\n\t\t\tscopes mcp:read\n\t\t}\n resource /other {\n scopes mcp:read\n}")
	aud := c.Origin + "/mcp"
	other := newScriptedIDP(t)
	for _, row := range []struct {
		name      string
		header    http.Header
		status    int
		challenge string // what WWW-Authenticate holds besides scope and resource_metadata
	}{
		{"good", bearerHeader(idp.token(map[string]any{"aud": aud})), 200, ""},
		{"good, audience list", bearerHeader(idp.token(map[string]any{"aud": []string{"https://elsewhere.example", aud}})), 200, ""},
		{"good, audience with a slash at the end", bearerHeader(idp.token(map[string]any{"aud": aud + "/"})), 200, ""},
		{"good, scheme in lower case", http.Header{"Authorization": {"bearer " + idp.token(map[string]any{"aud": aud})}}, 200, ""},
		{"no token", nil, 401, "Bearer scope="},
		{"another scheme", http.Header{"Authorization": {"Basic YTpi"}}, 401, `error="invalid_token"`},
		{"token in the query is none", http.Header{"X-Nothing": {"1"}}, 401, "Bearer scope="},
		{"no audience", bearerHeader(idp.token(nil)), 401, `error="invalid_token"`},
		{"another audience", bearerHeader(idp.token(map[string]any{"aud": "https://elsewhere.example/mcp"})), 401, `error="invalid_token"`},
		{"another resource of this site", bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/other"})), 401, `error="invalid_token"`},
		{"another issuer", bearerHeader(idp.token(map[string]any{"aud": aud, "iss": "https://elsewhere.example"})), 401, `error="invalid_token"`},
		{"another key", bearerHeader(other.token(map[string]any{"aud": aud, "iss": idp.URL})), 401, `error="invalid_token"`},
		{"expired", bearerHeader(idp.token(map[string]any{"aud": aud, "exp": time.Now().Add(-5 * time.Minute).Unix()})), 401, `error="invalid_token"`},
		{"expired and without scope", bearerHeader(idp.token(map[string]any{"aud": aud, "scope": "", "exp": time.Now().Add(-5 * time.Minute).Unix()})), 401, `error="invalid_token"`},
		{"no expiry", bearerHeader(idp.token(map[string]any{"aud": aud, "exp": nil})), 401, `error="invalid_token"`},
		{"not yet valid", bearerHeader(idp.token(map[string]any{"aud": aud, "nbf": time.Now().Add(5 * time.Minute).Unix()})), 401, `error="invalid_token"`},
		{"too little scope", bearerHeader(idp.token(map[string]any{"aud": aud, "scope": "mcp:other"})), 403, `error="insufficient_scope"`},
		{"bound to a key", bearerHeader(idp.token(map[string]any{"aud": aud, "cnf": map[string]any{"jkt": "x"}})), 401, `error="invalid_token"`},
		{"id_token", bearerHeader(idp.token(map[string]any{"aud": aud, "at_hash": "x"})), 401, `error="invalid_token"`},
		{"garbage", bearerHeader("garbage"), 401, `error="invalid_token"`},
		{"17 KiB", bearerHeader(strings.Repeat("a", 17<<10)), 401, `error="invalid_token"`},
		{"two headers", http.Header{"Authorization": {"Bearer a", "Bearer b"}}, 400, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			target := "/mcp"
			if strings.HasPrefix(row.name, "token in the query") {
				target += "?access_token=" + idp.token(map[string]any{"aud": aud})
			}
			resp, body := c.send("POST", target, row.header, "{}")
			if resp.StatusCode != row.status {
				t.Fatalf("%d %s, want %d", resp.StatusCode, body, row.status)
			}
			if reached := len(b.take()) > 0; reached != (row.status == 200) {
				t.Errorf("reached the backend: %t", reached)
			}
			challenge := resp.Header.Get("WWW-Authenticate")
			if !strings.Contains(challenge, row.challenge) {
				t.Errorf("challenge %q lacks %q", challenge, row.challenge)
			}
			if row.status == 401 || row.status == 403 {
				for _, want := range []string{`scope="mcp:read"`, `resource_metadata="` + c.Origin + `/.well-known/oauth-protected-resource/mcp"`} {
					if !strings.Contains(challenge, want) {
						t.Errorf("challenge %q lacks %q", challenge, want)
					}
				}
				if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Content-Type") != "application/json" {
					t.Errorf("headers %v", resp.Header)
				}
			}
			if row.name == "no token" && strings.Contains(challenge, "error=") {
				t.Errorf("challenge without a token has an error: %q", challenge)
			}
		})
	}
}

func TestPathScopesAndStepUp(t *testing.T) {
	c, idp, b := loadGuarded(t, "", `resource /mcp {
			scopes mcp:read mcp:write
			require mcp:read
			implies mcp:write mcp:read
			path /mcp/admin* mcp:admin
		}`)
	for _, row := range []struct {
		target, scope string
		status        int
		challenged    string
	}{
		{"/mcp", "mcp:read", 200, ""},
		{"/mcp", "mcp:write", 200, ""},
		{"/mcp", "", 403, `scope="mcp:read"`},
		{"/mcp/admin", "mcp:read", 403, `scope="mcp:read mcp:admin"`},
		{"/MCP/Admin/x", "mcp:read", 403, `scope="mcp:read mcp:admin"`},
		{"/mcp/%61dmin", "mcp:read", 403, `scope="mcp:read mcp:admin"`},
		{"/mcp/admin", "mcp:write", 403, ""},
		{"/mcp/admin", "mcp:admin", 403, ""},
		{"/mcp/admin", "mcp:admin mcp:write", 200, ""},
	} {
		token := idp.token(map[string]any{"aud": c.Origin + "/mcp", "scope": row.scope})
		resp, _ := c.send("GET", row.target, bearerHeader(token), "")
		challenge := resp.Header.Get("WWW-Authenticate")
		if resp.StatusCode != row.status || len(b.take()) > 0 != (row.status == 200) {
			t.Errorf("%s with %q: %d, want %d", row.target, row.scope, resp.StatusCode, row.status)
		}
		if !strings.Contains(challenge, row.challenged) {
			t.Errorf("%s with %q: challenge %q lacks %s", row.target, row.scope, challenge, row.challenged)
		}
	}
}

func TestMetadataDocuments(t *testing.T) {
	c, _, b := loadGuarded(t, "", "resource /mcp {\n scopes mcp:read\n}\nresource /b {\n}")
	for _, row := range []struct {
		target string
		status int
		holds  string
	}{
		{"/.well-known/oauth-protected-resource/mcp", 200, `"resource":"` + c.Origin + `/mcp"`},
		{"/.well-known/oauth-protected-resource/mcp/", 200, `"resource":"` + c.Origin + `/mcp"`},
		{"/.well-known/oauth-protected-resource/b", 200, `"resource":"` + c.Origin + `/b"`},
		{"/.well-known/oauth-protected-resource", 404, `"error"`},
		{"/.well-known/oauth-protected-resource/nothing", 404, `"error"`},
		{"/.well-known/oauth-authorization-server", 200, `"token_endpoint"`},
		{"/.well-known/oauth-authorization-server/mcp", 200, `"token_endpoint"`},
		{"/mcp/.well-known/oauth-authorization-server", 200, `"token_endpoint"`},
		{"/mcp/.well-known/openid-configuration", 404, `"error"`}, // it lacks what OpenID makes mandatory
	} {
		for _, method := range []string{"GET", "HEAD"} {
			resp, body := c.send(method, row.target, nil, "")
			if resp.StatusCode != row.status || method == "GET" && !strings.Contains(body, row.holds) || method == "HEAD" && body != "" {
				t.Errorf("%s %s: %d %s", method, row.target, resp.StatusCode, body)
			}
			if resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s %s: headers %v", method, row.target, resp.Header)
			}
		}
	}
	if n := len(b.take()); n > 0 {
		t.Errorf("%d requests reached the backend", n)
	}
}

func TestWholeSiteWithoutResource(t *testing.T) {
	c, idp, b := loadGuarded(t, "", "")
	for _, target := range []string{"/", "/mcp", "/anything"} {
		resp, _ := c.send("GET", target, nil, "")
		if resp.StatusCode != 401 || !strings.Contains(resp.Header.Get("WWW-Authenticate"), "/.well-known/oauth-protected-resource/mcp") {
			t.Errorf("%s: %d %s", target, resp.StatusCode, resp.Header.Get("WWW-Authenticate"))
		}
		resp, _ = c.send("GET", target, bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp"})), "")
		if resp.StatusCode != 200 {
			t.Errorf("%s with a token: %d", target, resp.StatusCode)
		}
	}
	b.take()
	_, bare := c.send("GET", "/.well-known/oauth-protected-resource", nil, "")
	_, inserted := c.send("GET", "/.well-known/oauth-protected-resource/mcp", nil, "")
	if bare != inserted || !strings.Contains(bare, `"resource":"`+c.Origin+`/mcp"`) {
		t.Errorf("documents differ: %s and %s", bare, inserted)
	}
}

func TestBearerDirective(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(`
{ORIGIN} {
	mcp_bearer {
		resource {ORIGIN}/api
		authorization_server %[1]s
		verify jwt {
			jwks_uri %[1]s/keys
		}
		scopes mcp:read
	}
	reverse_proxy %[2]s
}`, idp.URL, b.addr()))
	resp, _ := c.send("GET", "/api/x", nil, "")
	if resp.StatusCode != 401 || len(b.take()) > 0 {
		t.Errorf("without a token: %d", resp.StatusCode)
	}
	resp, body := c.send("GET", "/api/x", bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/api"})), "")
	if resp.StatusCode != 200 || len(b.take()) != 1 {
		t.Errorf("with a token: %d %s", resp.StatusCode, body)
	}
	resp, body = c.send("GET", "/.well-known/oauth-protected-resource/api", nil, "")
	if resp.StatusCode != 200 || !strings.Contains(body, `"authorization_servers":["`+idp.URL+`"]`) {
		t.Errorf("metadata: %d %s", resp.StatusCode, body)
	}
	if resp, _ := c.send("GET", "/open", nil, ""); resp.StatusCode != 200 {
		t.Errorf("outside the resource: %d", resp.StatusCode)
	}
}

// Endpoints one by one, with a jwks_uri and no issuer: tokens are accepted by
// key and audience, and the operator is told what is not checked.
func TestJWTWithoutIssuer(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(`
{ORIGIN} {
	mcp_auth {ORIGIN} {
		proxy {
			authorization_url %[1]s/authorize
			token_url %[1]s/token
			audience {ORIGIN}/mcp
			verify jwt {
				jwks_uri %[1]s/keys
			}
		}
		client my-app {
			redirect_uris https://client.example/callback
		}
	}
	reverse_proxy %[2]s
}`, idp.URL, b.addr()))
	for aud, status := range map[string]int{c.Origin + "/mcp": 200, "https://elsewhere.example": 401} {
		resp, body := c.send("GET", "/mcp", bearerHeader(idp.token(map[string]any{"aud": aud, "iss": "https://any.example"})), "")
		if resp.StatusCode != status {
			t.Errorf("audience %s: %d %s", aud, resp.StatusCode, body)
		}
	}
	if !strings.Contains(c.log(), "the issuer of tokens is not checked") {
		t.Error("no warning in the log")
	}
	_, metadata := c.send("GET", "/.well-known/oauth-authorization-server", nil, "")
	if strings.Contains(metadata, "registration_endpoint") || strings.Contains(metadata, "revocation_endpoint") {
		t.Errorf("endpoints that are not there are advertised: %s", metadata)
	}
	for _, endpoint := range []string{"/register", "/revoke"} {
		if resp, body := c.send("POST", endpoint, nil, "{}"); resp.StatusCode != 404 || !strings.Contains(body, `"error"`) {
			t.Errorf("%s: %d %s", endpoint, resp.StatusCode, body)
		}
	}
}

func TestTokensWithoutExpiry(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(`
{ORIGIN} {
	mcp_auth {ORIGIN} {
		authorization_server %[1]s {
			verify jwt {
				require_expiry off
			}
		}
	}
	reverse_proxy %[2]s
}`, idp.URL, b.addr()))
	resp, body := c.send("GET", "/mcp", bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp", "exp": nil})), "")
	if resp.StatusCode != 200 {
		t.Errorf("no expiry: %d %s", resp.StatusCode, body)
	}
	resp, _ = c.send("GET", "/mcp", bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp", "exp": 1})), "")
	if resp.StatusCode != 401 {
		t.Errorf("expired: %d", resp.StatusCode)
	}
}
