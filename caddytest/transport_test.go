package caddytest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// TestTransportAddsToken: the caller has no token, and whatever it says about
// one stays here.
func TestTransportAddsToken(t *testing.T) {
	r := newRemote(t)
	c := proxyTo(t, r, r.machineCredentials())
	header := http.Header{"Authorization": {"Bearer of-the-caller"}, "Dpop": {"proof"}, "Content-Type": {"application/json"}}
	resp, body := c.send("POST", "/mcp?access_token=of-the-caller&x=1", header, `{"n":1}`)
	if resp.StatusCode != 200 || body != `remote:{"n":1}` {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	requests := r.take()
	for _, req := range requests {
		if strings.Contains(fmt.Sprint(req.Header, req.URL), "of-the-caller") || req.Header.Get("Dpop") != "" {
			t.Errorf("the caller's token went upstream: %s %v", req.URL, req.Header)
		}
		if req.URL.Query().Get("x") != "1" || "http://"+req.Host != r.URL {
			t.Errorf("at the remote: %s of %s", req.URL, req.Host)
		}
	}
	if last := requests[len(requests)-1].Header.Get("Authorization"); last != "Bearer remote-access-1" {
		t.Errorf("Authorization is %q", last)
	}
	forms := r.takeForms()
	if len(forms) != 1 || forms[0].Get("grant_type") != "client_credentials" || forms[0].Get("resource") != r.URL+"/mcp" {
		t.Errorf("token requests: %v", forms)
	}
	if resp, body := c.send("GET", "/mcp", nil, ""); resp.StatusCode != 200 || len(r.takeForms()) != 0 || len(r.take()) != 1 {
		t.Errorf("second request: %d %s", resp.StatusCode, body)
	}
	for line := range strings.Lines(c.log()) {
		for _, secret := range []string{"remote-access-1", "machine-secret"} {
			if strings.Contains(line, secret) {
				t.Errorf("a secret is in the log: %s", line)
			}
		}
	}
}

// TestTransportRefusedToken: 401 is answered with a new token and the same
// body, once.
func TestTransportRefusedToken(t *testing.T) {
	r := newRemote(t)
	c := proxyTo(t, r, r.machineCredentials()+"replay_limit 1KiB")
	c.send("GET", "/mcp", nil, "")
	r.expire()
	r.takeForms()
	body := strings.Repeat("x", 1000)
	if resp, got := c.send("POST", "/mcp", nil, body); resp.StatusCode != 200 || got != "remote:"+body {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	if forms := r.takeForms(); len(forms) != 1 {
		t.Errorf("%d token requests", len(forms))
	}

	// A body that is too long to be kept is streamed; the caller may repeat it.
	r.expire()
	body = strings.Repeat("y", 100_000)
	resp, got := c.send("POST", "/mcp", nil, body)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(got, "temporarily_unavailable") {
		t.Errorf("long body: %d %v %s", resp.StatusCode, resp.Header, got)
	}
	if resp, got := c.send("POST", "/mcp", nil, body); resp.StatusCode != 200 || got != "remote:"+body {
		t.Errorf("long body again: %d", resp.StatusCode)
	}

	// A remote that refuses every token is not the caller's affair.
	r.set(func() { r.valid = nil; r.token = nil })
	r.set(func() {
		r.valid = map[string]string{}
		r.token = func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, 200, map[string]any{"access_token": "never-good", "token_type": "Bearer"})
		}
	})
	resp, got = c.send("GET", "/mcp", nil, "")
	if resp.StatusCode != 502 || resp.Header.Get("WWW-Authenticate") != "" || !strings.Contains(got, "server_error") || strings.Contains(got, "remote says no") {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, got)
	}
}

// TestTransportManyCallers: a hundred callers and one expired token are one
// refresh.
func TestTransportManyCallers(t *testing.T) {
	for name, settings := range map[string]func(*remote) string{
		"client credentials": (*remote).machineCredentials,
		"refresh token":      func(r *remote) string { return r.refreshCredentials("seed") },
	} {
		for _, how := range []string{"by the clock", "at the server"} {
			t.Run(name+" "+how, func(t *testing.T) {
				r := newRemote(t)
				if how == "by the clock" {
					r.expiresIn = 1
				}
				c := proxyTo(t, r, settings(r))
				if resp, body := c.send("GET", "/mcp", nil, ""); resp.StatusCode != 200 {
					t.Fatalf("%d %s", resp.StatusCode, body)
				}
				r.set(func() { r.expiresIn = 3600 })
				if how == "by the clock" {
					time.Sleep(1100 * time.Millisecond)
				}
				r.expire()
				r.takeForms()
				var wg sync.WaitGroup
				for range 100 {
					wg.Go(func() {
						req, err := http.NewRequestWithContext(t.Context(), "POST", c.Origin+"/mcp", strings.NewReader("{}"))
						if err != nil {
							t.Error(err)
							return
						}
						resp, err := http.DefaultClient.Do(req)
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
				if forms := r.takeForms(); len(forms) != 1 {
					t.Errorf("%d token requests", len(forms))
				}
			})
		}
	}
}

// TestTransportStreams: events reach the caller as they come.
func TestTransportStreams(t *testing.T) {
	r := newRemote(t)
	next := make(chan string)
	r.serve = func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		for event := range next {
			_, _ = io.WriteString(w, event)
			_ = http.NewResponseController(w).Flush()
		}
	}
	c := proxyTo(t, r, r.machineCredentials())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", c.Origin+"/mcp", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i := range 3 {
		next <- fmt.Sprintf("data: %d\n", i)
		line, err := lines.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d is %q, %v", i, line, err)
		}
	}
	close(next)
}

