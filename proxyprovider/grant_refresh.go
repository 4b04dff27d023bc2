package proxyprovider

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/store"
)

const unknownRefreshToken = "The refresh token is not valid: it is unknown, expired, used or revoked; sign in again"

// ExchangeRefreshToken implements authserver.Provider. Rotation is one
// compare-and-swap. It is idempotent: inside grace the previous refresh token of
// the same client, for the same scope and resource, yields the answer of its
// rotation again, byte for byte, so that races and lost answers end no session.
// An older or later one is a replay and revokes the grant (RFC 9700 §4.14.2).
//
// What depends on the user is asked anew: allow always, the upstream when its
// last word is older than UpstreamCheck.
func (g *Grants) ExchangeRefreshToken(ctx context.Context, c *oauth.Client, x authserver.RefreshExchange) (*oauth.Tokens, error) {
	token, err := g.openRefreshToken(c, x.RefreshToken)
	if err != nil {
		return nil, err
	}
	asked := false // of the upstream, in this call
	for range swapTries {
		s, err := g.load(ctx, token.grant)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, deadGrant(unknownRefreshToken, nil)
		}
		if err := s.belongsTo(c); err != nil {
			return nil, err
		}
		current, err := g.place(ctx, s, token)
		if err != nil {
			return nil, err
		}
		if !current {
			return g.repeat(s, token, x)
		}
		scope, err := s.narrowed(x.Scopes)
		if err != nil {
			return nil, err
		}
		if err := s.checkResource(x.Resource); err != nil {
			return nil, err
		}
		if !asked && g.proofDue(s.grantRecord, g.cfg.Now()) {
			if err := g.proveUpstream(ctx, s.id); err != nil {
				return nil, err
			}
			asked = true
			continue // with what was learnt
		}
		tokens, err := g.rotate(ctx, s, token, scope)
		if !errors.Is(err, errChanged) {
			return tokens, err
		}
	}
	return nil, storeTrouble(store.ErrConflict)
}

// openRefreshToken checks form and MAC. The MAC covers the client's id: a token
// of another client is refused without a look into the store.
func (g *Grants) openRefreshToken(c *oauth.Client, s string) (*refreshToken, error) {
	token, ok := parseRefreshToken(s)
	if !ok {
		return nil, deadGrant(unknownRefreshToken, nil)
	}
	backend, err := g.open()
	if err != nil {
		return nil, err
	}
	if !backend.mac.VerifyMAC(token.mac[:], token.signed(c.ClientID)...) {
		return nil, deadGrant(unknownRefreshToken, nil)
	}
	return token, nil
}

// place finds out which of the grant's refresh tokens this is: true for the
// current one, false for the previous one inside grace, an error for all others.
// The order is that of SECURITY §5.
func (g *Grants) place(ctx context.Context, s *grantSnapshot, token *refreshToken) (current bool, err error) {
	now := g.cfg.Now()
	if !s.hasRefresh() || !now.Before(g.refreshEnd(s.grantRecord)) {
		return false, deadGrant(unknownRefreshToken, errors.New("the grant has expired"))
	}
	if token.generation >= s.generation {
		hash := sha256.Sum256([]byte(token.String()))
		if token.generation == s.generation && subtle.ConstantTimeCompare(hash[:], s.refreshHash[:]) == 1 {
			return true, nil
		}
		// Genuine, and not known: the store lost a write, or was put back to an
		// older state. Nobody can be blamed.
		return false, deadGrant(unknownRefreshToken, errors.New("the token is genuine but younger than the grant in the store: was the store restored?"))
	}
	age := s.generation - 1 - token.generation // 0 for the previous one
	if int(age) < len(s.rotations) && stampOf(now).since(s.rotations[age]) <= g.cfg.Grace && g.cfg.Grace > 0 {
		if age == 0 {
			return false, nil
		}
		// Somebody lost a race twice, or is slow. It harms nothing to refuse.
		return false, deadGrant(unknownRefreshToken, errors.New("the token was replaced twice within grace"))
	}
	if err := g.bury(ctx, s.id, nil); err != nil {
		return false, err
	}
	g.cfg.Logger.Warn("a refresh token was used again after its grace, its grant is revoked",
		"client", hashID(s.clientID), "grant", hashID(s.id.String()), "generations_old", age+1)
	return false, deadGrant(unknownRefreshToken, errors.New("it was used again after its grace"))
}

