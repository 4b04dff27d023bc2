package mcpauth

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/idp"
)

func init() {
	caddy.RegisterModule(OIDCUpstream{})
	caddy.RegisterModule(OAuth2Upstream{})
	caddy.RegisterModule(GoogleUpstream{})
	caddy.RegisterModule(GitHubUpstream{})
	caddy.RegisterModule(EntraUpstream{})
	caddy.RegisterModule(OktaUpstream{})
	caddy.RegisterModule(Auth0Upstream{})
	caddy.RegisterModule(KeycloakUpstream{})
	caddy.RegisterModule(CognitoUpstream{})
	caddy.RegisterModule(AccountsUpstream{})
}

// UpstreamModule is a module in the namespace mcp_auth.upstreams: an identity
// provider that signs people in.
type UpstreamModule interface {
	// NewUpstream is called at the end of provisioning. It opens no connection.
	NewUpstream(env UpstreamEnv) (idp.Upstream, error)
}

// UpstreamEnv is what an upstream may know of the site that it works for.
type UpstreamEnv struct {
	// Groups tells that the configuration needs the groups of users.
	Groups bool
	// InsecureDev allows http where https is required.
	InsecureDev bool
	// Logger outlives the configuration, since an upstream is kept over a reload
	// that does not change it.
	Logger *slog.Logger
}

