package idp

import "maps"

// Auth0Options configure Auth0.
type Auth0Options struct {
	Common
	// Domain is the tenant's, such as example.eu.auth0.com, or a custom one.
	Domain string
	// Audience asks for an access token for that API as well; the API must allow
	// offline access for a refresh token to be given.
	Audience string
	// GroupsClaim is the namespaced claim that an Action adds, such as
	// https://example.com/groups; Auth0 has none of its own.
	GroupsClaim string
}

// NewAuth0 returns Auth0. Scopes are openid profile email offline_access unless
// configured.
func NewAuth0(o Auth0Options) (Upstream, error) {
	// The issuer ends in a slash
	// (https://auth0.com/docs/get-started/applications/configure-applications-with-oidc-discovery).
	issuer, err := issuerOfHost("domain", o.Domain, "/", "example.auth0.com")
	if err != nil {
		return nil, err
	}
	if o.Audience != "" {
		params := map[string]string{"audience": o.Audience}
		maps.Copy(params, o.Params)
		o.Params = params
	}
	return newOIDC(o.Common, issuer, o.GroupsClaim, quirks{name: "Auth0"}, "openid", "profile", "email", "offline_access")
}
