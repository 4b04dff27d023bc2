package mcpauth

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
)

func init() {
	caddy.RegisterModule(ProxyMode{})
	caddy.RegisterModule(ResourceServerMode{})
}

// ModeModule is a module in the namespace mcp_auth.providers: it decides who
// signs people in and who issues the tokens of a site.
type ModeModule interface {
	// NewMode is called at the end of provisioning. It opens nothing.
	NewMode(env ModeEnv) (*Mode, error)
}

// ModeEnv is what a mode may know of its site. Placeholders are resolved.
type ModeEnv struct {
	// Issuer is the site's, byte for byte.
	Issuer string
	// BaseURL is where the endpoints are.
	BaseURL string
	// InsecureDev allows http where https is required.
	InsecureDev bool
	// Resources are the resources that tokens can be asked for.
	Resources *oauth.ResourceSet
	// Guarded are the identifiers of those that are on this site, sorted.
	Guarded []string
	// DefaultScopes returns the scopes that every request to a resource needs.
	DefaultScopes func(resource string) []string
	// GrantableScopes returns all scopes that mean something to a resource.
	GrantableScopes func(resource string) []string
	// ResourceNames and ScopeDescriptions are for people.
	ResourceNames     map[string]string
	ScopeDescriptions map[string]string
	// ForwardedClaims are the claims that the servers behind are told.
	ForwardedClaims []string
	// Clients are the clients that the operator registered.
	Clients []oauth.Client
	// Introspectors may ask about tokens for the resource that each names.
	Introspectors []*Client
	// Registration is as configured; nil for the defaults.
	Registration *Registration
	// Dynamic tells whether clients may register themselves.
	Dynamic bool
	// RedirectPolicy is for clients that register themselves.
	RedirectPolicy *oauth.RedirectPolicy
	// Keys opens the key ring on first use.
	Keys func() (*seal.Ring, error)
	// Logger is the site's.
	Logger *slog.Logger

	app *App
}

// Mode is a site's running mode.
type Mode struct {
	// Provider answers the authorization server endpoints; nil if this site has
	// none.
	Provider authserver.Provider
	// Endpoints are answered besides those of Provider, by path below the base
	// URL. Logs show neither their queries nor their redirects.
	Endpoints map[string]http.Handler
	// StripCookies removes the mode's cookies from requests that are passed on;
	// nil if it has none.
	StripCookies func(*http.Request)
	// Mirror is the authorization server whose metadata this site repeats, for
	// clients that look for it here; nil for none.
	Mirror *bearer.Discovery
	// AuthorizationServers are named in the resources' metadata. Default: the
	// site's issuer.
	AuthorizationServers []string
	// Verifier checks access tokens.
	Verifier bearer.Verifier
	// Audiences are accepted besides the resource's identifier if AnyAudience
	// is not set; nil means that identifier only.
	Audiences   []string
	AnyAudience bool
	// AllowNoExpiry accepts tokens that do not tell when they expire.
	AllowNoExpiry bool
	// ScopesSupported are advertised by the authorization server besides those
	// of the resources.
	ScopesSupported []string
	// ForwardsRegistration tells that each registration costs the identity
	// provider something, which tightens its rate limit.
	ForwardsRegistration bool
	// NeedsKeys tells that the key ring has to open at start.
	NeedsKeys bool
	// NeedsStore tells that the store has to open at start.
	NeedsStore bool
	// LiveVerifier also checks the tokens of this issuer for other sites of this
	// Caddy, and sees revocation at once; nil if the issuer is another server.
	LiveVerifier bearer.Verifier
	// UpstreamToken is for `forward upstream_token`; nil if there are no such
	// tokens.
	UpstreamToken UpstreamToken
	// upstreamTokenFor is whose tokens those are, and for what.
	upstreamTokenFor upstreamTokenFor
	// signedIn makes the handler of a page for users who are signed in, see
	// proxyprovider.Broker.SignedIn; nil if users do not sign in here.
	signedIn func(func(w http.ResponseWriter, r *http.Request, subject string)) http.Handler
	// endpointPrefix is the path of Endpoints and of our own; "" for the default.
	endpointPrefix string
	// control is for the admin API; nil if there is nothing to control.
	control *control
	// Start are begun, in the background, when the configuration starts.
	Start []func()
	// Run run as long as the configuration does.
	Run []func(ctx context.Context)
}

