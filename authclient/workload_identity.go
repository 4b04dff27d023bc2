package authclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// WorkloadIdentityOptions are the options of NewWorkloadIdentity.
type WorkloadIdentityOptions struct {
	// TokenFile holds the JWT of the platform, such as a projected service
	// account token of Kubernetes. It is read for each token request, for the
	// platform replaces it. Or Token returns the JWT, for example from a metadata
	// service. Exactly one is required.
	TokenFile string
	Token     func(ctx context.Context, r AssertionRequest) (string, error)
	// ClientID is the client at the authorization server; "" if the workload is
	// known by its JWT alone, which is the usual case.
	ClientID string
	// AsClient presents the JWT as the assertion of a client that acts for
	// itself (client_credentials with client_assertion, RFC 7523 §2.2), which
	// Entra ID calls a federated credential. It needs the ClientID. Otherwise the
	// JWT is the grant (RFC 7523 §2.1), as the MCP extension has it.
	AsClient bool
	// ExpectedIssuer is the authorization server that trusts the platform, and
	// the only one that gets the JWT. Required unless AnyIssuer.
	ExpectedIssuer string
	// AnyIssuer presents the JWT to whichever authorization server the MCP server
	// names, which can replay it unless its aud prevents that.
	AnyIssuer bool
	// Scope to ask for, space-separated. The server's challenge may add to it.
	// Default: what the server's metadata list.
	Scope string
	// ClientName is for people. Default: "workload-identity-client".
	ClientName string
	// Store keeps the tokens. Default: memory.
	Store Store
}

// WorkloadIdentity is a Provider for a program whose platform vouches for it
// with a JWT, so that it needs no secret of its own (extension auth/wif,
// SEP-1933).
type WorkloadIdentity struct {
	machine
	token    func(ctx context.Context, r AssertionRequest) (string, error)
	asClient bool
}

var (
	_ Provider             = (*WorkloadIdentity)(nil)
	_ TokenRequestPreparer = (*WorkloadIdentity)(nil)
	_ ClientAuthenticator  = (*WorkloadIdentity)(nil)
	_ IssuerExpecter       = (*WorkloadIdentity)(nil)
)

// NewWorkloadIdentity checks the options. The file need not exist yet.
func NewWorkloadIdentity(o WorkloadIdentityOptions) (*WorkloadIdentity, error) {
	if o.ClientName == "" {
		o.ClientName = "workload-identity-client"
	}
	if (o.TokenFile == "") == (o.Token == nil) {
		return nil, errors.New("WorkloadIdentity: exactly one of TokenFile and Token is needed: write where the JWT of the platform is")
	}
	if o.AsClient && o.ClientID == "" {
		return nil, errors.New("WorkloadIdentity: AsClient needs the ClientID that the authorization server has given to this workload")
	}
	grant, method := GrantTypeJWTBearer, oauth.AuthMethodNone
	if o.AsClient {
		grant, method = oauth.GrantTypeClientCredentials, oauth.AuthMethodPrivateKeyJWT
	}
	m, err := newMachine(machineOptions{
		ClientID: o.ClientID, Method: method,
		ExpectedIssuer: o.ExpectedIssuer, AnyIssuer: o.AnyIssuer, Scope: o.Scope, ClientName: o.ClientName, Store: o.Store,
		GrantType: grant,
	})
	if err != nil {
		return nil, fmt.Errorf("WorkloadIdentity: %w", err)
	}
	p := &WorkloadIdentity{machine: m, token: o.Token, asClient: o.AsClient}
	if p.token == nil {
		p.token = func(context.Context, AssertionRequest) (string, error) { return readAssertion(o.TokenFile) }
	}
	return p, nil
}

// PrepareTokenRequest implements TokenRequestPreparer.
func (p *WorkloadIdentity) PrepareTokenRequest(ctx context.Context, g Grant) (url.Values, error) {
	if p.asClient {
		return p.form(oauth.GrantTypeClientCredentials, g), nil
	}
	form := p.form(GrantTypeJWTBearer, g)
	assertion, err := p.assertionFor(ctx, g.assertionRequest(form.Get("scope")))
	if err != nil {
		return nil, err
	}
	form.Set("assertion", assertion)
	return form, nil
}

// AddClientAuthentication implements ClientAuthenticator.
func (p *WorkloadIdentity) AddClientAuthentication(ctx context.Context, r *TokenRequest) error {
	if !p.asClient {
		r.authenticate()
		return nil
	}
	assertion, err := p.assertionFor(ctx, AssertionRequest{
		Issuer: r.Issuer, TokenEndpoint: r.URL, Resource: r.Form.Get("resource"), Scope: r.Form.Get("scope"),
	})
	if err != nil {
		return err
	}
	addAssertion(r, p.client.ClientID, assertion)
	return nil
}

func (p *WorkloadIdentity) assertionFor(ctx context.Context, r AssertionRequest) (string, error) {
	if err := p.checkIssuer("the token of this workload", r.Issuer); err != nil {
		return "", err
	}
	assertion, err := p.token(ctx, r)
	if err != nil {
		return "", fmt.Errorf("the token of this workload is not to be had: %w", err)
	}
	return trimAssertion("the token of this workload", assertion)
}

// readAssertion reads at most one byte more than an assertion may have.
func readAssertion(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxAssertion+1))
	return string(data), err
}
