package bearer_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
)

func TestPolicyBodies(t *testing.T) {
	plain := toolCall("a")
	fill := func(size int) string {
		return rpc("tools/call", `{"name":"a","arguments":{"x":"`+strings.Repeat("x", size)+`"}}`)
	}
	overhead := len(fill(0))
	for _, row := range []struct {
		name    string
		body    string
		headers []string
		status  int
	}{
		{"plain", plain, nil, 200},
		{"charset", plain, []string{"Content-Type: Application/JSON; charset=UTF-8"}, 200},
		{"another charset", plain, []string{"Content-Type: application/json; charset=utf-16"}, 415},
		{"charset twice", plain, []string{"Content-Type: application/json; charset=utf-8; charset=utf-7"}, 415},
		{"no type", plain, []string{"Content-Type: "}, 415},
		{"another type", plain, []string{"Content-Type: text/plain"}, 415},
		{"a type that is JSON as well", plain, []string{"Content-Type: application/json-rpc"}, 415},
		{"two types", plain, []string{"Content-Type: application/json, text/plain"}, 415},
		{"gzip", plain, []string{"Content-Encoding: gzip"}, 415},
		{"identity", plain, []string{"Content-Encoding: identity"}, 200},
		{"identity and gzip", plain, []string{"Content-Encoding: identity", "Content-Encoding: gzip"}, 415},
		{"empty", "", nil, 400},
		{"as large as may be", fill(1<<20 - overhead), nil, 200},
		{"a byte more", fill(1<<20 - overhead + 1), nil, 413},
		{"no JSON", "method=tools/call", nil, 400},
		{"a comment", "/**/" + plain, nil, 400},
		{"byte order mark", "\ufeff" + plain, nil, 400},
		{"UTF-16", "\xff\xfe{\x00}\x00", nil, 400},
		{"data behind it", plain + plain, nil, 400},
		{"white space around it", " \r\n" + plain + "\n", nil, 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := servePolicy(t, bearer.Policy{Tools: rules("secret", "mcp:secret")}, "mcp:read")
			got := server.post(t, row.body, row.headers...)
			if got.Status != row.status || got.Challenge != "" {
				t.Errorf("%+v", got)
			}
			if bodies := server.take(); (row.status == 200) != slices.Equal(bodies, []string{row.body}) {
				t.Errorf("%d requests reached the server", len(bodies))
			}
		})
	}
}

