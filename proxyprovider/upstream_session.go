package proxyprovider

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// upstreamBudget is the time to ask the upstream, the wait for another node
	// that does included (SECURITY §10).
	upstreamBudget = 10 * time.Second
	// upstreamLease is longer than one attempt can take.
	upstreamLease = upstreamBudget + 5*time.Second
	// upstreamPoll is how often the grant is read while another node asks.
	upstreamPoll = 100 * time.Millisecond
)

// proofDue reports whether the upstream is to be asked about the user.
func (g *Grants) proofDue(r *grantRecord, now time.Time) bool {
	return g.cfg.Upstream != nil && stampOf(now).since(r.provenAt) >= g.cfg.UpstreamCheck && g.provable(r, now)
}

// proveUpstream asks the upstream about the user of the grant and writes down
// what it says. On this node one caller asks and all others wait; a lease in the
// store keeps other nodes from asking, since an upstream that rotates refresh
// tokens may take the second use of one for theft.
//
// Rotated upstream tokens are written before anything else happens. Should this
// process end between the upstream's rotation and that write, the upstream
// session is lost: at the next check the upstream refuses the old token, and the
// user signs in again. No order of steps avoids it, since the upstream and the
// store share no transaction.
func (g *Grants) proveUpstream(ctx context.Context, id grantID) error {
	begun := g.cfg.Now()
	return g.askUnlessDone(ctx, id, func(r *grantRecord) bool { return g.proven(r, begun) })
}

// askUnlessDone asks the upstream, unless done says of the grant that somebody
// has done that meanwhile.
func (g *Grants) askUnlessDone(ctx context.Context, id grantID, done func(*grantRecord) bool) error {
	return g.flights.do(ctx, id, func() error {
		// Not ended by the client's departure: a rotation would be lost.
		ctx, cancel := withoutCancel(ctx, upstreamBudget)
		defer cancel()
		lease, err := g.leaseUpstream(ctx, id, done)
		if lease == nil {
			return err
		}
		defer lease.release()
		// The fencing number, so that a node whose lease ran out writes nothing
		// after the next one has begun.
		var mine *grantSnapshot
		err = g.change(ctx, id, func(s *grantSnapshot) error {
			if done(s.grantRecord) { // while we waited for the lease
				return errProven
			}
			s.fence++
			mine = s
			return nil
		})
		switch {
		case errors.Is(err, errProven):
			return nil
		case errors.Is(err, errGrantOver):
			return deadGrant(unknownRefreshToken, nil)
		case err != nil:
			return err
		}
		return g.askUpstream(ctx, mine)
	})
}

// errProven says that there is nothing to ask.
var errProven = errors.New("the upstream was asked meanwhile")

// withoutCancel keeps the values of ctx and its deadline, most at the latest.
func withoutCancel(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if ok && time.Until(deadline) < most {
		return context.WithDeadline(ctx, deadline)
	}
	return context.WithTimeout(ctx, most)
}

// proven reports whether the upstream was asked since the call began, or lately
// enough.
func (g *Grants) proven(r *grantRecord, begun time.Time) bool {
	return r.provenAt > stampOf(begun) || !g.proofDue(r, g.cfg.Now())
}

// leaseUpstream takes the lease, or waits until another node has asked: then the
// lease is nil, and the error too if all went well.
func (g *Grants) leaseUpstream(ctx context.Context, id grantID, done func(*grantRecord) bool) (*lease, error) {
	for {
		l, err := g.takeLease(ctx, "upstream/"+id.String(), upstreamLease)
		if l != nil || err != nil {
			return l, err
		}
		if err := pause(ctx, upstreamPoll); err != nil {
			return nil, temporarily("The identity provider is being asked and has not answered in time, try again", err)
		}
		s, err := g.load(ctx, id)
		switch {
		case err != nil:
			return nil, err
		case s == nil:
			return nil, deadGrant(unknownRefreshToken, nil)
		case done(s.grantRecord):
			return nil, nil
		}
	}
}

