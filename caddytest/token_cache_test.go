package caddytest_test

import (
	"fmt"
	"net/http"
	"testing"
)

// What is known of tokens outlives a reload that does not change the verifier,
// and nothing is remembered if that is turned off.
func TestTokenCacheOverReloads(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := newCaddy(t)
	idp.handle("/introspect", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 200, map[string]any{"active": true, "sub": "alice", "scope": "mcp:read", "aud": c.Origin + "/mcp", "exp": 4000000000})
	})
	load := func(cache, secret, resource string) {
		t.Helper()
		if err := c.load("\tmcp_auth {\n\t\t"+cache+"\n\t}", fmt.Sprintf(`
{ORIGIN} {
	mcp_auth {ORIGIN} {
		authorization_server %[1]s {
			verify introspection {
				url %[1]s/introspect
				client_id rs
				client_secret %[2]s
			}
		}
		resource /mcp {
			%[3]s
		}
	}
	reverse_proxy %[4]s
}`, idp.URL, secret, resource, b.addr())); err != nil {
			t.Fatal(err)
		}
	}
	asked := func(when string, want int) {
		t.Helper()
		before := idp.count("/introspect")
		for range 3 {
			if resp, body := c.send("POST", "/mcp", bearerHeader("opaque"), "{}"); resp.StatusCode != 200 {
				t.Errorf("%s: %d %s", when, resp.StatusCode, body)
			}
		}
		if n := idp.count("/introspect") - before; n != want {
			t.Errorf("%s: asked %d times, want %d", when, n, want)
		}
	}
	load("token_cache 8MiB", "one", "scopes mcp:read")
	asked("at first", 1)
	load("token_cache 8MiB", "one", "require none")
	asked("after another setting has changed", 0)
	load("token_cache 8MiB", "two", "require none")
	asked("after the verifier has changed", 1)
	load("token_cache 16MiB", "two", "require none")
	asked("with another cache", 1)
	load("token_cache off", "two", "require none")
	asked("without a cache", 3)
}
