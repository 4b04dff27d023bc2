package authclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// AssertionRequest says what an assertion is needed for.
type AssertionRequest struct {
	// Issuer is the authorization server that the assertion will be presented to,
	// its audience. TokenEndpoint is where; "" if its metadata do not say.
	Issuer, TokenEndpoint string
	// Resource is the identifier of the MCP server; "" if it publishes none.
	Resource string
	// Scope is space-separated; "" for none.
	Scope string
	// HTTPClient follows the rules for URLs that a server named.
	HTTPClient *http.Client
}

// IdentityProvider is where EnterpriseManaged exchanges the user's token.
type IdentityProvider struct {
	// Issuer is that of the identity provider, whose metadata name its token
	// endpoint; or TokenEndpoint is given.
	Issuer, TokenEndpoint string
	// ClientID and ClientSecret are those at the identity provider, at which
	// the user has signed in. Without a secret the client is public.
	ClientID, ClientSecret string
	// Method is client_secret_basic or client_secret_post. Default: what the
	// metadata list.
	Method string
	// SubjectToken returns a token about the user that has not expired, usually
	// the id_token of the sign-in. It is asked for each exchange.
	SubjectToken func(ctx context.Context) (string, error)
	// SubjectTokenType is the type of that token. Default: TokenTypeIDToken.
	SubjectTokenType string
	// HTTPClient replaces the client for requests to the identity provider.
	HTTPClient *http.Client
	// AllowOrigins is as in Options, for endpoints elsewhere than at the issuer.
	AllowOrigins []string
}

// EnterpriseManagedOptions are the options of NewEnterpriseManaged.
type EnterpriseManagedOptions struct {
	// ClientID, required, is the client at the MCP server's authorization server.
	ClientID string
	// ClientSecret authenticates it, or Key signs a client assertion. With
	// neither the client is public.
	ClientSecret string
	Key          SigningKey
	// Method is client_secret_basic or client_secret_post. Default: what the
	// authorization server supports, basic first.
	Method string
	// IdentityProvider gives the grant; or Assertion does, the SDK's callback:
	// it returns an ID-JAG for what is asked. Exactly one is required.
	IdentityProvider *IdentityProvider
	Assertion        func(ctx context.Context, r AssertionRequest) (string, error)
	// ExpectedIssuer is the authorization server that knows the client, and the
	// only one that gets its credentials and the user's grant. Required unless
	// AnyIssuer.
	ExpectedIssuer string
	// AnyIssuer asks for a grant for whichever authorization server the MCP
	// server names; the identity provider decides then.
	AnyIssuer bool
	// Scope to ask for, space-separated. The server's challenge may add to it.
	// Default: what the server's metadata list.
	Scope string
	// ClientName is for people. Default: "cross-app-access-client".
	ClientName string
	// Store keeps the tokens of one user. Default: memory.
	Store Store
	// Now replaces the clock.
	Now func() time.Time
}

// EnterpriseManaged is a Provider for a user whose company manages the access:
// the identity provider at which the user is signed in gives a grant for the MCP
// server (ID-JAG, cross-app access), and the user is asked nothing (extension
// enterprise-managed-authorization). It is the SDK's CrossAppAccessProvider.
type EnterpriseManaged struct {
	machine
	assertion *clientAssertion // nil without a key
	source    func(ctx context.Context, r AssertionRequest) (string, error)
}

var (
	_ Provider             = (*EnterpriseManaged)(nil)
	_ TokenRequestPreparer = (*EnterpriseManaged)(nil)
	_ ClientAuthenticator  = (*EnterpriseManaged)(nil)
	_ IssuerExpecter       = (*EnterpriseManaged)(nil)
)

// NewEnterpriseManaged checks the options.
func NewEnterpriseManaged(o EnterpriseManagedOptions) (*EnterpriseManaged, error) {
	p, err := newEnterpriseManaged(&o)
	if err != nil {
		return nil, fmt.Errorf("EnterpriseManaged: %w", err)
	}
	return p, nil
}

