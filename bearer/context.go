package bearer

import (
	"context"

	"github.com/caddy-mcp/mcpauth/oauth"
)

type tokenInfoKey struct{}

// ContextWithTokenInfo returns a context that carries info to the handlers
// behind a middleware.
func ContextWithTokenInfo(ctx context.Context, info *oauth.TokenInfo) context.Context {
	return context.WithValue(ctx, tokenInfoKey{}, info)
}

// TokenInfoFromContext returns what is known of the access token of the request
// that ctx belongs to, the SDK's req.auth; nil if the request was not guarded.
// The value may be shared between requests and must not be changed.
func TokenInfoFromContext(ctx context.Context) *oauth.TokenInfo {
	info, _ := ctx.Value(tokenInfoKey{}).(*oauth.TokenInfo)
	return info
}
