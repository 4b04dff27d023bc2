package proxyprovider_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
)

// An authorization server whose login is at an identity provider, and a client
// that registers through it and is sent there.
func ExampleNewProxy() {
	// The identity provider: here, one that registers a client.
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"client_id": "idp-client-1"}`)
	}))
	defer idp.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()

	provider, err := proxyprovider.NewProxy(proxyprovider.ProxyConfig{
		Issuer: "https://mcp.example.com",
		// Or UpstreamIssuer alone, and the endpoints are discovered.
		AuthorizationURL: idp.URL + "/authorize?audience=mcp",
		TokenURL:         idp.URL + "/token",
		RegistrationURL:  idp.URL + "/register",
		// Usually a bearer.JWTVerifier of the identity provider's keys.
		Verifier: bearer.VerifierFunc(func(context.Context, string) (*oauth.TokenInfo, error) {
			return nil, oauth.ErrInvalidToken
		}),
		// What is sealed with this key outlives the process if the key does.
		Keys:   func() (*seal.Ring, error) { return seal.NewRing(seal.GenerateKey()) },
		Client: &http.Client{Transport: transport},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	server, err := authserver.New(authserver.Config{Issuer: "https://mcp.example.com", Provider: provider})
	if err != nil {
		fmt.Println(err)
		return
	}

	request := httptest.NewRequest(http.MethodPost, "/register", strings.NewReader(
		`{"redirect_uris": ["http://localhost/callback"], "token_endpoint_auth_method": "none"}`))
	request.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	server.ServeHTTP(answer, request)
	var client oauth.Client
	if err := json.Unmarshal(answer.Body.Bytes(), &client); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("registered:", answer.Code, client.TokenEndpointAuthMethod)

	query := url.Values{
		"client_id": {client.ClientID}, "redirect_uri": {"http://localhost:33418/callback"}, "response_type": {"code"},
		"code_challenge": {oauth.ChallengeS256(strings.Repeat("verifier", 6))}, "code_challenge_method": {"S256"},
	}
	answer = httptest.NewRecorder()
	server.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/authorize?"+query.Encode(), nil))
	location, err := answer.Result().Location()
	if err != nil {
		fmt.Println(err)
		return
	}
	q := location.Query()
	fmt.Println("redirected:", answer.Code, location.Path, q.Get("audience"), q.Get("client_id"), q.Get("redirect_uri"))
	// Output:
	// registered: 201 none
	// redirected: 302 /authorize mcp idp-client-1 http://localhost:33418/callback
}