func newEnterpriseManaged(o *EnterpriseManagedOptions) (*EnterpriseManaged, error) {
	if o.ClientName == "" {
		o.ClientName = "cross-app-access-client"
	}
	method := o.Method
	switch {
	case o.ClientID == "":
		return nil, errors.New("ClientID is missing")
	case (o.IdentityProvider == nil) == (o.Assertion == nil):
		return nil, errors.New("exactly one of IdentityProvider and Assertion is needed: write who gives the grant")
	case o.Key.Signer != nil && (o.ClientSecret != "" || o.Method != ""):
		return nil, errors.New("ClientSecret and Method exclude Key: write one way to authenticate")
	case o.Key.Signer != nil:
		method = oauth.AuthMethodPrivateKeyJWT
	}
	m, err := newMachine(machineOptions{
		ClientID: o.ClientID, ClientSecret: o.ClientSecret, Method: method,
		ExpectedIssuer: o.ExpectedIssuer, AnyIssuer: o.AnyIssuer, Scope: o.Scope, ClientName: o.ClientName, Store: o.Store,
		GrantType: GrantTypeJWTBearer,
	})
	if err != nil {
		return nil, err
	}
	p := &EnterpriseManaged{machine: m, source: o.Assertion}
	if o.IdentityProvider != nil {
		idp := *o.IdentityProvider
		if err := idp.check(); err != nil {
			return nil, err
		}
		p.source = idp.exchange
	}
	if o.Key.Signer != nil {
		p.assertion = &clientAssertion{key: o.Key, clientID: o.ClientID, now: o.Now}
		return p, p.assertion.check()
	}
	return p, nil
}

// PrepareTokenRequest implements TokenRequestPreparer: it gets a fresh grant.
func (p *EnterpriseManaged) PrepareTokenRequest(ctx context.Context, g Grant) (url.Values, error) {
	if err := p.checkIssuer("the grant of the user", g.Issuer); err != nil {
		return nil, err
	}
	if g.Resource == "" {
		return nil, errors.New("the MCP server publishes no protected resource metadata, so there is no resource that the identity provider could grant: ask its operator for them (RFC 9728)")
	}
	form := p.form(GrantTypeJWTBearer, g)
	assertion, err := p.source(ctx, g.assertionRequest(form.Get("scope")))
	if err != nil {
		return nil, err
	}
	if assertion, err = trimAssertion("the grant of the identity provider", assertion); err != nil {
		return nil, err
	}
	form.Set("assertion", assertion)
	return form, nil
}

func (g *Grant) assertionRequest(scope string) AssertionRequest {
	r := AssertionRequest{Issuer: g.Issuer, Resource: g.Resource, Scope: scope, HTTPClient: g.HTTPClient}
	if g.Metadata != nil {
		r.TokenEndpoint = g.Metadata.TokenEndpoint
	}
	return r
}

// AddClientAuthentication implements ClientAuthenticator.
func (p *EnterpriseManaged) AddClientAuthentication(_ context.Context, r *TokenRequest) error {
	if err := p.checkIssuer("the credential of client "+p.client.ClientID, r.Issuer); err != nil {
		return err
	}
	if p.assertion != nil {
		return p.assertion.add(r)
	}
	r.authenticate()
	return nil
}

func (i *IdentityProvider) check() error {
	switch {
	case i.ClientID == "":
		return errors.New("IdentityProvider: ClientID is missing: write the client that the user has signed in to")
	case i.SubjectToken == nil:
		return errors.New("IdentityProvider: SubjectToken is missing: write a function that returns the user's id_token")
	case (i.Issuer == "") == (i.TokenEndpoint == ""):
		return errors.New("IdentityProvider: write either Issuer or TokenEndpoint")
	}
	_, err := parseURL("the URL of the identity provider", i.Issuer+i.TokenEndpoint)
	return err
}

// exchange gets an ID-JAG for the user.
func (i *IdentityProvider) exchange(ctx context.Context, r AssertionRequest) (string, error) {
	subject, err := i.SubjectToken(ctx)
	if err != nil {
		return "", fmt.Errorf("the token of the user is not to be had: %w", err)
	}
	request := JWTAuthorizationGrantRequest{
		Audience: r.Issuer, Resource: r.Resource, Scope: r.Scope,
		SubjectToken: subject, SubjectTokenType: i.SubjectTokenType,
		ClientID: i.ClientID, ClientSecret: i.ClientSecret, Method: i.Method,
	}
	o := Options{HTTPClient: i.HTTPClient, AllowOrigins: i.AllowOrigins}
	var grant JWTAuthorizationGrant
	if i.TokenEndpoint != "" {
		// The URL that the caller chose is this one.
		metadata := &oauth.Metadata{Issuer: i.TokenEndpoint, TokenEndpoint: i.TokenEndpoint}
		grant, err = RequestJWTAuthorizationGrant(ctx, AuthorizationServer{URL: i.TokenEndpoint, Metadata: metadata, Options: o}, request)
	} else {
		grant, err = DiscoverAndRequestJWTAuthorizationGrant(ctx, i.Issuer, request, o)
	}
	return grant.Assertion, err
}
