package bearer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// revocable is a verifier of tokens that live long, but for the name of one that
// is revoked.
type revocable struct{ revoked atomic.Value }

func (v *revocable) VerifyAccessToken(_ context.Context, token string) (*oauth.TokenInfo, error) {
	if token == v.revoked.Load() {
		return nil, oauth.ErrInvalidToken.Describe("Token has been revoked")
	}
	info := guardToken("mcp:read")
	info.Token, info.ExpiresAt = token, time.Now().Add(time.Hour)
	return &info, nil
}

// serveConnections serves a guarded handler. Over HTTP/1 its requests end through
// their connections.
func serveConnections(t *testing.T, v bearer.Verifier, protocol string, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(bearer.Middleware(newLiveGuard(t, v, nil), bearer.MiddlewareOptions{})(handler))
	server.Config.ConnContext = bearer.ConnContext
	switch protocol {
	case "http/1.1":
		server.Start()
	case "http/1.1 over TLS":
		server.StartTLS()
	case "h2":
		server.EnableHTTP2 = true
		server.StartTLS()
	}
	t.Cleanup(server.Close)
	return server
}

func requestWith(t *testing.T, server *httptest.Server, method, token string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/mcp", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return server.Client().Do(r)
}

// The stream of a revoked token ends and the handler is told, those of others go
// on, and the client can send its next request. With GET and over HTTP/2 it ends
// properly. Over HTTP/1 the answer to a POST breaks off, since its connection ends
// with it: a client that took it for a good end could send the next request there.
func TestStreamsEndThroughTheirConnections(t *testing.T) {
	for _, row := range []struct {
		protocol, method string
		breaks           bool
	}{
		{"http/1.1", "GET", false},
		{"http/1.1", "POST", true},
		{"http/1.1 over TLS", "GET", false},
		{"http/1.1 over TLS", "POST", true},
		{"h2", "GET", false},
		{"h2", "POST", false},
	} {
		t.Run(row.method+" "+row.protocol, func(t *testing.T) {
			t.Parallel()
			var v revocable
			over := make(chan error, 2)
			server := serveConnections(t, &v, row.protocol, func(w http.ResponseWriter, r *http.Request) {
				eventStream(w, r)
				over <- r.Context().Err()
			})
			bad, err := requestWith(t, server, row.method, "bad")
			if err != nil {
				t.Fatal(err)
			}
			defer bad.Body.Close()
			good, err := requestWith(t, server, row.method, "good")
			if err != nil {
				t.Fatal(err)
			}
			defer good.Body.Close()
			v.revoked.Store("bad")
			if body, err := io.ReadAll(bad.Body); errors.Is(err, io.ErrUnexpectedEOF) != row.breaks || (err != nil) != row.breaks || string(body) != "data: {}\n\n" {
				t.Errorf("the stream was %q and ended with %v", body, err)
			}
			if err := <-over; err == nil {
				t.Error("the handler was not told")
			}
			again, err := requestWith(t, server, row.method, "good")
			if err != nil {
				t.Fatal(err)
			}
			_ = again.Body.Close()
			<-over // since the client has left
			select {
			case <-over:
				t.Error("the stream of another token ended, too")
			default:
			}
		})
	}
}

// A stream that was opened with GET leaves its connection to the next request.
func TestEndedStreamLeavesItsConnection(t *testing.T) {
	var v revocable
	server := serveConnections(t, &v, "http/1.1", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			eventStream(w, r)
		}
	})
	conn, in := dial(t, server)
	for i := range 3 {
		token := fmt.Sprint("token-", i)
		if _, err := fmt.Fprintf(conn, "GET /mcp HTTP/1.1\r\nHost: mcp.example.com\r\nAuthorization: Bearer %s\r\n\r\n", token); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		v.revoked.Store(token)
		if body, err := io.ReadAll(resp.Body); err != nil || resp.Close || string(body) != "data: {}\n\n" {
			t.Fatalf("the stream was %q, closes: %t, %v", body, resp.Close, err)
		}
		if _, err := io.WriteString(conn, "POST /mcp HTTP/1.1\r\nHost: mcp.example.com\r\nContent-Length: 2\r\nAuthorization: Bearer good\r\n\r\n{}"); err != nil {
			t.Fatal(err)
		}
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 200 {
			t.Fatalf("the next request: %v %v", resp, err)
		}
	}
}

