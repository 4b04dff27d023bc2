package caddytest_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// stepper is a server behind Caddy that goes on when the test says so. What
// does not stream comes to a halt before it.
type stepper struct {
	*httptest.Server
	step chan struct{}
	// got is what the handler has received.
	got chan string
}

func newStepper(t *testing.T) *stepper {
	t.Helper()
	s := &stepper{step: make(chan struct{}), got: make(chan string, 16)}
	mux := http.NewServeMux()
	for path, handler := range map[string]http.HandlerFunc{
		"events": s.events, "chunks": s.chunks, "upload": s.upload, "trailers": s.trailers, "hints": s.hints, "socket": s.socket, "whole": s.whole, "poll": s.poll,
	} {
		mux.HandleFunc("/mcp/"+path, handler)
		mux.HandleFunc("/open/"+path, handler)
	}
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// wait waits for the test, or for the end of the request.
func (s *stepper) wait(r *http.Request) {
	select {
	case <-s.step:
	case <-r.Context().Done():
	}
}

func (s *stepper) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range 3 {
		_, _ = fmt.Fprintf(w, "id: %d\ndata: {\"n\":%d}\n\n", i, i)
		_ = http.NewResponseController(w).Flush()
		s.wait(r)
	}
}

func (s *stepper) chunks(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusAccepted)
	for i := range 3 {
		_ = http.NewResponseController(w).Flush()
		s.wait(r)
		_, _ = fmt.Fprintf(w, "part %d\n", i)
	}
}

func (s *stepper) upload(w http.ResponseWriter, r *http.Request) {
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		s.got <- lines.Text()
	}
	_, _ = fmt.Fprintf(w, "length %d, trailer %q, error %v", r.ContentLength, r.Trailer.Get("X-Sum"), lines.Err())
}

func (s *stepper) trailers(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Trailer", "X-Announced")
	_, _ = io.WriteString(w, "body")
	w.Header().Set("X-Announced", "a")
	w.Header().Set(http.TrailerPrefix+"X-Not-Announced", "b")
}

func (s *stepper) hints(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Link", "</style.css>; rel=preload")
	w.Header().Set("Mcp-Session-Id", "s")
	w.WriteHeader(http.StatusEarlyHints)
	_, _ = io.WriteString(w, "body")
}

