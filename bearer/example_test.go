package bearer_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// exampleVerifier knows one token. Real ones are made by NewJWTVerifier and
// NewIntrospectionVerifier.
func exampleVerifier(_ context.Context, token string) (*oauth.TokenInfo, error) {
	if token != "good" {
		return nil, oauth.ErrInvalidToken.Describe("The access token is not valid")
	}
	return &oauth.TokenInfo{
		Token: token, UserID: "alice", ClientID: "inspector", Scopes: []string{"mcp:read"},
		Audience: []string{"https://mcp.example.com/mcp"}, ExpiresAt: time.Now().Add(time.Hour),
	}, nil
}

// exampleRequest sends a request to handler and prints what matters.
func exampleRequest(handler http.Handler, path, token string) {
	request := httptest.NewRequest(http.MethodPost, path, nil)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	fmt.Println(answer.Code, answer.Header().Get("WWW-Authenticate"), answer.Body)
}

// A guard in front of an MCP server. It also serves the metadata that its
// challenge names.
func ExampleMiddleware() {
	guard, err := bearer.NewGuard(bearer.GuardConfig{
		Resources: []bearer.Resource{{
			Identifier: "https://mcp.example.com/mcp",
			Path:       "/mcp",
			Scopes:     []string{"mcp:read"},
		}},
		AuthorizationServers: []string{"https://auth.example.com"},
		Verifier:             bearer.VerifierFunc(exampleVerifier),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mcpServer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := bearer.TokenInfoFromContext(r.Context())
		fmt.Fprintf(w, "hello %s, through %s", info.UserID, info.ClientID)
	})
	handler := bearer.Middleware(guard, bearer.MiddlewareOptions{})(mcpServer)

	exampleRequest(handler, "/mcp", "")
	exampleRequest(handler, "/mcp", "good")
	// Output:
	// 401 Bearer scope="mcp:read", resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp" {"error":"invalid_token","error_description":"Missing Authorization header"}
	// 200  hello alice, through inspector
}

// The form of the TypeScript SDK, for one handler.
func ExampleRequireBearerAuth() {
	auth := bearer.RequireBearerAuth(bearer.RequireBearerAuthOptions{
		Verifier:            bearer.VerifierFunc(exampleVerifier),
		RequiredScopes:      []string{"mcp:write"},
		ResourceMetadataURL: "https://mcp.example.com/.well-known/oauth-protected-resource/mcp",
		ExpectedResource:    "https://mcp.example.com/mcp",
	})
	handler := auth(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "never reached") }))

	exampleRequest(handler, "/any", "good")
	// Output:
	// 403 Bearer error="insufficient_scope", error_description="Insufficient scope", scope="mcp:write", resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp" {"error":"insufficient_scope","error_description":"Insufficient scope"}
}