// ProxyMode lets the identity provider issue the tokens and relays authorize,
// token, revoke and register to it, as the SDK's ProxyOAuthServerProvider does.
// It suits identity providers that issue tokens for this very resource.
//
// Every MCP client is a client of its own at the identity provider: one that
// the operator registered under the same id at both, or one that registered
// through this server.
type ProxyMode struct {
	// Issuer is the identity provider's issuer; its endpoints are discovered.
	Issuer string `json:"issuer,omitempty"`

	// The endpoints one by one; each wins over what is discovered.
	AuthorizationURL string `json:"authorization_url,omitempty"`
	TokenURL         string `json:"token_url,omitempty"`
	RevocationURL    string `json:"revocation_url,omitempty"`
	RegistrationURL  string `json:"registration_url,omitempty"`

	// ClientAuth is how clients with a secret are authenticated at the identity
	// provider: basic, post or none. Default: as each client registered, post
	// for those that the operator registered.
	ClientAuth string `json:"client_auth,omitempty"`

	// Callback is where the identity provider sends its answers. With `direct`, to
	// the client's redirect URI, with the provider's iss parameter if it sends one,
	// which strict clients refuse. With `relay`, to this server, which asks the user
	// for consent first and hands the answer on with its own iss. Then
	// <base URL>/mcp-auth/callback is what the identity provider must know as the
	// redirect URI of every client: clients that register through this server get
	// it by themselves, for those that the operator registers it has to be
	// registered by hand.
	//
	// Default: relay if the provider's metadata announces iss
	// (authorization_response_iss_parameter_supported), else direct. Clients that
	// register themselves keep what held when they did.
	Callback string `json:"callback,omitempty"`

	// Consent is about the consent page of callback relay. It is never remembered:
	// who signed in is not known here, so that an earlier consent may be somebody
	// else's.
	Consent *Consent `json:"consent,omitempty"`

	// EndpointPrefix is the path of the callback and the consent page of callback
	// relay. Default: /mcp-auth.
	EndpointPrefix string `json:"endpoint_prefix,omitempty"`

	// Audience is what the `aud` of the tokens must hold, one of these. Required:
	// an identity provider issues tokens for many services, and without an
	// audience any of them would open this one. `any` skips the check.
	Audience []string `json:"audience,omitempty"`

	// Scopes are advertised by the authorization server besides those of the
	// resources, for example offline_access.
	Scopes []string `json:"scopes,omitempty"`

	// OmitResource keeps the resource parameter (RFC 8707) from the identity
	// provider. Entra ID, for one, refuses requests that have it.
	OmitResource bool `json:"omit_resource,omitempty"`

	// DropScopes are scopes that the identity provider refuses and is therefore
	// not asked for. offline_access is among them by itself if the provider's
	// metadata does not list it.
	DropScopes []string `json:"drop_scopes,omitempty"`

	// VerifyRaw checks the tokens. Default: jwt with the issuer's keys.
	VerifyRaw json.RawMessage `json:"verify,omitempty" caddy:"namespace=mcp_auth.verifiers inline_key=type"`

	resolved *ProxyMode
	verifier VerifierModule
}

// CaddyModule returns the Caddy module information.
func (ProxyMode) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.providers.proxy", New: func() caddy.Module { return new(ProxyMode) }}
}

// Provision resolves placeholders and loads the verifier.
func (m *ProxyMode) Provision(ctx caddy.Context) (err error) {
	if m.resolved, err = resolved(m); err != nil {
		return err
	}
	if err := m.resolved.check(); err != nil {
		return err
	}
	m.verifier, err = loadVerifier(ctx, m, m.VerifyRaw)
	return err
}

// check holds the rules that need nothing but the settings themselves.
func (m *ProxyMode) check() error {
	if m.Issuer == "" && (m.AuthorizationURL == "" || m.TokenURL == "") {
		return fmt.Errorf("proxy: name the identity provider's issuer, or its authorization_url and token_url")
	}
	switch m.Callback {
	case "", "direct", "relay":
	default:
		return fmt.Errorf("proxy: callback %q is unknown; there are direct and relay", m.Callback)
	}
	if m.Consent != nil && m.Consent.Remember != 0 {
		return fmt.Errorf("proxy: consent is never remembered here, since who signs in is known to the client alone; drop remember")
	}
	switch m.ClientAuth {
	case "", "basic", "post", "none":
	default:
		return fmt.Errorf("proxy: client_auth %q is unknown; there are basic, post and none", m.ClientAuth)
	}
	if len(m.Audience) == 0 {
		return fmt.Errorf("proxy: the audience of the identity provider's tokens is not checked: without that, a token issued for any other service opens this one. Write `audience` and what the tokens carry in aud, usually the resource's URL, or `audience any` if you know that nobody else's tokens come from there")
	}
	if slices.Contains(m.Audience, "any") && len(m.Audience) > 1 {
		return fmt.Errorf("proxy: audience any stands alone")
	}
	if m.VerifyRaw == nil && m.Issuer == "" {
		return fmt.Errorf("proxy: without an issuer, say how tokens are checked: verify jwt with a jwks_uri, or verify introspection")
	}
	return checkScopes("scopes", m.Scopes)
}

