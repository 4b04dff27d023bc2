package authclient_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// stream is a body without GetBody, as a proxy has it.
type stream struct {
	io.Reader
	closed atomic.Int32
}

func (s *stream) Close() error {
	s.closed.Add(1)
	return nil
}

// Which bodies are sent a second time, whole.
func TestReplay(t *testing.T) {
	t.Parallel()
	const limit = 1000
	for _, test := range []struct {
		name    string
		size    int
		length  bool // Content-Length is known
		getBody bool
		early   bool // the server answers before it has read the body
		limit   int64
		err     error
	}{
		{"small stream", 100, true, false, false, limit, nil},
		{"small stream of unknown length", 100, false, false, false, limit, nil},
		{"stream at the limit", limit, true, false, false, limit, nil},
		{"stream over the limit", limit + 1, true, false, false, limit, authclient.ErrBodyNotReplayable},
		{"large body with GetBody", 1 << 20, true, true, false, limit, nil},
		{"nothing is remembered", 1, true, false, false, -1, authclient.ErrBodyNotReplayable},
		{"empty stream", 0, false, false, false, limit, nil},
		{"the server answers early", 100, true, false, true, limit, nil},
		{"the default limit", 1 << 20, true, false, false, 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			p, store := web(t, nil)
			s.saved(t, store, "old", "refresh-0")
			body := strings.Repeat("0123456789", test.size/10+1)[:test.size]
			var got []string
			mcp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				refused := r.Header.Get("Authorization") == "Bearer old"
				if refused && test.early {
					w.WriteHeader(http.StatusUnauthorized)
					w.(http.Flusher).Flush()
				}
				read, _ := io.ReadAll(r.Body)
				got = append(got, string(read))
				if refused && !test.early {
					w.WriteHeader(http.StatusUnauthorized)
				}
			}))
			defer mcp.Close()
			s.setResource("resource", mcp.URL)
			next := &http.Transport{}
			defer next.CloseIdleConnections()
			tr, err := authclient.WithOAuth(p, mcp.URL+"/mcp", authclient.TransportOptions{
				Next: next, ReplayLimit: test.limit,
				Auth: authclient.Options{ResourceMetadataURL: "", AllowOrigins: nil},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer tr.CloseIdleConnections()
			if err := store.SaveDiscoveryState(t.Context(), &authclient.DiscoveryState{
				AuthorizationServerURL: s.URL, ResourceMetadataURL: s.URL + prmPath + "/mcp",
			}); err != nil {
				t.Fatal(err)
			}
			source := &stream{Reader: strings.NewReader(body)}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, mcp.URL+"/mcp", source)
			if err != nil {
				t.Fatal(err)
			}
			if test.length {
				req.ContentLength = int64(test.size)
			}
			if test.getBody {
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
			}
			resp, err := tr.RoundTrip(req)
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v", err)
			}
			if source.closed.Load() == 0 && err != nil {
				t.Error("the body was not closed")
			}
			if test.err != nil {
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != 200 || got[len(got)-1] != body {
				t.Errorf("status %d, %d attempts, the last with %d bytes", resp.StatusCode, len(got), len(got[len(got)-1]))
			}
		})
	}
}

// The body is closed even if no request is made.
func TestReplayClosesTheBody(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	tr, _ := transport(t, s, failing{p}, authclient.TransportOptions{})
	source := &stream{Reader: bytes.NewReader([]byte("x"))}
	req := post(t, s.mcpURL(), "")
	req.Body, req.GetBody = source, nil
	resp, err := tr.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, errDisk) || source.closed.Load() == 0 {
		t.Errorf("error %v, closed %d times", err, source.closed.Load())
	}
}
