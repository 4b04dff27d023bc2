package mcpauth

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/store"
)

func init() {
	caddy.RegisterModule(BrokerMode{})
}

// BrokerMode has people sign in at an identity provider, or with local
// accounts, and issues tokens of its own, each for one resource. It works with
// any identity provider, also those without dynamic registration, resource
// indicators or JWTs, and what the provider issues never leaves this server.
type BrokerMode struct {
	// UpstreamRaw is where people sign in.
	UpstreamRaw json.RawMessage `json:"upstream" caddy:"namespace=mcp_auth.upstreams inline_key=type"`

	// Allow says who may have access: whoever one of the rules fits. Required for
	// providers where everybody can have an account.
	Allow []*AllowRule `json:"allow,omitempty"`

	// Consent is about the page on which people allow a client in.
	Consent *Consent `json:"consent,omitempty"`

	// Tokens is about what this server issues.
	Tokens *Tokens `json:"tokens,omitempty"`

	// EndpointPrefix is the path of the pages for browsers. Default: /mcp-auth.
	EndpointPrefix string `json:"endpoint_prefix,omitempty"`

	// VerifyRaw checks tokens that are not of this server, besides its own: API
	// keys, for example. A token that it recognises is its own to decide.
	VerifyRaw json.RawMessage `json:"verify,omitempty" caddy:"namespace=mcp_auth.verifiers inline_key=type"`

	resolved *BrokerMode
	verifier VerifierModule
	upstream UpstreamModule
	accounts *AccountsUpstream
}

// AllowRule lets people in. Exactly one field is set.
type AllowRule struct {
	// Any lets in everybody whom the identity provider signs in.
	Any bool `json:"any,omitempty"`
	// Email is an address, or *@domain. Only an address that the provider vouches
	// for counts.
	Email string `json:"email,omitempty"`
	// Group is a group's name; for GitHub an organization, or organization/team.
	Group string `json:"group,omitempty"`
	// Subject is the provider's id of the user.
	Subject string `json:"subject,omitempty"`
	// Org is a GitHub organization.
	Org string `json:"org,omitempty"`
	// HostedDomain is a Google Workspace domain.
	HostedDomain string `json:"hosted_domain,omitempty"`
}

// Consent is about the page on which people allow a client in.
type Consent struct {
	// Remember is how long a browser remembers it. Default: 90d; negative: not.
	Remember caddy.Duration `json:"remember,omitempty"`
	// Skip are ids of clients that need no consent: registered by the operator, or
	// URLs of metadata documents.
	Skip []string `json:"skip,omitempty"`
	// Title is the name on all pages. Default: none.
	Title string `json:"title,omitempty"`
	// Logo is the path of an image on this site.
	Logo string `json:"logo,omitempty"`
	// Color of the main button, rrggbb or rgb in hexadecimal digits.
	Color string `json:"color,omitempty"`
}