// UpstreamClient is this server's registration at an identity provider. Its
// redirect URI there is the base URL with /mcp-auth/callback.
type UpstreamClient struct {
	// ClientID and ClientSecret are what the provider gave. Use a placeholder
	// such as {env.IDP_CLIENT_SECRET} for the secret.
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`

	// ClientAuth is how the secret is sent: basic, post or none. Default: as the
	// provider's metadata says.
	ClientAuth string `json:"client_auth,omitempty"`

	// Scopes are asked of the provider. Default: those that tell who the user is.
	Scopes []string `json:"scopes,omitempty"`

	// Params are added to the provider's authorization URL.
	Params map[string]string `json:"params,omitempty"`
}

// newUpstream resolves the placeholders of an upstream's configuration and lets
// construct make the rest of it.
func newUpstream[T any, P interface {
	*T
	common(env UpstreamEnv) (idp.Common, error)
}](u P, env UpstreamEnv, construct func(r P, common idp.Common) (idp.Upstream, error)) (idp.Upstream, error) {
	r, err := resolved((*T)(u))
	if err != nil {
		return nil, err
	}
	common, err := P(r).common(env)
	if err != nil {
		return nil, err
	}
	return construct(r, common)
}

func (c UpstreamClient) common(env UpstreamEnv) (idp.Common, error) {
	if c.ClientID == "" {
		return idp.Common{}, errors.New("client_id is missing: register this server at the identity provider, with the redirect URI <base URL>/mcp-auth/callback, and write what it gives")
	}
	return idp.Common{
		ClientID:     c.ClientID,
		ClientSecret: c.ClientSecret,
		ClientAuth:   c.ClientAuth,
		Scopes:       c.Scopes,
		Params:       c.Params,
		Groups:       env.Groups,
		Insecure:     env.InsecureDev,
		Logger:       env.Logger,
	}, nil
}

// OIDCUpstream is any OpenID Connect provider.
type OIDCUpstream struct {
	// Issuer is the provider's issuer, byte for byte as in its metadata.
	Issuer string `json:"issuer"`
	// GroupsClaim is where the groups are. Default: groups.
	GroupsClaim string `json:"groups_claim,omitempty"`
	UpstreamClient
}

// CaddyModule returns the Caddy module information.
func (OIDCUpstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.upstreams.oidc", New: func() caddy.Module { return new(OIDCUpstream) }}
}

// NewUpstream implements UpstreamModule.
func (u *OIDCUpstream) NewUpstream(env UpstreamEnv) (idp.Upstream, error) {
	return newUpstream(u, env, func(r *OIDCUpstream, common idp.Common) (idp.Upstream, error) {
		return idp.NewOIDC(idp.OIDCOptions{Common: common, Issuer: r.Issuer, GroupsClaim: r.GroupsClaim})
	})
}

// OAuth2Upstream is a provider without OpenID Connect: its userinfo endpoint
// tells who the user is.
type OAuth2Upstream struct {
	AuthorizationURL string `json:"authorization_url"`
	TokenURL         string `json:"token_url"`
	UserInfoURL      string `json:"userinfo_url"`
	RevocationURL    string `json:"revocation_url,omitempty"`
	// Issuer is the namespace of the users, which must not change. Default: the
	// origin of token_url.
	Issuer string `json:"issuer,omitempty"`
	// SubjectClaim of userinfo identifies the user for ever. Default: sub.
	SubjectClaim string `json:"subject_claim,omitempty"`
	// The other claims. Defaults: email, email_verified, name, groups.
	EmailClaim         string `json:"email_claim,omitempty"`
	EmailVerifiedClaim string `json:"email_verified_claim,omitempty"`
	NameClaim          string `json:"name_claim,omitempty"`
	GroupsClaim        string `json:"groups_claim,omitempty"`
	UpstreamClient
}

// CaddyModule returns the Caddy module information.
func (OAuth2Upstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.upstreams.oauth2", New: func() caddy.Module { return new(OAuth2Upstream) }}
}

// NewUpstream implements UpstreamModule.
func (u *OAuth2Upstream) NewUpstream(env UpstreamEnv) (idp.Upstream, error) {
	return newUpstream(u, env, func(r *OAuth2Upstream, common idp.Common) (idp.Upstream, error) {
		return idp.NewOAuth2(idp.OAuth2Options{
			Common: common, AuthorizationURL: r.AuthorizationURL, TokenURL: r.TokenURL, UserInfoURL: r.UserInfoURL,
			RevocationURL: r.RevocationURL, Issuer: r.Issuer, SubjectClaim: r.SubjectClaim, EmailClaim: r.EmailClaim,
			EmailVerifiedClaim: r.EmailVerifiedClaim, NameClaim: r.NameClaim, GroupsClaim: r.GroupsClaim,
		})
	})
}

// GoogleUpstream is Google. `allow` is required: everybody can have an account.
type GoogleUpstream struct {
	// HostedDomain lets in only the accounts of one Workspace domain.
	HostedDomain string `json:"hosted_domain,omitempty"`
	UpstreamClient
}

// CaddyModule returns the Caddy module information.
func (GoogleUpstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.upstreams.google", New: func() caddy.Module { return new(GoogleUpstream) }}
}

// NewUpstream implements UpstreamModule.
func (u *GoogleUpstream) NewUpstream(env UpstreamEnv) (idp.Upstream, error) {
	return newUpstream(u, env, func(r *GoogleUpstream, common idp.Common) (idp.Upstream, error) {
		return idp.NewGoogle(idp.GoogleOptions{Common: common, HostedDomain: r.HostedDomain})
	})
}

// GitHubUpstream is GitHub or a GitHub Enterprise Server. `allow` is required:
// everybody can have an account.
type GitHubUpstream struct {
	// BaseURL is that of an Enterprise Server. Default: https://github.com.
	BaseURL string `json:"base_url,omitempty"`
	UpstreamClient
}

// CaddyModule returns the Caddy module information.
func (GitHubUpstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.upstreams.github", New: func() caddy.Module { return new(GitHubUpstream) }}
}

// NewUpstream implements UpstreamModule.
func (u *GitHubUpstream) NewUpstream(env UpstreamEnv) (idp.Upstream, error) {
	return newUpstream(u, env, func(r *GitHubUpstream, common idp.Common) (idp.Upstream, error) {
		return idp.NewGitHub(idp.GitHubOptions{Common: common, BaseURL: r.BaseURL})
	})
}

// EntraUpstream is Microsoft Entra ID.
type EntraUpstream struct {
	// Tenant is the tenant's id or one of its domains; or common, organizations
	// or consumers, which need `allow` and vouch for no mail address.
	Tenant string `json:"tenant"`
	// GroupsClaim is where the groups are. Default: groups; roles takes app roles.
	GroupsClaim string `json:"groups_claim,omitempty"`
	// BaseURL is the cloud. Default: https://login.microsoftonline.com.
	BaseURL string `json:"base_url,omitempty"`
	UpstreamClient
}

// CaddyModule returns the Caddy module information.
func (EntraUpstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.upstreams.entra", New: func() caddy.Module { return new(EntraUpstream) }}
}

// NewUpstream implements UpstreamModule.
func (u *EntraUpstream) NewUpstream(env UpstreamEnv) (idp.Upstream, error) {
	return newUpstream(u, env, func(r *EntraUpstream, common idp.Common) (idp.Upstream, error) {
		return idp.NewEntra(idp.EntraOptions{Common: common, Tenant: r.Tenant, BaseURL: r.BaseURL, GroupsClaim: r.GroupsClaim})
	})
}

// OktaUpstream is an Okta organization.
type OktaUpstream struct {
	// Domain is the organization's, such as example.okta.com.
	Domain string `json:"domain"`
	// AuthorizationServer is the id of a custom authorization server, such as
	// default. Default: the organization's own.
	AuthorizationServer string `json:"authorization_server,omitempty"`
	// GroupsClaim is where the groups are. Default: groups.
	GroupsClaim string `json:"groups_claim,omitempty"`
	UpstreamClient
}

// CaddyModule returns the Caddy module information.
func (OktaUpstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.upstreams.okta", New: func() caddy.Module { return new(OktaUpstream) }}
}

// NewUpstream implements UpstreamModule.
func (u *OktaUpstream) NewUpstream(env UpstreamEnv) (idp.Upstream, error) {
	return newUpstream(u, env, func(r *OktaUpstream, common idp.Common) (idp.Upstream, error) {
		return idp.NewOkta(idp.OktaOptions{Common: common, Domain: r.Domain, AuthorizationServer: r.AuthorizationServer, GroupsClaim: r.GroupsClaim})
	})
}

// Auth0Upstream is an Auth0 tenant.
type Auth0Upstream struct {
	// Domain is the tenant's, such as example.eu.auth0.com, or a custom one.
	Domain string `json:"domain"`
	// Audience asks for an access token for that API as well.
	Audience string `json:"audience,omitempty"`
	// GroupsClaim is the namespaced claim that an Action adds.
	GroupsClaim string `json:"groups_claim,omitempty"`
	UpstreamClient
}

// CaddyModule returns the Caddy module information.
func (Auth0Upstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.upstreams.auth0", New: func() caddy.Module { return new(Auth0Upstream) }}
}

// NewUpstream implements UpstreamModule.
func (u *Auth0Upstream) NewUpstream(env UpstreamEnv) (idp.Upstream, error) {
	return newUpstream(u, env, func(r *Auth0Upstream, common idp.Common) (idp.Upstream, error) {
		return idp.NewAuth0(idp.Auth0Options{Common: common, Domain: r.Domain, Audience: r.Audience, GroupsClaim: r.GroupsClaim})
	})
}

// KeycloakUpstream is a Keycloak realm.
type KeycloakUpstream struct {
	// RealmURL is the realm's issuer, such as
	// https://sso.example.com/realms/example.
	RealmURL string `json:"realm_url"`
	// GroupsClaim is where the groups are. Default: groups.
	GroupsClaim string `json:"groups_claim,omitempty"`
	UpstreamClient
}

// CaddyModule returns the Caddy module information.
func (KeycloakUpstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.upstreams.keycloak", New: func() caddy.Module { return new(KeycloakUpstream) }}
}

// NewUpstream implements UpstreamModule.
func (u *KeycloakUpstream) NewUpstream(env UpstreamEnv) (idp.Upstream, error) {
	return newUpstream(u, env, func(r *KeycloakUpstream, common idp.Common) (idp.Upstream, error) {
		return idp.NewKeycloak(idp.KeycloakOptions{Common: common, RealmURL: r.RealmURL, GroupsClaim: r.GroupsClaim})
	})
}

// CognitoUpstream is an Amazon Cognito user pool.
type CognitoUpstream struct {
	// PoolURL is the pool's issuer, such as
	// https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI.
	PoolURL string `json:"pool_url"`
	UpstreamClient
}

// CaddyModule returns the Caddy module information.
func (CognitoUpstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.upstreams.cognito", New: func() caddy.Module { return new(CognitoUpstream) }}
}

// NewUpstream implements UpstreamModule.
func (u *CognitoUpstream) NewUpstream(env UpstreamEnv) (idp.Upstream, error) {
	return newUpstream(u, env, func(r *CognitoUpstream, common idp.Common) (idp.Upstream, error) {
		return idp.NewCognito(idp.CognitoOptions{Common: common, PoolURL: r.PoolURL})
	})
}

// AccountsUpstream are accounts in the configuration, for small teams and for
// trying things out.
type AccountsUpstream struct {
	// Accounts by user name.
	Accounts map[string]*Account `json:"accounts"`
}

// Account is a local account.
type Account struct {
	// Hash is what `caddy hash-password` prints, bcrypt or argon2id.
	Hash string `json:"hash"`
	// Email counts as verified.
	Email string `json:"email,omitempty"`
	// Groups the user is in.
	Groups []string `json:"groups,omitempty"`
	// Disabled accounts cannot sign in, and their tokens stop.
	Disabled bool `json:"disabled,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (AccountsUpstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.upstreams.accounts", New: func() caddy.Module { return new(AccountsUpstream) }}
}

