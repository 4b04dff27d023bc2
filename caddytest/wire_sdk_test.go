package caddytest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// startNodeServer starts an MCP server of the TypeScript SDK with sessions and
// returns its host and port.
func startNodeServer(t *testing.T) string {
	t.Helper()
	if err := npmPackages(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "sessionserver.mjs")
	cmd.Dir = "npm"
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(2*nodeTimeout, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		_ = stdin.Close() // it ends then
		if err := cmd.Wait(); err != nil {
			t.Errorf("sessionserver.mjs: %v", err)
		}
		kill.Stop()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	var ready struct{ URL string }
	if err != nil || json.Unmarshal(line, &ready) != nil || ready.URL == "" {
		t.Fatalf("sessionserver.mjs printed %q instead of its URL: %v", line, err)
	}
	return strings.TrimPrefix(ready.URL, "http://")
}

// withToken is an http.RoundTripper that adds a token, and remembers the session
// id that it was given.
type withToken struct {
	token   string
	session string
}

func (w *withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+w.token)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && resp.Header.Get("Mcp-Session-Id") != "" {
		w.session = resp.Header.Get("Mcp-Session-Id")
	}
	return resp, err
}

// TestSessionsOfSDKs has the clients of both SDKs hold sessions with the servers
// of both, bound to their user and with filtered lists.
func TestSessionsOfSDKs(t *testing.T) {
	for server, start := range map[string]func(*testing.T) string{"go-sdk server": startMCPServer, "npm SDK server": startNodeServer} {
		t.Run(server, func(t *testing.T) {
			idp := newScriptedIDP(t)
			c := loadCaddy(t, fmt.Sprintf(filteredSite, idp.URL, start(t)))
			tokenOf := func(user string) string {
				return idp.token(map[string]any{"aud": c.Origin + "/mcp", "sub": user})
			}
			check := func(tools []string, session string) {
				t.Helper()
				if len(tools) == 0 || slices.ContainsFunc(tools, func(name string) bool { return strings.HasPrefix(name, "delete_") }) {
					t.Errorf("tools %v", tools)
				}
				if dot := strings.LastIndexByte(session, '.'); dot < 1 || len(session)-dot-1 != 22 {
					t.Errorf("session %q", session)
				}
			}
			t.Run("go-sdk client", func(t *testing.T) {
				wire := &withToken{token: tokenOf("alice")}
				session, err := mcp.NewClient(&mcp.Implementation{Name: "session client", Version: "1.0.0"}, nil).Connect(t.Context(),
					&mcp.StreamableClientTransport{Endpoint: c.Origin + "/mcp", HTTPClient: &http.Client{Transport: wire}}, nil)
				if err != nil {
					t.Fatal(err)
				}
				list, err := session.ListTools(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				var tools []string
				for _, tool := range list.Tools {
					tools = append(tools, tool.Name)
				}
				check(tools, wire.session)
				// Somebody else cannot go on with it.
				header := bearerHeader(tokenOf("mallory"))
				header.Set("Mcp-Session-Id", wire.session)
				header.Set("Content-Type", "application/json")
				if resp, body := c.send("DELETE", "/mcp", header, ""); resp.StatusCode != 404 {
					t.Errorf("another user ends the session: %d %s", resp.StatusCode, body)
				}
				if _, err := session.ListTools(t.Context(), nil); err != nil {
					t.Errorf("the session after that: %v", err)
				}
				if err := session.Close(); err != nil {
					t.Error(err)
				}
			})
			t.Run("npm SDK client", func(t *testing.T) {
				var got struct {
					Tools   []string
					Answer  string
					Session string
				}
				if stderr, err := runNode(t, "sessionclient.mjs", map[string]string{"url": c.Origin + "/mcp", "token": tokenOf("alice")}, &got); err != nil {
					t.Fatalf("%v\n%s", err, stderr)
				}
				check(got.Tools, got.Session)
				if got.Answer == "" {
					t.Error("no answer of the tool")
				}
			})
		})
	}
}
