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

// judgeAdmission tells whether a request under way would be admitted again. In a
// new configuration the resource may have other rules; calls are not looked at
// once more.
func (l *streams) judgeAdmission(ctx context.Context, a admission) *oauth.Error {
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
	info, _, refused := verifyToken(ctx, guard.verifier, a.token, cacheKey{})
	if refused != nil || guard == l.guard {
		return refused
	}
	resource := guard.named(a.resource.Identifier)
	if resource == nil {
		return oauth.ErrInvalidToken.Describe(notServed)
	}
	return guard.judge(resource, info)
}

// named returns the resource with the identifier, nil if there is none.
func (g *Guard) named(identifier string) *guardedResource {
	for _, res := range g.resources {
		if res.Identifier == identifier {
			return res
		}
	}
	return nil
}

// judge tells whether the resource admits a good token for what every request
// needs.
func (g *Guard) judge(res *guardedResource, info *oauth.TokenInfo) *oauth.Error {
	c := check{guard: g, resource: res, needed: res.required, info: info}
	if c.tokenIsForUs() && c.tokenIsFresh() && c.callerIsAllowed() && c.scopesSuffice() {
		return nil
	}
	return c.refused.err
}