// TestTransportUpgrade: a WebSocket goes through, with the token in its handshake.
func TestTransportUpgrade(t *testing.T) {
	r := newRemote(t)
	r.serve = func(w http.ResponseWriter, req *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
		line, _ := buf.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+line)
	}
	c := proxyTo(t, r, r.machineCredentials())
	conn, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", c.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
	buf := bufio.NewReader(conn)
	resp, err := http.ReadResponse(buf, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v %v", resp, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := buf.ReadString('\n'); err != nil || line != "echo hello\n" {
		t.Errorf("%q %v", line, err)
	}
}

// TestTransportStepUp: 403 insufficient_scope is answered with more scope, or,
// where nobody can be asked, with 403 and no challenge.
func TestTransportStepUp(t *testing.T) {
	r := newRemote(t)
	c := proxyTo(t, r, r.machineCredentials()+"scopes mcp:read")
	c.send("GET", "/mcp", nil, "")
	r.set(func() { r.scope = "mcp:write" })
	r.takeForms()
	if resp, body := c.send("POST", "/mcp", nil, "{}"); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if forms := r.takeForms(); len(forms) != 1 || forms[0].Get("scope") != "mcp:read mcp:write" {
		t.Errorf("token requests: %v", forms)
	}
	if err := c.load(memoryStore, fmt.Sprintf(throughSite, r.URL, r.refreshCredentials("seed"))); err != nil {
		t.Fatal(err)
	}
	resp, body := c.send("POST", "/mcp", nil, "{}")
	if resp.StatusCode != 403 || resp.Header.Get("WWW-Authenticate") != "" || !strings.Contains(body, "access_denied") {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
}

// TestTransportTrouble: what is wrong with the authorization server is no reason
// to lose the grant, and is asked once and not by every caller.
func TestTransportTrouble(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"500":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"html": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>sign in</html>") },
		"reset": func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
		},
		"hang": func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() },
		"429": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote(t)
			c := proxyTo(t, r, r.refreshCredentials("seed"))
			c.send("GET", "/mcp", nil, "")
			r.expire()
			r.set(func() { r.token = answer })
			r.takeForms()
			for range 5 {
				resp, body := c.send("GET", "/mcp", nil, "")
				if resp.StatusCode != 503 || !strings.Contains(body, "temporarily_unavailable") || resp.Header.Get("Retry-After") == "" {
					t.Fatalf("%d %v %s", resp.StatusCode, resp.Header, body)
				}
			}
			if forms := r.takeForms(); len(forms) > 2 {
				t.Errorf("the authorization server was asked %d times", len(forms))
			}
			if !strings.Contains(c.log(), "there is no token for the MCP server") {
				t.Error("the log does not say why")
			}
			r.set(func() { r.token = nil })
			deadline := time.Now().Add(10 * time.Second)
			for {
				resp, body := c.send("GET", "/mcp", nil, "")
				if resp.StatusCode == 200 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the grant is lost: %d %s", resp.StatusCode, body)
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
}

