package bearer_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
)

func TestOrigins(t *testing.T) {
	listed := guardResource()
	listed.Origins = []string{"https://App.example.com", "http://localhost:5173", "vscode-webview://panel"}
	own := guardResource()
	own.Origins = []string{}
	ported := bearer.Resource{Identifier: "http://localhost:8080/mcp", Path: "/mcp"}
	for _, test := range []struct {
		name     string
		resource bearer.Resource
		allowed  []string
		refused  []string
	}{
		{
			"without a list: own and loopback origins", guardResource(),
			[]string{
				"https://mcp.example.com", "https://MCP.example.com", "https://mcp.example.com:443", "http://localhost", "http://localhost:6274",
				"https://localhost:1", "http://127.0.0.1:3000", "http://127.1.2.3", "http://[::1]:8080", "http://LOCALHOST",
			},
			[]string{
				"null", "", "*", "https://evil.example", "http://mcp.example.com", "https://mcp.example.com:8443", "https://mcp.example.com.evil.example",
				"https://mcp.example.com/", "https://mcp.example.com/x", "https://user@mcp.example.com", "https://mcp.example.com#", "https://mcp.example.com?",
				"http://localhost.evil.example", "http://evil.localhost", "http://127.0.0.1.evil.example", "http://[::2]", "http://0.0.0.0", "http://10.0.0.1",
				"ftp://localhost", "file://", "localhost", "https://mcp.example.com https://evil.example", "https://mcp.example.com, https://evil.example",
				"http://2130706433", "https://" + strings.Repeat("a", 600),
			},
		},
		{
			"with a list: own and listed", listed,
			[]string{"https://mcp.example.com", "https://app.example.com", "http://localhost:5173", "vscode-webview://panel"},
			[]string{"http://localhost:5174", "http://127.0.0.1:5173", "https://app.example.com:8443", "http://app.example.com", "null", "vscode-webview://other"},
		},
		{
			"with an empty list: own only", own,
			[]string{"https://mcp.example.com"},
			[]string{"http://localhost:6274", "https://app.example.com"},
		},
		{
			"the port belongs to the origin", ported,
			[]string{"http://localhost:8080", "http://localhost:6274"},
			[]string{"https://mcp.example.com"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serveGuarded(t, newGuard(t, guardTokens{}, test.resource))
			for _, origin := range test.allowed {
				if got := ask(t, server, "POST /mcp HTTP/1.1", "Origin: "+origin); got.Status != 401 {
					t.Errorf("%q: %+v, want 401", origin, got)
				}
			}
			for _, origin := range test.refused {
				want := guardAnswer{Status: 403, Error: "access_denied", Description: "The web origin of this request may not call this resource"}
				if diff := cmp.Diff(want, ask(t, server, "POST /mcp HTTP/1.1", "Origin: "+origin)); diff != "" {
					t.Errorf("%q: %s", origin, diff)
				}
			}
		})
	}
}

func TestOriginChecks(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{"good": guardToken("mcp:read")}, guardResource()))
	token := "Authorization: Bearer good"
	for name, test := range map[string]struct {
		head []string
		want int
	}{
		"no Origin":                          {[]string{"POST /mcp HTTP/1.1", token}, 200},
		"a good token does not help":         {[]string{"POST /mcp HTTP/1.1", token, "Origin: https://evil.example"}, 403},
		"two headers, both good":             {[]string{"POST /mcp HTTP/1.1", token, "Origin: https://mcp.example.com", "Origin: https://mcp.example.com"}, 403},
		"GET has an Origin too":              {[]string{"GET /mcp HTTP/1.1", token, "Origin: https://evil.example"}, 403},
		"a preflight of a foreign page":      {[]string{"OPTIONS /mcp HTTP/1.1", "Origin: https://evil.example", "Access-Control-Request-Method: POST"}, 403},
		"elsewhere on the site, any":         {[]string{"POST /other HTTP/1.1", "Origin: https://evil.example"}, 200},
		"OPTIONS that is no preflight":       {[]string{"OPTIONS /mcp HTTP/1.1", "Origin: https://mcp.example.com"}, 401},
		"forwarded hosts are not our own":    {[]string{"POST /mcp HTTP/1.1", token, "X-Forwarded-Host: evil.example", "Origin: http://evil.example"}, 403},
		"absolute targets are not our own":   {[]string{"POST http://evil.example/mcp HTTP/1.1", token, "Origin: http://evil.example"}, 403},
		"a foreign Origin before odd tokens": {[]string{"POST /mcp HTTP/1.1", "Authorization: x", "Origin: https://evil.example"}, 403},
	} {
		if got := ask(t, server, test.head...); got.Status != test.want {
			t.Errorf("%s: %+v, want %d", name, got, test.want)
		}
	}
}

func TestOriginPreflight(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{}, guardResource()))
	res, body := sendRaw(t, server, "", "OPTIONS /mcp HTTP/1.1", "Origin: http://localhost:6274",
		"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type,mcp-session-id")
	res.Header.Del("Date")
	res.Header.Del("Connection")
	want := http.Header{
		"Access-Control-Allow-Origin":   {"http://localhost:6274"},
		"Access-Control-Allow-Methods":  {"GET, POST, DELETE, OPTIONS"},
		"Access-Control-Allow-Headers":  {"authorization,content-type,mcp-session-id"},
		"Access-Control-Expose-Headers": {"WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version"},
		"Access-Control-Max-Age":        {"600"},
		"Vary":                          {"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"},
	}
	if diff := cmp.Diff(want, res.Header); res.StatusCode != 204 || body != "" || diff != "" {
		t.Errorf("%d %q %s", res.StatusCode, body, diff)
	}
	if res.Header.Get("Access-Control-Allow-Credentials") != "" {
		t.Error("credentials mode is on")
	}
}

// TestOriginRefusalsCanBeRead: a browser client must see why it was refused.
func TestOriginRefusalsCanBeRead(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{"poor": guardToken()}, guardResource()))
	for status, header := range map[int]string{401: "X-None: 1", 403: "Authorization: Bearer poor"} {
		res, _ := sendRaw(t, server, "", "POST /mcp HTTP/1.1", "Origin: http://localhost:6274", header)
		if res.StatusCode != status || res.Header.Get("Access-Control-Allow-Origin") != "http://localhost:6274" ||
			!strings.Contains(res.Header.Get("Access-Control-Expose-Headers"), "WWW-Authenticate") || res.Header.Get("Vary") != "Origin" {
			t.Errorf("want %d: %d %v", status, res.StatusCode, res.Header)
		}
	}
	res, _ := sendRaw(t, server, "", "POST /mcp HTTP/1.1", "Origin: https://evil.example")
	if allowed := res.Header.Get("Access-Control-Allow-Origin"); allowed != "" {
		t.Errorf("a foreign page may read %q", allowed)
	}
}
