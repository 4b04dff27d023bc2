package caddytest_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestSessionsOfUsers attacks the binding of MCP sessions to their users, over
// every version of HTTP. The server must see none of it.
func TestSessionsOfUsers(t *testing.T) {
	b := newBackend(t)
	b.answer = func(w http.ResponseWriter, r *http.Request) {
		if id := r.Header.Get("Give"); id != "" {
			w.Header().Set("Mcp-Session-Id", id)
		}
	}
	_, idp, wires := loadWires(t, "", b.addr())
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) {
			call := func(method string, claims map[string]any, header http.Header) *http.Response {
				t.Helper()
				all := map[string]any{"aud": w.origin + "/mcp"}
				for name, value := range claims {
					all[name] = value
				}
				r := w.request(t, method, "/mcp", nil)
				for name, values := range header {
					r.Header[name] = values
				}
				r.Header.Set("Authorization", "Bearer "+idp.token(all))
				resp := w.do(t, r)
				_ = resp.Body.Close()
				return resp
			}
			bob, machine := map[string]any{"sub": "bob"}, map[string]any{"sub": nil, "client_id": "alice"}
			own := call("POST", nil, http.Header{"Give": {"s-1"}}).Header.Get("Mcp-Session-Id")
			his := call("POST", bob, http.Header{"Give": {"s-2"}}).Header.Get("Mcp-Session-Id")
			if !strings.HasPrefix(own, "s-1.") || !strings.HasPrefix(his, "s-2.") {
				t.Fatalf("sessions %q and %q", own, his)
			}
			b.take()
			for _, row := range []struct {
				rule   string
				claims map[string]any
				ids    []string
				status int
			}{
				{"own", nil, []string{own}, 200},
				{"of another user", bob, []string{own}, 404},
				{"of another user, by a machine of that name", machine, []string{own}, 404},
				{"MAC stripped", nil, []string{"s-1"}, 404},
				{"MAC spliced", nil, []string{"s-2" + own[3:]}, 404},
				{"MAC of the other on the own id", nil, []string{"s-1" + his[3:]}, 404},
				{"twice", nil, []string{own, own}, 400},
			} {
				for _, method := range []string{"GET", "POST", "DELETE"} {
					resp := call(method, row.claims, http.Header{"Mcp-Session-Id": row.ids})
					reached := b.take()
					if resp.StatusCode != row.status || (len(reached) > 0) != (row.status == 200) {
						t.Errorf("%s, %s: %d, reached %d times", row.rule, method, resp.StatusCode, len(reached))
					}
					if len(reached) > 0 && reached[0].Header.Get("Mcp-Session-Id") != "s-1" {
						t.Errorf("%s, %s: the server sees %v", row.rule, method, reached[0].Header["Mcp-Session-Id"])
					}
				}
			}
		})
	}
}

// The session of one resource is none of another, and those of a site without
// binding are as the server gave them.
func TestSessionsOfResources(t *testing.T) {
	c, idp, b := loadGuarded(t, "", "resource /a\nresource /b\nresource /c {\n session_binding off\n}")
	b.answer = func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Mcp-Session-Id", "s") }
	header := bearerHeader(idp.token(map[string]any{"aud": []string{c.Origin + "/a", c.Origin + "/b", c.Origin + "/c"}}))
	resp, _ := c.send("POST", "/a", header, "{}")
	header.Set("Mcp-Session-Id", resp.Header.Get("Mcp-Session-Id"))
	for target, status := range map[string]int{"/a": 200, "/a/x": 200, "/b": 404, "/c": 200} {
		if resp, _ := c.send("POST", target, header, "{}"); resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", target, resp.StatusCode, status)
		}
	}
	if resp, _ := c.send("POST", "/c", header, "{}"); resp.Header.Get("Mcp-Session-Id") != "s" {
		t.Errorf("session_binding off: %q", resp.Header.Get("Mcp-Session-Id"))
	}
}

// A session survives a reload and a restart, as far as its key does.
func TestSessionKeys(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	b.answer = func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Mcp-Session-Id", "s") }
	site := fmt.Sprintf(guardedSite, "", idp.URL, "resource /mcp", b.addr())
	const newer, older = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVpBQkNERUY="
	keys := func(keys ...string) string {
		return "\tmcp_auth {\n\t\tencryption_key " + strings.Join(keys, " ") + "\n\t}"
	}

	c := newCaddy(t)
	load := func(globals, site string) {
		t.Helper()
		if err := c.load(globals, site); err != nil {
			t.Fatal(err)
		}
	}
	header := func(id string) http.Header {
		h := bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp"}))
		if id != "" {
			h.Set("Mcp-Session-Id", id)
		}
		return h
	}
	begin := func() string {
		t.Helper()
		resp, body := c.send("POST", "/mcp", header(""), "{}")
		if id := resp.Header.Get("Mcp-Session-Id"); resp.StatusCode == 200 && strings.HasPrefix(id, "s.") {
			return id
		}
		t.Fatalf("%d %s %v", resp.StatusCode, body, resp.Header)
		return ""
	}
	goesOn := func(rule, id string, status int) {
		t.Helper()
		if resp, body := c.send("POST", "/mcp", header(id), "{}"); resp.StatusCode != status {
			t.Errorf("%s: %d %s, want %d", rule, resp.StatusCode, body, status)
		}
	}
	load("", site)
	generated := begin()
	load("", site+"\n# another configuration\nhttp://other.localhost:{PORT} {\n\trespond ok\n}")
	goesOn("the generated key after a reload", generated, 200)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	load("", site)
	goesOn("the generated key after a restart", generated, 200)
	load(keys(older), site)
	goesOn("another key", generated, 404)
	old := begin()
	load(keys(newer, older), site)
	goesOn("a key that was rotated", old, 200)
	load(keys(newer), site)
	goesOn("a key that was dropped", old, 404)

	// Where no key can be kept, sessions live as long as the process.
	storage := filepath.Join(c.dir, "storage")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(storage); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(storage, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	load("", site)
	inMemory := begin()
	if !strings.Contains(c.log(), "MCP sessions are bound to their users with a key in memory") {
		t.Error("no warning in the log")
	}
	load("", site+"\nhttp://other.localhost:{PORT} {\n\trespond ok\n}")
	goesOn("a key in memory after a reload", inMemory, 200)
}
