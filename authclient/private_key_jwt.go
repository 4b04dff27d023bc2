package authclient

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// PrivateKeyJWTOptions are the options of NewPrivateKeyJWT.
type PrivateKeyJWTOptions struct {
	// ClientID is required.
	ClientID string
	// Key signs; ParseSigningKey reads one from PEM or a JSON Web Key. Its public
	// part is registered at the authorization server.
	Key SigningKey
	// Audience of the assertion. Default: the issuer, which is what the MCP
	// extension asks for.
	Audience string
	// Lifetime of an assertion, at most 5 minutes. Default: 2 minutes.
	Lifetime time.Duration
	// Claims are added to the assertion.
	Claims map[string]any
	// ExpectedIssuer is the authorization server that knows the client, and the
	// only one that gets an assertion. Required unless AnyIssuer.
	ExpectedIssuer string
	// AnyIssuer signs for whichever authorization server the MCP server names.
	// The assertion is of use there only, unless Audience is set.
	AnyIssuer bool
	// Scope to ask for, space-separated. The server's challenge may add to it.
	// Default: what the server's metadata list.
	Scope string
	// ClientName is for people. Default: "private-key-jwt-client".
	ClientName string
	// Store keeps the tokens. Default: memory.
	Store Store
	// Now replaces the clock.
	Now func() time.Time
}

// PrivateKeyJWT is a Provider for a program that acts for itself and has a
// private key (RFC 7523 §2.2, extension oauth-client-credentials), the SDK's
// PrivateKeyJwtProvider.
type PrivateKeyJWT struct {
	machine
	assertion clientAssertion
}

var (
	_ Provider             = (*PrivateKeyJWT)(nil)
	_ TokenRequestPreparer = (*PrivateKeyJWT)(nil)
	_ ClientAuthenticator  = (*PrivateKeyJWT)(nil)
	_ IssuerExpecter       = (*PrivateKeyJWT)(nil)
)

// NewPrivateKeyJWT checks the options.
func NewPrivateKeyJWT(o PrivateKeyJWTOptions) (*PrivateKeyJWT, error) {
	if err := required("PrivateKeyJWT", [2]string{"ClientID", o.ClientID}); err != nil {
		return nil, err
	}
	if o.ClientName == "" {
		o.ClientName = "private-key-jwt-client"
	}
	m, err := newMachine(machineOptions{
		ClientID: o.ClientID, Method: oauth.AuthMethodPrivateKeyJWT,
		ExpectedIssuer: o.ExpectedIssuer, AnyIssuer: o.AnyIssuer, Scope: o.Scope, ClientName: o.ClientName, Store: o.Store,
		GrantType: oauth.GrantTypeClientCredentials,
	})
	if err != nil {
		return nil, fmt.Errorf("PrivateKeyJWT: %w", err)
	}
	p := &PrivateKeyJWT{machine: m, assertion: clientAssertion{
		key: o.Key, clientID: o.ClientID, audience: o.Audience, life: o.Lifetime, claims: o.Claims, now: o.Now,
	}}
	if err := p.assertion.check(); err != nil {
		return nil, fmt.Errorf("PrivateKeyJWT: %w", err)
	}
	return p, nil
}

// PrepareTokenRequest implements TokenRequestPreparer.
func (p *PrivateKeyJWT) PrepareTokenRequest(_ context.Context, g Grant) (url.Values, error) {
	return p.form(oauth.GrantTypeClientCredentials, g), nil
}

// AddClientAuthentication implements ClientAuthenticator: a fresh assertion for
// each request.
func (p *PrivateKeyJWT) AddClientAuthentication(_ context.Context, r *TokenRequest) error {
	if err := p.checkIssuer("the key of client "+p.client.ClientID, r.Issuer); err != nil {
		return err
	}
	return p.assertion.add(r)
}
