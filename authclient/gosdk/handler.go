// Package gosdk lets a client of the MCP Go SDK
// (github.com/modelcontextprotocol/go-sdk) sign in by a Provider of authclient:
// tokens and registrations are kept, and 403 insufficient_scope steps up.
//
// The package fits the SDK by its interface and does not import it. The other
// way to join the two is [authclient.WithOAuth] in the transport's HTTPClient,
// which DPoP needs and which knows of no SDK at all.
package gosdk

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// Handler is an auth.OAuthHandler of the SDK:
//
//	handler, err := gosdk.NewHandler(provider, serverURL, authclient.TransportOptions{})
//	…
//	transport := &mcp.StreamableClientTransport{Endpoint: serverURL, OAuthHandler: handler}
//
// The SDK asks for a token before each request, and sends a request that was
// refused once more.
type Handler struct {
	transport *authclient.Transport
}

// NewHandler returns a handler for the MCP server with the URL. Of o, Next,
// ReplayLimit and MaxStepUpRetries above 1 are without effect: the SDK makes the
// requests.
func NewHandler(p authclient.Provider, serverURL string, o authclient.TransportOptions) (*Handler, error) {
	if _, ok := p.(authclient.Prover); ok {
		return nil, errors.New("gosdk: the SDK sends every token as Bearer, which a provider with DPoP must not: put authclient.WithOAuth into the HTTPClient of the transport")
	}
	transport, err := authclient.WithOAuth(p, serverURL, o)
	if err != nil {
		return nil, err
	}
	return &Handler{transport: transport}, nil
}

// TokenSource returns the stored token, nil if there is none. One that has
// expired is returned too: the server's refusal renews it, in Authorize, since
// the SDK holds a lock here.
func (h *Handler) TokenSource(ctx context.Context) (oauth2.TokenSource, error) {
	tokens, err := h.transport.Tokens(ctx)
	if err != nil || tokens == nil || tokens.AccessToken == "" {
		return nil, err
	}
	if !strings.EqualFold(tokens.TokenType, "Bearer") {
		return nil, errors.New("gosdk: the stored token is not a Bearer token, and the SDK sends no other: sign in again")
	}
	return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: tokens.AccessToken, TokenType: "Bearer"}), nil
}

// Authorize does what 401 and 403 ask for: a refresh, a login, a step-up. If the
// user is needed and the provider is no authclient.CallbackWaiter, the error is
// an *authclient.UnauthorizedError; FinishAuth goes on from there.
func (h *Handler) Authorize(ctx context.Context, r *http.Request, resp *http.Response) error {
	return h.transport.Authorize(ctx, r, resp)
}

// FinishAuth ends a login with the query parameters of its callback.
func (h *Handler) FinishAuth(ctx context.Context, callback url.Values) error {
	return h.transport.FinishAuth(ctx, callback)
}

// CloseIdleConnections closes connections that are not in use.
func (h *Handler) CloseIdleConnections() { h.transport.CloseIdleConnections() }
