package authclient_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// protectedServer is an MCP server and its authorization server, with a user who
// always agrees.
func protectedServer() *httptest.Server {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	answer := func(path string, v func(r *http.Request) any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(v(r)) })
	}
	answer("/.well-known/oauth-protected-resource/mcp", func(*http.Request) any {
		return map[string]any{"resource": server.URL + "/mcp", "authorization_servers": []string{server.URL}, "scopes_supported": []string{"mcp:read"}}
	})
	answer("/.well-known/oauth-authorization-server", func(*http.Request) any {
		return map[string]any{
			"issuer": server.URL, "authorization_endpoint": server.URL + "/authorize", "token_endpoint": server.URL + "/token",
			"registration_endpoint": server.URL + "/register", "code_challenge_methods_supported": []string{"S256"},
		}
	})
	answer("/register", func(*http.Request) any { return map[string]any{"client_id": "c1"} })
	answer("/token", func(r *http.Request) any {
		return map[string]any{"access_token": "secret", "token_type": "Bearer", "expires_in": 900, "scope": "mcp:read", "refresh_token": "r1"}
	})
	mux.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		http.Redirect(w, r, q.Get("redirect_uri")+"?code=x&state="+url.QueryEscape(q.Get("state")), http.StatusFound)
	})
	mux.HandleFunc("/mcp", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="`+server.URL+`/.well-known/oauth-protected-resource/mcp"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "hello")
	})
	return server
}

// A program at a terminal: the first request that is refused opens the browser,
// and goes on when the user has signed in.
func ExampleWithOAuth() {
	server := protectedServer()
	defer server.Close()

	login, err := authclient.NewLoopback(authclient.NewMemoryStore(), authclient.LoopbackOptions{
		Metadata:    oauth.ClientMetadata{ClientName: "Example"},
		Output:      new(strings.Builder),
		OpenBrowser: exampleBrowser, // leave it out to open the user's
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer login.Close()

	transport, err := authclient.WithOAuth(login, server.URL+"/mcp", authclient.TransportOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport} // for the MCP client

	resp, err := client.Post(server.URL+"/mcp", "application/json", strings.NewReader(`{}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

func exampleBrowser(ctx context.Context, u string) error {
	_, _, err := visit(ctx, u)
	return err
}

// A web application: Auth begins the login, and the handler of the callback ends
// it.
func ExampleAuth() {
	server := protectedServer()
	defer server.Close()
	ctx := context.Background()

	provider, err := authclient.NewWeb(authclient.NewMemoryStore(), authclient.WebOptions{
		RedirectURL: "https://app.example.com/callback",
		Metadata:    oauth.ClientMetadata{ClientName: "Example"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	options := authclient.Options{ServerURL: server.URL + "/mcp"}

	result, err := authclient.Auth(ctx, provider, options)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Status, "to", result.AuthorizationURL.Path, "for", result.Scope)

	// The user comes back to the callback with these query parameters.
	options.Callback = url.Values{"code": {"x"}, "state": {result.AuthorizationURL.Query().Get("state")}}
	if result, err = authclient.Auth(ctx, provider, options); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Status, result.Tokens.Scope)
	// Output:
	// REDIRECT to /authorize for mcp:read
	// AUTHORIZED mcp:read
}

// What an MCP server says about who may use it.
func ExampleDiscoverOAuthServerInfo() {
	server := protectedServer()
	defer server.Close()
	found, err := authclient.DiscoverOAuthServerInfo(context.Background(), authclient.Options{ServerURL: server.URL + "/mcp"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(found.AuthorizationServerURL == server.URL, found.ProtectedResource.ScopesSupported)
	// Output: true [mcp:read]
}
