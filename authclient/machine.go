package authclient

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// machine is what the providers without a user have in common: a client that is
// fixed, an issuer that it is for, and a store for the tokens.
type machine struct {
	store    Store
	client   *ClientInformation // nil if the grant needs none
	metadata oauth.ClientMetadata
	issuer   string
}

// machineOptions are the common options, checked by newMachine.
type machineOptions struct {
	ClientID, ClientSecret, Method string
	ExpectedIssuer                 string
	AnyIssuer                      bool
	Scope, ClientName              string
	Store                          Store
	GrantType                      string
}

func newMachine(o machineOptions) (machine, error) {
	if o.ExpectedIssuer == "" && !o.AnyIssuer {
		return machine{}, errors.New("ExpectedIssuer is missing: write the issuer of the authorization server that knows this client, such as https://idp.example.com; AnyIssuer gives the credential to whichever the MCP server names")
	}
	if o.ExpectedIssuer != "" {
		if o.AnyIssuer {
			return machine{}, errors.New("ExpectedIssuer and AnyIssuer exclude each other: drop one")
		}
		if _, err := parseURL("ExpectedIssuer", o.ExpectedIssuer); err != nil {
			return machine{}, err
		}
	}
	if o.Store == nil {
		o.Store = NewMemoryStore()
	}
	m := machine{
		store: o.Store, issuer: o.ExpectedIssuer,
		metadata: oauth.ClientMetadata{
			ClientName: o.ClientName, Scope: o.Scope, RedirectURIs: []string{},
			GrantTypes: []string{o.GrantType}, TokenEndpointAuthMethod: o.Method,
		},
	}
	if o.ClientID != "" {
		m.client = &ClientInformation{Issuer: o.ExpectedIssuer}
		m.client.ClientMetadata = m.metadata
		m.client.ClientID, m.client.ClientSecret = o.ClientID, o.ClientSecret
	}
	return m, nil
}

// errNoUser is for the methods of a Provider that only a user's login needs.
var errNoUser = errors.New("this provider has no user to ask")

// RedirectURL implements Provider: there is no user.
func (m *machine) RedirectURL() string { return "" }

// ClientMetadata implements Provider.
func (m *machine) ClientMetadata() oauth.ClientMetadata { return m.metadata }

// ExpectedIssuer implements IssuerExpecter.
func (m *machine) ExpectedIssuer() string { return m.issuer }

// ClientInformation implements Provider. The client is for one issuer only,
// whoever asks.
func (m *machine) ClientInformation(context.Context, string) (*ClientInformation, error) {
	return m.client, nil
}

// Tokens implements Provider.
func (m *machine) Tokens(ctx context.Context, issuer string) (*Tokens, error) {
	return m.store.Tokens(ctx, issuer)
}

// SaveTokens implements Provider.
func (m *machine) SaveTokens(ctx context.Context, tokens *Tokens) error {
	return m.store.SaveTokens(ctx, tokens)
}

// RedirectToAuthorization implements Provider; there is no user to send.
func (m *machine) RedirectToAuthorization(context.Context, *url.URL) error { return errNoUser }

// SaveCodeVerifier implements Provider; there is no code.
func (m *machine) SaveCodeVerifier(context.Context, string) error { return errNoUser }

// CodeVerifier implements Provider; there is no code.
func (m *machine) CodeVerifier(context.Context) (string, error) { return "", errNoUser }

// InvalidateCredentials implements CredentialInvalidator. The client is
// configured and stays.
func (m *machine) InvalidateCredentials(ctx context.Context, scope CredentialScope, issuer string) error {
	if scope == CredentialsClient {
		return nil
	}
	return m.store.InvalidateCredentials(ctx, scope, issuer)
}

// DiscoveryState implements DiscoveryStore.
func (m *machine) DiscoveryState(ctx context.Context) (*DiscoveryState, error) {
	return m.store.DiscoveryState(ctx)
}

// SaveDiscoveryState implements DiscoveryStore.
func (m *machine) SaveDiscoveryState(ctx context.Context, state *DiscoveryState) error {
	return m.store.SaveDiscoveryState(ctx, state)
}

// Lock implements Locker.
func (m *machine) Lock(ctx context.Context) (unlock func(), err error) { return m.store.Lock(ctx) }

// checkIssuer refuses to make a credential for another issuer than the expected
// one, whoever asks and however it was found.
func (m *machine) checkIssuer(what, issuer string) error {
	if m.issuer != "" && !sameIssuer(m.issuer, issuer) {
		return &AuthorizationServerMismatchError{What: what, Recorded: m.issuer, Current: issuer}
	}
	return nil
}

// form is a token request of the grant type. The scope is the configured one
// and what the server's challenge asks for besides; without a configured one
// it is what the flow has found.
func (m *machine) form(grantType string, g Grant) url.Values {
	form := url.Values{"grant_type": {grantType}}
	if scope := m.scope(g); scope != "" {
		form.Set("scope", scope)
	}
	return form
}

func (m *machine) scope(g Grant) string {
	if m.metadata.Scope == "" {
		return g.Scope
	}
	return ComputeScopeUnion(m.metadata.Scope, g.ChallengeScope)
}

// required names the options that are missing.
func required(provider string, options ...[2]string) error {
	for _, o := range options {
		if o[1] == "" {
			return fmt.Errorf("%s: %s is missing", provider, o[0])
		}
	}
	return nil
}
