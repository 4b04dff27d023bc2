//go:build conformance

package caddytest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// everythingServer is go-sdk's server for the conformance suite.
const everythingServer = "github.com/modelcontextprotocol/go-sdk/conformance/everything-server"

// TestConformanceServer runs the server scenarios of the MCP conformance suite
// against a server alone, and with the guard before it: the results are the
// same. The suite has no token, so that a proxy on the loopback adds one.
func TestConformanceServer(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "everything-server")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, everythingServer).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, row := range []struct {
		revision  string
		stateless bool
		least     int // checks
	}{{"2025-11-25", false, 60}, {"2026-07-28", true, 60}} {
		t.Run(row.revision, func(t *testing.T) {
			server := startEverything(t, binary, row.stateless)
			alone := conformServer(t, server+"/mcp", row.revision)
			if len(alone) < row.least {
				t.Fatalf("only %d checks were made: %v", len(alone), alone)
			}
			for name, settings := range map[string]string{"guard": "", "guard that filters lists": "lists filter"} {
				t.Run(name, func(t *testing.T) {
					url := guardAndToken(t, settings, server) + "/mcp"
					// Behind any proxy, one without Caddy too, the suite now and then takes a
					// stream that it has just left for the next answer.
					var diff string
					for range 3 {
						if diff = cmp.Diff(alone, conformServer(t, url, row.revision)); diff == "" {
							return
						}
					}
					t.Errorf("-without the guard +with it:\n%s", diff)
				})
			}
		})
	}
}

// startEverything starts the server and returns its origin.
func startEverything(t *testing.T, binary string, stateless bool) string {
	t.Helper()
	addr := "localhost:" + strconv.Itoa(freePort(t))
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, binary, "-http", addr, "-stateless="+strconv.FormatBool(stateless))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	deadline := time.Now().Add(30 * time.Second)
	for {
		resp, err := http.Get("http://" + addr + "/mcp")
		if err == nil {
			_ = resp.Body.Close()
			return "http://" + addr
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// guardAndToken puts a guard before the server, and a proxy before that which
// adds a token. It returns the origin of the proxy.
func guardAndToken(t *testing.T, settings, server string) string {
	t.Helper()
	idp := newScriptedIDP(t)
	c := loadCaddy(t, fmt.Sprintf(guardedSite, "", idp.URL, "resource /mcp {\nscopes mcp:read\n"+settings+"\n}", strings.TrimPrefix(server, "http://")))
	target, err := url.Parse(c.Origin)
	if err != nil {
		t.Fatal(err)
	}
	token := idp.token(map[string]any{"aud": c.Origin + "/mcp", "exp": time.Now().Add(time.Hour).Unix()})
	transport := &http.Transport{DisableKeepAlives: true}
	proxy := httptest.NewServer(&httputil.ReverseProxy{FlushInterval: -1, Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Set("Authorization", "Bearer "+token)
	}})
	proxy.Config.SetKeepAlivesEnabled(false)
	t.Cleanup(proxy.Close)
	return strings.Replace(proxy.URL, "127.0.0.1", "localhost", 1)
}

// conformServer runs the suite and returns the status of each check, by
// scenario and name.
func conformServer(t *testing.T, url, revision string) map[string]string {
	t.Helper()
	results := t.TempDir()
	out, err := conformanceSuite(t, "server", "--url", url, "--requirements", revision, "-o", results).CombinedOutput()
	t.Logf("the suite ended with %v", err)
	files, globErr := filepath.Glob(filepath.Join(results, "*", "checks.json"))
	if globErr != nil || len(files) == 0 {
		t.Fatalf("the suite left no results: %v\n%s", globErr, out)
	}
	statuses := make(map[string]string)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var checks []struct {
			ID, Name, Status string
		}
		if err := json.Unmarshal(b, &checks); err != nil {
			t.Fatal(err)
		}
		// The folder is <leg>-<scenario>-<time>.
		scenario := filepath.Base(filepath.Dir(file))
		if i := strings.Index(scenario, "-20"); i > 0 {
			scenario = scenario[:i]
		}
		for i, check := range checks {
			statuses[fmt.Sprintf("%s/%d %s", scenario, i, check.ID)] = check.Status
		}
	}
	return statuses
}