// NewMode implements ModeModule.
func (m *ProxyMode) NewMode(env ModeEnv) (*Mode, error) {
	if err := env.refuseBrokerSettings("proxy"); err != nil {
		return nil, err
	}
	r := m.resolved
	if r.Issuer == env.Issuer {
		return nil, fmt.Errorf("proxy: %s is this site's own issuer: name the identity provider's", env.Issuer)
	}
	mode := &Mode{ScopesSupported: r.Scopes, NeedsKeys: true, endpointPrefix: r.EndpointPrefix}
	if slices.Equal(r.Audience, []string{"any"}) {
		mode.AnyAudience = true
		env.Logger.Warn("proxy: the audience of tokens is not checked (audience any): every token of the identity provider, also one issued for another service, is accepted here", "issuer", env.Issuer)
	} else {
		mode.Audiences = r.Audience
	}
	discovery, verifier, err := env.verifier(r.Issuer, m.verifier, mode)
	if err != nil {
		return nil, err
	}
	mode.Verifier = verifier
	var consent proxyprovider.ConsentConfig
	if c := r.Consent; c != nil {
		consent = proxyprovider.ConsentConfig{Skip: c.Skip, Title: c.Title, LogoURL: c.Logo, Color: c.Color}
	}
	register := env.Dynamic && (r.RegistrationURL != "" || r.Issuer != "")
	provider, err := proxyprovider.NewProxy(proxyprovider.ProxyConfig{
		Issuer:                env.Issuer,
		UpstreamIssuer:        r.Issuer,
		Discovery:             discovery,
		AuthorizationURL:      r.AuthorizationURL,
		TokenURL:              r.TokenURL,
		RevocationURL:         r.RevocationURL,
		RegistrationURL:       r.RegistrationURL,
		Register:              &register,
		ClientAuth:            r.ClientAuth,
		Callback:              r.Callback,
		BaseURL:               env.BaseURL,
		EndpointPrefix:        r.EndpointPrefix,
		Consent:               consent,
		Resources:             env.Resources,
		ResourceNames:         env.ResourceNames,
		ScopeDescriptions:     env.ScopeDescriptions,
		ClientIP:              clientIP,
		Clients:               env.Clients,
		Verifier:              verifier,
		Keys:                  env.Keys,
		RedirectPolicy:        env.RedirectPolicy,
		Logger:                env.Logger,
		AllowInsecureUpstream: env.InsecureDev,
		OmitResource:          r.OmitResource,
		DropScopes:            r.DropScopes,
		DefaultScopes:         env.DefaultScopes,
		RegistrationScopes:    env.allScopes(r.Scopes),
	})
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	mode.Provider = provider
	if mode.Endpoints = provider.Endpoints(); mode.Endpoints != nil {
		mode.StripCookies = provider.StripCookies
	}
	mode.Run = append(mode.Run, provider.Run)
	mode.ForwardsRegistration = register
	return mode, nil
}

// allScopes returns the scopes that any resource can grant, and more.
func (e *ModeEnv) allScopes(more []string) []string {
	scopes := slices.Clone(more)
	for _, resource := range e.Resources.All() {
		scopes = append(scopes, e.GrantableScopes(resource)...)
	}
	slices.Sort(scopes)
	return slices.Compact(scopes)
}

// ResourceServerMode leaves everything to an external authorization server.
// This site serves the metadata of its resources, repeats the external server's
// metadata for clients that look for it here, and checks tokens: the SDK's
// mcpAuthMetadataRouter and requireBearerAuth.
type ResourceServerMode struct {
	// AuthorizationServer is the issuer of the external server.
	AuthorizationServer string `json:"authorization_server"`

	// Audience is what the `aud` of the tokens must hold, one of these. Default:
	// the resource's identifier. `any` skips the check.
	Audience []string `json:"audience,omitempty"`

	// VerifyRaw checks the tokens. Default: jwt with the issuer's keys.
	VerifyRaw json.RawMessage `json:"verify,omitempty" caddy:"namespace=mcp_auth.verifiers inline_key=type"`

	resolved *ResourceServerMode
	verifier VerifierModule
}

// CaddyModule returns the Caddy module information.
func (ResourceServerMode) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.providers.resource_server", New: func() caddy.Module { return new(ResourceServerMode) }}
}

