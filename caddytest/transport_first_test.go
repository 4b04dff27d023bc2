package caddytest_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestTransportNeverBare: the first request waits for a token too, of many the
// token is asked for once, and the server sees none without it.
func TestTransportNeverBare(t *testing.T) {
	for name, settings := range map[string]func(*remote) string{
		"client credentials": (*remote).machineCredentials,
		"refresh token":      func(r *remote) string { return r.refreshCredentials("seed") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote(t)
			c := proxyTo(t, r, settings(r))
			var wg sync.WaitGroup
			for range 30 {
				wg.Go(func() {
					resp, err := http.Post(c.Origin+"/mcp", "application/json", strings.NewReader("{}"))
					if err != nil {
						t.Error(err)
						return
					}
					_ = resp.Body.Close()
					if resp.StatusCode != 200 {
						t.Errorf("status %d", resp.StatusCode)
					}
				})
			}
			wg.Wait()
			requests := r.take()
			for _, req := range requests {
				if req.Header.Get("Authorization") == "" {
					t.Error("the server got a request without a token")
				}
			}
			if forms := r.takeForms(); len(forms) != 1 || len(requests) != 30 {
				t.Errorf("%d token requests, %d requests", len(forms), len(requests))
			}
		})
	}

	// A server that cannot give one is asked once by all who come.
	r := newRemote(t)
	r.token = func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 401, map[string]any{"error": "invalid_client"})
	}
	c := proxyTo(t, r, r.machineCredentials())
	for range 5 {
		if resp, body := c.send("POST", "/mcp", nil, "{}"); resp.StatusCode != 502 || !strings.Contains(body, "server_error") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	if forms, requests := r.takeForms(), r.take(); len(forms) != 1 || len(requests) != 0 {
		t.Errorf("%d token requests, %d requests", len(forms), len(requests))
	}
	if !strings.Contains(c.log(), "correct client_id and client_secret") {
		t.Error("the log does not say what to do")
	}
}

// TestTransportHiddenMetadata: where only the challenge says where the metadata
// are, the server is asked for it, and not with the caller's request.
func TestTransportHiddenMetadata(t *testing.T) {
	r, elsewhere := newRemote(t), newRemote(t)
	r.hidden, r.issuer = true, elsewhere.URL
	elsewhere.token = func(w http.ResponseWriter, _ *http.Request) {
		r.set(func() { r.valid["from-elsewhere"] = "" })
		writeJSON(w, 200, map[string]any{"access_token": "from-elsewhere", "token_type": "Bearer", "expires_in": 3600})
	}
	c := proxyTo(t, r, elsewhere.machineCredentials())
	if resp, body := c.send("POST", "/mcp", nil, "secret of the caller"); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	bodies := r.takeBodies()
	if len(bodies) == 0 || bodies[len(bodies)-1] != "secret of the caller" || strings.Contains(strings.Join(bodies[:len(bodies)-1], ""), "secret") {
		t.Errorf("the server got %q", bodies)
	}
}

// TestTransportChallengeScope: the first token has the scope that the server asks
// for, unless that is out of all proportion.
func TestTransportChallengeScope(t *testing.T) {
	for rule, row := range map[string]struct{ asks, want string }{
		"as asked": {"files:read files:write", "files:read files:write"},
		"bounded":  {strings.Repeat("files:read ", 400), ""},
	} {
		t.Run(rule, func(t *testing.T) {
			r, elsewhere := newRemote(t), newRemote(t)
			r.hidden, r.issuer, r.asks = true, elsewhere.URL, row.asks
			elsewhere.token = func(w http.ResponseWriter, _ *http.Request) {
				r.set(func() { r.valid["from-elsewhere"] = "" })
				writeJSON(w, 200, map[string]any{"access_token": "from-elsewhere", "token_type": "Bearer", "expires_in": 3600})
			}
			c := proxyTo(t, r, elsewhere.machineCredentials())
			if resp, body := c.send("POST", "/mcp", nil, "{}"); resp.StatusCode != 200 {
				t.Fatalf("%d %s", resp.StatusCode, body)
			}
			forms := elsewhere.takeForms()
			if len(forms) != 1 || forms[0].Get("scope") != row.want {
				t.Errorf("token requests %v", forms)
			}
		})
	}
}

