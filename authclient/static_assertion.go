package authclient

import (
	"context"
	"fmt"
	"net/url"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// StaticAssertionOptions are the options of NewStaticAssertion.
type StaticAssertionOptions struct {
	// ClientID is required.
	ClientID string
	// Assertion is a JWT that was signed elsewhere: iss and sub are the ClientID,
	// aud is the ExpectedIssuer. When it has expired a new provider is needed;
	// WorkloadIdentity reads a fresh one each time.
	Assertion string
	// ExpectedIssuer is the authorization server that the assertion is for, and
	// the only one that gets it. Required unless AnyIssuer.
	ExpectedIssuer string
	// AnyIssuer presents the assertion to whichever authorization server the MCP
	// server names, which can replay it unless its aud prevents that.
	AnyIssuer bool
	// Scope to ask for, space-separated. The server's challenge may add to it.
	// Default: what the server's metadata list.
	Scope string
	// ClientName is for people. Default: "static-private-key-jwt-client".
	ClientName string
	// Store keeps the tokens. Default: memory.
	Store Store
}

// StaticAssertion is a Provider for a program that was given a client assertion
// and not the key (RFC 7523 §2.2), the SDK's StaticPrivateKeyJwtProvider.
type StaticAssertion struct {
	machine
	assertion string
}

var (
	_ Provider             = (*StaticAssertion)(nil)
	_ TokenRequestPreparer = (*StaticAssertion)(nil)
	_ ClientAuthenticator  = (*StaticAssertion)(nil)
	_ IssuerExpecter       = (*StaticAssertion)(nil)
)

// NewStaticAssertion checks the options. What the assertion says is not read.
func NewStaticAssertion(o StaticAssertionOptions) (*StaticAssertion, error) {
	if err := required("StaticAssertion", [2]string{"ClientID", o.ClientID}, [2]string{"Assertion", o.Assertion}); err != nil {
		return nil, err
	}
	if o.ClientName == "" {
		o.ClientName = "static-private-key-jwt-client"
	}
	assertion, err := trimAssertion("the assertion", o.Assertion)
	if err != nil {
		return nil, fmt.Errorf("StaticAssertion: %w", err)
	}
	m, err := newMachine(machineOptions{
		ClientID: o.ClientID, Method: oauth.AuthMethodPrivateKeyJWT,
		ExpectedIssuer: o.ExpectedIssuer, AnyIssuer: o.AnyIssuer, Scope: o.Scope, ClientName: o.ClientName, Store: o.Store,
		GrantType: oauth.GrantTypeClientCredentials,
	})
	if err != nil {
		return nil, fmt.Errorf("StaticAssertion: %w", err)
	}
	return &StaticAssertion{machine: m, assertion: assertion}, nil
}

// PrepareTokenRequest implements TokenRequestPreparer.
func (p *StaticAssertion) PrepareTokenRequest(_ context.Context, g Grant) (url.Values, error) {
	return p.form(oauth.GrantTypeClientCredentials, g), nil
}

// AddClientAuthentication implements ClientAuthenticator.
func (p *StaticAssertion) AddClientAuthentication(_ context.Context, r *TokenRequest) error {
	if err := p.checkIssuer("the assertion of client "+p.client.ClientID, r.Issuer); err != nil {
		return err
	}
	addAssertion(r, p.client.ClientID, p.assertion)
	return nil
}
