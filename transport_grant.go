package mcpauth

import (
	"context"
	"errors"
	"net/url"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// storedGrant is the client of a grant that a user gave earlier. It refreshes
// its tokens and asks nobody: where a user is needed it fails with signIn. It is
// neither a Registrar nor a CredentialInvalidator, so that no refusal of a
// server makes it register anew or drop what is stored.
type storedGrant struct {
	store  authclient.Store
	scopes []string
	// fixed is the client of the configuration; nil if the store has it.
	fixed *authclient.ClientInformation
	// signIn says what the operator has to do for a new grant.
	signIn error
	// ended is the same for a grant that has ended. Default: signIn.
	ended error
}

// RedirectURL is only where a browser would come back to: none is sent away.
func (*storedGrant) RedirectURL() string { return "http://127.0.0.1/callback" }

// ClientMetadata implements authclient.Provider.
func (g *storedGrant) ClientMetadata() oauth.ClientMetadata {
	return oauth.ClientMetadata{RedirectURIs: []string{g.RedirectURL()}, Scope: oauth.JoinScope(g.scopes)}
}

// ClientInformation implements authclient.Provider.
func (g *storedGrant) ClientInformation(ctx context.Context, issuer string) (*authclient.ClientInformation, error) {
	if g.fixed != nil {
		return g.fixed, nil
	}
	c, err := g.store.ClientInformation(ctx, issuer)
	if err == nil && c == nil {
		return nil, g.signIn
	}
	return c, err
}

// Tokens implements authclient.Provider. Without a grant there is nothing to send
// to the server.
func (g *storedGrant) Tokens(ctx context.Context, issuer string) (*authclient.Tokens, error) {
	t, err := g.store.Tokens(ctx, issuer)
	switch {
	case err != nil || issuer != "":
		return t, err
	case t == nil:
		return nil, g.signIn
	case t.AccessToken == "": // a refresh token, to begin with
		return nil, nil
	}
	return t, nil
}

// SaveTokens implements authclient.Provider.
func (g *storedGrant) SaveTokens(ctx context.Context, tokens *authclient.Tokens) error {
	return g.store.SaveTokens(ctx, tokens)
}

// RedirectToAuthorization fails: nobody sits in front of a proxy.
func (g *storedGrant) RedirectToAuthorization(context.Context, *url.URL) error {
	if g.ended != nil {
		return g.ended
	}
	return g.signIn
}

// SaveCodeVerifier implements authclient.Provider; there is no login to keep it for.
func (*storedGrant) SaveCodeVerifier(context.Context, string) error { return nil }

// CodeVerifier implements authclient.Provider.
func (*storedGrant) CodeVerifier(context.Context) (string, error) { return "", nil }

// DiscoveryState implements authclient.DiscoveryStore.
func (g *storedGrant) DiscoveryState(ctx context.Context) (*authclient.DiscoveryState, error) {
	return g.store.DiscoveryState(ctx)
}

// SaveDiscoveryState implements authclient.DiscoveryStore.
func (g *storedGrant) SaveDiscoveryState(ctx context.Context, state *authclient.DiscoveryState) error {
	return g.store.SaveDiscoveryState(ctx, state)
}

// Lock implements authclient.Locker.
func (g *storedGrant) Lock(ctx context.Context) (func(), error) { return g.store.Lock(ctx) }

var errNoStoredLogin = errors.New("nobody has signed in yet")

// Interface guards
var (
	_ authclient.Provider       = (*storedGrant)(nil)
	_ authclient.DiscoveryStore = (*storedGrant)(nil)
	_ authclient.Locker         = (*storedGrant)(nil)
)
