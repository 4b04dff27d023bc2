package caddytest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// loginClient is a program at a terminal with this module's client side.
type loginClient struct {
	login     *authclient.Loopback
	store     *authclient.FileStore
	transport *authclient.Transport
	endpoint  string
	// tokenRequests counts those to /token.
	tokenRequests atomic.Int32
}

// newLoginClient is a client whose user agrees to everything.
func newLoginClient(t *testing.T, endpoint string) *loginClient {
	t.Helper()
	c := &loginClient{endpoint: endpoint}
	var err error
	if c.store, err = authclient.OpenFileStore(filepath.Join(t.TempDir(), "credentials.json"), authclient.FileOptions{ServerURL: endpoint}); err != nil {
		t.Fatal(err)
	}
	if c.login, err = authclient.NewLoopback(c.store, authclient.LoopbackOptions{
		Metadata: oauth.ClientMetadata{ClientName: "Login client", GrantTypes: []string{"authorization_code", "refresh_token"}},
		Output:   new(strings.Builder),
		OpenBrowser: func(ctx context.Context, u string) error {
			back, err := follow(ctx, t, u, c.login.RedirectURL())
			if err != nil {
				t.Errorf("the user could not sign in: %v", err)
				return err
			}
			return openPage(ctx, back.String())
		},
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.login.Close() })
	counted := &http.Transport{}
	t.Cleanup(counted.CloseIdleConnections)
	if c.transport, err = authclient.WithOAuth(c.login, endpoint, authclient.TransportOptions{
		Next: counted,
		Auth: authclient.Options{HTTPClient: &http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/token") {
				c.tokenRequests.Add(1)
			}
			return counted.RoundTrip(r)
		})}},
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func openPage(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// connect is the connection of an MCP client that knows nothing of OAuth.
func (c *loginClient) connect(t *testing.T) *mcp.ClientSession {
	t.Helper()
	session, err := mcp.NewClient(&mcp.Implementation{Name: "login client", Version: "1.0.0"}, nil).Connect(t.Context(),
		&mcp.StreamableClientTransport{Endpoint: c.endpoint, HTTPClient: &http.Client{Transport: c.transport}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session
}

func tools(t *testing.T, session *mcp.ClientSession) (names []string) {
	t.Helper()
	list, err := session.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	slices.Sort(names)
	return names
}

// use connects, refreshes, and lets a hundred callers come with an expired
// token.
func (c *loginClient) use(t *testing.T) *mcp.ClientSession {
	t.Helper()
	session := c.connect(t)
	if diff := cmp.Diff(toolNames, tools(t, session), cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("tools (-want +got):\n%s", diff)
	}
	first, err := c.store.Tokens(t.Context(), "")
	if err != nil || first == nil || first.RefreshToken == "" {
		t.Fatalf("tokens %v, error %v", first != nil, err)
	}
	expired := *first
	expired.ExpiresAt = time.Now().Add(-time.Second)
	if err := c.store.SaveTokens(t.Context(), &expired); err != nil {
		t.Fatal(err)
	}
	before := c.tokenRequests.Load()
	client := &http.Client{Transport: c.transport}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.endpoint, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"ping"}`))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Accept", "application/json, text/event-stream")
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusUnauthorized {
				t.Error("a caller was refused")
			}
		})
	}
	all.Wait()
	if got := c.tokenRequests.Load() - before; got != 1 {
		t.Errorf("%d refreshes for 100 callers", got)
	}
	if second, err := c.store.Tokens(t.Context(), ""); err != nil || second.AccessToken == first.AccessToken {
		t.Errorf("the token was not renewed: %v", err)
	}
	if got := tools(t, session); len(got) == 0 {
		t.Error("no tools after the refresh")
	}
	return session
}

// TestAuthClientAtTheBroker: this module's client side at its server side, from
// the 401 to the refresh.
func TestAuthClientAtTheBroker(t *testing.T) {
	eachSignIn(t, "", func(t *testing.T, c *caddyInstance) {
		client := newLoginClient(t, c.Origin+"/mcp")
		session := client.use(t)
		id := (&goClient{ClientSession: session}).whoami(t)
		if id.User != aliceName || !slices.Contains(strings.Fields(id.Scope), "mcp:read") || id.Authorization {
			t.Errorf("identity %+v", id)
		}
		// A dead grant: the client is asked to sign in again, and does.
		tokens, err := client.store.Tokens(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		broken := *tokens
		broken.RefreshToken, broken.AccessToken = "not-a-refresh-token", "not-a-token"
		if err := client.store.SaveTokens(t.Context(), &broken); err != nil {
			t.Fatal(err)
		}
		if got := tools(t, client.connect(t)); len(got) == 0 {
			t.Error("no tools after the second login")
		}
	})
}

// TestAuthClientBehindTheProxy: sign-in is relayed to oidc-provider.
func TestAuthClientBehindTheProxy(t *testing.T) {
	c := newCaddy(t)
	issuer := startIDP(t, idpOptions{Resources: []string{c.Origin + "/mcp"}, Resource: c.Origin + "/mcp", Scope: "mcp:read"})
	if err := c.load("", fmt.Sprintf(proxySite, issuer, startMCPServer(t))); err != nil {
		t.Fatal(err)
	}
	newLoginClient(t, c.Origin+"/mcp").use(t)
}

// TestAuthClientAtOIDCProvider: oidc-provider is the authorization server
// itself; this plugin only guards the MCP server and names it.
func TestAuthClientAtOIDCProvider(t *testing.T) {
	c := newCaddy(t)
	issuer := startIDP(t, idpOptions{Resources: []string{c.Origin + "/mcp"}, Scope: "mcp:read"})
	if err := c.load("", fmt.Sprintf(`
{ORIGIN} {
	mcp_auth {ORIGIN} {
		authorization_server %s
		resource /mcp {
			scopes mcp:read
		}
	}
	reverse_proxy %s
}
`, issuer, startMCPServer(t))); err != nil {
		t.Fatal(err)
	}
	client := newLoginClient(t, c.Origin+"/mcp")
	client.use(t)
	if tokens, err := client.store.Tokens(t.Context(), issuer); err != nil || tokens == nil {
		t.Errorf("the tokens are not bound to %s: %v", issuer, err)
	}
}

// TestAuthClientAtTheSDKExample: the example server of the npm SDK, with its
// own authorization server, which knows no refresh.
func TestAuthClientAtTheSDKExample(t *testing.T) {
	endpoint := startSDKExample(t)
	client := newLoginClient(t, endpoint)
	if got := tools(t, client.connect(t)); !slices.Contains(got, "greet") {
		t.Errorf("tools %v", got)
	}
	tokens, err := client.store.Tokens(t.Context(), "")
	if err != nil || tokens.RefreshToken != "" || tokens.ExpiresAt.IsZero() {
		t.Errorf("tokens %+v, error %v", tokens, err)
	}
	// The token of another resource is not accepted, nor sent.
	if _, err := authclient.Auth(t.Context(), client.login, authclient.Options{ServerURL: endpoint, ExpectedIssuer: "https://as.example"}); !errors.Is(err, authclient.ErrAuthorizationServerMismatch) {
		t.Errorf("another issuer: %v", err)
	}
}

// startSDKExample runs simpleStreamableHttp.js until the test ends and returns
// its endpoint.
func startSDKExample(t *testing.T) (endpoint string) {
	t.Helper()
	if err := npmPackages(); err != nil {
		t.Fatal(err)
	}
	port, authPort := freePort(t), freePort(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "node", "node_modules/@modelcontextprotocol/sdk/dist/esm/examples/server/simpleStreamableHttp.js", "--oauth", "--oauth-strict")
	cmd.Dir = "npm"
	cmd.Env = append(os.Environ(), fmt.Sprintf("MCP_PORT=%d", port), fmt.Sprintf("MCP_AUTH_PORT=%d", authPort))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() { // ends with the program
		defer close(ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if strings.Contains(lines.Text(), "listening on port") {
				select {
				case listening <- struct{}{}:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = cmd.Wait() // it was killed
	})
	select {
	case <-listening:
	case <-ended:
		t.Fatal("the example server ended")
	case <-time.After(nodeTimeout):
		t.Fatal("the example server does not listen")
	}
	return fmt.Sprintf("http://localhost:%d/mcp", port)
}
