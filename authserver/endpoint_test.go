package authserver_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// SDK 1.7: 405 as JSON with Allow; here with no-store on the back channel.
func TestWrongMethod(t *testing.T) {
	s := newSite(t)
	for _, row := range []struct{ method, path, allow string }{
		{"PUT", "/authorize", "GET, HEAD, POST"},
		{"OPTIONS", "/authorize", "GET, HEAD, POST"},
		{"GET", "/token", "POST, OPTIONS"},
		{"HEAD", "/token", "POST, OPTIONS"},
		{"GET", "/register", "POST, OPTIONS"},
		{"DELETE", "/register", "POST, OPTIONS"},
		{"GET", "/revoke", "POST, OPTIONS"},
		{"POST", "/.well-known/oauth-authorization-server", "GET, HEAD, OPTIONS"},
	} {
		t.Run(row.method+" "+row.path, func(t *testing.T) {
			a := s.do(row.method, row.path, "")
			if a.Status != 405 || a.Header.Get("Allow") != row.allow {
				t.Errorf("%d, Allow %q", a.Status, a.Header.Get("Allow"))
			}
			if row.method == "HEAD" {
				return
			}
			code, description := a.oauthError(t)
			if code != "method_not_allowed" || description != "The method "+row.method+" is not allowed for this endpoint" {
				t.Errorf("%s: %s", code, description)
			}
		})
	}
}

// SDK 1.7: CORS on metadata and the back channel, never on /authorize.
func TestCORS(t *testing.T) {
	s := newSite(t)
	for path, allow := range map[string]string{
		"/.well-known/oauth-authorization-server": "GET, HEAD, OPTIONS",
		"/token":    "POST, OPTIONS",
		"/register": "POST, OPTIONS",
		"/revoke":   "POST, OPTIONS",
	} {
		t.Run(path, func(t *testing.T) {
			plain := s.do("OPTIONS", path, "")
			if plain.Status != 204 || plain.Body != "" || plain.Header.Get("Access-Control-Allow-Origin") != "*" ||
				plain.Header.Get("Access-Control-Allow-Methods") != allow ||
				plain.Header.Get("Access-Control-Allow-Headers") != "Authorization, Content-Type, MCP-Protocol-Version" {
				t.Errorf("OPTIONS: %d %v", plain.Status, plain.Header)
			}
			preflight := s.do("OPTIONS", path, "", "Origin", "https://app.example", "Access-Control-Request-Headers", "x-trace, mcp-protocol-version")
			if preflight.Header.Get("Access-Control-Allow-Headers") != "x-trace, mcp-protocol-version" ||
				preflight.Header.Get("Vary") != "Access-Control-Request-Headers" {
				t.Errorf("preflight: %v", preflight.Header)
			}
			// Errors can be read too, and so can the headers that explain them.
			a := s.do("PUT", path, "")
			if a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("error: %v", a.Header)
			}
			for _, name := range []string{"WWW-Authenticate", "RateLimit-Remaining", "Retry-After"} {
				if !strings.Contains(a.Header.Get("Access-Control-Expose-Headers"), name) {
					t.Errorf("%s is not exposed", name)
				}
			}
		})
	}
	for _, method := range []string{"GET", "POST", "OPTIONS"} {
		a := s.do(method, "/authorize?"+authorization(), "", "Origin", "https://app.example")
		for name := range a.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s /authorize has %s", method, name)
			}
		}
	}
}

// Issue: no-store on every back-channel answer, errors included.
func TestNoStoreEverywhere(t *testing.T) {
	s := newSite(t)
	for name, a := range map[string]answer{
		"token success":     s.postForm("/token", redemption(s.code())),
		"token failure":     s.postForm("/token", ""),
		"client failure":    s.postForm("/token", "client_id=nobody&grant_type=refresh_token"),
		"token body":        s.postJSON("/token", "{}"),
		"token method":      s.do("GET", "/token", ""),
		"register success":  s.postJSON("/register", `{"redirect_uris":["https://a.example/cb"]}`),
		"register failure":  s.postJSON("/register", `{`),
		"revoke success":    s.postForm("/revoke", "client_id=public&token=x"),
		"revoke failure":    s.postForm("/revoke", "client_id=public"),
		"authorize success": s.do("GET", "/authorize?"+authorization(), ""),
		"authorize page":    s.do("GET", "/authorize", "", "Accept", "text/html"),
		"authorize JSON":    s.do("GET", "/authorize", ""),
		"authorize error":   s.do("GET", "/authorize?"+authorization("response_type", "token"), ""),
	} {
		if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Pragma") != "no-cache" {
			t.Errorf("%s: %v", name, a.Header)
		}
		if a.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: no nosniff", name)
		}
	}
}

// The SDK answers HEAD with 405; here it works where GET does.
func TestHead(t *testing.T) {
	s := newSite(t, func(_ *authserver.Config, p *scripted) {
		p.authorize = func(http.ResponseWriter, *http.Request, *oauth.Client, authserver.AuthorizationParams) error {
			t.Error("HEAD started an authorization")
			return nil
		}
	})
	for path, want := range map[string]int{
		"/.well-known/oauth-authorization-server": 200,
		"/authorize?" + authorization():           204,
		"/authorize?client_id=nobody":             400,
	} {
		if a := s.do("HEAD", path, "", "Accept", "text/html"); a.Status != want || a.Body != "" {
			t.Errorf("%s: %d %q", path, a.Status, a.Body)
		}
	}
}