// Provision resolves placeholders and loads the verifier.
func (m *ResourceServerMode) Provision(ctx caddy.Context) (err error) {
	if m.resolved, err = resolved(m); err != nil {
		return err
	}
	if err := m.resolved.check(); err != nil {
		return err
	}
	m.verifier, err = loadVerifier(ctx, m, m.VerifyRaw)
	return err
}

func (m *ResourceServerMode) check() error {
	if m.AuthorizationServer == "" {
		return fmt.Errorf("authorization_server: write the issuer of the authorization server")
	}
	if slices.Contains(m.Audience, "any") && len(m.Audience) > 1 {
		return fmt.Errorf("authorization_server: audience any stands alone")
	}
	return nil
}

// NewMode implements ModeModule.
func (m *ResourceServerMode) NewMode(env ModeEnv) (*Mode, error) {
	r := m.resolved
	if err := oauth.CheckIssuer(r.AuthorizationServer, env.InsecureDev); err != nil {
		return nil, fmt.Errorf("authorization_server: %w", err)
	}
	mode := &Mode{AuthorizationServers: []string{r.AuthorizationServer}}
	if slices.Equal(r.Audience, []string{"any"}) {
		mode.AnyAudience = true
		env.Logger.Warn("authorization_server: the audience of tokens is not checked (audience any): every token of the authorization server, also one issued for another service, is accepted here", "issuer", env.Issuer)
	} else {
		mode.Audiences = r.Audience
	}
	discovery, verifier, err := env.verifier(r.AuthorizationServer, m.verifier, mode)
	if err != nil {
		return nil, err
	}
	mode.Verifier = verifier
	// A site cannot repeat its own metadata.
	if !strings.EqualFold(strings.TrimSuffix(r.AuthorizationServer, "/"), strings.TrimSuffix(env.Issuer, "/")) {
		mode.Mirror = discovery
	}
	return mode, nil
}

// refuseBrokerSettings finds settings that mean something only where this server
// issues the tokens.
func (env ModeEnv) refuseBrokerSettings(mode string) error {
	r := env.Registration
	switch {
	case len(env.Introspectors) > 0:
		return fmt.Errorf("client %s: introspect belongs to upstream and accounts; with %s another server issues the tokens", env.Introspectors[0].ID, mode)
	case r == nil:
		return nil
	case r.MetadataDocumentsOff, len(r.DocumentHosts) > 0, len(r.PrivateDocumentOrigins) > 0, r.SecretExpiry != 0:
		return fmt.Errorf("registration: metadata_documents, document_hosts, private_document_origins and secret_expiry belong to upstream and accounts; with %s another server knows the clients", mode)
	}
	return nil
}

// verifier returns the discovery of issuer, nil if that is "", and the verifier
// that the module describes, the JWT one by default, with the cache in front of
// it. What they load in the
// background is added to the mode.
func (env ModeEnv) verifier(issuer string, module VerifierModule, mode *Mode) (*bearer.Discovery, bearer.Verifier, error) {
	venv := VerifierEnv{Issuer: issuer, Resources: env.Guarded}
	for _, c := range env.Clients {
		venv.ClientIDs = append(venv.ClientIDs, c.ClientID)
	}
	if issuer != "" {
		discovery, p, err := env.app.discovery(issuer)
		if err != nil {
			return nil, nil, err
		}
		venv.Discovery = discovery
		mode.Start = append(mode.Start, p.start)
	}
	chain, identity, err := env.chain(module, venv, nil, mode)
	if err != nil {
		return nil, nil, err
	}
	verifier := chain[0]
	if len(chain) > 1 {
		verifier = bearer.Chain(chain...)
	}
	verifier, err = env.app.remember(verifier, identity)
	return venv.Discovery, verifier, err
}

// loadVerifier loads the guest module in host's field VerifyRaw, nil if there
// is none.
func loadVerifier(ctx caddy.Context, host any, raw json.RawMessage) (VerifierModule, error) {
	if raw == nil {
		return nil, nil
	}
	module, err := ctx.LoadModule(host, "VerifyRaw")
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	verifier, ok := module.(VerifierModule)
	if !ok {
		return nil, fmt.Errorf("verify: module %T is no verifier", module)
	}
	return verifier, nil
}

// Interface guards
var (
	_ ModeModule        = (*ProxyMode)(nil)
	_ ModeModule        = (*ResourceServerMode)(nil)
	_ caddy.Provisioner = (*ProxyMode)(nil)
	_ caddy.Provisioner = (*ResourceServerMode)(nil)
)
