package caddytest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"golang.org/x/oauth2"
)

// brokerSite is a broker in front of an MCP server; %s are who signs people in,
// further settings, and the server's address.
const brokerSite = `
{ORIGIN} {
	bind localhost
	mcp_auth {ORIGIN} {
		%s
		resource /mcp {
			name "End to end"
			scopes mcp:read
		}
		%s
	}
	reverse_proxy %s
}
`

// memoryStore is the global option for tests that restart nothing.
const memoryStore = "\tmcp_auth {\n\t\tstore memory\n\t}"

// oidcUpstream is an upstream for startBrokerIDP's issuer.
const oidcUpstream = `upstream oidc %s {
			client_id broker
			client_secret secret-of-the-broker
		}
		allow email *@example.com`

// aliceAccount is the local account of alice.
func aliceAccount(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("accounts {\n%s %s\n}", aliceName, hash(t, alicePassword))
}

// startBrokerIDP runs oidc-provider with this Caddy as its client.
func startBrokerIDP(t *testing.T, c *caddyInstance) (issuer string) {
	t.Helper()
	return startIDP(t, idpOptions{Clients: []map[string]any{{
		"client_id": "broker", "client_secret": "secret-of-the-broker", "redirect_uris": []string{c.Origin + "/mcp-auth/callback"},
	}}})
}

// eachSignIn runs the test in front of an MCP server, with people signing in at
// oidc-provider, and with local accounts.
func eachSignIn(t *testing.T, settings string, test func(t *testing.T, c *caddyInstance)) {
	for name, signIn := range map[string]func(*testing.T, *caddyInstance) string{
		"identity provider": func(t *testing.T, c *caddyInstance) string { return fmt.Sprintf(oidcUpstream, startBrokerIDP(t, c)) },
		"local accounts":    func(t *testing.T, _ *caddyInstance) string { return aliceAccount(t) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCaddy(t)
			if err := c.load(memoryStore, fmt.Sprintf(brokerSite, signIn(t, c), settings, startMCPServer(t))); err != nil {
				t.Fatal(err)
			}
			test(t, c)
		})
	}
}

// TestBrokerGoClient: go-sdk, which compares iss, from the 401 to the
// revocation.
func TestBrokerGoClient(t *testing.T) {
	eachSignIn(t, "", func(t *testing.T, c *caddyInstance) {
		client, err := connectGo(t, c.Origin+"/mcp")
		if err != nil {
			t.Fatal(err)
		}
		tools, err := client.ListTools(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, tool := range tools.Tools {
			names = append(names, tool.Name)
		}
		if diff := cmp.Diff(toolNames, names, cmpopts.SortSlices(strings.Compare)); diff != "" {
			t.Errorf("tools (-want +got):\n%s", diff)
		}
		want := identity{User: aliceName, Client: client.config.ClientID, Scope: "mcp:read"}
		if diff := cmp.Diff(want, client.whoami(t)); diff != "" {
			t.Errorf("identity (-want +got):\n%s", diff)
		}
		fresh, err := client.refresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if fresh.AccessToken == client.token.AccessToken || fresh.RefreshToken == client.token.RefreshToken {
			t.Error("the refresh gave the same tokens")
		}
		if diff := cmp.Diff(want, client.whoami(t)); diff != "" {
			t.Errorf("identity after the refresh (-want +got):\n%s", diff)
		}
		metadata, err := auth.GetAuthServerMetadata(t.Context(), c.Origin, http.DefaultClient)
		if err != nil {
			t.Fatal(err)
		}
		revoke(t, metadata.RevocationEndpoint, client.config.ClientID, fresh.RefreshToken)
		if resp, _ := c.send("GET", "/mcp", bearerHeader(fresh.AccessToken), ""); resp.StatusCode != 401 {
			t.Errorf("an access token after the revocation of its refresh token: %d", resp.StatusCode)
		}
		client.token = fresh
		var retrieve *oauth2.RetrieveError
		if _, err := client.refresh(t.Context()); !errors.As(err, &retrieve) || retrieve.ErrorCode != "invalid_grant" {
			t.Errorf("refresh after revocation: %v, want invalid_grant", err)
		}
	})
}

// TestBrokerNodeClients: the TypeScript SDK, oauth4webapi and openid-client,
// the last two with all checks of theirs on.
func TestBrokerNodeClients(t *testing.T) {
	type result struct {
		Step   string   `json:"step"`
		Error  string   `json:"error"`
		Scope  string   `json:"scope"`
		Before identity `json:"before"`
		After  identity `json:"after"`
	}
	eachSignIn(t, "", func(t *testing.T, c *caddyInstance) {
		for script, step := range map[string]string{"sdkclient.mjs": "", "strictclient.mjs": "done", "openidclient.mjs": ""} {
			t.Run(script, func(t *testing.T) {
				var got result
				stderr, err := runNode(t, script, map[string]any{"url": c.Origin + "/mcp", "issuer": c.Origin}, &got)
				if err != nil {
					t.Fatalf("%v\n%s", err, stderr)
				}
				id := identity{User: aliceName, Client: got.Before.Client, Scope: "mcp:read"}
				if diff := cmp.Diff(result{Step: step, Scope: "mcp:read", Before: id, After: id}, got); diff != "" {
					t.Errorf("result (-want +got):\n%s\n%s", diff, stderr)
				}
				if id.Client == "" {
					t.Error("the server was not told of the client")
				}
			})
		}
	})
}

// mcpRemote is the npm package mcp-remote, which many desktop clients run.
type mcpRemote struct {
	*mcp.ClientSession
	// visits are the authorization URLs that it asked its user to visit.
	visits chan string
}

// startMCPRemote runs it until the test ends or it is closed. What it remembers
// is kept in dir. A person follows the URLs that it prints.
func startMCPRemote(t *testing.T, dir, endpoint string) (*mcpRemote, error) {
	t.Helper()
	if err := npmPackages(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), nodeTimeout)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "node", filepath.Join("npm", "node_modules", "mcp-remote", "dist", "proxy.js"), endpoint, "--transport", "http-only")
	// true stands for the browser that it opens itself where there is one.
	cmd.Env = append(os.Environ(), "HOME="+dir, "MCP_REMOTE_CONFIG_DIR="+filepath.Join(dir, "mcp-auth"), "BROWSER=true", "NO_COLOR=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	remote := &mcpRemote{visits: make(chan string, 8)}
	said := make(chan string, 1)
	go func() {
		var all strings.Builder
		lines := bufio.NewScanner(io.TeeReader(stderr, &all))
		for lines.Scan() {
			if _, query, ok := strings.Cut(strings.TrimSpace(lines.Text()), "/authorize?"); ok {
				target := endpoint[:strings.LastIndexByte(endpoint, '/')] + "/authorize?" + query
				remote.visits <- target
				if err := visitAndReturn(ctx, t, target); err != nil {
					t.Errorf("the person at the browser: %v", err)
				}
			}
		}
		said <- all.String()
	}()
	client := mcp.NewClient(&mcp.Implementation{Name: "desktop", Version: "1.0.0"}, nil)
	remote.ClientSession, err = client.Connect(ctx, &mcp.CommandTransport{Command: cmd, TerminateDuration: 2 * time.Second}, nil)
	t.Cleanup(func() {
		if remote.ClientSession != nil {
			_ = remote.Close()
		}
		cancel()
		if output := <-said; t.Failed() {
			t.Logf("mcp-remote said:\n%s", output)
		}
	})
	return remote, err
}

