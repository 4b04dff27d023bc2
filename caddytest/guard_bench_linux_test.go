package caddytest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// BenchmarkGuardedRequest is the CPU time, garbage collection included, that a
// request takes in Caddy's HTTP server without the network. All sites take their
// turn round by round; extra-ns is the median of the differences to the sites
// without a guard, the first and the last one.
func BenchmarkGuardedRequest(b *testing.B) {
	const (
		tokens   = 1000
		audience = "https://mcp.example.com/mcp"
		answer   = "header Content-Type application/json\n\trespond ok"
		bare     = "http://%s.localhost:{PORT} {\n\t" + answer + "\n}\n"
		guarded  = "http://%[1]s.localhost:{PORT} {\n\tmcp_auth http://%[1]s.localhost:{PORT} {\n\t\tinsecure_dev\n\t\tauthorization_server %[2]s {\n\t\t\taudience " +
			audience + "\n\t\t}\n\t\tresource /mcp {\n\t\t\tscopes mcp:read\n\t\t\t%[3]s\n\t\t}\n\t}\n\t" + answer + "\n}\n"
	)
	idp := newScriptedIDP(b)
	names := []string{"bare", "none", "identity", "six", "again"} // Caddy looks for the site in this order
	settings := map[string]string{
		"none": "forward none", "identity": "forward identity", "six": "forward identity email name groups",
	}
	var sites strings.Builder
	for _, name := range names {
		if settings[name] == "" {
			fmt.Fprintf(&sites, bare, name)
		} else {
			fmt.Fprintf(&sites, guarded, name, idp.URL, settings[name])
		}
	}
	c := loadCaddy(b, sites.String())
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		b.Fatal(err)
	}
	authorization := make([][]string, tokens)
	for i := range authorization {
		user := fmt.Sprintf("user-%d", i)
		authorization[i] = []string{"Bearer " + idp.token(map[string]any{
			"aud": audience, "sub": user, "email": user + "@example.com", "name": "Some User", "groups": []string{"staff", "ops"},
		})}
	}
	connection := loopbackConnection(b)
	loads := make([]func(int), len(names))
	for i, name := range names {
		for _, server := range app.(*caddyhttp.App).Servers {
			loads[i] = func(n int) {
				if status := callServer(connection, server, fmt.Sprintf("%s.localhost:%d", name, c.Port), authorization[n%tokens]); status != http.StatusOK {
					b.Fatalf("%s: %d", name, status)
				}
			}
		}
	}
	const rounds, perRound = 40, 2000
	used := make([][]float64, len(loads))
	for b.Loop() {
		for i := range used {
			used[i] = used[i][:0]
		}
		for round := range rounds + 1 {
			for i, load := range loads {
				before := processCPU(b)
				for n := range perRound {
					load(n)
				}
				if round > 0 { // the first one warms up
					used[i] = append(used[i], float64(processCPU(b)-before)/perRound)
				}
			}
		}
	}
	last := len(loads) - 1
	for i, name := range names {
		extra := make([]float64, rounds)
		for round := range extra {
			extra[round] = used[i][round] - (used[0][round]+used[last][round])/2
		}
		slices.Sort(extra)
		slices.Sort(used[i])
		b.ReportMetric(used[i][rounds/2], name+"-ns")
		b.ReportMetric(extra[rounds/2], name+"-extra-ns")
	}
}

// loopbackConnection is the context that net/http makes for a connection.
func loopbackConnection(b *testing.B) context.Context {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = listener.Close() })
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithCancel(bearer.ConnContext(context.Background(), conn))
	b.Cleanup(cancel)
	return ctx
}

func callServer(connection context.Context, server http.Handler, host string, authorization []string) (status int) {
	body := []byte(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"query":"the quick brown fox","limit":10}}}`)
	ctx, cancel := context.WithCancel(connection)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/mcp", io.NopCloser(bytes.NewReader(body)))
	if err != nil {
		return 0
	}
	r.Host, r.RequestURI, r.RemoteAddr, r.ContentLength = host, "/mcp", "127.0.0.1:50000", int64(len(body))
	r.Header = http.Header{
		"User-Agent": {"bench"}, "Accept": {"application/json, text/event-stream"}, "Content-Type": {"application/json"},
		"Content-Length": {"100"}, "Mcp-Protocol-Version": {"2025-11-25"}, "Accept-Language": {"*"}, "Sec-Fetch-Mode": {"cors"},
		"Accept-Encoding": {"gzip, deflate"}, "Authorization": authorization,
	}
	w := statusWriter{header: http.Header{}}
	server.ServeHTTP(&w, r)
	return w.status
}

// processCPU is the CPU time of all threads of this process.
func processCPU(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// statusWriter keeps the status alone. Caddy sets deadlines at every write.
type statusWriter struct {
	header http.Header
	status int
}

func (w *statusWriter) Header() http.Header              { return w.header }
func (w *statusWriter) Write(b []byte) (int, error)      { return len(b), nil }
func (w *statusWriter) WriteHeader(status int)           { w.status = status }
func (w *statusWriter) SetWriteDeadline(time.Time) error { return nil }
func (w *statusWriter) SetReadDeadline(time.Time) error  { return nil }
