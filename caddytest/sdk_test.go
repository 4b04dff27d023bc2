package caddytest_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// SDK 1.6: in resource-server mode the external server's metadata is repeated
// byte for byte, with HEAD, OPTIONS and one slash at the end as in the SDK's
// version 2.
func TestSDKMirroredMetadata(t *testing.T) {
	c, idp, b := loadGuarded(t, "", "resource /mcp")
	resp, err := http.Get(idp.URL + "/.well-known/oauth-authorization-server")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	want, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	const path = "/.well-known/oauth-authorization-server"
	for _, target := range []string{path, path + "/", path + "/mcp"} {
		resp, body := c.send("GET", target, nil, "")
		if diff := cmp.Diff(string(want), body); diff != "" || resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", target, resp.StatusCode, diff)
		}
		if resp.Header.Get("Cache-Control") != "public, max-age=300" || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: headers %v", target, resp.Header)
		}
	}
	resp, _ = c.send("OPTIONS", path, http.Header{"Access-Control-Request-Headers": {"mcp-protocol-version"}}, "")
	if resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Methods") != "GET, HEAD, OPTIONS" ||
		resp.Header.Get("Access-Control-Allow-Headers") != "mcp-protocol-version" || resp.Header.Get("Vary") == "" {
		t.Errorf("OPTIONS: %d %v", resp.StatusCode, resp.Header)
	}
	resp, _ = c.send("POST", path, nil, "{}")
	if resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("POST: %d %v", resp.StatusCode, resp.Header)
	}
	if n := len(b.take()); n > 0 {
		t.Errorf("%d requests reached the backend", n)
	}
}

// SDK 1.8: behind a proxy that is not trusted, all clients share a bucket; with
// trusted_proxies each has its own. A limit that is off counts nothing.
func TestSDKRateLimitBehindAProxy(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	site := fmt.Sprintf(scriptedProxySite, idp.URL, "rate_limit authorize 1 1h\n\t\trate_limit register off", b.addr())
	for name, row := range map[string]struct {
		globals string
		want    int
	}{
		"not trusted": {"", 429},
		"trusted":     {"\tservers {\n\t\ttrusted_proxies static 127.0.0.0/8 ::1\n\t}", 400},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCaddy(t)
			if err := c.load(row.globals, site); err != nil {
				t.Fatal(err)
			}
			for i, want := range []int{400, row.want} {
				header := http.Header{"X-Forwarded-For": {fmt.Sprintf("192.0.2.%d", i+1)}}
				if resp, body := c.send("GET", "/authorize", header, ""); resp.StatusCode != want {
					t.Errorf("client %d: %d %s, want %d", i+1, resp.StatusCode, body, want)
				}
			}
			if resp, _ := c.send("POST", "/register", nil, "{}"); resp.Header.Get("RateLimit-Policy") != "" {
				t.Errorf("a limit that is off: %v", resp.Header)
			}
		})
	}
}