func (s *stepper) whole(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{}}`)
}

// poll never answers.
func (s *stepper) poll(_ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	s.got <- "poll over"
}

// socket echoes lines over a connection that was upgraded.
func (s *stepper) socket(w http.ResponseWriter, _ *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nMcp-Session-Id: s\r\n\r\n")
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			s.got <- "closed"
			return
		}
		_, _ = io.WriteString(conn, "echo "+line)
	}
}

// request returns a request over the wire, with the token if the path is
// guarded.
func (w *wire) request(t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.origin+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("Authorization", "Bearer "+w.token)
	return r
}

func (w *wire) do(t *testing.T, r *http.Request) *http.Response {
	t.Helper()
	resp, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Proto != w.name {
		t.Fatalf("the answer came over %s", resp.Proto)
	}
	return resp
}

// seen is what a client can see of an answer's header; what differs from one
// request to the next is left out.
func seen(resp *http.Response) string {
	h := resp.Header.Clone()
	h.Del("Date")
	if id := h.Get("Mcp-Session-Id"); strings.HasPrefix(id, "s") {
		h.Set("Mcp-Session-Id", "s")
	}
	return fmt.Sprintln(resp.StatusCode, resp.ContentLength, resp.TransferEncoding, h)
}

// exchanges are what the guard must not change. Each returns what the client has
// seen.
var exchanges = map[string]func(t *testing.T, w *wire, s *stepper, path string) string{
	"event stream": func(t *testing.T, w *wire, s *stepper, path string) string {
		resp := w.do(t, w.request(t, "GET", path+"/events", nil))
		defer resp.Body.Close()
		log, body := seen(resp), bufio.NewReader(resp.Body)
		for i := range 3 {
			for line := ""; line != "\n"; log += line { // the event is here before the server goes on
				var err error
				if line, err = body.ReadString('\n'); err != nil {
					t.Fatalf("event %d: %v", i, err)
				}
			}
			s.step <- struct{}{}
		}
		_, err := body.ReadByte()
		return log + fmt.Sprint(err)
	},
	"chunks": func(t *testing.T, w *wire, s *stepper, path string) string {
		resp := w.do(t, w.request(t, "POST", path+"/chunks", nil)) // the header is here before the body
		defer resp.Body.Close()
		log, body := seen(resp), bufio.NewReader(resp.Body)
		for range 3 {
			s.step <- struct{}{}
			line, err := body.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			log += line
		}
		_, err := body.ReadByte()
		return log + fmt.Sprint(err)
	},
	"upload": func(t *testing.T, w *wire, s *stepper, path string) string {
		in, out := io.Pipe()
		r := w.request(t, "POST", path+"/upload", in)
		r.Trailer = http.Header{"X-Sum": nil}
		go func() {
			for i := range 3 {
				_, _ = fmt.Fprintf(out, "line %d\n", i)
				if got := <-s.got; got != fmt.Sprintf("line %d", i) { // the line is there before the next one
					t.Errorf("the server got %q", got)
				}
			}
			r.Trailer.Set("X-Sum", "sum")
			_ = out.Close()
		}()
		resp := w.do(t, r)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return seen(resp) + string(body) + fmt.Sprint(err)
	},
	"trailers": func(t *testing.T, w *wire, _ *stepper, path string) string {
		resp := w.do(t, w.request(t, "GET", path+"/trailers", nil))
		defer resp.Body.Close()
		log := seen(resp)
		body, err := io.ReadAll(resp.Body)
		return log + fmt.Sprintln(string(body), err, resp.Trailer)
	},
	"early hints": func(t *testing.T, w *wire, _ *stepper, path string) string {
		log, own := "", ""
		r := w.request(t, "GET", path+"/hints", nil)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			own = header.Get("Mcp-Session-Id")
			log += fmt.Sprintln(code, header.Get("Link"))
			return nil
		}}))
		resp := w.do(t, r)
		defer resp.Body.Close()
		if id := resp.Header.Get("Mcp-Session-Id"); own != id {
			t.Errorf("the session id of the interim answer is %q, that of the answer %q", own, id)
		}
		log += seen(resp)
		body, err := io.ReadAll(resp.Body)
		return log + fmt.Sprintln(string(body), err)
	},
	"whole": func(t *testing.T, w *wire, _ *stepper, path string) string {
		resp := w.do(t, w.request(t, "POST", path+"/whole", strings.NewReader("{}")))
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return seen(resp) + string(body) + fmt.Sprint(err)
	},
}

// TestStreamingStaysStreaming compares guarded exchanges with unguarded ones.
func TestStreamingStaysStreaming(t *testing.T) {
	s := newStepper(t)
	for _, settings := range []string{"", "session_binding off\nforward none", "lists filter"} {
		_, _, wires := loadWires(t, settings, s.Listener.Addr().String())
		for _, w := range wires {
			for name, exchange := range exchanges {
				t.Run(w.name+"/"+name+"/"+settings, func(t *testing.T) {
					open, guarded := exchange(t, w, s, "/open"), exchange(t, w, s, "/mcp")
					if diff := cmp.Diff(open, guarded); diff != "" {
						t.Errorf("-without the guard +with it:\n%s", diff)
					}
				})
			}
		}
	}
}

// dialTLS opens a connection for HTTP/1.1 by hand.
func dialTLS(t *testing.T, w *wire) (net.Conn, *bufio.Reader) {
	t.Helper()
	config := w.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", strings.TrimPrefix(w.origin, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// The guard does not make a client send a body that it holds back.
func TestContinueStaysContinue(t *testing.T) {
	s := newStepper(t)
	_, _, wires := loadWires(t, "", s.Listener.Addr().String())
	exchange := func(path string) (statuses []int) {
		conn, answers := dialTLS(t, wires[0])
		fmt.Fprintf(conn, "POST %s/upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", path, wires[0].token)
		for {
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatalf("%s: after %v: %v", path, statuses, err)
			}
			_ = resp.Body.Close()
			if statuses = append(statuses, resp.StatusCode); resp.StatusCode != 100 {
				return statuses
			}
			if len(statuses) == 1 {
				_, _ = io.WriteString(conn, "hello")
			}
		}
	}
	for _, path := range []string{"/open", "/mcp"} {
		// Some requests get two, with the guard or without: the backend's 100 is
		// passed on, and Caddy says its own when the body is read. Both are allowed
		// (RFC 9110 §15.2).
		statuses := exchange(path)
		if once := slices.Compact(slices.Clone(statuses)); !slices.Equal(once, []int{100, 200}) {
			t.Errorf("%s: %v", path, statuses)
		}
		if got := <-s.got; got != "hello" {
			t.Errorf("the server got %q", got)
		}
	}
	// Who is refused is not asked for the body.
	conn, answers := dialTLS(t, wires[0])
	_, _ = io.WriteString(conn, "POST /mcp/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, " 401 ") {
		t.Errorf("without a token: %q, %v", line, err)
	}
}

// upgrade opens a WebSocket, as far as HTTP has to do with it.
func upgrade(t *testing.T, w *wire, path, token string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, answers := dialTLS(t, w)
	fmt.Fprintf(conn, "GET %s/socket HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", path, token)
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, answers, resp
}

func TestWebSocketStaysWebSocket(t *testing.T) {
	s := newStepper(t)
	_, idp, wires := loadWires(t, "", s.Listener.Addr().String())
	for _, path := range []string{"/open", "/mcp"} {
		conn, answers, resp := upgrade(t, wires[0], path, wires[0].token)
		if resp.StatusCode != 101 || path == "/mcp" && !strings.HasPrefix(resp.Header.Get("Mcp-Session-Id"), "s.") {
			t.Fatalf("%s: %v", path, resp)
		}
		for i := range 2 {
			fmt.Fprintf(conn, "line %d\n", i)
			if line, err := answers.ReadString('\n'); err != nil || line != fmt.Sprintf("echo line %d\n", i) {
				t.Fatalf("%s: %q, %v", path, line, err)
			}
		}
		_ = conn.Close()
		if got := <-s.got; got != "closed" {
			t.Errorf("%s: the server got %q", path, got)
		}
	}
	if _, _, resp := upgrade(t, wires[0], "/mcp", "none"); resp.StatusCode != 401 {
		t.Errorf("without a token: %d", resp.StatusCode)
	}
	// It ends with the token, on both sides. A minute is for clocks that differ.
	token := idp.token(map[string]any{"aud": wires[0].origin + "/mcp", "exp": time.Now().Add(-57 * time.Second).Unix()})
	_, answers, resp := upgrade(t, wires[0], "/mcp", token)
	if resp.StatusCode != 101 {
		t.Fatal(resp.StatusCode)
	}
	if _, err := answers.ReadByte(); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket ended with %v", err)
	}
	if got := <-s.got; got != "closed" {
		t.Errorf("the server got %q", got)
	}
}
