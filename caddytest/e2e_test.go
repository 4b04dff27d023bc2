package caddytest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"
)

// proxySite is a site in proxy mode in front of an MCP server: the upstream's
// issuer, and the server's address.
const proxySite = `
{ORIGIN} {
	bind localhost
	mcp_auth {ORIGIN} {
		proxy {
			issuer %s
			audience {ORIGIN}/mcp
		}
		resource /mcp {
			name "End to end"
			scopes mcp:read
		}
	}
	reverse_proxy %s
}
`

// directSite is proxySite with the SDK's way: the upstream answers the client
// itself. That is the default for upstreams that do not announce iss.
var directSite = strings.Replace(proxySite, "issuer %s", "issuer %s\ncallback direct", 1)

const clientRedirect = "http://127.0.0.1:41998/callback"

// toolNames are the tools of the example MCP server.
var toolNames = []string{"delete_note", "echo", "whoami"}

// identity is the answer of the tool whoami.
type identity struct {
	User          string `json:"user"`
	Client        string `json:"client"`
	Scope         string `json:"scope"`
	Authorization bool   `json:"authorization"`
}

// goClient is the go-sdk client with what it got on its way.
type goClient struct {
	*mcp.ClientSession
	config *oauth2.Config
	token  *oauth2.Token
	source *swappableSource
}

// swappableSource is a token source that a test can replace by one without an
// access token, so that the next request refreshes.
type swappableSource struct{ oauth2.TokenSource }

// connectGo lets go-sdk's client find, register, authorize and connect.
func connectGo(t *testing.T, endpoint string) (*goClient, error) {
	t.Helper()
	c := &goClient{}
	handler, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
		DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{
			Metadata: &oauthex.ClientRegistrationMetadata{
				ClientName:              "go-sdk client",
				RedirectURIs:            []string{clientRedirect},
				GrantTypes:              []string{"authorization_code", "refresh_token"},
				ResponseTypes:           []string{"code"},
				TokenEndpointAuthMethod: "none",
			},
		},
		AuthorizationCodeFetcher: func(ctx context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			answer, err := follow(ctx, t, args.URL, clientRedirect)
			if err != nil {
				return nil, err
			}
			q := answer.Query()
			if code := q.Get("error"); code != "" {
				return nil, fmt.Errorf("authorization response: %s", code)
			}
			return &auth.AuthorizationResult{Code: q.Get("code"), State: q.Get("state"), Iss: q.Get("iss")}, nil
		},
		NewTokenSource: func(ctx context.Context, config *oauth2.Config, token *oauth2.Token) (oauth2.TokenSource, error) {
			c.config, c.token = config, token
			c.source = &swappableSource{config.TokenSource(ctx, token)}
			return c.source, nil
		},
	})
	if err != nil {
		return nil, err
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "go-sdk", Version: "1.0.0"}, nil)
	c.ClientSession, err = client.Connect(t.Context(), &mcp.StreamableClientTransport{
		Endpoint:     endpoint,
		OAuthHandler: handler,
	}, nil)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, nil
}

// refresh makes the client refresh with its next request, and returns the
// tokens that it then has.
func (c *goClient) refresh(ctx context.Context) (*oauth2.Token, error) {
	c.source.TokenSource = c.config.TokenSource(ctx, &oauth2.Token{RefreshToken: c.token.RefreshToken})
	return c.source.Token()
}

