package caddytest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// severalHandlers has a handler of ours for each of several resources. %[1]s is
// the issuer, %[2]s the server behind.
const severalHandlers = `
http://localhost:{PORT} {
	mcp_auth http://localhost:{PORT} {
		authorization_server %[1]s {
			verify jwt
		}
		resource /one {
			scopes mcp:read
		}
	}
	mcp_bearer {
		resource http://localhost:{PORT}/two
		authorization_server %[1]s
		scopes mcp:read
		forward jwt
	}
	mcp_bearer {
		resource http://localhost:{PORT}/three
		authorization_server %[1]s
		scopes mcp:read
		forward access_token
	}
	mcp_bearer {
		resource http://localhost:{PORT}/one/inner
		authorization_server %[1]s
		scopes mcp:write
		forward identity email
	}
	reverse_proxy %[2]s
}
`

// Handlers of ours for several resources of a host leave each other's requests
// alone, and where two guard a request, both check it.
func TestSeveralHandlersOfAHost(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(severalHandlers, idp.URL, b.addr()))
	token := func(scope string, paths ...string) string {
		var audience []string
		for _, path := range paths {
			audience = append(audience, c.Origin+path)
		}
		return idp.token(map[string]any{"aud": audience, "scope": scope, "email": "a@example.com"})
	}
	b.answer = func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Mcp-Session-Id", "s") }
	for _, row := range []struct {
		path, token string
		status      int
		want        []string // headers at the server behind
	}{
		{"/one", token("mcp:read", "/one"), 200, []string{"X-Mcp-Client", "X-Mcp-Scope", "X-Mcp-User"}},
		{"/two", token("mcp:read", "/two"), 200, []string{"X-Mcp-Identity"}},
		{"/three", token("mcp:read", "/three"), 200, []string{"Authorization", "X-Mcp-Client", "X-Mcp-Scope", "X-Mcp-User"}},
		{"/two", token("mcp:read", "/one"), 401, nil},
		{"/one/inner", token("mcp:read mcp:write", "/one", "/one/inner"), 200, []string{"X-Mcp-Client", "X-Mcp-Scope", "X-Mcp-User", "X-Mcp-User-Email"}},
		{"/one/inner", token("mcp:write", "/one", "/one/inner"), 403, nil},
		{"/one/inner", token("mcp:read", "/one", "/one/inner"), 403, nil},
		{"/one/inner", token("mcp:read mcp:write", "/one"), 401, nil},
		{"/one/inner", token("mcp:read mcp:write", "/one/inner"), 401, nil},
		{"/open", token("mcp:read", "/one"), 200, []string{"Authorization"}},
	} {
		header := bearerHeader(row.token)
		header["X-Mcp-User"], header["X_mcp_client"] = []string{"root"}, []string{"root"}
		resp, body := c.send("POST", row.path, header, "{}")
		taken := b.take()
		if resp.StatusCode != row.status || (len(taken) == 1) != (row.status == 200) {
			t.Errorf("%s: %d %s, want %d; %d requests", row.path, resp.StatusCode, body, row.status, len(taken))
			continue
		}
		if row.status != 200 {
			continue
		}
		var got []string
		for _, name := range []string{"Authorization", "X-Mcp-Client", "X-Mcp-Identity", "X-Mcp-Scope", "X-Mcp-User", "X-Mcp-User-Email", "X_mcp_client"} {
			if value := taken[0].Header.Get(name); value != "" {
				got = append(got, name)
				if value == "root" {
					t.Errorf("%s: %s came from the client", row.path, name)
				}
			}
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: headers (-want +got):\n%s", row.path, diff)
		}
		if row.path == "/open" {
			continue
		}
		// The session of this resource comes back whole.
		header["Mcp-Session-Id"] = []string{resp.Header.Get("Mcp-Session-Id")}
		if resp, body := c.send("POST", row.path, header, "{}"); resp.StatusCode != 200 || b.take()[0].Header.Get("Mcp-Session-Id") != "s" {
			t.Errorf("%s: the session is lost: %d %s", row.path, resp.StatusCode, body)
		}
	}
	for path, status := range map[string]int{"/one": 200, "/two": 200, "/three": 200, "/one/inner": 200, "/four": 404} {
		resp, body := c.send("GET", "/.well-known/oauth-protected-resource"+path, nil, "")
		if resp.StatusCode != status || status == 200 && !strings.Contains(body, `"resource":"`+c.Origin+path+`"`) {
			t.Errorf("metadata of %s: %d %s", path, resp.StatusCode, body)
		}
	}
	if n := len(b.take()); n != 0 {
		t.Errorf("%d requests for metadata reached the server behind", n)
	}
}
