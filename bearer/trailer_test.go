package bearer_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// TestCheckedHeadersInTrailers: what is checked in the header does not come in
// behind the body, announced or not.
func TestCheckedHeadersInTrailers(t *testing.T) {
	seen := make(chan http.Header, 1)
	guard := newGuard(t, guardTokens{"good": guardToken("mcp:read")}, guardResource())
	server := serveHandler(t, bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Trailer
	})))
	trailer := "MCP-Session-Id: a\r\nmcp_session_id: b\r\nMcp-Name: c\r\nMcp-Method: d\r\nMCP-Protocol-Version: e\r\nAuthorization: f\r\nOther: 1\r\n"
	for announced, want := range map[string]http.Header{"Trailer: Other, Mcp-Session-Id, mcp_session_id, Mcp-Name, Mcp-Method, Mcp-Protocol-Version": {"Other": {"1"}}, "X-None: 1": nil} {
		sendRaw(t, server, "4\r\nbody\r\n0\r\n"+trailer+"\r\n", "POST /mcp HTTP/1.1", "Authorization: Bearer good", "Transfer-Encoding: chunked", announced)
		if diff := cmp.Diff(want, <-seen); diff != "" {
			t.Errorf("%s: %s", announced, diff)
		}
	}
}

// TestSessionInAnswerTrailers: no id goes out without its MAC.
func TestSessionInAnswerTrailers(t *testing.T) {
	guard := newGuard(t, guardTokens{"good": guardToken("mcp:read")}, guardResource())
	for name, answer := range map[string]http.HandlerFunc{
		"announced": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "Mcp-Session-Id, Other")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("Mcp-Session-Id", "bare")
			w.Header().Set("Other", "1")
		},
		"not announced": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "body")
			_ = http.NewResponseController(w).Flush()
			w.Header().Set(http.TrailerPrefix+"mcp-session-id", "bare")
			w.Header().Set(http.TrailerPrefix+"Mcp-Session-Id", "bare")
			w.Header().Set(http.TrailerPrefix+"Other", "1")
		},
	} {
		server := httptest.NewServer(bearer.Middleware(guard, bearer.MiddlewareOptions{})(answer))
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(conn, "GET /mcp HTTP/1.1\r\nHost: mcp.example.com\r\nAuthorization: Bearer good\r\nConnection: close\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(bufio.NewReader(conn))
		if text := string(got); err != nil || strings.Contains(strings.ToLower(text), "mcp-session-id") || strings.Contains(text, "bare") || !strings.Contains(text, "Other: 1") {
			t.Errorf("%s: %v %s", name, err, text)
		}
		_ = conn.Close()
		server.Close()
	}
}
