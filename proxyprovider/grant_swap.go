package proxyprovider

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/store"
)

const (
	// tombstoneTTL is how long a revoked grant is remembered: longer than the
	// transaction lives that it was made from.
	tombstoneTTL = 15 * time.Minute
	// swapTries is how often a change is tried anew because the grant changed.
	swapTries = 64
	// settleTime is what a write gets that must not be lost although the caller
	// has left.
	settleTime = 5 * time.Second
)

// errChanged says that the grant is not any more as it was when a change of it
// was thought out.
var errChanged = errors.New("the grant has changed meanwhile")

// grantSnapshot is a grant as it was read.
type grantSnapshot struct {
	*grantRecord
	id  grantID
	raw []byte
}

// load reads a grant. It returns nil if there is none: never was, expired,
// deleted, revoked, or sealed with a key that was dropped.
func (g *Grants) load(ctx context.Context, id grantID) (*grantSnapshot, error) {
	backend, err := g.open()
	if err != nil {
		return nil, err
	}
	raw, err := backend.store.Get(ctx, id.key())
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrUnreadable):
		return nil, nil
	case err != nil:
		return nil, storeTrouble(err)
	}
	r, err := decodeGrant(raw)
	switch {
	case errors.Is(err, errNewerGrant):
		return nil, temporarily("The server is being updated, try again", err)
	case err != nil:
		return nil, err
	case r.revoked:
		g.statuses.revoke(id, g.cfg.Now())
		return nil, nil
	}
	return &grantSnapshot{grantRecord: r, id: id, raw: raw}, nil
}

// swap replaces the grant by next if it is still as in the snapshot, errChanged
// otherwise. All that next depends on was in the snapshot, so that the Update
// function has nothing to do but to compare.
//
// An error of a backend may leave open whether the write happened; then the
// record is read to find out.
func (g *Grants) swap(ctx context.Context, old *grantSnapshot, next *grantRecord, now time.Time) error {
	backend, err := g.open()
	if err != nil {
		return err
	}
	value, err := next.encode()
	if err != nil {
		return err
	}
	ttl := g.ttl(next, now)
	err = backend.store.Update(ctx, old.id.key(), func(current []byte) ([]byte, time.Duration, error) {
		if current == nil || !bytes.Equal(current, old.raw) {
			return nil, 0, errChanged
		}
		return value, ttl, nil
	})
	if err != nil && !errors.Is(err, errChanged) && !errors.Is(err, store.ErrConflict) {
		if current, readErr := backend.store.Get(context.WithoutCancel(ctx), old.id.key()); readErr == nil && bytes.Equal(current, value) {
			err = nil
		}
	}
	switch {
	case errors.Is(err, errChanged), errors.Is(err, store.ErrUnreadable):
		return errChanged
	case err != nil:
		return storeTrouble(err)
	}
	g.statuses.refresh(old.id, statusOf(next, now))
	return nil
}

// change applies fn to the grant until it goes through or fn returns an error.
// fn gets a record of its own to change.
func (g *Grants) change(ctx context.Context, id grantID, fn func(*grantSnapshot) error) error {
	for range swapTries {
		old, err := g.load(ctx, id)
		if err != nil {
			return err
		}
		if old == nil {
			return errGrantOver
		}
		next, err := old.edit()
		if err != nil {
			return err
		}
		if err := fn(next); err != nil {
			return err
		}
		if err := g.swap(ctx, old, next.grantRecord, g.cfg.Now()); !errors.Is(err, errChanged) {
			return err
		}
	}
	return storeTrouble(store.ErrConflict)
}

// edit returns a copy to change.
func (s *grantSnapshot) edit() (*grantSnapshot, error) {
	r, err := decodeGrant(bytes.Clone(s.raw))
	if err != nil {
		return nil, err
	}
	return &grantSnapshot{grantRecord: r, id: s.id, raw: s.raw}, nil
}

// errGrantOver says that there is no such grant, or none any more.
var errGrantOver = errors.New("the grant is over")

// bury revokes the grant whatever is in it, unless check says otherwise. It goes
// through even when the caller leaves: a replay was seen, or somebody said no.
func (g *Grants) bury(ctx context.Context, id grantID, check func(*grantRecord) error) error {
	backend, err := g.open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	tombstone, err := (&grantRecord{revoked: true}).encode()
	if err != nil {
		return err
	}
	err = backend.store.Update(ctx, id.key(), func(old []byte) ([]byte, time.Duration, error) {
		if old == nil {
			return nil, 0, errGrantOver
		}
		r, err := decodeGrant(old)
		if errors.Is(err, errNewerGrant) {
			return nil, 0, err
		}
		if err == nil && !r.revoked && check != nil {
			if err := check(r); err != nil {
				return nil, 0, err
			}
		}
		return tombstone, tombstoneTTL, nil
	})
	switch {
	case err == nil, errors.Is(err, errGrantOver), errors.Is(err, store.ErrUnreadable):
		g.statuses.revoke(id, g.cfg.Now())
		return nil
	case errors.Is(err, errChanged), errors.Is(err, ErrGrantNotFound):
		return err
	}
	return storeTrouble(err)
}

// deadGrant is what the client hears; it signs in again.
func deadGrant(description string, cause error) error {
	return oauth.ErrInvalidGrant.Describe(description).Because(cause)
}
