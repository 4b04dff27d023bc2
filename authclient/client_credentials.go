package authclient

import (
	"context"
	"fmt"
	"net/url"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// ClientCredentialsOptions are the options of NewClientCredentials.
type ClientCredentialsOptions struct {
	// ClientID and ClientSecret are required.
	ClientID, ClientSecret string
	// Method is client_secret_basic or client_secret_post. Default: what the
	// authorization server supports, basic first.
	Method string
	// ExpectedIssuer is the authorization server that knows the client, and the
	// only one that gets its secret. Required unless AnyIssuer.
	ExpectedIssuer string
	// AnyIssuer presents the secret to whichever authorization server the MCP
	// server names: whoever controls the MCP server can have it.
	AnyIssuer bool
	// Scope to ask for, space-separated. The server's challenge may add to it.
	// Default: what the server's metadata list.
	Scope string
	// ClientName is for people. Default: "client-credentials-client".
	ClientName string
	// Store keeps the tokens. Default: memory.
	Store Store
}

// ClientCredentials is a Provider for a program that acts for itself and has a
// client secret (RFC 6749 §4.4), the SDK's ClientCredentialsProvider.
type ClientCredentials struct{ machine }

var (
	_ Provider             = (*ClientCredentials)(nil)
	_ TokenRequestPreparer = (*ClientCredentials)(nil)
	_ IssuerExpecter       = (*ClientCredentials)(nil)
)

// NewClientCredentials checks the options.
func NewClientCredentials(o ClientCredentialsOptions) (*ClientCredentials, error) {
	if err := required("ClientCredentials", [2]string{"ClientID", o.ClientID}, [2]string{"ClientSecret", o.ClientSecret}); err != nil {
		return nil, err
	}
	if o.ClientName == "" {
		o.ClientName = "client-credentials-client"
	}
	switch o.Method {
	case "", oauth.AuthMethodClientSecretBasic, oauth.AuthMethodClientSecretPost:
	default:
		return nil, fmt.Errorf("ClientCredentials: Method %q is not client_secret_basic or client_secret_post", o.Method)
	}
	m, err := newMachine(machineOptions{
		ClientID: o.ClientID, ClientSecret: o.ClientSecret, Method: o.Method,
		ExpectedIssuer: o.ExpectedIssuer, AnyIssuer: o.AnyIssuer, Scope: o.Scope, ClientName: o.ClientName, Store: o.Store,
		GrantType: oauth.GrantTypeClientCredentials,
	})
	if err != nil {
		return nil, fmt.Errorf("ClientCredentials: %w", err)
	}
	return &ClientCredentials{m}, nil
}

// PrepareTokenRequest implements TokenRequestPreparer.
func (c *ClientCredentials) PrepareTokenRequest(_ context.Context, g Grant) (url.Values, error) {
	if err := c.checkIssuer("the secret of client "+c.client.ClientID, g.Issuer); err != nil {
		return nil, err
	}
	return c.form(oauth.GrantTypeClientCredentials, g), nil
}
