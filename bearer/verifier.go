package bearer

import (
	"context"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Verifier decides whether an access token is genuine and still good, the
// SDK's OAuthTokenVerifier. It does not decide whether the token is meant for
// the resource at hand or has the scopes for it: that is the Guard's part.
//
// Errors: oauth.ErrInvalidToken if the token is refused, whatever the reason;
// oauth.ErrTemporarilyUnavailable if it cannot be judged now, which is 503 and
// never a reason to sign in again. Any other error is 500.
//
// The returned value may be shared between requests and must not be changed.
// Implementations are safe for concurrent use.
type Verifier interface {
	VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error)
}

// VerifierFunc is a function as a Verifier.
type VerifierFunc func(ctx context.Context, token string) (*oauth.TokenInfo, error)

// VerifyAccessToken calls f.
func (f VerifierFunc) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	return f(ctx, token)
}
