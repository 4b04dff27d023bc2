package proxyprovider

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// upstreamMargin is how long an upstream token must still be good to be handed
	// out without a refresh: the request that it is for takes its time.
	upstreamMargin = 30 * time.Second
	// upstreamKept is how long it is kept here. Another node may have refreshed it
	// meanwhile, and some upstreams end the old one then.
	upstreamKept = time.Minute
	// upstreamRetry is the least time between two refreshes that fail for a grant.
	upstreamRetry = 5 * time.Second
	// maxUpstreamTokens bounds how many are kept.
	maxUpstreamTokens = 2048
)

// upstreamToken is what UpstreamToken last said of a grant.
type upstreamToken struct {
	token string
	err   error
	until time.Time
}

// UpstreamToken returns the access token that the user behind an access token of
// ours has at the upstream. info is what VerifyAccessToken returned, just now. A
// token that ends within 30 s is refreshed first, by one caller for all, here
// and on other nodes.
//
// Errors are those of bearer.Verifier. oauth.ErrInvalidToken means that the
// upstream ended the sign-in, or that its token has run out and cannot be
// refreshed. The grant is over then: the client's own refresh fails too, so that
// it has its user sign in again.
func (g *Grants) UpstreamToken(ctx context.Context, info *oauth.TokenInfo) (string, error) {
	name, _ := info.Extra[GrantIDClaim].(string)
	id, ok := parseGrantID(name)
	if !ok || g.cfg.Upstream == nil || info.Issuer != g.cfg.Issuer {
		return "", oauth.ErrServerError.Describe("The server has no token of an identity provider").
			Because(errors.New("there is no upstream, or the token was not verified by these grants"))
	}
	if known, ok := g.upstreamTokens.get(id); ok && g.cfg.Now().Before(known.until) {
		if status, ok := g.statuses.get(id); !ok || !status.revoked {
			return known.token, known.err
		}
	}
	token, keep, err := g.findUpstreamToken(ctx, id)
	if errors.Is(err, oauth.ErrInvalidGrant) {
		return "", refuseToken("The sign-in at the identity provider has ended; sign in again", err)
	}
	if err != nil {
		keep = upstreamRetry
	}
	if keep > 0 && ctx.Err() == nil {
		said := upstreamToken{token: token, err: err, until: g.cfg.Now().Add(keep)}
		g.upstreamTokens.update(id, func(upstreamToken, bool) upstreamToken { return said })
	}
	return token, err
}

// findUpstreamToken returns the token of the grant, refreshed if that is due, and
// how long it may be kept. oauth.ErrInvalidGrant means that the grant is over.
func (g *Grants) findUpstreamToken(ctx context.Context, id grantID) (token string, keep time.Duration, err error) {
	for asked := 0; ; asked++ {
		s, err := g.load(ctx, id)
		switch {
		case err != nil:
			return "", 0, err
		case s == nil:
			return "", 0, deadGrant(unknownRefreshToken, errGrantOver)
		}
		if asked > 0 { // the upstream may have said something new of the user
			if ok, reason := g.cfg.Allow(&s.identity); !ok {
				return "", 0, g.dismiss(ctx, id, "the user is not allowed any more", reason)
			}
		}
		now := g.cfg.Now()
		able := g.cfg.Upstream.Capabilities().Refresh && s.upstream.RefreshToken != ""
		left := upstreamLeft(s.upstream, now)
		due := asked == 0 && left <= upstreamMargin || asked == 1 && left == 0 // then somebody else had asked for the user only
		if able && due {
			err := g.renewUpstream(ctx, id)
			switch {
			case err == nil:
				continue
			case left > 0 && !errors.Is(err, oauth.ErrInvalidGrant):
				return s.upstream.AccessToken, min(left, upstreamRetry), nil
			default:
				return "", 0, err
			}
		}
		switch {
		case left > 0:
			if left > upstreamMargin {
				return s.upstream.AccessToken, min(left-upstreamMargin, upstreamKept), nil
			}
			return s.upstream.AccessToken, left / 2, nil // the upstream's tokens are that short
		case able:
			return "", 0, temporarily("The identity provider gives access tokens that have expired already", nil)
		default:
			return "", 0, g.dismiss(ctx, id, "its token of the identity provider has expired and cannot be refreshed", "")
		}
	}
}

// upstreamLeft is how long the access token is good; it is long if the upstream
// did not say, and 0 if it is over or there is none.
func upstreamLeft(t idp.Tokens, now time.Time) time.Duration {
	switch {
	case t.AccessToken == "":
		return 0
	case t.Expiry.IsZero():
		return upstreamMargin + upstreamKept
	default:
		return max(0, t.Expiry.Sub(now))
	}
}

// renewUpstream refreshes the upstream tokens of the grant unless that was done
// since the call began.
func (g *Grants) renewUpstream(ctx context.Context, id grantID) error {
	begun := g.cfg.Now()
	return g.askUnlessDone(ctx, id, func(r *grantRecord) bool {
		return r.provenAt > stampOf(begun) || upstreamLeft(r.upstream, g.cfg.Now()) > upstreamMargin
	})
}