// TestTransportStepUpRefused: a caller who needs more scope than can be had gets
// 403, and nobody else notices.
func TestTransportStepUpRefused(t *testing.T) {
	for _, refusal := range []string{"invalid_scope", "access_denied"} {
		t.Run(refusal, func(t *testing.T) {
			r := newRemote(t)
			r.expiresIn = 1
			r.token = func(w http.ResponseWriter, req *http.Request) {
				if strings.Contains(req.Form.Get("scope"), "admin") {
					writeJSON(w, 400, map[string]any{"error": refusal})
					return
				}
				r.answerToken(w, req)
			}
			r.serve = func(w http.ResponseWriter, req *http.Request) {
				if req.Header.Get("X-Tool") == "admin" {
					w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="admin"`)
					w.WriteHeader(http.StatusForbidden)
				}
			}
			c := proxyTo(t, r, r.machineCredentials()+"scopes mcp:read")
			if resp, body := c.send("GET", "/mcp", nil, ""); resp.StatusCode != 200 {
				t.Fatalf("%d %s", resp.StatusCode, body)
			}
			resp, body := c.send("GET", "/mcp", http.Header{"X-Tool": {"admin"}}, "")
			if resp.StatusCode != 403 || !strings.Contains(body, "access_denied") || resp.Header.Get("WWW-Authenticate") != "" {
				t.Errorf("who needs more: %d %v %s", resp.StatusCode, resp.Header, body)
			}
			time.Sleep(1100 * time.Millisecond) // the token expires
			if resp, body := c.send("GET", "/mcp", nil, ""); resp.StatusCode != 200 {
				t.Errorf("another after that: %d %s", resp.StatusCode, body)
			}
			if !strings.Contains(c.log(), "wants more scope") {
				t.Error("the log does not say why")
			}
		})
	}
}

// TestTransportTwoGrants: two proxies with grants of one client at one server
// each keep their own.
func TestTransportTwoGrants(t *testing.T) {
	r := newRemote(t)
	var mu sync.Mutex
	owners := map[string]string{"seed-a": "a", "seed-b": "b"} // refresh token -> grant
	access := map[string]string{}
	issued := 0
	r.token = func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		used := req.Form.Get("refresh_token")
		owner := owners[used]
		delete(owners, used)
		if owner == "" {
			writeJSON(w, 400, map[string]any{"error": "invalid_grant"})
			return
		}
		issued++
		token, refresh := fmt.Sprintf("of-%s-%d", owner, issued), fmt.Sprintf("refresh-%s-%d", owner, issued)
		owners[refresh], access[token] = owner, owner
		r.set(func() { r.valid[token] = "" })
		writeJSON(w, 200, map[string]any{"access_token": token, "token_type": "Bearer", "refresh_token": refresh, "expires_in": 3600})
	}
	r.serve = func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprint(w, access[strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")])
	}
	c := newCaddy(t)
	var proxies strings.Builder
	for _, name := range []string{"a", "b"} {
		_, _ = fmt.Fprintf(&proxies, "handle /%s {\nreverse_proxy %s {\ntransport mcp_oauth {\n%s}\n}\n}\n", name, r.URL, r.refreshCredentials("seed-"+name))
	}
	globals := fmt.Sprintf("\tmcp_auth {\n\t\tstore bbolt %s/grants.db\n\t}", c.dir)
	if err := c.load(globals, "{ORIGIN} {\n"+proxies.String()+"}\n"); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		for _, name := range []string{"a", "b"} {
			if resp, body := c.send("GET", "/"+name, nil, ""); resp.StatusCode != 200 || body != name {
				t.Errorf("round %d: %s got %d %q", round, name, resp.StatusCode, body)
			}
		}
		r.expire()
	}
}
