package proxyprovider

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/store"
)

// GrantInfo is a grant as its user sees it.
type GrantInfo struct {
	// ID is for RevokeGrant.
	ID string
	// ClientID and ClientName are the client's; the name is what it says of
	// itself. RedirectURI is where its code went.
	ClientID, ClientName, RedirectURI string
	Scopes                            []string
	Resource                          string
	CreatedAt, LastUsed               time.Time
}

// ListBySubject returns the grants of the user with that SubjectKey, the last
// used one first. Those whose code was never redeemed are not among them.
func (g *Grants) ListBySubject(ctx context.Context, subject string) ([]GrantInfo, error) {
	grants, err := g.grantsOf(ctx, subject)
	if err != nil {
		return nil, err
	}
	var infos []GrantInfo
	for _, s := range grants {
		if s.generation == 0 {
			continue
		}
		infos = append(infos, GrantInfo{
			ID: s.id.String(), ClientID: s.clientID, ClientName: s.clientName, RedirectURI: s.redirectURI,
			Scopes: strings.Fields(s.scopes), Resource: s.resource,
			CreatedAt: s.created.time(), LastUsed: s.lastUsed.time(),
		})
	}
	slices.SortStableFunc(infos, func(a, b GrantInfo) int {
		return cmp.Or(b.LastUsed.Compare(a.LastUsed), b.CreatedAt.Compare(a.CreatedAt))
	})
	return infos, nil
}

// grantsOf returns the grants of a user, and drops entries of the index that
// stand for none.
func (g *Grants) grantsOf(ctx context.Context, subject string) ([]*grantSnapshot, error) {
	key := indexKey(subject)
	entries, err := g.readIndex(ctx, key)
	if err != nil {
		return nil, err
	}
	now := g.cfg.Now()
	var grants []*grantSnapshot
	var gone []grantID
	for _, e := range entries {
		s, err := g.load(ctx, e.id)
		switch {
		case err != nil:
			return nil, err
		case s != nil && s.subjectKey() == subject:
			grants = append(grants, s)
		case s == nil && stampOf(now).since(e.added) > indexSettle:
			gone = append(gone, e.id)
		}
	}
	return grants, g.dropFromIndex(ctx, key, gone)
}

// RevokeGrant revokes one grant of the user with that SubjectKey. One that is
// another user's, or none, is ErrGrantNotFound.
func (g *Grants) RevokeGrant(ctx context.Context, subject, id string) error {
	parsed, ok := parseGrantID(id)
	if !ok {
		return ErrGrantNotFound
	}
	s, err := g.load(ctx, parsed)
	if err != nil {
		return err
	}
	if s == nil || s.subjectKey() != subject {
		return ErrGrantNotFound
	}
	return g.terminate(ctx, s)
}

// RevokeAll revokes all grants of the user with that SubjectKey.
func (g *Grants) RevokeAll(ctx context.Context, subject string) error {
	grants, err := g.grantsOf(ctx, subject)
	if err != nil {
		return err
	}
	var failed error
	for _, s := range grants {
		failed = errors.Join(failed, g.terminate(ctx, s))
	}
	return failed
}

// RevokeClient revokes all grants of a client. It looks at every grant in the
// store. That the client cannot get new ones is for the caller to see to first.
func (g *Grants) RevokeClient(ctx context.Context, clientID string) error {
	backend, err := g.open()
	if err != nil {
		return err
	}
	var failed error
	err = backend.store.Scan(ctx, grantPrefix, func(key string, value []byte) error {
		id, ok := parseGrantID(strings.TrimPrefix(key, grantPrefix))
		r, err := decodeGrant(value)
		switch {
		case !ok:
		case err != nil:
			failed = errors.Join(failed, err)
		case !r.revoked && r.clientID == clientID:
			failed = errors.Join(failed, g.terminate(ctx, &grantSnapshot{grantRecord: r, id: id, raw: value}))
		}
		return ctx.Err()
	})
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		failed = errors.Join(failed, storeTrouble(err))
	}
	return failed
}

// RevokeToken implements authserver.Revoker (RFC 7009). A refresh token of this
// client ends its grant, the upstream session too; an access token ends those
// access tokens of the grant that are not younger, and the client may refresh.
// A token that is none of this client's is oauth.ErrInvalidToken, which the
// Server answers with 200 and counts.
func (g *Grants) RevokeToken(ctx context.Context, c *oauth.Client, x authserver.Revocation) error {
	if strings.Count(x.Token, ".") == 2 { // whatever the hint says (RFC 7009 §2.1)
		return g.revokeAccessToken(ctx, c, x.Token)
	}
	token, err := g.openRefreshToken(c, x.Token)
	if errors.Is(err, oauth.ErrInvalidGrant) {
		return refuseToken("The token is unknown", nil)
	} else if err != nil {
		return err
	}
	s, err := g.load(ctx, token.grant)
	switch {
	case err != nil:
		return err
	case s == nil || s.belongsTo(c) != nil:
		return nil // dead already
	}
	return g.terminate(ctx, s)
}

func (g *Grants) revokeAccessToken(ctx context.Context, c *oauth.Client, token string) error {
	t, err := g.verifyToken(ctx, token)
	if err != nil {
		return err
	}
	if t.info.ClientID != c.ClientID {
		return refuseToken("The token is unknown", nil)
	}
	err = g.change(ctx, t.grant, func(s *grantSnapshot) error {
		if s.belongsTo(c) != nil || s.accessRevoked >= t.generation {
			return errUnchanged
		}
		s.accessRevoked = t.generation
		return nil
	})
	if errors.Is(err, errGrantOver) || errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// terminate ends a grant on purpose: the record, the index, the upstream session. The
// first alone decides; the others are repaired or end by themselves.
func (g *Grants) terminate(ctx context.Context, s *grantSnapshot) error {
	var upstream idp.Tokens
	err := g.bury(ctx, s.id, func(r *grantRecord) error {
		upstream = r.upstream
		return nil
	})
	if err != nil {
		return err
	}
	if err := g.dropFromIndex(ctx, indexKey(s.subjectKey()), []grantID{s.id}); err != nil {
		g.cfg.Logger.Warn("a revoked grant is still in its user's index, the sweep will drop it", "error", err)
	}
	if g.cfg.Upstream == nil || upstream == (idp.Tokens{}) || !g.cfg.Upstream.Capabilities().Revoke {
		return nil
	}
	ctx, cancel := withoutCancel(ctx, settleTime)
	defer cancel()
	if err := g.cfg.Upstream.Revoke(ctx, upstream); err != nil {
		g.cfg.Logger.Warn("a revoked grant's tokens could not be revoked at the identity provider; nobody holds them any more", "error", err)
	}
	return nil
}
