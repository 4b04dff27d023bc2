package caddytest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/authclient/gosdk"
	"github.com/caddy-mcp/mcpauth/oauth"
)

var _ auth.OAuthHandler = (*gosdk.Handler)(nil)

// gosdkUser is alice at a program that keeps her credentials in a file.
type gosdkUser struct {
	*authclient.Web
	store  *authclient.FileStore
	logins int
	back   chan url.Values
}

// WaitForCallback implements authclient.CallbackWaiter.
func (u *gosdkUser) WaitForCallback(ctx context.Context) (url.Values, error) {
	select {
	case back := <-u.back:
		return back, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// newGosdkUser is what a program does that starts, perhaps not for the first
// time.
func newGosdkUser(t *testing.T, file, server string) *gosdkUser {
	t.Helper()
	store, err := authclient.OpenFileStore(file, authclient.FileOptions{ServerURL: server})
	if err != nil {
		t.Fatal(err)
	}
	u := &gosdkUser{store: store, back: make(chan url.Values, 1)}
	u.Web, err = authclient.NewWeb(store, authclient.WebOptions{
		RedirectURL: clientRedirect, Metadata: oauth.ClientMetadata{ClientName: "go-sdk with storage"},
		Redirect: func(ctx context.Context, to *url.URL) error {
			u.logins++
			answer, err := follow(ctx, t, to.String(), clientRedirect)
			if err != nil {
				return err
			}
			u.back <- answer.Query()
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// connect connects by the adapter, or by WithOAuth.
func (u *gosdkUser) connect(t *testing.T, server string, adapter bool) *goClient {
	t.Helper()
	transport := &mcp.StreamableClientTransport{Endpoint: server}
	if adapter {
		handler, err := gosdk.NewHandler(u, server, authclient.TransportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(handler.CloseIdleConnections)
		transport.OAuthHandler = handler
	} else {
		withOAuth, err := authclient.WithOAuth(u, server, authclient.TransportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(withOAuth.CloseIdleConnections)
		transport.HTTPClient = &http.Client{Transport: withOAuth}
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "go-sdk", Version: "1.0.0"}, nil).Connect(t.Context(), transport, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return &goClient{ClientSession: session}
}

// TestGoSDKWithProvider: go-sdk's client signs in once; the next process finds
// the credentials, refreshes a token that the server does not take any more, and
// steps up for a tool that needs more scope.
func TestGoSDKWithProvider(t *testing.T) {
	site := strings.Replace(brokerSite, "scopes mcp:read", "scopes mcp:read\n\t\t\ttool delete_* mcp:notes", 1)
	for name, adapter := range map[string]bool{"OAuthHandler": true, "HTTPClient": false} {
		t.Run(name, func(t *testing.T) {
			c := newCaddy(t)
			if err := c.load(memoryStore, fmt.Sprintf(site, aliceAccount(t), "", startMCPServer(t))); err != nil {
				t.Fatal(err)
			}
			server, file := c.Origin+"/mcp", filepath.Join(t.TempDir(), "credentials.json")

			first := newGosdkUser(t, file, server)
			before := first.connect(t, server, adapter).whoami(t)
			if first.logins != 1 || before.Scope != "mcp:read offline_access" {
				t.Fatalf("%d logins, scope %q", first.logins, before.Scope)
			}

			second := newGosdkUser(t, file, server)
			if got := second.connect(t, server, adapter).whoami(t); second.logins != 0 || got.Client != before.Client {
				t.Errorf("after a restart: %d logins, client %q, before %q", second.logins, got.Client, before.Client)
			}

			stale, err := second.store.Tokens(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			changed := *stale
			changed.AccessToken = "not-any-more"
			if err := second.store.SaveTokens(t.Context(), &changed); err != nil {
				t.Fatal(err)
			}
			third := newGosdkUser(t, file, server)
			client := third.connect(t, server, adapter)
			if client.whoami(t); third.logins != 0 {
				t.Errorf("with a stale token: %d logins", third.logins)
			}

			answer, err := client.CallTool(t.Context(), &mcp.CallToolParams{Name: "delete_note", Arguments: map[string]any{"name": "todo"}})
			if err != nil || answer.IsError {
				t.Fatalf("%+v, error %v", answer, err)
			}
			scopes := strings.Fields(client.whoami(t).Scope)
			if diff := cmp.Diff([]string{"mcp:notes", "mcp:read", "offline_access"}, scopes, cmpopts.SortSlices(strings.Compare)); diff != "" || third.logins != 1 {
				t.Errorf("after the step-up: %d logins, scopes (-want +got):\n%s", third.logins, diff)
			}
		})
	}
}

// TestGoSDKStepUpMayBeRefused: then the call fails with what is missing, and
// nobody is asked.
func TestGoSDKStepUpMayBeRefused(t *testing.T) {
	site := strings.Replace(brokerSite, "scopes mcp:read", "scopes mcp:read\n\t\t\ttool delete_* mcp:notes", 1)
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(site, aliceAccount(t), "", startMCPServer(t))); err != nil {
		t.Fatal(err)
	}
	server := c.Origin + "/mcp"
	u := newGosdkUser(t, filepath.Join(t.TempDir(), "credentials.json"), server)
	handler, err := gosdk.NewHandler(u, server, authclient.TransportOptions{OnInsufficientScope: authclient.Throw})
	if err != nil {
		t.Fatal(err)
	}
	defer handler.CloseIdleConnections()
	session, err := mcp.NewClient(&mcp.Implementation{Name: "go-sdk", Version: "1.0.0"}, nil).
		Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: server, OAuthHandler: handler}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close() }()
	_, err = session.CallTool(t.Context(), &mcp.CallToolParams{Name: "delete_note", Arguments: map[string]any{"name": "todo"}})
	var missing *authclient.InsufficientScopeError
	if !errors.As(err, &missing) || !strings.Contains(missing.RequiredScope, "mcp:notes") || u.logins != 1 {
		t.Errorf("%d logins, err = %v", u.logins, err)
	}
}
