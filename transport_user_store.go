package mcpauth

import (
	"context"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/store"
)

// userStore is the part of the store of one user. The client that is registered
// at the authorization server is the same for all.
func userStore(open func() (store.Store, error), subject string) *sharedClient {
	return &sharedClient{newGrantStore(open, remoteKey("user", subject)), newGrantStore(open, "client")}
}

// sharedClient is a grant whose client others use too. It keeps the client that
// it began with, for its tokens are bound to that.
type sharedClient struct {
	*grantStore
	clients *grantStore
}

// ClientInformation implements authclient.Store.
func (s *sharedClient) ClientInformation(ctx context.Context, issuer string) (*authclient.ClientInformation, error) {
	c, err := s.grantStore.ClientInformation(ctx, issuer)
	if err != nil || c != nil {
		return c, err
	}
	if c, err = s.clients.ClientInformation(ctx, issuer); err != nil || c == nil {
		return nil, err
	}
	return c, s.grantStore.SaveClientInformation(ctx, c)
}

// SaveClientInformation implements authclient.Store.
func (s *sharedClient) SaveClientInformation(ctx context.Context, c *authclient.ClientInformation) error {
	if err := s.clients.SaveClientInformation(ctx, c); err != nil {
		return err
	}
	return s.grantStore.SaveClientInformation(ctx, c)
}

// InvalidateCredentials implements authclient.Store. A client that the server has
// forgotten is forgotten for all.
func (s *sharedClient) InvalidateCredentials(ctx context.Context, scope authclient.CredentialScope, issuer string) error {
	if scope == authclient.CredentialsAll || scope == authclient.CredentialsClient {
		if err := s.clients.InvalidateCredentials(ctx, authclient.CredentialsClient, issuer); err != nil {
			return err
		}
	}
	return s.grantStore.InvalidateCredentials(ctx, scope, issuer)
}

// forgetClient drops the client of this grant, with its tokens: the server does
// not know it any more. Others that have it find out for themselves; whoever
// connects an account next registers another one.
func (s *sharedClient) forgetClient(ctx context.Context) error {
	unlock, err := s.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	mine, err := s.grantStore.ClientInformation(ctx, "")
	if err != nil || mine == nil {
		return err
	}
	if err := s.clients.forgetClient(ctx, mine.ClientID); err != nil {
		return err
	}
	return s.change(ctx, func(r *remoteRecord) { r.Client, r.Tokens = nil, nil })
}

// forgetClient drops the client with the id, and no other.
func (s *grantStore) forgetClient(ctx context.Context, id string) error {
	return s.change(ctx, func(r *remoteRecord) {
		if r.Client != nil && r.Client.ClientID == id {
			r.Client = nil
		}
	})
}