func (c *goClient) whoami(t *testing.T) identity {
	t.Helper()
	answer, err := c.CallTool(t.Context(), &mcp.CallToolParams{Name: "whoami"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(answer.StructuredContent)
	if err != nil {
		t.Fatal(err)
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestGoClient: 401 → metadata → register → authorize → token → tools/list →
// tools/call → refresh → revoke, with go-sdk.
func TestGoClient(t *testing.T) {
	idp := startIDP(t, idpOptions{NoIss: true})
	c := loadCaddy(t, fmt.Sprintf(proxySite, idp, startMCPServer(t)))
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
	id := client.whoami(t)
	want := identity{User: "alice", Client: id.Client, Scope: "mcp:read"}
	if diff := cmp.Diff(want, id); diff != "" || id.Client == "" {
		t.Errorf("identity with client %q (-want +got):\n%s", id.Client, diff)
	}

	fresh, err := client.refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fresh.AccessToken == client.token.AccessToken {
		t.Error("the refresh gave the same access token")
	}
	if diff := cmp.Diff(id, client.whoami(t)); diff != "" {
		t.Errorf("identity after the refresh (-want +got):\n%s", diff)
	}

	metadata, err := auth.GetAuthServerMetadata(t.Context(), c.Origin, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	revoke(t, metadata.RevocationEndpoint, client.config.ClientID, fresh.RefreshToken)
	client.token = fresh
	var retrieve *oauth2.RetrieveError
	if _, err := client.refresh(t.Context()); !errors.As(err, &retrieve) || retrieve.ErrorCode != "invalid_grant" {
		t.Errorf("refresh after revocation: %v, want invalid_grant", err)
	}
}

func revoke(t *testing.T, endpoint, clientID, token string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint,
		strings.NewReader(url.Values{"token": {token}, "client_id": {clientID}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("revocation answered %s: %s", resp.Status, body)
	}
}

// In proxy mode with callback direct the upstream's authorization response
// reaches the client unchanged. A client that compares its iss (RFC 9207) to
// the issuer that it talks to, this proxy, refuses it; that is the price of
// the SDK's way, and what callback relay is for.
func TestStrictGoClientRefusesTheUpstreamsIss(t *testing.T) {
	idp := startIDP(t, idpOptions{})
	c := loadCaddy(t, fmt.Sprintf(directSite, idp, startMCPServer(t)))
	if _, err := connectGo(t, c.Origin+"/mcp"); err == nil || !strings.Contains(err.Error(), "iss") {
		t.Errorf("connecting gave %v, want an error about iss", err)
	}
}

func TestUserDeclines(t *testing.T) {
	idp := startIDP(t, idpOptions{Deny: true, NoIss: true})
	c := loadCaddy(t, fmt.Sprintf(proxySite, idp, startMCPServer(t)))
	if _, err := connectGo(t, c.Origin+"/mcp"); err == nil || !strings.Contains(err.Error(), "access_denied") {
		t.Errorf("connecting gave %v, want access_denied", err)
	}
}

// TestNPMClient is the same way with the TypeScript SDK, which does not look
// at iss.
func TestNPMClient(t *testing.T) {
	idp := startIDP(t, idpOptions{})
	c := loadCaddy(t, fmt.Sprintf(directSite, idp, startMCPServer(t)))
	type result struct {
		Issuer   string   `json:"issuer"`
		Resource string   `json:"resource"`
		ClientID string   `json:"clientId"`
		Scope    string   `json:"scope"`
		Tools    []string `json:"tools"`
		Before   identity `json:"before"`
		After    identity `json:"after"`
	}
	var got result
	if stderr, err := runNode(t, "sdkclient.mjs", map[string]any{"url": c.Origin + "/mcp"}, &got); err != nil {
		t.Fatalf("sdkclient.mjs: %v\n%s", err, stderr)
	}
	id := identity{User: "alice", Client: got.Before.Client, Scope: "mcp:read"}
	want := result{
		Issuer:   c.Origin,
		Resource: c.Origin + "/mcp",
		ClientID: got.ClientID,
		Scope:    "mcp:read",
		Tools:    toolNames,
		Before:   id,
		After:    id,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if got.ClientID == "" || got.Before.Client == "" {
		t.Errorf("client ids %q and %q, want both", got.ClientID, got.Before.Client)
	}
}

// TestStrictClient is a client made of oauth4webapi, which checks what the
// RFCs tell it to check. See TestStrictGoClientRefusesTheUpstreamsIss for the
// second row.
func TestStrictClient(t *testing.T) {
	type result struct {
		Step  string `json:"step"`
		Error string `json:"error"`
		Scope string `json:"scope"`
	}
	tests := map[string]struct {
		idp  idpOptions
		want result
	}{
		"an upstream without iss satisfies it":      {idpOptions{NoIss: true}, result{Step: "done", Scope: "mcp:read"}},
		"the iss of the upstream is not the proxys": {idpOptions{}, result{Step: "response"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			idp := startIDP(t, tt.idp)
			c := loadCaddy(t, fmt.Sprintf(directSite, idp, startMCPServer(t)))
			var got result
			stderr, err := runNode(t, "strictclient.mjs", map[string]any{"url": c.Origin + "/mcp"}, &got)
			if err != nil {
				t.Fatalf("strictclient.mjs: %v\n%s", err, stderr)
			}
			if tt.want.Step == "response" && !strings.Contains(got.Error, `"iss"`) {
				t.Errorf("refused because %q, want because of iss", got.Error)
			}
			got.Error = tt.want.Error
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s\n%s", diff, stderr)
			}
		})
	}
}