// newAccounts returns the accounts, whose subjects belong to issuer.
func (u *AccountsUpstream) newAccounts(issuer string, logger *slog.Logger) (*idp.Accounts, error) {
	if len(u.Accounts) == 0 {
		return nil, errors.New("accounts: name at least one account")
	}
	cfg := idp.AccountsConfig{Issuer: issuer, Logger: logger}
	for _, name := range slices.Sorted(maps.Keys(u.Accounts)) {
		account := u.Accounts[name]
		if account == nil {
			return nil, fmt.Errorf("account %s: a hash is needed", name)
		}
		cfg.Accounts = append(cfg.Accounts, idp.Account{
			Name: name, Hash: account.Hash, Email: account.Email, Groups: account.Groups, Disabled: account.Disabled,
		})
	}
	return idp.NewAccounts(cfg)
}

// Interface guards
var (
	_ UpstreamModule = (*OIDCUpstream)(nil)
	_ UpstreamModule = (*OAuth2Upstream)(nil)
	_ UpstreamModule = (*GoogleUpstream)(nil)
	_ UpstreamModule = (*GitHubUpstream)(nil)
	_ UpstreamModule = (*EntraUpstream)(nil)
	_ UpstreamModule = (*OktaUpstream)(nil)
	_ UpstreamModule = (*Auth0Upstream)(nil)
	_ UpstreamModule = (*KeycloakUpstream)(nil)
	_ UpstreamModule = (*CognitoUpstream)(nil)
)
