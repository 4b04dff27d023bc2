package authclient_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// exampleServer is an MCP server with its authorization server, which says who
// calls.
func exampleServer() *httptest.Server {
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/oauth-protected-resource/mcp":
			sendJSON(w, http.StatusOK, map[string]any{"resource": s.URL + "/mcp", "authorization_servers": []string{s.URL}})
		case "/.well-known/oauth-authorization-server":
			sendJSON(w, http.StatusOK, map[string]any{"issuer": s.URL, "token_endpoint": s.URL + "/token"})
		case "/token":
			id, _, _ := r.BasicAuth()
			grant := r.FormValue("grant_type")
			sendJSON(w, http.StatusOK, map[string]any{
				"access_token": id + "/" + grant[strings.LastIndexByte(grant, ':')+1:], "token_type": "Bearer", "expires_in": 300,
			})
		default:
			token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if token == "" {
				w.WriteHeader(http.StatusUnauthorized)
			}
			_, _ = fmt.Fprintf(w, "hello %s", token)
		}
	}))
	return s
}

// A program that acts for itself gets its token when the server asks for one.
func ExampleNewClientCredentials() {
	server := exampleServer()
	defer server.Close()

	provider, err := authclient.NewClientCredentials(authclient.ClientCredentialsOptions{
		ClientID:       "nightly-report",
		ClientSecret:   "from a secret store",
		ExpectedIssuer: server.URL, // such as https://idp.example.com
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	transport, err := authclient.WithOAuth(provider, server.URL+"/mcp", authclient.TransportOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer transport.CloseIdleConnections()

	client := &http.Client{Transport: transport}
	resp, err := client.Get(server.URL + "/mcp")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	answer := make([]byte, 64)
	n, _ := resp.Body.Read(answer)
	fmt.Println(resp.StatusCode, string(answer[:n]))
	// Output: 200 hello nightly-report/client_credentials
}

// A workload presents the token of its platform, here one that Kubernetes would
// put into a file.
func ExampleNewWorkloadIdentity() {
	server := exampleServer()
	defer server.Close()

	provider, err := authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{
		// or TokenFile: "/var/run/secrets/tokens/mcp"
		Token: func(_ context.Context, r authclient.AssertionRequest) (string, error) {
			fmt.Println("a token for this server:", r.Issuer == server.URL)
			return "header.claims.signature", nil
		},
		ExpectedIssuer: server.URL,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := authclient.Auth(context.Background(), provider, authclient.Options{ServerURL: server.URL + "/mcp"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Status, result.Tokens.AccessToken)
	// Output:
	// a token for this server: true
	// AUTHORIZED /jwt-bearer
}

// A key for assertions or proofs, from PEM or a JSON Web Key.
func ExampleParseSigningKey() {
	key, err := authclient.ParseSigningKey([]byte(`-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIBEREREREREREREREREREREREREREREREREREREREREREQ==
-----END PRIVATE KEY-----`))
	fmt.Println(key.Algorithm, err)

	_, err = authclient.ParseSigningKey([]byte(`{"kty": "oct", "k": "c2hhcmVk"}`))
	fmt.Println(err)
	// Output:
	// EdDSA <nil>
	// the JSON Web Key is symmetric: with a shared secret use client_secret_basic
}

// Tokens that are bound to a key are of no use to who steals them.
func ExampleNewDPoP() {
	web, err := authclient.NewWeb(authclient.NewMemoryStore(), authclient.WebOptions{RedirectURL: "https://client.example.com/callback"})
	if err != nil {
		fmt.Println(err)
		return
	}
	// With OpenSigningKey the key outlives the program, as the tokens in a
	// FileStore do.
	dpop, err := authclient.NewDPoP(authclient.DPoPOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	var provider authclient.Provider = struct {
		*authclient.Web
		*authclient.DPoP
	}{web, dpop}

	_, proves := provider.(authclient.Prover)
	fmt.Println("proves possession:", proves)
	// Output: proves possession: true
}
