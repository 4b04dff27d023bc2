package bearer_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// TestCORSWriterReplacesTheBackendsHeaders however the backend writes.
func TestCORSWriterReplacesTheBackendsHeaders(t *testing.T) {
	const origin = "http://localhost:6274"
	backendCORS := func(w http.ResponseWriter) {
		w.Header().Add("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header()["access-control-expose-headers"] = []string{"X-Lower"}
		w.Header().Set("Vary", "Accept")
	}
	for name, backend := range map[string]http.HandlerFunc{
		"nothing":     func(w http.ResponseWriter, _ *http.Request) {},
		"WriteHeader": func(w http.ResponseWriter, _ *http.Request) { backendCORS(w); w.WriteHeader(http.StatusAccepted) },
		"Write":       func(w http.ResponseWriter, _ *http.Request) { backendCORS(w); _, _ = io.WriteString(w, "x") },
		"ReadFrom": func(w http.ResponseWriter, _ *http.Request) {
			backendCORS(w)
			_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader("x")})
		},
		"Flusher": func(w http.ResponseWriter, _ *http.Request) { backendCORS(w); w.(http.Flusher).Flush() },
		"ResponseController": func(w http.ResponseWriter, _ *http.Request) {
			backendCORS(w)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		},
		"early hints first": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			backendCORS(w)
			w.WriteHeader(http.StatusOK)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				backend(bearer.CORSWriter(w, origin), r)
			}))
			res, err := http.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got := http.Header{}
			for name, values := range res.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					got[name] = values
				}
			}
			want := http.Header{
				"Access-Control-Allow-Origin":   {origin},
				"Access-Control-Expose-Headers": {"WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version"},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if !strings.Contains(strings.Join(res.Header.Values("Vary"), ","), "Origin") {
				t.Errorf("Vary %q lacks Origin", res.Header.Values("Vary"))
			}
		})
	}
}

func TestCORSWriterHijack(t *testing.T) {
	server := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(bearer.CORSWriter(w, "http://localhost")).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 299 Hijacked\r\nContent-Length: 0\r\n\r\n")
	}))
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != 299 {
		t.Fatalf("%v %v", res, err)
	}
}

func TestCORSWriterWithoutFlusher(t *testing.T) {
	var plain struct{ http.ResponseWriter }
	plain.ResponseWriter = httptest.NewRecorder()
	if err := http.NewResponseController(bearer.CORSWriter(plain, "http://localhost")).Flush(); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("%v, want ErrNotSupported", err)
	}
}

// TestCORSOfAdmittedRequests: through the middleware, a page gets one set of
// headers; a caller without Origin gets what the backend wrote.
func TestCORSOfAdmittedRequests(t *testing.T) {
	guard := newGuard(t, guardTokens{"good": guardToken("mcp:read")}, guardResource())
	server := serveHandler(t, bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Access-Control-Allow-Origin", "*")
	})))
	for origin, want := range map[string][]string{"http://localhost:1": {"http://localhost:1"}, "": {"*"}} {
		head := []string{"POST /mcp HTTP/1.1", "Authorization: Bearer good"}
		if origin != "" {
			head = append(head, "Origin: "+origin)
		}
		res, _ := sendRaw(t, server, "", head...)
		if diff := cmp.Diff(want, res.Header.Values("Access-Control-Allow-Origin")); diff != "" {
			t.Error(diff)
		}
	}
}