// The rest of a request that was ended is not taken for other requests, even if
// net/http does not notice that it was not read: somebody in front has wrapped the
// body, and the handler has closed it.
func TestRestOfAnEndedRequestIsNoRequest(t *testing.T) {
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: mcp.example.com\r\nAuthorization: Bearer good\r\n\r\n"
	type wrapper struct{ io.ReadCloser }
	for _, row := range []struct{ name, header string }{
		{"with a length", "Content-Length: 10000000"},
		{"chunked", "Transfer-Encoding: chunked"},
	} {
		for _, knows := range []bool{true, false} {
			for _, answers := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, connection known: %t, answer begun: %t", row.name, knows, answers), func(t *testing.T) {
					t.Parallel()
					var v revocable
					var served atomic.Int32
					begun := make(chan struct{}, 1)
					guarded := bearer.Middleware(newLiveGuard(t, &v, nil), bearer.MiddlewareOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if served.Add(1) > 1 {
							return
						}
						if answers {
							w.Header().Set("Content-Type", "text/event-stream")
							_ = http.NewResponseController(w).Flush()
						}
						_, _ = io.ReadFull(r.Body, make([]byte, 10))
						begun <- struct{}{}
						<-r.Context().Done()
						_ = r.Body.Close()
					}))
					server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						r.Body = wrapper{r.Body}
						_ = http.NewResponseController(w).EnableFullDuplex()
						guarded.ServeHTTP(w, r)
					}))
					if knows {
						server.Config.ConnContext = bearer.ConnContext
					}
					server.Start()
					t.Cleanup(server.Close)
					conn, in := dial(t, server)
					part := strings.Repeat(smuggled, 20)
					if row.name == "chunked" {
						part = fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
					}
					if _, err := io.WriteString(conn, "POST /mcp HTTP/1.1\r\nHost: mcp.example.com\r\nAuthorization: Bearer bad\r\n"+row.header+"\r\n\r\n"+part); err != nil {
						t.Fatal(err)
					}
					<-begun
					v.revoked.Store("bad")
					resp, err := http.ReadResponse(in, nil)
					if err != nil {
						t.Fatal(err)
					}
					go func() { // it may be closed while it writes
						for range 200 {
							if _, err := io.WriteString(conn, part); err != nil {
								return
							}
							time.Sleep(time.Millisecond)
						}
					}()
					if _, err := io.ReadAll(resp.Body); (err != nil) != answers {
						t.Errorf("status %d, the answer ended with %v", resp.StatusCode, err)
					}
					if !answers && (resp.StatusCode != http.StatusGatewayTimeout || !resp.Close) {
						t.Errorf("status %d, closes: %t", resp.StatusCode, resp.Close)
					}
					if rest, _ := io.ReadAll(in); len(rest) > 0 {
						t.Errorf("after the answer came %.100q", rest)
					}
					if n := served.Load(); n != 1 {
						t.Errorf("the handler had %d requests", n)
					}
				})
			}
		}
	}
}

// A connection has many requests one after the other. Ended ones take only
// themselves along, and what is no stream keeps the connection.
func TestRequestsShareAConnection(t *testing.T) {
	var v revocable
	server := serveConnections(t, &v, "http/1.1", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	conn, in := dial(t, server)
	for i := range 200 {
		token := fmt.Sprint("token-", i)
		v.revoked.Store(fmt.Sprint("token-", i-1)) // whose request is over
		if status := askOver(t, conn, in, token); status != 200 {
			t.Fatalf("request %d: status %d", i, status)
		}
	}
	v.revoked.Store("token-200")
	if status := askOver(t, conn, in, "token-200"); status != 401 {
		t.Errorf("a revoked token: status %d", status)
	}
	if status := askOver(t, conn, in, "token-201"); status != 200 {
		t.Errorf("after a refusal: status %d", status)
	}
}

// A request whose body the handler does not read ends, too, and what was sent
// behind it on the connection is not answered.
func TestUnreadRequestEnds(t *testing.T) {
	for rule, behind := range map[string]string{
		"a body that does not come": "",
		"another request": "0\r\n\r\nGET /mcp HTTP/1.1\r\nHost: mcp.example.com\r\nAuthorization: Bearer good\r\n\r\n" +
			"GET /mcp HTTP/1.1\r\nHost: mcp.example.com\r\nAuthorization: Bearer good\r\n\r\n",
	} {
		t.Run(rule, func(t *testing.T) {
			var v revocable
			var served atomic.Int32
			begun := make(chan struct{}, 3)
			server := serveConnections(t, &v, "http/1.1", func(_ http.ResponseWriter, r *http.Request) {
				served.Add(1)
				begun <- struct{}{}
				<-r.Context().Done()
			})
			conn, in := dial(t, server)
			if _, err := io.WriteString(conn, "POST /mcp HTTP/1.1\r\nHost: mcp.example.com\r\nAuthorization: Bearer bad\r\nTransfer-Encoding: chunked\r\n\r\n"+behind); err != nil {
				t.Fatal(err)
			}
			<-begun
			v.revoked.Store("bad")
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); resp.StatusCode != 504 || !resp.Close || err != nil {
				t.Errorf("%d %s, closes: %t, %v", resp.StatusCode, body, resp.Close, err)
			}
			if rest, err := io.ReadAll(in); len(rest) > 0 {
				t.Errorf("after the answer came %q, then %v", rest, err)
			}
			if n := served.Load(); n != 1 {
				t.Errorf("the handler had %d requests", n)
			}
		})
	}
}

// Where a connection is not known, or not the request's own, requests have their
// own context, as without ConnContext.
func TestConnectionsOfOthers(t *testing.T) {
	client, other := net.Pipe()
	defer client.Close()
	defer other.Close()
	if ctx := bearer.ConnContext(t.Context(), client); ctx != t.Context() {
		t.Error("a connection that cannot stop reading has another context")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if ctx := bearer.ConnContext(t.Context(), conn); ctx != t.Context() {
		t.Error("a context that ends would keep the connection")
	}
}

// A handler in front may cut requests off from their connection.
func TestDetachedRequestEnds(t *testing.T) {
	var v revocable
	guarded := bearer.Middleware(newLiveGuard(t, &v, nil), bearer.MiddlewareOptions{})(http.HandlerFunc(eventStream))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guarded.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
	}))
	server.Config.ConnContext = bearer.ConnContext
	server.Start()
	t.Cleanup(server.Close)
	resp, err := requestWith(t, server, "GET", "bad")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	v.revoked.Store("bad")
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "data: {}\n\n" {
		t.Errorf("the stream was %q and ended with %v", body, err)
	}
}

func dial(t *testing.T, server *httptest.Server) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// askOver sends a request and returns the status of its answer.
func askOver(t *testing.T, conn net.Conn, in *bufio.Reader, token string) int {
	t.Helper()
	lines := []string{"GET /mcp HTTP/1.1", "Host: mcp.example.com", "Authorization: Bearer " + token, "", ""}
	if _, err := io.WriteString(conn, strings.Join(lines, "\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}
