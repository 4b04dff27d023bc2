package caddytest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestBadInput sends what no client should to the endpoints of a real Caddy.
// Every answer is OAuth JSON, not cached, and nothing reaches the identity
// provider.
func TestBadInput(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(scriptedProxySite, idp.URL, "rate_limit off", b.addr()))
	for end := time.Now().Add(10 * time.Second); idp.count("/keys") == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the keys of the identity provider were not loaded")
		}
	}
	id := c.register(testRedirect)
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	asJSON := http.Header{"Content-Type": {"application/json"}}
	registration := `{"redirect_uris":["https://client.example/callback"]`
	for _, row := range []struct {
		name, method, target string
		header               http.Header
		body                 string
		status               int
		code                 string
	}{
		{"token: 65 KiB", "POST", "/token", form, "grant_type=" + strings.Repeat("a", 65<<10), 413, "invalid_request"},
		{"register: 65 KiB", "POST", "/register", asJSON, registration + `,"x":"` + strings.Repeat("a", 65<<10) + `"}`, 413, "invalid_request|invalid_client_metadata"},
		{"revoke: 65 KiB", "POST", "/revoke", form, "token=" + strings.Repeat("a", 65<<10), 413, "invalid_request"},
		{"token: JSON", "POST", "/token", asJSON, `{"grant_type":"authorization_code"}`, 400, "invalid_request"},
		{"register: form", "POST", "/register", form, "redirect_uris=x", 400, "invalid_request|invalid_client_metadata"},
		{"register: malformed", "POST", "/register", asJSON, registration, 400, "invalid_request|invalid_client_metadata"},
		{"register: null", "POST", "/register", asJSON, "null", 400, "invalid_request|invalid_client_metadata"},
		{"register: list", "POST", "/register", asJSON, "[]", 400, "invalid_request|invalid_client_metadata"},
		{"register: empty", "POST", "/register", asJSON, "", 400, "invalid_request|invalid_client_metadata"},
		{"register: twice the same member", "POST", "/register", asJSON, registration + `,"redirect_uris":["https://evil.example/cb"]}`, 400, "invalid_request|invalid_client_metadata"},
		{"register: trailing data", "POST", "/register", asJSON, registration + `}{}`, 400, "invalid_request|invalid_client_metadata"},
		{"register: 1000 levels", "POST", "/register", asJSON, registration + `,"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, 400, "invalid_request|invalid_client_metadata"},
		{"register: not UTF-8", "POST", "/register", asJSON, registration + ",\"client_name\":\"\xff\"}", 400, "invalid_request|invalid_client_metadata"},
		{"register: no redirect URI", "POST", "/register", asJSON, `{"redirect_uris":[]}`, 400, "invalid_redirect_uri"},
		{"register: javascript", "POST", "/register", asJSON, `{"redirect_uris":["javascript:alert(1)"]}`, 400, "invalid_redirect_uri"},
		{"register: http elsewhere", "POST", "/register", asJSON, `{"redirect_uris":["http://client.example/cb"]}`, 400, "invalid_redirect_uri"},
		{"register: looks like loopback", "POST", "/register", asJSON, `{"redirect_uris":["http://127.0.0.1.evil.example/cb"]}`, 400, "invalid_redirect_uri"},
		{"register: fragment", "POST", "/register", asJSON, `{"redirect_uris":["https://client.example/cb#x"]}`, 400, "invalid_redirect_uri"},
		{"register: CRLF in a URI", "POST", "/register", asJSON, `{"redirect_uris":["https://client.example/cb\r\nx"]}`, 400, "invalid_redirect_uri|invalid_client_metadata"},
		{"token: repeated parameter", "POST", "/token", form, codeForm(id).Encode() + "&code=other", 400, "invalid_request"},
		{"token: NUL", "POST", "/token", form, strings.Replace(codeForm(id).Encode(), "secret-code", "secret%00code", 1), 400, "invalid_request"},
		{"token: CRLF", "POST", "/token", form, strings.Replace(codeForm(id).Encode(), "secret-code", "secret%0d%0acode", 1), 400, "invalid_request"},
		{"token: bad escape", "POST", "/token", form, "grant_type=%zz", 400, "invalid_request"},
		{"token: unknown client", "POST", "/token", form, codeForm("nobody").Encode(), 401, "invalid_client"},
		{"token: unknown grant", "POST", "/token", form, url.Values{"grant_type": {"password"}, "client_id": {id}}.Encode(), 400, "unsupported_grant_type"},
		{"token: short verifier", "POST", "/token", form, strings.Replace(codeForm(id).Encode(), testVerifier, "short", 1), 400, "invalid_request|invalid_grant"},
		{"token: GET", "GET", "/token", nil, "", 405, "method_not_allowed"},
		{"authorize: PUT", "PUT", "/authorize", nil, "", 405, "method_not_allowed"},
		{"authorize: no client", "GET", "/authorize", nil, "", 400, "invalid_request"},
		{"authorize: unknown client", "GET", "/authorize?client_id=%3Cscript%3Ealert(1)%3C/script%3E", nil, "", 400, "invalid_client"},
		{"authorize: another redirect URI", "GET", strings.Replace(authorizeTarget(id, "s"), "client.example", "evil.example", 1), nil, "", 400, "invalid_request"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := idp.total()
			resp, body := c.send(row.method, row.target, row.header, row.body)
			var answer struct {
				Error       string  `json:"error"`
				Description *string `json:"error_description"`
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Description == nil {
				t.Fatalf("%d %q is no OAuth error", resp.StatusCode, body)
			}
			if resp.StatusCode != row.status || !strings.Contains("|"+row.code+"|", "|"+answer.Error+"|") {
				t.Errorf("%d %s, want %d %s", resp.StatusCode, body, row.status, row.code)
			}
			if !strings.Contains(resp.Header.Get("Cache-Control"), "no-store") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
				t.Errorf("headers %v", resp.Header)
			}
			if strings.Contains(body, "<script>") {
				t.Errorf("reflected: %s", body)
			}
			if n := idp.total() - before; n > 0 {
				t.Errorf("%d requests reached the identity provider", n)
			}
		})
	}
}

// TestBrowserGetsAPage: before the redirect URI is proven, a browser gets a
// page and never a redirect.
func TestBrowserGetsAPage(t *testing.T) {
	idp := newScriptedIDP(t)
	c := loadCaddy(t, fmt.Sprintf(scriptedProxySite, idp.URL, "", "localhost:1"))
	resp, body := c.send("GET", "/authorize?client_id=%3Cscript%3Ealert(1)%3C/script%3E&redirect_uri=https://evil.example", http.Header{"Accept": {"text/html,*/*"}}, "")
	if resp.StatusCode != 400 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || resp.Header.Get("Location") != "" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	if strings.Contains(body, "<script>alert") || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("page: %v %s", resp.Header, body)
	}
}

// TestSlowBody: a client that sends its body byte by byte is cut off.
func TestSlowBody(t *testing.T) {
	idp := newScriptedIDP(t)
	c := loadCaddy(t, fmt.Sprintf(scriptedProxySite, idp.URL, "", "localhost:1"))
	conn, err := net.Dial("tcp", net.JoinHostPort("localhost", strconv.Itoa(c.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	go func() {
		_, err := fmt.Fprintf(conn, "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\n")
		for err == nil && time.Since(start) < 25*time.Second {
			_, err = conn.Write([]byte("a"))
			time.Sleep(200 * time.Millisecond)
		}
	}()
	answer, err := io.ReadAll(conn)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("cut off after %s, with %q and %v", took, answer, err)
	}
}

// TestHostileUpstream: whatever the identity provider does, the client gets an
// OAuth error in time, and nothing of what was said.
func TestHostileUpstream(t *testing.T) {
	idp := newScriptedIDP(t)
	c := loadCaddy(t, fmt.Sprintf(scriptedProxySite, idp.URL, "rate_limit off", "localhost:1"))
	id := c.register(testRedirect)
	release := make(chan struct{})
	defer close(release)
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		status int
		code   string
	}{
		{"500", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, "secret trace")
		}, 503, "temporarily_unavailable"},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<h1>secret trace</h1>")
		}, 503, "temporarily_unavailable"},
		{"10 MB", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"`+strings.Repeat("a", 10<<20)+`","token_type":"Bearer"}`)
		}, 503, "temporarily_unavailable"},
		{"reset", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 503, "temporarily_unavailable"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, 503, "temporarily_unavailable"},
		{"429", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, 503, "temporarily_unavailable"},
		{"invalid_grant", func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 400, map[string]any{"error": "invalid_grant", "error_description": "secret trace"})
		}, 400, "invalid_grant"},
		{"an error with status 200", func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 200, map[string]any{"error": "invalid_grant", "error_description": "secret trace"})
		}, 400, "invalid_grant"},
		{"invalid_target", func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, 400, map[string]any{"error": "invalid_target"})
		}, 400, "invalid_target"},
		{"a hang", func(http.ResponseWriter, *http.Request) { <-release }, 503, "temporarily_unavailable"},
	} {
		t.Run(row.name, func(t *testing.T) {
			idp.handle("/token", row.answer)
			start := time.Now()
			resp, answer := c.token(codeForm(id))
			if resp.StatusCode != row.status || answer["error"] != row.code {
				t.Errorf("%d %v, want %d %s", resp.StatusCode, answer, row.status, row.code)
			}
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("took %s", took)
			}
			if strings.Contains(fmt.Sprint(answer), "secret trace") {
				t.Errorf("the upstream's words: %v", answer)
			}
		})
	}
}

// TestSlowBodyThatNobodyReads: an answer that needs no body does not wait for
// one.
func TestSlowBodyThatNobodyReads(t *testing.T) {
	idp := newScriptedIDP(t)
	c := loadCaddy(t, fmt.Sprintf(scriptedProxySite, idp.URL, "", "localhost:1"))
	for target, want := range map[string]string{
		"POST /mcp":      "HTTP/1.1 401",
		"POST //mcp":     "HTTP/1.1 400",
		"PUT /token":     "HTTP/1.1 405",
		"POST /register": "HTTP/1.1 400", // no Content-Type
		"OPTIONS /token": "HTTP/1.1 204",
		"POST /.well-known/oauth-protected-resource/mcp":  "HTTP/1.1 405",
		"POST /.well-known/oauth-authorization-server":    "HTTP/1.1 405",
		"POST /.well-known/oauth-protected-resource/none": "HTTP/1.1 40",
	} {
		t.Run(target, func(t *testing.T) {
			conn, err := net.Dial("tcp", net.JoinHostPort("localhost", strconv.Itoa(c.Port)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(8 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\na", target); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, len(want))
			if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != want {
				t.Errorf("answer %q, %v; want %q in time", answer, err, want)
			}
		})
	}
}