func TestPolicyMethods(t *testing.T) {
	for _, row := range []struct {
		method, body string
		headers      []string
		allowed      bool // that WebSocket is
		status       int
	}{
		{"GET", "", nil, false, 200},
		{"HEAD", "", nil, false, 200},
		{"DELETE", "", nil, false, 200},
		{"OPTIONS", "", nil, false, 200},
		{"GET", toolCall("secret"), nil, false, 400},
		{"DELETE", toolCall("secret"), nil, false, 400},
		{"PUT", toolCall("secret"), nil, false, 405},
		{"PATCH", "", nil, false, 405},
		{"BREW", "", nil, false, 405},
		{"GET", "", []string{"Connection: Upgrade", "Upgrade: websocket"}, false, 403},
		{"GET", "", []string{"Upgrade: WebSocket"}, false, 403},
		{"GET", "", []string{"Connection: Upgrade", "Upgrade: h2c, websocket"}, false, 403},
		{"GET", "", []string{"Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"}, false, 403},
		{"POST", toolCall("a"), []string{"Connection: Upgrade", "Upgrade: websocket"}, false, 403},
		{"GET", "", []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"}, false, 200},
		{"GET", "", []string{"Connection: Upgrade", "Upgrade: websocket"}, true, 200},
		{"POST", toolCall("secret"), []string{"Connection: Upgrade", "Upgrade: websocket"}, true, 403},
	} {
		t.Run(fmt.Sprint(row.method, row.headers, row.allowed), func(t *testing.T) {
			server := servePolicy(t, bearer.Policy{Tools: rules("secret", "mcp:secret"), AllowUpgrade: row.allowed}, "mcp:read")
			head := append([]string{row.method + " /mcp HTTP/1.1", "Authorization: Bearer good", "Content-Type: application/json"}, row.headers...)
			if row.body != "" {
				head = append(head, fmt.Sprintf("Content-Length: %d", len(row.body)))
			}
			response, body := sendRaw(t, server.Server, row.body, head...)
			if response.StatusCode != row.status || len(server.take()) > 0 != (row.status == 200) {
				t.Errorf("%d %s", response.StatusCode, body)
			}
			if row.status == 405 && response.Header.Get("Allow") == "" {
				t.Error("no Allow header")
			}
			if row.status == 200 && !row.allowed && server.last.Header.Get("Upgrade") != "" {
				t.Error("the server behind sees the offer")
			}
		})
	}
}

func TestConnectIsRefused(t *testing.T) {
	server := servePolicy(t, bearer.Policy{Tools: rules("secret", "mcp:secret")}, "mcp:read")
	response, body := sendRaw(t, server.Server, "", "CONNECT /mcp HTTP/1.1", "Authorization: Bearer good")
	if response.StatusCode != 403 || len(server.take()) > 0 {
		t.Errorf("%d %s", response.StatusCode, body)
	}
}

// TestBodyIsHandedOn holds what the server behind sees besides the bytes.
func TestBodyIsHandedOn(t *testing.T) {
	server := servePolicy(t, bearer.Policy{Tools: rules("secret", "mcp:secret")}, "mcp:read")
	head := []string{"POST /mcp HTTP/1.1", "Authorization: Bearer good", "Content-Type: application/json"}
	body := toolCall("a")
	response, text := sendRaw(t, server.Server, body, append(head, fmt.Sprintf("Content-Length: %d", len(body)))...)
	if response.StatusCode != 200 || server.last.ContentLength != int64(len(body)) {
		t.Errorf("%d %s, length %d", response.StatusCode, text, server.last.ContentLength)
	}
	chunked := fmt.Sprintf("5\r\n%s\r\n%x\r\n%s\r\n0\r\nX-Trailer: t\r\n\r\n", body[:5], len(body)-5, body[5:])
	response, text = sendRaw(t, server.Server, chunked, append(head, "Transfer-Encoding: chunked", "Trailer: X-Trailer")...)
	if response.StatusCode != 200 || server.last.ContentLength != -1 || server.last.Trailer.Get("X-Trailer") != "t" {
		t.Errorf("%d %s, length %d, trailer %v", response.StatusCode, text, server.last.ContentLength, server.last.Trailer)
	}
	if diff := cmp.Diff([]string{body, body}, server.take()); diff != "" {
		t.Error(diff)
	}
	short := toolCall("a")[:20]
	response, _ = sendHalf(t, server.Server, short, append(head, "Content-Length: 200")...)
	if response.StatusCode != 400 || len(server.take()) > 0 {
		t.Errorf("a body shorter than its length: %d", response.StatusCode)
	}
}

// sendHalf sends a request whose body ends before its time.
func sendHalf(t *testing.T, server *httptest.Server, body string, head ...string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, strings.Join(append(head, "Host: mcp.example.com", "", body), "\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response, string(text)
}

func TestExpectContinue(t *testing.T) {
	server := servePolicy(t, bearer.Policy{Tools: rules("secret", "mcp:secret")}, "mcp:read")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/mcp", strings.NewReader(toolCall("a")))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Authorization": {"Bearer good"}, "Content-Type": {"application/json"}, "Expect": {"100-continue"}}
	if got := server.do(t, request); got.Status != 200 || len(server.take()) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestSlowBody(t *testing.T) {
	server := servePolicy(t, bearer.Policy{Tools: rules("secret", "mcp:secret"), BodyTime: 50 * time.Millisecond}, "mcp:read")
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head := "POST /mcp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestTimeout || len(server.take()) > 0 {
		t.Errorf("%d", response.StatusCode)
	}
}

// TestBodyTimeEndsWithTheBody holds that a call may take longer than its body.
func TestBodyTimeEndsWithTheBody(t *testing.T) {
	resource := guardResource()
	resource.Policy = bearer.Policy{Tools: rules("secret", "mcp:secret"), BodyTime: 50 * time.Millisecond}
	guard := newGuard(t, guardTokens{"good": guardToken("mcp:read")}, resource)
	server := serveHandler(t, bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			t.Error("the request was cancelled")
		case <-time.After(200 * time.Millisecond):
		}
	})))
	s := &policyServer{Server: server}
	if got := s.post(t, toolCall("a")); got.Status != 200 {
		t.Errorf("%+v", got)
	}
}

// TestBodyAfterClose holds that a body is not read when its buffer has gone to
// another request.
func TestBodyAfterClose(t *testing.T) {
	resource := guardResource()
	resource.Policy = bearer.Policy{When: func(context.Context, *bearer.Call) (bool, error) { return true, nil }}
	guard := newGuard(t, guardTokens{"good": guardToken("mcp:read")}, resource)
	request := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(toolCall("a")))
	request.Header = http.Header{"Authorization": {"Bearer good"}, "Content-Type": {"application/json"}}
	if _, ok := guard.Check(httptest.NewRecorder(), request, nil); !ok {
		t.Fatal("refused")
	}
	if _, err := request.Body.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := request.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := request.Body.Read(make([]byte, 5)); n != 0 || err == nil {
		t.Errorf("read %d bytes, error %v", n, err)
	}
}

// TestPolicyOverHTTP2: the same over streams, whose deadlines are of their own.
func TestPolicyOverHTTP2(t *testing.T) {
	resource := guardResource()
	resource.Policy = bearer.Policy{Tools: rules("secret", "mcp:secret"), BodyTime: 100 * time.Millisecond}
	guard := newGuard(t, guardTokens{"good": guardToken("mcp:read")}, resource)
	s := new(policyServer)
	s.Server = httptest.NewUnstartedServer(bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.ProtoMajor != 2 {
			t.Errorf("HTTP/%d, error %v", r.ProtoMajor, err)
		}
		s.mu.Lock()
		s.bodies = append(s.bodies, string(body))
		s.mu.Unlock()
		select {
		case <-r.Context().Done():
			t.Error("the request was cancelled")
		case <-time.After(200 * time.Millisecond):
		}
		guardBackend(w, r)
	})))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	if got := s.post(t, toolCall("a")); got.Status != 200 || !slices.Equal(s.take(), []string{toolCall("a")}) {
		t.Errorf("%+v", got)
	}
	if got := s.post(t, toolCall("secret")); got.Status != 403 {
		t.Errorf("%+v", got)
	}
	body, writer := io.Pipe()
	defer writer.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/mcp", body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Authorization": {"Bearer good"}, "Content-Type": {"application/json"}}
	if got := s.do(t, request); got.Status != http.StatusRequestTimeout || len(s.take()) > 0 {
		t.Errorf("a body that does not come: %+v", got)
	}
}