// Tokens is about what this server issues.
type Tokens struct {
	// AccessTTL is the life of access tokens. Default: 15m.
	AccessTTL caddy.Duration `json:"access_ttl,omitempty"`
	// RefreshTTL is how long a client stays signed in at most. Default: 30d.
	RefreshTTL caddy.Duration `json:"refresh_ttl,omitempty"`
	// RefreshIdle is how long it stays so without a refresh. Default: 14d.
	RefreshIdle caddy.Duration `json:"refresh_idle,omitempty"`
	// Grace is how long a refresh token that was just used gives the same answer
	// again, for clients that lost it. Default: 30s; negative: not.
	Grace caddy.Duration `json:"grace,omitempty"`
	// SigningAlg is ES256 (default), EdDSA or RS256.
	SigningAlg string `json:"signing_alg,omitempty"`
	// RotateKeys is how long a signing key is used. Default: 90d.
	RotateKeys caddy.Duration `json:"rotate_keys,omitempty"`
	// UpstreamCheck is how often, at a refresh, the identity provider is asked
	// again whether the user may go on, up to 30d. Default: 1h; negative: each time.
	UpstreamCheck caddy.Duration `json:"upstream_check,omitempty"`
	// Claims are put into access tokens besides the usual: email, name, groups.
	Claims []string `json:"claims,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (BrokerMode) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.providers.broker", New: func() caddy.Module { return new(BrokerMode) }}
}

// Provision resolves placeholders and loads the upstream.
func (m *BrokerMode) Provision(ctx caddy.Context) (err error) {
	if m.resolved, err = resolved(m); err != nil {
		return err
	}
	if err := m.resolved.check(); err != nil {
		return err
	}
	if m.verifier, err = loadVerifier(ctx, m, m.VerifyRaw); err != nil {
		return err
	}
	if m.UpstreamRaw == nil {
		return errors.New("broker: say where people sign in: upstream or accounts")
	}
	module, err := ctx.LoadModule(m, "UpstreamRaw")
	if err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	switch module := module.(type) {
	case *AccountsUpstream:
		m.accounts, err = resolved(module)
	case UpstreamModule:
		m.upstream = module
	default:
		err = fmt.Errorf("upstream: module %T is no identity provider", module)
	}
	return err
}

func (m *BrokerMode) check() error {
	rules, err := m.rules()
	if err != nil {
		return err
	}
	return rules.Validate()
}

func (m *BrokerMode) rules() (idp.Rules, error) {
	var rules idp.Rules
	for _, rule := range m.Allow {
		if rule == nil {
			return nil, errors.New("allow: a rule is empty")
		}
		rules = append(rules, rule.idp())
	}
	return rules, nil
}

func (r *AllowRule) idp() idp.Rule {
	return idp.Rule{Any: r.Any, Email: r.Email, Group: r.Group, Subject: r.Subject, Org: r.Org, HostedDomain: r.HostedDomain}
}

// needsGroups tells whether the groups of users matter.
func (m *BrokerMode) needsGroups(env ModeEnv) bool {
	return slices.ContainsFunc(m.Allow, func(r *AllowRule) bool { return r.Group != "" || r.Org != "" }) ||
		slices.Contains(m.claims(env), "groups")
}

// claims are those that access tokens carry: configured ones, and those that a
// resource forwards to the server behind it.
func (m *BrokerMode) claims(env ModeEnv) []string {
	var claims []string
	if m.Tokens != nil {
		claims = slices.Clone(m.Tokens.Claims)
	}
	for _, claim := range env.ForwardedClaims {
		if !slices.Contains(claims, claim) {
			claims = append(claims, claim)
		}
	}
	return claims
}

// NewMode implements ModeModule.
func (m *BrokerMode) NewMode(env ModeEnv) (*Mode, error) {
	rules, err := m.resolved.rules()
	if err != nil {
		return nil, err
	}
	mode := &Mode{
		NeedsKeys: true, NeedsStore: true, ScopesSupported: []string{"offline_access"}, endpointPrefix: m.resolved.EndpointPrefix,
	}
	broker := proxyprovider.BrokerConfig{
		Issuer:            env.Issuer,
		BaseURL:           env.BaseURL,
		EndpointPrefix:    m.resolved.EndpointPrefix,
		Allow:             rules,
		Keys:              env.Keys,
		Resources:         env.Resources,
		ResourceNames:     env.ResourceNames,
		ScopeDescriptions: env.ScopeDescriptions,
		GrantableScopes:   env.GrantableScopes,
		DefaultScopes:     env.DefaultScopes,
		ClientIP:          clientIP,
		Logger:            env.Logger,
	}
	if len(env.Introspectors) > 0 {
		broker.IntrospectionPath = m.introspectionPath()
	}
	if c := m.resolved.Consent; c != nil {
		broker.Consent = proxyprovider.ConsentConfig{
			Remember: timeDuration(c.Remember), Skip: c.Skip, Title: c.Title, LogoURL: c.Logo, Color: c.Color,
		}
	}
	grants := m.resolved.grantsConfig(env)
	if err := m.signIn(env, rules, mode, &broker, &grants); err != nil {
		return nil, err
	}
	if broker.Grants, err = proxyprovider.NewGrants(grants); err != nil {
		return nil, err
	}
	control := &control{
		store:      func() (store.Store, error) { return env.app.issuerStore(env.Issuer) },
		grants:     broker.Grants,
		userIssuer: env.Issuer,
	}
	if broker.Upstream != nil {
		control.userIssuer = broker.Upstream.Issuer()
	}
	clients, err := env.newClients(control)
	if err != nil {
		return nil, err
	}
	broker.ClientStore = clients
	control.clients = clients
	provider, err := proxyprovider.NewBroker(broker)
	if err != nil {
		return nil, err
	}
	mode.Provider = provider
	if err := m.verifiers(env, mode, provider); err != nil {
		return nil, err
	}
	mode.control = control
	if broker.Upstream != nil {
		mode.UpstreamToken = broker.Grants.UpstreamToken
		if mode.upstreamTokenFor, err = m.upstreamTokenFor(broker.Upstream.Issuer()); err != nil {
			return nil, err
		}
	}
	mode.StripCookies = provider.StripCookies
	mode.signedIn = provider.SignedIn
	mode.Endpoints = provider.Endpoints()
	mode.Run = append(mode.Run, broker.Grants.Run)
	mode.Endpoints[m.introspectionPath()] = broker.Grants.Introspect(env.authenticateIntrospection)
	return mode, nil
}

// verifiers sets those of the mode: the provider, which knows its own tokens, and
// behind it those for other tokens, which never see one of its own.
func (m *BrokerMode) verifiers(env ModeEnv, mode *Mode, provider *proxyprovider.Broker) (err error) {
	if mode.LiveVerifier, err = env.app.remember(provider, nil); err != nil {
		return err
	}
	mode.Verifier = mode.LiveVerifier
	if m.verifier == nil {
		return nil
	}
	venv := VerifierEnv{Resources: env.Guarded}
	for _, c := range env.Clients {
		venv.ClientIDs = append(venv.ClientIDs, c.ClientID)
	}
	chain, _, err := env.chain(m.verifier, venv, env.Guarded, mode)
	if err != nil {
		return err
	}
	own := bearer.OfIssuer(env.Issuer, provider)
	mode.Verifier, err = env.app.remember(bearer.Chain(append([]bearer.Verifier{own}, chain...)...), nil)
	return err
}

func (m *BrokerMode) introspectionPath() string {
	prefix := m.resolved.EndpointPrefix
	if prefix == "" {
		prefix = "/mcp-auth"
	}
	return prefix + "/introspect"
}

// grantsConfig is the part of the grants that does not depend on who signs
// people in.
func (m *BrokerMode) grantsConfig(env ModeEnv) proxyprovider.GrantsConfig {
	cfg := proxyprovider.GrantsConfig{
		Issuer: env.Issuer,
		Store:  func() (store.Store, error) { return env.app.issuerStore(env.Issuer) },
		Keys:   env.Keys,
		Claims: m.claims(env),
		Logger: env.Logger,
	}
	if t := m.Tokens; t != nil {
		cfg.AccessTTL = timeDuration(t.AccessTTL)
		cfg.RefreshTTL = timeDuration(t.RefreshTTL)
		cfg.RefreshIdle = timeDuration(t.RefreshIdle)
		cfg.Grace = timeDuration(t.Grace)
		cfg.RotateKeys = timeDuration(t.RotateKeys)
		cfg.UpstreamCheck = timeDuration(t.UpstreamCheck)
		cfg.SigningAlg = t.SigningAlg
	}
	return cfg
}

// signIn sets what depends on who signs people in. The upstream, and the local
// accounts with their throttle, are kept over a reload that does not change
// them.
func (m *BrokerMode) signIn(env ModeEnv, rules idp.Rules, mode *Mode, broker *proxyprovider.BrokerConfig, grants *proxyprovider.GrantsConfig) error {
	if m.accounts != nil {
		p, err := env.app.acquire("accounts", []any{env.Issuer, m.accounts}, func() (any, error) {
			return m.accounts.newAccounts(env.Issuer, pooledLogger("mcp_auth.accounts"))
		})
		if err != nil {
			return err
		}
		accounts := p.value.(*idp.Accounts)
		broker.Accounts = accounts
		grants.Refresh = func(_ context.Context, subject string) (*idp.Identity, error) {
			identity, ok := accounts.Lookup(subject)
			if !ok {
				return nil, idp.ErrDead
			}
			return identity, nil
		}
		grants.Allow = allowOr(rules)
		return nil
	}
	resolvedUpstream, err := resolvedModule(m.upstream)
	if err != nil {
		return err
	}
	groups := m.resolved.needsGroups(env)
	p, err := env.app.acquire("upstream", []any{fmt.Sprintf("%T", m.upstream), resolvedUpstream, groups, env.InsecureDev}, func() (any, error) {
		return m.upstream.NewUpstream(UpstreamEnv{Groups: groups, InsecureDev: env.InsecureDev, Logger: pooledLogger("mcp_auth.upstreams")})
	})
	if err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	upstream := p.value.(idp.Upstream)
	if upstream.Issuer() == env.Issuer {
		return fmt.Errorf("upstream: %s is this site's own issuer: name the identity provider that signs people in, or write accounts for users of this site's own", env.Issuer)
	}
	mode.Start = append(mode.Start, p.start)
	broker.Upstream = upstream
	grants.Upstream = upstream
	grants.Allow = allowOr(rules)
	if len(rules) == 0 && !idp.RequiresAllow(upstream) {
		env.Logger.Warn("everybody whom the identity provider signs in has access; write allow to say who, or allow any if that is meant", "issuer", env.Issuer, "identity_provider", upstream.Name())
	}
	return nil
}

// allowOr returns the rules as a function; no rules let everybody in.
func allowOr(rules idp.Rules) func(*idp.Identity) (bool, string) {
	if len(rules) == 0 {
		return nil
	}
	return rules.Allows
}

// resolvedModule returns the JSON of a guest module with its placeholders
// resolved, to tell one from another.
func resolvedModule(module any) (any, error) {
	data, err := json.Marshal(module)
	if err != nil {
		return nil, err
	}
	var members map[string]any
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, err
	}
	return resolveAny(members, caddy.NewReplacer())
}

func resolveAny(v any, repl *caddy.Replacer) (any, error) {
	var err error
	switch v := v.(type) {
	case string:
		return resolveString(v, repl)
	case []any:
		for i := range v {
			if v[i], err = resolveAny(v[i], repl); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for name := range v {
			if v[name], err = resolveAny(v[name], repl); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return v, nil
}

// newClients returns the clients of a site that issues tokens itself: those of
// the operator, metadata documents, and sealed registrations.
func (env ModeEnv) newClients(control *control) (authserver.ClientStore, error) {
	cfg := authserver.ClientsConfig{
		Issuer:        env.Issuer,
		Keys:          env.Keys,
		Preregistered: env.Clients,
		Dynamic:       env.Dynamic,
		Policy:        env.RedirectPolicy,
		Blocked:       control.blocked,
		SeenAssertion: control.seenAssertion,
		Logger:        env.Logger,
	}
	if r := env.Registration; r != nil {
		cfg.SecretExpiry = timeDuration(r.SecretExpiry)
	}
	var err error
	if cfg.Documents, err = env.documents(); err != nil {
		return nil, err
	}
	clients, err := authserver.NewClients(cfg)
	if err != nil {
		return nil, err
	}
	return clients.Store(), nil
}

// documents returns the metadata documents of clients, nil if they are turned
// off. What was fetched is kept over a reload: a client's vendor that is down
// just then locks nobody out.
func (env ModeEnv) documents() (*authserver.Documents, error) {
	cfg := authserver.DocumentsConfig{Policy: env.RedirectPolicy, Logger: pooledLogger("mcp_auth.clients")}
	if r := env.Registration; r != nil {
		if r.MetadataDocumentsOff {
			return nil, nil
		}
		cfg.Hosts, cfg.PrivateOrigins = r.DocumentHosts, r.PrivateDocumentOrigins
	}
	p, err := env.app.acquire("documents", []any{env.Issuer, cfg.Hosts, cfg.PrivateOrigins, cfg.Policy}, func() (any, error) {
		return authserver.NewDocuments(cfg)
	})
	if err != nil {
		return nil, err
	}
	return p.value.(*authserver.Documents), nil
}

// authenticateIntrospection tells which resource a caller of the introspection
// endpoint speaks for: a client of the operator's with `introspect`, known by
// HTTP Basic credentials, form-encoded or as they are (RFC 6749 §2.3.1).
func (env ModeEnv) authenticateIntrospection(r *http.Request) (resource string, ok bool) {
	id, secret, ok := r.BasicAuth()
	if !ok {
		return "", false
	}
	decodedID, err := url.QueryUnescape(id)
	if err != nil {
		decodedID = id
	}
	decodedSecret, err := url.QueryUnescape(secret)
	if err != nil {
		decodedSecret = secret
	}
	for _, c := range env.Introspectors {
		matches := subtle.ConstantTimeCompare([]byte(c.Secret), []byte(secret)) | subtle.ConstantTimeCompare([]byte(c.Secret), []byte(decodedSecret))
		if (c.ID == id || c.ID == decodedID) && matches == 1 {
			return c.Introspect, true
		}
	}
	return "", false
}

// Interface guards
var (
	_ ModeModule        = (*BrokerMode)(nil)
	_ caddy.Provisioner = (*BrokerMode)(nil)
)
