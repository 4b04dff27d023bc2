package caddytest_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// loadWithAdmin is load with the admin API on a unix socket.
func (c *caddyInstance) loadWithAdmin(socket, caddyfile string) error {
	c.t.Helper()
	config := c.adapt("", caddyfile)
	config = []byte(strings.Replace(string(config), `"admin":{"disabled":true`, `"admin":{"listen":"unix/`+socket+`"`, 1))
	return caddy.Load(config, true)
}

// adminRequest sends a request to the admin API and returns the answer's body.
func adminRequest(t *testing.T, socket, method, path, body string, wantStatus int) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != wantStatus {
		t.Fatalf("%s %s: %d %s, want %d", method, path, resp.StatusCode, text, wantStatus)
	}
	return string(text)
}