// repeat answers the previous refresh token with the answer that it had.
func (g *Grants) repeat(s *grantSnapshot, token *refreshToken, x authserver.RefreshExchange) (*oauth.Tokens, error) {
	a, err := g.openAnswer(s, token)
	if err != nil {
		// Also a genuine token of that generation that nobody was given.
		return nil, deadGrant(unknownRefreshToken, err)
	}
	scope, err := s.narrowed(x.Scopes)
	if err != nil || scope != a.scope || s.checkResource(x.Resource) != nil {
		return nil, deadGrant("The refresh token was used a moment ago with another scope or resource", nil)
	}
	if s.accessRevoked >= token.generation+1 {
		return nil, deadGrant(unknownRefreshToken, errors.New("what it was answered with was revoked"))
	}
	return a.tokens(), nil
}

// narrowed is the scope of the next access token: the requested one, which must
// lie within the granted one (RFC 6749 §6), in the order of the granted one.
// The grant keeps its scope. offline_access asks for what the client has.
func (r *grantRecord) narrowed(requested []string) (string, error) {
	granted := strings.Fields(r.scopes)
	for _, scope := range requested {
		if !slices.Contains(granted, scope) && scope != "offline_access" {
			return "", oauth.ErrInvalidScope.Describe("The requested scope exceeds the granted one: " + r.scopes)
		}
	}
	kept := make([]string, 0, len(granted))
	for _, scope := range granted {
		if slices.Contains(requested, scope) {
			kept = append(kept, scope)
		}
	}
	if len(kept) == 0 { // nothing requested, or offline_access alone
		return r.scopes, nil
	}
	return oauth.JoinScope(kept), nil
}

// rotate answers the current refresh token with new tokens.
func (g *Grants) rotate(ctx context.Context, s *grantSnapshot, token *refreshToken, scope string) (*oauth.Tokens, error) {
	now := g.cfg.Now()
	next, err := s.edit()
	if err != nil {
		return nil, err
	}
	if err := g.refreshAccount(ctx, next); err != nil {
		return nil, err
	}
	if ok, reason := g.cfg.Allow(&next.identity); !ok {
		return nil, g.dismiss(ctx, s.id, "the user is not allowed any more", reason)
	}
	if next.code != nil && !now.Before(next.code.expires.time()) {
		next.code = nil // a replay of it is as good as an unknown code
	}
	a, err := g.issue(ctx, next, scope, now)
	if err != nil {
		return nil, err
	}
	if next.answer = nil; g.cfg.Grace > 0 {
		if next.answer, err = g.keepAnswer(next, token, a); err != nil {
			return nil, err
		}
	}
	if err := g.swap(ctx, s, next.grantRecord, now); err != nil {
		return nil, err
	}
	return a.tokens(), nil
}

// refreshAccount looks up the local account.
func (g *Grants) refreshAccount(ctx context.Context, s *grantSnapshot) error {
	if g.cfg.Refresh == nil {
		return nil
	}
	id, err := g.cfg.Refresh(ctx, s.identity.Subject)
	switch {
	case definiteNo(err):
		return g.dismiss(ctx, s.id, "the account is gone or disabled", err.Error())
	case err != nil:
		return temporarily("The account cannot be checked now, try again", err)
	case !sameUser(id, &s.identity):
		return g.dismiss(ctx, s.id, "the account belongs to somebody else now", "")
	}
	s.identity, s.provenAt = *id, stampOf(g.cfg.Now())
	return nil
}

// dismiss revokes the grant of somebody who may not have it any more.
func (g *Grants) dismiss(ctx context.Context, id grantID, why, reason string) error {
	if err := g.bury(ctx, id, nil); err != nil {
		return err
	}
	g.cfg.Logger.Info("a grant is revoked at its refresh: "+why, "grant", hashID(id.String()), "reason", reason)
	return deadGrant("The user may not have access any more; sign in again", errors.New(why))
}

// definiteNo tells an upstream's no from trouble.
func definiteNo(err error) bool { return errors.Is(err, idp.ErrDead) || errors.Is(err, idp.ErrDenied) }

func sameUser(a, b *idp.Identity) bool {
	return a != nil && a.Subject == b.Subject && a.Issuer == b.Issuer
}

// pruneRotations keeps the times that place needs.
func (r *grantRecord) pruneRotations(grace time.Duration, now stamp) {
	keep := 1
	for keep < min(len(r.rotations), maxRotations) && now.since(r.rotations[keep]) <= grace {
		keep++
	}
	r.rotations = r.rotations[:keep]
}
