package bearer

import (
	"context"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Successor tells who decides about requests that began under a guard and are
// still under way: once a configuration has been replaced, the new one does, so
// that access which it takes away ends. It is asked about once a second while
// there are such requests, and must be quick.
//
// A nil guard means that the old one still decides. gone means that nobody does
// any more, since what it guarded is served no longer: the requests end.
type Successor func() (guard *Guard, gone bool)

const notServed = "This resource is not served any more"

// judgeToken tells whether the token of a request under way is still good.
func (l *streams) judgeToken(ctx context.Context, token string) *oauth.Error {
	guard := l.guard
	if l.successor != nil {
		next, gone := l.successor()
		if gone {
			return oauth.ErrInvalidToken.Describe(notServed)
		}
		if next != nil {
			guard = next
		}
	}
	info, _, refused := verifyToken(ctx, guard.verifier, token, cacheKey{})
	if refused == nil && guard != l.guard {
		// A key may have been given an end since.
		refused = checkExpiry(info, guard.now(), guard.allowNoExpiry)
	}
	return refused
}