// askUpstream is the conversation with the upstream, under the lease.
func (g *Grants) askUpstream(ctx context.Context, s *grantSnapshot) error {
	used, fence := s.upstream, s.fence
	able := g.cfg.Upstream.Capabilities()
	var identity *idp.Identity
	if able.Refresh && used.RefreshToken != "" {
		fresh, tokens, err := g.cfg.Upstream.Refresh(ctx, used)
		if tokens != nil {
			if writeErr := g.writeUpstream(ctx, s.id, used, keepRefreshToken(*tokens, used), fence); writeErr != nil {
				return writeErr
			}
			used = keepRefreshToken(*tokens, used)
		}
		if err != nil {
			return g.upstreamSaid(ctx, s.id, used, err)
		}
		identity = fresh
	}
	if identity == nil && able.UserInfo && used.AccessToken != "" {
		var err error
		if identity, err = g.cfg.Upstream.UserInfo(ctx, used); err != nil {
			return g.upstreamSaid(ctx, s.id, used, err)
		}
	}
	if identity != nil && !sameUser(identity, &s.identity) {
		return g.dismiss(ctx, s.id, "the identity provider names another user than at the login", "")
	}
	// A refresh that told nothing of the user still says that the user is one.
	return g.writeProof(ctx, s.id, identity, fence)
}

// keepRefreshToken is RFC 6749 §6: without a new one, the old one stays.
func keepRefreshToken(tokens, old idp.Tokens) idp.Tokens {
	if tokens.RefreshToken == "" {
		tokens.RefreshToken = old.RefreshToken
	}
	if !tokens.Expiry.IsZero() {
		tokens.Expiry = stampOf(tokens.Expiry).time()
	}
	return tokens
}

// upstreamSaid handles an error of the upstream. Only a definite no about the
// tokens that the grant still has revokes it.
func (g *Grants) upstreamSaid(ctx context.Context, id grantID, used idp.Tokens, said error) error {
	if !definiteNo(said) {
		return temporarily("The identity provider cannot be asked now, try again", said)
	}
	err := g.bury(ctx, id, func(r *grantRecord) error {
		if r.upstream.RefreshToken != used.RefreshToken || r.upstream.AccessToken != used.AccessToken {
			return errChanged
		}
		return nil
	})
	switch {
	case errors.Is(err, errChanged):
		return temporarily("The identity provider was asked twice at the same time, try again", said)
	case err != nil:
		return err
	}
	g.cfg.Logger.Info("a grant is revoked: the identity provider ended its sign-in", "grant", hashID(id.String()), "error", said)
	return oauth.ErrInvalidGrant.Describe("The identity provider ended this sign-in; sign in again").Because(said)
}

// errFenced says that another node has taken over.
var errFenced = errors.New("the lease on the upstream session was lost to another node")

// writeUpstream stores the tokens that the upstream gave for the used ones.
func (g *Grants) writeUpstream(ctx context.Context, id grantID, used, fresh idp.Tokens, fence uint64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	return g.writeFenced(ctx, id, fence, func(s *grantSnapshot) error {
		if s.upstream.RefreshToken != used.RefreshToken {
			return errFenced
		}
		s.upstream = fresh
		return nil
	})
}

// writeProof stores that the upstream was asked, and what it said.
func (g *Grants) writeProof(ctx context.Context, id grantID, identity *idp.Identity, fence uint64) error {
	now := g.cfg.Now()
	return g.writeFenced(ctx, id, fence, func(s *grantSnapshot) error {
		s.provenAt = stampOf(now)
		if identity != nil {
			s.identity = *identity
		}
		return nil
	})
}

// writeFenced changes the grant unless a younger lease has.
func (g *Grants) writeFenced(ctx context.Context, id grantID, fence uint64, fn func(*grantSnapshot) error) error {
	err := g.change(ctx, id, func(s *grantSnapshot) error {
		if s.fence > fence {
			return errFenced
		}
		s.fence = fence
		return fn(s)
	})
	switch {
	case errors.Is(err, errGrantOver):
		return deadGrant(unknownRefreshToken, nil)
	case errors.Is(err, errFenced):
		return temporarily("Another node is asking the identity provider, try again", err)
	}
	return err
}
