package authclient

import (
	"context"
	"net/http"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Authorize does about a refusal what RoundTrip does, for a program that adds
// the provider's token to its requests itself: on 401 it gets new tokens, on 403
// insufficient_scope ones with more scope. r is the request that was refused,
// with the header that it had. If the error is nil the request is to be sent
// once more with the tokens that the provider has then. The body of resp is
// closed.
func (t *Transport) Authorize(ctx context.Context, r *http.Request, resp *http.Response) error {
	defer drain(resp)
	sent, err := t.sent(ctx, r)
	if err != nil {
		return err
	}
	challenge := challengeOf(resp.Header)
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return t.onUnauthorized(ctx, challenge, sent)
	case resp.StatusCode == http.StatusForbidden && challenge.Error == oauth.ErrInsufficientScope.Code:
		return t.stepUp(ctx, challenge, sent, 0)
	}
	return &UnauthorizedError{ServerURL: t.server, Reason: "the MCP server refuses the request (" + resp.Status + ") and asks for no scope, so that no other token would help"}
}

// sent returns the tokens that the request bore; nil for none.
func (t *Transport) sent(ctx context.Context, r *http.Request) (*Tokens, error) {
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token == "" {
		return nil, nil
	}
	stored, err := t.Tokens(ctx)
	if err != nil || stored != nil && stored.AccessToken == token {
		return stored, err
	}
	old := &Tokens{}
	old.AccessToken = token
	return old, nil
}
