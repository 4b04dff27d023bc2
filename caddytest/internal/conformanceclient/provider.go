package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// redirectURL is where nobody listens: the suite redirects at once, and the
// browser below reads where to.
const redirectURL = "http://localhost:3000/callback"

// metadataURL is the client metadata document that the suite expects.
const metadataURL = "https://conformance-test.local/client-metadata.json"

// providerFor chooses by the extension that the scenario is about; all other
// scenarios have a user.
func providerFor(scenario string, g *given) (authclient.Provider, error) {
	switch scenario {
	case "auth/client-credentials-basic":
		return authclient.NewClientCredentials(authclient.ClientCredentialsOptions{
			ClientID: g.ClientID, ClientSecret: g.ClientSecret, AnyIssuer: true,
		})
	case "auth/client-credentials-jwt":
		key, err := authclient.ParseSigningKey([]byte(g.PrivateKeyPEM))
		if err != nil {
			return nil, err
		}
		key.Algorithm = g.SigningAlgorithm
		return authclient.NewPrivateKeyJWT(authclient.PrivateKeyJWTOptions{ClientID: g.ClientID, Key: key, AnyIssuer: true})
	case "auth/enterprise-managed-authorization":
		return authclient.NewEnterpriseManaged(authclient.EnterpriseManagedOptions{
			ClientID: g.ClientID, ClientSecret: g.ClientSecret, AnyIssuer: true,
			IdentityProvider: &authclient.IdentityProvider{
				TokenEndpoint: g.IDPTokenEndpoint, ClientID: g.IDPClientID,
				SubjectToken: func(context.Context) (string, error) { return g.IDPIDToken, nil },
			},
		})
	case "auth/wif-jwt-bearer":
		return authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{
			Token:     func(context.Context, authclient.AssertionRequest) (string, error) { return g.ValidJWT, nil },
			AnyIssuer: true,
		})
	case "auth/dpop", "auth/dpop-nonce":
		user, err := newUser(g)
		if err != nil {
			return nil, err
		}
		bound, err := authclient.NewDPoP(authclient.DPoPOptions{})
		return &boundUser{user, bound}, err
	}
	return newUser(g)
}

// user is a person with a browser that the authorization server signs in
// without a question.
type user struct {
	*authclient.Web
	callback url.Values
}

// boundUser has tokens that are bound to a key.
type boundUser struct {
	*user
	*authclient.DPoP
}

func newUser(g *given) (*user, error) {
	u := &user{}
	o := authclient.WebOptions{
		RedirectURL: redirectURL, ClientMetadataURL: metadataURL, Redirect: u.visit,
		Metadata: oauth.ClientMetadata{
			ClientName: "mcpauth conformance client",
			GrantTypes: []string{oauth.GrantTypeAuthorizationCode, oauth.GrantTypeRefreshToken},
		},
	}
	if g.ClientID != "" {
		o.Client = &authclient.ClientInformation{Issuer: g.Issuer}
		o.Client.ClientID, o.Client.ClientSecret = g.ClientID, g.ClientSecret
	}
	var err error
	u.Web, err = authclient.NewWeb(authclient.NewMemoryStore(), o)
	return u, err
}

// visit is what the browser does.
func (u *user) visit(ctx context.Context, to *url.URL) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), http.NoBody)
	if err != nil {
		return err
	}
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := browser.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	location, err := resp.Location()
	if err != nil {
		return fmt.Errorf("the authorization server does not redirect: %w", err)
	}
	u.callback = location.Query()
	return nil
}

// WaitForCallback implements authclient.CallbackWaiter.
func (u *user) WaitForCallback(context.Context) (url.Values, error) {
	if u.callback == nil {
		return nil, errors.New("nobody was sent to the authorization server")
	}
	callback := u.callback
	u.callback = nil
	return callback, nil
}
