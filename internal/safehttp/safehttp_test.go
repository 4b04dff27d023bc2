package safehttp_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves h and returns its URL and a client whose connections end with
// the test.
func start(t *testing.T, h http.HandlerFunc) (string, *http.Client) {
	t.Helper()
	server := httptest.NewServer(h)
	client := safehttp.NewClient()
	t.Cleanup(func() {
		client.CloseIdleConnections()
		server.Close()
	})
	return server.URL, client
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestDoReadsTheWholeAnswer(t *testing.T) {
	url, client := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Test", "yes")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.Copy(w, r.Body)
	})
	req := get(t, url)
	req.Body = io.NopCloser(strings.NewReader("hello"))
	answer, err := safehttp.Do(client, req, 0)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusTeapot || answer.Header.Get("X-Test") != "yes" || string(answer.Body) != "hello" {
		t.Errorf("got %+v", answer)
	}
}

func TestDoFollowsNoRedirect(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		var followed bool
		url, client := start(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				followed = true
			}
			http.Redirect(w, r, "/elsewhere", status)
		})
		answer, err := safehttp.Do(client, get(t, url), 0)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status != status || followed {
			t.Errorf("%d: status %d, followed %t", status, answer.Status, followed)
		}
	}
}

func TestDoLimitsTheBody(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit int64
		size  int
		gzip  bool
		want  error
	}{
		{name: "at the limit", limit: 10, size: 10},
		{name: "over the limit", limit: 10, size: 11, want: safehttp.ErrTooLarge},
		{name: "at the default", size: safehttp.MaxBody},
		{name: "over the default", size: safehttp.MaxBody + 1, want: safehttp.ErrTooLarge},
		{name: "the largest limit", limit: 1<<63 - 1, size: 10},
		{name: "compressed: the limit counts what comes out", limit: 1000, size: 1 << 20, gzip: true, want: safehttp.ErrTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			url, client := start(t, func(w http.ResponseWriter, _ *http.Request) {
				var out io.Writer = w
				if test.gzip {
					w.Header().Set("Content-Encoding", "gzip")
					z := gzip.NewWriter(w)
					defer z.Close()
					out = z
				}
				_, _ = io.WriteString(out, strings.Repeat("x", test.size))
			})
			answer, err := safehttp.Do(client, get(t, url), test.limit)
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if err == nil && len(answer.Body) != test.size {
				t.Errorf("%d bytes", len(answer.Body))
			}
		})
	}
}

func TestDoStopsReadingAnEndlessBody(t *testing.T) {
	url, client := start(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := strings.Repeat("x", 1<<16)
		for {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	})
	if _, err := safehttp.Do(client, get(t, url), 1<<20); !errors.Is(err, safehttp.ErrTooLarge) {
		t.Errorf("error %v", err)
	}
}

func TestDoReportsACutAnswer(t *testing.T) {
	url, client := start(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	})
	if answer, err := safehttp.Do(client, get(t, url), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("answer %v, error %v", answer, err)
	}
}

func TestDoHonoursTheContext(t *testing.T) {
	url, client := start(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := safehttp.Do(client, get(t, url).WithContext(ctx), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// A server that accepts and then says nothing, or stops in the middle of the
// body, is given up after Timeout. The clock is synctest's, the network a pipe.
func TestClientTimesOut(t *testing.T) {
	for name, said := range map[string]string{
		"no answer":          "",
		"half the header":    "HTTP/1.1 200 OK\r\nContent-",
		"half the body":      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
		"endless 1xx":        "HTTP/1.1 103 Early Hints\r\n\r\n",
		"header, but no end": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				go func() {
					buffer := make([]byte, 4096)
					if _, err := far.Read(buffer); err == nil {
						_, _ = io.WriteString(far, said)
					}
					_, _ = io.Copy(io.Discard, far)
				}()
				client := safehttp.NewClient()
				transport := client.Transport.(*http.Transport)
				transport.Proxy = nil
				transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return near, nil }
				defer client.CloseIdleConnections()

				began := time.Now()
				_, err := safehttp.Do(client, get(t, "http://upstream.example/"), 0)
				if took := time.Since(began); err == nil || took > safehttp.Timeout {
					t.Errorf("error %v after %s", err, took)
				}
			})
		})
	}
}

func TestErrorsDoNotRepeatTheQuery(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close() // nobody listens here now
	client := safehttp.NewClient()
	defer client.CloseIdleConnections()
	_, err = safehttp.Do(client, get(t, "http://user:hunter2@"+address+"/token?code=hunter2#hunter2"), 0)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(err.Error(), "GET http://"+address+"/token") {
		t.Errorf("error %v does not say what was asked", err)
	}
	var urlError *url.Error
	if errors.As(err, &urlError) {
		t.Errorf("error %v carries the URL", err)
	}
	var opError *net.OpError
	if !errors.As(err, &opError) {
		t.Errorf("error %v has lost its cause", err)
	}
}
