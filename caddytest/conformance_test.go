//go:build conformance

package caddytest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/oauthex"
)

// TestConformance runs the authorization server scenarios of the MCP
// conformance suite against the proxy and the broker, and is the browser that
// they ask for.
func TestConformance(t *testing.T) {
	t.Run("proxy", func(t *testing.T) {
		// The suite asks for no scope, which oidc-provider refuses by itself.
		idp := startIDP(t, idpOptions{NoIss: true, Scope: "mcp:read"})
		// It warns that the proxy knows no metadata documents.
		conform(t, loadCaddy(t, fmt.Sprintf(proxySite, idp, startMCPServer(t))), "SKIPPED", "FAILURE")
	})
	t.Run("broker", func(t *testing.T) {
		eachSignIn(t, "", func(t *testing.T, c *caddyInstance) { conform(t, c, "SKIPPED", "FAILURE", "WARNING") })
	})
}

// conform fails unless the suite passes, with no check that ended like these:
// the suite counts what it did not try as passed, and warnings too.
func conform(t *testing.T, c *caddyInstance, bad ...string) {
	port := strconv.Itoa(freePort(t))
	redirectURI := "http://127.0.0.1:" + port + "/callback"
	client, err := oauthex.RegisterClient(t.Context(), c.Origin+"/register", &oauthex.ClientRegistrationMetadata{
		ClientName:              "conformance suite",
		RedirectURIs:            []string{redirectURI},
		TokenEndpointAuthMethod: "none",
		ApplicationType:         "native",
	}, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}

	results := t.TempDir()
	cmd := conformanceSuite(t, "authorization",
		"--url", c.Origin,
		"--client-id", client.ClientID,
		"--resource", c.Origin+"/mcp",
		"--port", port,
		"--output-dir", results,
	)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	lines := bufio.NewScanner(io.TeeReader(stdout, &said))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), c.Origin+"/authorize?") {
			visit(t, lines.Text(), redirectURI)
		}
	}
	err = cmd.Wait()
	t.Logf("the suite said:\n%s", &said)
	checks, globErr := filepath.Glob(filepath.Join(results, "*", "checks.json"))
	if globErr != nil || len(checks) == 0 {
		t.Errorf("the suite left no results: %v", globErr)
	}
	for _, file := range checks {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s", b)
		for _, status := range bad {
			if bytes.Contains(b, []byte(`"`+status+`"`)) {
				t.Errorf("a check ended with %s", status)
			}
		}
	}
	if err != nil {
		t.Errorf("the suite ended with %v", err)
	}
}

// visit does what the suite asks a person to do.
func visit(t *testing.T, authorizationURL, redirectURI string) {
	t.Helper()
	answer, err := follow(t.Context(), t, authorizationURL, redirectURI)
	if err != nil {
		t.Error(err)
		return
	}
	resp, err := http.Get(answer.String())
	if err != nil {
		t.Error(err)
		return
	}
	resp.Body.Close()
}
