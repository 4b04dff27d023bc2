package mcpauth

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/store"
)

// control is what the operator can do to a running broker, and what it keeps in
// the store besides grants.
type control struct {
	store   func() (store.Store, error)
	grants  *proxyprovider.Grants
	clients authserver.ClientStore
	// userIssuer is the namespace of the users' subjects.
	userIssuer string
}

const (
	blockedPrefix   = "blocked/"
	assertionPrefix = "assertion/"

	// blockedAge is how old the answer may be whether a client is blocked: the
	// time in which a revocation reaches every node.
	blockedAge = 5 * time.Second
)

// blocked reports whether the operator has revoked the client with this hash.
func (c *control) blocked(ctx context.Context, hash [32]byte) (bool, error) {
	opened, err := c.store()
	if err != nil {
		return false, oauth.ErrTemporarilyUnavailable.Describe("The server cannot reach its store").Because(err)
	}
	switch _, err := store.GetCached(ctx, opened, blockedPrefix+hex.EncodeToString(hash[:]), blockedAge); {
	case err == nil:
		return true, nil
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	default:
		return false, oauth.ErrTemporarilyUnavailable.Describe("The server cannot reach its store").Because(err)
	}
}

// seenAssertion remembers a client's assertion on all nodes until its time is
// over, and reports whether it was there before (RFC 7523 §3, jti).
func (c *control) seenAssertion(ctx context.Context, hash [32]byte, until time.Time) (bool, error) {
	opened, err := c.store()
	if err != nil {
		return false, err
	}
	ttl := time.Until(until)
	if ttl <= 0 {
		return true, nil
	}
	var seen bool
	err = opened.Update(ctx, assertionPrefix+hex.EncodeToString(hash[:]), func(old []byte) ([]byte, time.Duration, error) {
		seen = old != nil
		return []byte{1}, ttl, nil
	})
	return seen, err
}

// revokeClient ends all grants of a client and refuses it from now on, also if
// it registers again with the same metadata. A client that the operator
// registered is only signed out: take it out of the configuration.
func (c *control) revokeClient(ctx context.Context, clientID string) error {
	client, err := c.clients.GetClient(ctx, clientID)
	if err != nil && !errors.Is(err, oauth.ErrInvalidClient) {
		return err
	}
	if client != nil {
		opened, err := c.store()
		if err != nil {
			return err
		}
		hash := authserver.ClientHash(client)
		if err := opened.Put(ctx, blockedPrefix+hex.EncodeToString(hash[:]), []byte(clientID), 0); err != nil {
			return err
		}
	}
	return c.grants.RevokeClient(ctx, clientID)
}

// restoreClient lifts what revokeClient did, and reports whether there was
// anything to lift. The client cannot be looked up while it is refused, so its
// id lies beside its hash.
func (c *control) restoreClient(ctx context.Context, clientID string) (bool, error) {
	opened, err := c.store()
	if err != nil {
		return false, err
	}
	restored := false
	err = opened.Scan(ctx, blockedPrefix, func(key string, value []byte) error {
		if string(value) != clientID {
			return nil
		}
		restored = true
		return opened.Delete(ctx, key)
	})
	return restored, err
}

// check reports whether the store can be reached.
func (c *control) check(ctx context.Context) error {
	opened, err := c.store()
	if err != nil {
		return err
	}
	if _, err := opened.Get(ctx, "health"); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}
