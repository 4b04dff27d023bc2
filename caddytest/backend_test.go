package caddytest_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// backend is the server behind Caddy. It records every request that reaches it.
type backend struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   [][]byte
	// answer, if set, answers in place of an empty 200.
	answer http.HandlerFunc
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := new(backend)
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.requests = append(b.requests, r)
		b.bodies = append(b.bodies, body)
		answer := b.answer
		b.mu.Unlock()
		if answer != nil {
			r.Body = io.NopCloser(bytes.NewReader(body))
			answer(w, r)
			return
		}
		_, _ = io.WriteString(w, "backend")
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) addr() string { return b.Listener.Addr().String() }

// take returns the requests since the last call.
func (b *backend) take() []*http.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.requests
	b.requests, b.bodies = nil, nil
	return taken
}

// send sends a request line by line as given, so that nothing cleans the path,
// and returns the answer with its body read. Right after a reload, Linux resets
// connections that wait in the queue of the listener that Caddy has closed, so
// a connection without an answer is tried again.
func (c *caddyInstance) send(method, target string, header http.Header, body string) (*http.Response, string) {
	c.t.Helper()
	var err error
	for range 3 {
		var resp *http.Response
		var text string
		if resp, text, err = rawRequest(c.Port, method, target, header, body); err == nil {
			return resp, text
		}
	}
	c.t.Fatalf("%s %s: %v", method, target, err)
	return nil, ""
}