// A prefetch consumes nothing, and its answer is none that a browser shows.
func TestPrefetch(t *testing.T) {
	s := newSite(t)
	for _, header := range []string{"Sec-Purpose", "Purpose"} {
		a := s.do("GET", "/authorize?"+authorization(), "", header, "prefetch")
		if a.Status != 503 || a.Header.Get("Location") != "" {
			t.Errorf("%s: %d %v", header, a.Status, a.Header)
		}
	}
	if a := s.do("GET", "/authorize?"+authorization(), "", "Sec-Purpose", "prefetch;prerender"); a.Status != 503 {
		t.Errorf("prerender: %d", a.Status)
	}
	if n := len(s.provider.grants); n != 0 {
		t.Errorf("%d codes were made", n)
	}
}

// Bad input: every body error is OAuth JSON with a plain reason.
func TestBadBodies(t *testing.T) {
	s := newSite(t)
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	many := strings.Repeat("a=&", 3) + func() (s string) {
		for i := range 64 {
			s += fmt.Sprintf("p%d=x&", i)
		}
		return s
	}()
	for name, row := range map[string]struct {
		path, body string
		header     []string
		status     int
		code       string
		contains   string
	}{
		"form over 64 KiB":            {"/token", strings.Repeat("a", 64<<10+1), form, 413, "invalid_request", "larger than 65536 bytes"},
		"form of 64 KiB is read":      {"/token", "client_id=public&x=" + strings.Repeat("a", 64<<10-19), form, 400, "invalid_request", "grant_type"},
		"JSON over 64 KiB":            {"/register", `{"a":"` + strings.Repeat("a", 64<<10) + `"}`, []string{"Content-Type", "application/json"}, 413, "invalid_request", "larger"},
		"JSON at the token endpoint":  {"/token", "{}", []string{"Content-Type", "application/json"}, 400, "invalid_request", "application/x-www-form-urlencoded"},
		"form at the registration":    {"/register", "a=b", form, 400, "invalid_request", "application/json"},
		"no content type":             {"/token", "a=b", nil, 400, "invalid_request", "Content-Type"},
		"text/plain":                  {"/token", "a=b", []string{"Content-Type", "text/plain"}, 400, "invalid_request", "Content-Type"},
		"other charset":               {"/token", "a=b", []string{"Content-Type", "application/x-www-form-urlencoded; charset=utf-16"}, 400, "invalid_request", "UTF-8"},
		"charset UTF-8 is read":       {"/token", "client_id=public", []string{"Content-Type", "application/x-www-form-urlencoded;charset=UTF-8"}, 400, "invalid_request", "grant_type"},
		"repeated parameter":          {"/token", "client_id=public&client_id=public", form, 400, "invalid_request", "client_id is repeated"},
		"repeated unknown parameter":  {"/token", "client_id=public&zzz=1&zzz=2", form, 400, "invalid_request", "A parameter is repeated"},
		"repeated, once empty":        {"/token", "client_id=public&grant_type=&grant_type=refresh_token", form, 400, "invalid_request", "grant_type is repeated"},
		"NUL":                         {"/token", "client_id=public%00", form, 400, "invalid_request", "control character"},
		"CRLF":                        {"/token", "client_id=public&code=a%0D%0AX: y", form, 400, "invalid_request", "control character"},
		"raw LF":                      {"/token", "client_id=public\n", form, 400, "invalid_request", "control character"},
		"control character in a name": {"/token", "cl%1bient_id=public", form, 400, "invalid_request", "control character"},
		"invalid escape":              {"/token", "client_id=%zz", form, 400, "invalid_request", "percent escape"},
		"invalid UTF-8":               {"/token", "client_id=%ff", form, 400, "invalid_request", "UTF-8"},
		"too many parameters":         {"/token", many, form, 400, "invalid_request", "more than 64"},
		"empty body":                  {"/token", "", form, 400, "invalid_request", "client_id"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do("POST", row.path, row.body, row.header...)
			code, description := a.oauthError(t)
			if a.Status != row.status || code != row.code || !strings.Contains(description, row.contains) {
				t.Errorf("%d %s: %s", a.Status, code, description)
			}
		})
	}
}

// A body that trickles in is cut off.
func TestSlowBody(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) { c.Timeout = 100 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nclient")
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 408 || !strings.Contains(string(body), `"invalid_request"`) || !resp.Close {
		t.Errorf("%d %s %v", resp.StatusCode, body, err)
	}
}

// One time budget a request: a provider that waits for an upstream is told.
func TestTimeBudget(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, p *scripted) {
		c.Timeout = 20 * time.Millisecond
		p.skipPKCE = true
		p.exchangeCode = func(ctx context.Context, _ *oauth.Client, _ authserver.CodeExchange) (*oauth.Tokens, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("upstream: %w", ctx.Err())
		}
	})
	a := s.postForm("/token", redemption("c"))
	if code, _ := a.oauthError(t); a.Status != 503 || code != "temporarily_unavailable" || a.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", a.Status, a.Header, a.Body)
	}
}