// TestTransportKeepsRotatedToken: a refresh token that replaced the configured
// one outlives reload and restart; another one in the configuration wins.
func TestTransportKeepsRotatedToken(t *testing.T) {
	r := newRemote(t)
	c := newCaddy(t)
	globals := fmt.Sprintf("\tmcp_auth {\n\t\tstore bbolt %s/grants.db\n\t}", c.dir)
	load := func(token string) {
		t.Helper()
		if err := c.load(globals, fmt.Sprintf(throughSite, r.URL, r.refreshCredentials(token))); err != nil {
			t.Fatal(err)
		}
	}
	use := func() {
		t.Helper()
		if resp, body := c.send("GET", "/mcp", nil, ""); resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	load("seed")
	use()
	load("seed") // the same configuration
	use()
	if forms := r.takeForms(); len(forms) != 1 {
		t.Errorf("%d token requests before the restart", len(forms))
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	load("seed")
	r.expire()
	use()
	if forms := r.takeForms(); len(forms) != 1 || forms[0].Get("refresh_token") != "refresh-1" {
		t.Errorf("after the restart: %v", forms)
	}
	r.set(func() { r.refresh = "another" })
	r.expire()
	load("another")
	use()
	if forms := r.takeForms(); len(forms) != 1 || forms[0].Get("refresh_token") != "another" {
		t.Errorf("after another one was configured: %v", forms)
	}

	// A dead one is said once, and kept.
	r.set(func() { r.refresh = "gone" })
	r.expire()
	for range 3 {
		if resp, body := c.send("GET", "/mcp", nil, ""); resp.StatusCode != 502 || !strings.Contains(body, "server_error") {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	if forms := r.takeForms(); len(forms) != 1 {
		t.Errorf("a dead refresh token was tried %d times", len(forms))
	}
	if !strings.Contains(c.log(), "configure another refresh_token") {
		t.Error("the log does not say what to do")
	}
}

// TestTransportReload: a reload asks for no new token, nor does one that fails.
func TestTransportReload(t *testing.T) {
	r := newRemote(t)
	c := proxyTo(t, r, r.machineCredentials())
	c.send("GET", "/mcp", nil, "")
	if err := c.load(memoryStore, fmt.Sprintf(throughSite, r.URL, r.machineCredentials()+"dial_timeout 5s")); err != nil {
		t.Fatal(err)
	}
	if err := c.load(memoryStore, fmt.Sprintf(throughSite, r.URL, "resource https://other.example/mcp\n"+r.machineCredentials())); err == nil {
		t.Fatal("a configuration that sends the token elsewhere was loaded")
	}
	if resp, body := c.send("GET", "/mcp", nil, ""); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if forms := r.takeForms(); len(forms) != 1 {
		t.Errorf("%d token requests", len(forms))
	}
}

// TestTransportNeverElsewhere: an upstream that is known only when a request
// comes gets a token only if it is at the resource's origin.
func TestTransportNeverElsewhere(t *testing.T) {
	r, other := newRemote(t), newBackend(t)
	c := newCaddy(t)
	site := fmt.Sprintf(throughSite, "{http.request.header.To}", "resource "+r.URL+"/mcp\n"+r.machineCredentials())
	if err := c.load(memoryStore, site); err != nil {
		t.Fatal(err)
	}
	if resp, body := c.send("GET", "/mcp", http.Header{"To": {r.Listener.Addr().String()}}, ""); resp.StatusCode != 200 {
		t.Errorf("to the remote: %d %s", resp.StatusCode, body)
	}
	if resp, _ := c.send("GET", "/mcp", http.Header{"To": {other.addr()}}, ""); resp.StatusCode != 502 {
		t.Errorf("to another: %d", resp.StatusCode)
	}
	if got := other.take(); len(got) != 0 {
		t.Errorf("the other server got %v", got[0].Header)
	}
}

// TestTransportRefusals are configurations that are refused at load.
func TestTransportRefusals(t *testing.T) {
	const machine = "authorization_server https://auth.example.com\nclient_credentials {\nclient_id a\nclient_secret b\n}\n"
	for name, test := range map[string]struct{ upstream, settings, want string }{
		"another origin":      {"https://mcp.example.com", "resource https://other.example.com/mcp\n" + machine, "must not be sent to the other"},
		"another scheme":      {"mcp.example.com:443", "resource https://mcp.example.com/mcp\n" + machine, "must not be sent to the other"},
		"another port":        {"https://mcp.example.com:8443", "resource https://mcp.example.com/mcp\n" + machine, "must not be sent to the other"},
		"clear text":          {"http://mcp.example.com", machine, "tokens need https"},
		"socket":              {"unix//run/mcp.sock", "resource https://mcp.example.com/mcp\n" + machine, "has a host name and one port"},
		"no issuer":           {"https://mcp.example.com", "client_credentials {\nclient_id a\nclient_secret b\n}\n", "could name any other"},
		"two upstreams":       {"https://a.example.com https://b.example.com", machine, "write the URL of the MCP server"},
		"empty secret":        {"https://mcp.example.com", strings.Replace(machine, "client_secret b", "client_secret {env.MCPAUTH_NOT_SET}", 1), "MCPAUTH_NOT_SET"},
		"no key":              {"https://mcp.example.com", "authorization_server https://auth.example.com\nprivate_key_jwt {\nclient_id a\nkey nonsense\n}\n", "no private key"},
		"upstream without":    {"https://mcp.example.com", "authorization_server https://idp.example.com\nupstream_token\n", "users have to be known"},
		"user without a site": {"https://mcp.example.com", "user\n", "users have to be known"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCaddy(t)
			err := c.load(memoryStore, fmt.Sprintf(throughSite, test.upstream, test.settings))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

// TestTransportAnswers: a 403 that is not about tokens is the caller's, and a
// challenge never is.
func TestTransportAnswers(t *testing.T) {
	r := newRemote(t)
	r.serve = func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.Header().Set("Mcp-Session-Id", "s1")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "no such note for you")
	}
	c := proxyTo(t, r, r.machineCredentials())
	resp, body := c.send("GET", "/mcp", nil, "")
	if resp.StatusCode != 403 || body != "no such note for you" || resp.Header.Get("WWW-Authenticate") != "" || resp.Header.Get("Mcp-Session-Id") != "s1" {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
}