// visitAndReturn signs in and loads the client's own page, as a browser does.
// mcp-remote may print the URL a moment before it listens; a person would
// reload the page then.
func visitAndReturn(ctx context.Context, t *testing.T, target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	answer, err := follow(ctx, t, target, u.Query().Get("redirect_uri"))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, answer.String(), nil)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.DefaultClient.Do(req)
		if errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(deadline) {
			continue
		}
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the client's page answered %s", resp.Status)
		}
		return nil
	}
}

// spoilAccessToken makes the access token in what mcp-remote keeps one that is
// refused, as if its time were over, and returns the refresh token beside it.
func spoilAccessToken(t *testing.T, dir string) (refreshToken string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".json" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var kept struct {
			AccessToken  string `json:"access_token"`
			RefreshToken string `json:"refresh_token"`
		}
		if json.Unmarshal(data, &kept) != nil || kept.RefreshToken == "" {
			return nil
		}
		refreshToken = kept.RefreshToken
		return os.WriteFile(path, bytes.ReplaceAll(data, []byte(kept.AccessToken), []byte("spoiled")), 0o600)
	})
	if err != nil || refreshToken == "" {
		t.Fatalf("no tokens in %s: %v", dir, err)
	}
	return refreshToken
}

// TestBrokerMCPRemote: mcp-remote signs in once, finds its tokens again when it
// is started anew, refreshes by itself when its access token is no good any
// more, and asks its user again when all was revoked.
func TestBrokerMCPRemote(t *testing.T) {
	eachSignIn(t, "", func(t *testing.T, c *caddyInstance) {
		dir := t.TempDir()
		use := func(wantVisits int) identity {
			t.Helper()
			remote, err := startMCPRemote(t, dir, c.Origin+"/mcp")
			if err != nil {
				t.Fatal(err)
			}
			tools, err := remote.ListTools(t.Context(), nil)
			if err != nil || len(tools.Tools) != len(toolNames) {
				t.Fatalf("tools/list: %v", err)
			}
			id := (&goClient{ClientSession: remote.ClientSession}).whoami(t)
			if err := remote.Close(); err != nil {
				t.Logf("mcp-remote ended with %v", err)
			}
			if n := len(remote.visits); n != wantVisits {
				t.Errorf("mcp-remote sent its user to the browser %d times, want %d", n, wantVisits)
			}
			return id
		}
		first := use(1)
		if first.User != aliceName || first.Scope != "mcp:read offline_access" || first.Client == "" || first.Authorization {
			t.Errorf("identity: %+v", first)
		}
		if diff := cmp.Diff(first, use(0)); diff != "" {
			t.Errorf("identity when started anew (-before +after):\n%s", diff)
		}
		before := spoilAccessToken(t, dir)
		if diff := cmp.Diff(first, use(0)); diff != "" {
			t.Errorf("identity after a refresh (-before +after):\n%s", diff)
		}
		after := spoilAccessToken(t, dir)
		if after == before {
			t.Error("it did not refresh")
		}
		revoke(t, c.Origin+"/revoke", first.Client, after)
		if diff := cmp.Diff(first, use(1)); diff != "" {
			t.Errorf("identity after the revocation (-before +after):\n%s", diff)
		}
	})
}
