package mcpauth

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// site is what a handler serves: the endpoints of an authorization server,
// metadata, and the guard of the resources.
type site struct {
	// issuer names the site in messages.
	issuer string
	// server is nil where this site is no authorization server.
	server *authserver.Server
	// absent are endpoints that this server does not offer: they are 404 here,
	// and do not reach whatever is behind.
	absent map[string]bool
	// mirror holds, by path, the metadata of an external authorization server.
	mirror map[string]http.Handler
	guard  *bearer.Guard
	// forwards holds, by resource identifier, what the server behind learns.
	forwards map[string]forwarding
	// upstreamToken is that of the mode.
	upstreamToken UpstreamToken
	// upstreamTokenFor is whose tokens those are, and for what.
	upstreamTokenFor upstreamTokenFor
	// callers tells that something behind the guard wants to know the caller.
	callers *atomic.Bool
	// base is the base URL, and prefix the path of further endpoints below it.
	base, prefix string
	// signedIn is that of the mode.
	signedIn func(func(w http.ResponseWriter, r *http.Request, subject string)) http.Handler
	// extra are endpoints of the mode, by path.
	extra map[string]http.Handler
	// secretive are the endpoints whose URLs and redirects no log may show.
	secretive map[string]bool
	// stripCookies removes our cookies from what is passed on; nil if there are
	// none.
	stripCookies func(*http.Request)
	// control is for the admin API; nil if there is nothing to control.
	control *control
	// live checks the tokens of this issuer for other sites; nil if it cannot.
	live bearer.Verifier
	// probes are the resources' metadata URLs on this site's origin.
	probes []string

	needsKeys  bool
	needsStore bool
	start      []func()
	run        []func(context.Context)
}

// endpoint returns what answers at path, nil if it is none of ours.
func (s *site) endpoint(path string) http.Handler {
	if s.server != nil {
		if h := s.server.Endpoint(path); h != nil {
			return h
		}
	}
	if h, ok := s.extra[path]; ok {
		return h
	}
	if s.absent[path] {
		return http.HandlerFunc(notOffered)
	}
	if h, ok := s.mirror[strings.TrimSuffix(path, "/")]; ok {
		return h
	}
	return s.guard.Metadata(path)
}

func notOffered(w http.ResponseWriter, r *http.Request) {
	writeJSONError(w, r, oauth.NewError("not_found", "This authorization server does not offer this endpoint").WithStatus(http.StatusNotFound))
}

// siteConfig is the resolved configuration of a site.
type siteConfig struct {
	issuer string
	base   string
	// vouches is iss of assertions, if that is not the issuer.
	vouches string
	// everywhere guards all paths: what belongs to the resource is decided before.
	everywhere           bool
	insecureDev          bool
	resources            []*Resource
	clients              []*Client
	registration         *Registration
	rateLimits           *RateLimits
	serviceDocumentation string
	logger               *slog.Logger
}

// plan is what the resources of a site come to.
type plan struct {
	guarded []bearer.Resource
	// identifiers are all resources that tokens can be asked for.
	identifiers  []string
	defaultIndex int
	paths        []string
	scopes       []string
	// forwards are by identifier, nil for the default.
	forwards map[string]*Forward
	// grantable are, by identifier, the scopes that mean something to a resource.
	grantable map[string][]string
	names     map[string]string
	// documentation is that of the site, for resources without their own.
	documentation   string
	descriptions    map[string]string
	forwardedClaims []string
}

// planResources turns the settings of the resources into the guard's. Without
// any, the whole site is guarded and its identifier is <origin>/mcp, where MCP
// servers usually are.
func (c *siteConfig) planResources() (*plan, error) {
	origin, err := oauth.Origin(c.base)
	if err != nil {
		return nil, fmt.Errorf("base_url %s: %w", c.base, err)
	}
	p := &plan{
		defaultIndex:  -1,
		documentation: c.serviceDocumentation,
		forwards:      make(map[string]*Forward),
		grantable:     make(map[string][]string),
		names:         make(map[string]string),
		descriptions:  make(map[string]string),
	}
	resources := c.resources
	if len(resources) == 0 {
		p.paths = append(p.paths, "/mcp")
		return p, p.add(bearer.Resource{Identifier: origin + "/mcp", Path: "/"}, &Resource{})
	}
	for _, r := range resources {
		path, identifier := r.Path, r.URL
		if identifier != "" {
			u, err := url.Parse(identifier)
			if err != nil {
				return nil, fmt.Errorf("resource %s: %w", identifier, err)
			}
			if o, err := oauth.Origin(identifier); err != nil || o != origin {
				if err != nil {
					return nil, fmt.Errorf("resource %s: %w", identifier, err)
				}
				if r.Forward.kind() == "upstream_token" {
					return nil, fmt.Errorf("resource %s: forward upstream_token is for resources of this site; the server that guards this one has no such token", identifier)
				}
				p.foreign(identifier, r)
				continue
			}
			path = u.Path
		}
		if path == "" || c.everywhere {
			path = "/"
		}
		if identifier == "" {
			identifier = origin + strings.TrimSuffix(path, "/")
		}
		if err := p.add(bearer.Resource{Identifier: identifier, Path: path}, r); err != nil {
			return nil, err
		}
		if path != "/" {
			p.paths = append(p.paths, path)
		}
	}
	if len(p.guarded) == 0 {
		return nil, fmt.Errorf("every resource is on another host than %s, so this site guards nothing; add one of its own", origin)
	}
	return p, nil
}

func (p *plan) guardedIdentifiers() []string {
	identifiers := make([]string, 0, len(p.guarded))
	for _, g := range p.guarded {
		identifiers = append(identifiers, g.Identifier)
	}
	slices.Sort(identifiers)
	return identifiers
}

func (p *plan) foreign(identifier string, r *Resource) {
	if r.Default {
		p.defaultIndex = len(p.identifiers)
	}
	p.identifiers = append(p.identifiers, identifier)
	p.addScopes(r.Scopes)
	p.grantable[identifier] = r.grantableScopes()
	if r.Name != "" {
		p.names[identifier] = r.Name
	}
	maps.Copy(p.descriptions, r.ScopeDescriptions)
	claims := r.claims()
	if r.Forward != nil {
		claims = append(claims, r.Forward.Fields...)
	}
	for _, claim := range claims {
		if !slices.Contains(p.forwardedClaims, claim) {
			p.forwardedClaims = append(p.forwardedClaims, claim)
		}
	}
}

func (p *plan) add(g bearer.Resource, r *Resource) (err error) {
	p.foreign(g.Identifier, r)
	g.Name = r.Name
	g.Documentation = cmp.Or(r.Documentation, p.documentation)
	g.Scopes = r.Scopes
	g.Require = r.Require
	g.Implies = r.Implies
	g.Origins = r.Origins
	g.Default = r.Default
	g.SessionBindingOff = r.SessionBindingOff
	g.StreamGrace = timeDuration(r.StreamGrace)
	g.FilterLists = r.FilterLists
	for _, rule := range r.Paths {
		g.Paths = append(g.Paths, bearer.PathRule{Pattern: rule.Path, Scopes: rule.Scopes})
	}
	if g.Policy, err = r.library(); err != nil {
		return fmt.Errorf("resource %s: %w", g.Identifier, err)
	}
	p.guarded = append(p.guarded, g)
	p.forwards[g.Identifier] = r.Forward
	return nil
}

// neededScopes returns a function that tells the scopes that every request to a
// resource needs, for a client that asks for none.
func (p *plan) neededScopes(resources *oauth.ResourceSet) func(resource string) []string {
	return func(resource string) []string {
		identifier, err := resources.Resolve(resource)
		if err != nil {
			return nil
		}
		for _, g := range p.guarded {
			if g.Identifier == identifier {
				if g.Require != nil {
					return g.Require
				}
				return g.Scopes
			}
		}
		return nil
	}
}

// grantableScopes returns a function that tells all scopes that mean something
// to a resource: more than it advertises, so that clients start small and step
// up.
func (p *plan) grantableScopes(resources *oauth.ResourceSet) func(resource string) []string {
	return func(resource string) []string {
		identifier, err := resources.Resolve(resource)
		if err != nil {
			return nil
		}
		return p.grantable[identifier]
	}
}

// grantableScopes are the scopes that one of the resource's settings names.
func (r *Resource) grantableScopes() []string {
	scopes := slices.Concat(r.Scopes, r.Require)
	for broad, narrow := range r.Implies {
		scopes = append(append(scopes, broad), narrow...)
	}
	for _, path := range r.Paths {
		scopes = append(scopes, path.Scopes...)
	}
	scopes = append(scopes, r.grantable()...)
	slices.Sort(scopes)
	return slices.Compact(scopes)
}

func (p *plan) addScopes(scopes []string) {
	for _, scope := range scopes {
		if !slices.Contains(p.scopes, scope) {
			p.scopes = append(p.scopes, scope)
		}
	}
}

// newSite builds a site around the mode that newMode returns. It opens nothing.
func (c *siteConfig) newSite(app *App, newMode func(ModeEnv) (*Mode, error)) (*site, error) {
	p, err := c.planResources()
	if err != nil {
		return nil, err
	}
	resources, err := oauth.NewResourceSet(p.identifiers, p.defaultIndex)
	if err != nil {
		return nil, err
	}
	mode, err := newMode(ModeEnv{
		Issuer:            c.issuer,
		BaseURL:           c.base,
		InsecureDev:       c.insecureDev,
		Resources:         resources,
		DefaultScopes:     p.neededScopes(resources),
		GrantableScopes:   p.grantableScopes(resources),
		ResourceNames:     p.names,
		ScopeDescriptions: p.descriptions,
		ForwardedClaims:   p.forwardedClaims,
		Guarded:           p.guardedIdentifiers(),
		Clients:           c.oauthClients(),
		Introspectors:     c.introspectors(),
		Registration:      c.registration,
		Dynamic:           c.registration == nil || !c.registration.DynamicOff,
		RedirectPolicy:    c.registration.policy(),
		Keys:              app.keys,
		Logger:            c.logger,
		app:               app,
	})
	if err != nil {
		return nil, err
	}
	s := &site{
		issuer: c.issuer, needsKeys: mode.NeedsKeys, needsStore: mode.NeedsStore, start: mode.Start,
		run: mode.Run, callers: &app.callers, upstreamTokenFor: mode.upstreamTokenFor,
		base: c.base, prefix: cmp.Or(mode.endpointPrefix, defaultEndpointPrefix), signedIn: mode.signedIn, stripCookies: mode.StripCookies, live: mode.LiveVerifier, control: mode.control,
	}
	if mode.Provider != nil {
		if err := c.addServer(s, p, resources, mode); err != nil {
			return nil, err
		}
	}
	if mode.Mirror != nil {
		paths := append([]string{""}, p.paths...)
		for _, own := range []string{c.issuer, c.base} {
			u, err := url.Parse(own)
			if err != nil {
				return nil, err
			}
			paths = append(paths, strings.TrimSuffix(u.Path, "/"))
		}
		s.mirror = mirrorPaths(mode.Mirror, paths)
	}
	if err := c.addForwards(s, p, app, mode); err != nil {
		return nil, err
	}
	if err := c.addGuard(s, p, app, mode); err != nil {
		return nil, err
	}
	return s, nil
}

func (c *siteConfig) oauthClients() []oauth.Client {
	var clients []oauth.Client
	for _, configured := range c.clients {
		if configured.Introspect != "" {
			continue
		}
		client := oauth.Client{
			ClientMetadata: oauth.ClientMetadata{
				RedirectURIs: configured.RedirectURIs,
				ClientName:   configured.Name,
				Scope:        oauth.JoinScope(configured.Scopes),
			},
			ClientInformation: oauth.ClientInformation{ClientID: configured.ID, ClientSecret: configured.Secret},
		}
		if configured.Secret == "" {
			client.TokenEndpointAuthMethod = oauth.AuthMethodNone
		}
		clients = append(clients, client)
	}
	return clients
}

// introspectors are the clients that are resource servers elsewhere.
func (c *siteConfig) introspectors() []*Client {
	var found []*Client
	for _, client := range c.clients {
		if client.Introspect != "" {
			found = append(found, client)
		}
	}
	return found
}

func (c *siteConfig) addServer(s *site, p *plan, resources *oauth.ResourceSet, mode *Mode) error {
	static := make(map[string]bool, len(c.clients))
	for _, client := range c.clients {
		static[client.ID] = true
	}
	cfg := authserver.Config{
		Issuer:               c.issuer,
		BaseURL:              c.base,
		InsecureIssuer:       c.insecureDev,
		Provider:             mode.Provider,
		ServiceDocumentation: c.serviceDocumentation,
		ScopesSupported:      slices.Concat(p.scopes, mode.ScopesSupported),
		Resources:            resources,
		ResourcePaths:        p.paths,
		RedirectPolicy:       c.registration.policy(),
		RateLimits:           c.rateLimits.library(mode.ForwardsRegistration),
		HardLimitClient:      func(client *oauth.Client) bool { return static[client.ClientID] },
		ClientIP:             clientIP,
		Logger:               c.logger,
	}
	if c.registration != nil {
		cfg.InitialAccessToken = c.registration.InitialAccessToken
	}
	server, err := authserver.New(cfg)
	if err != nil {
		return err
	}
	s.server = server
	base, err := url.Parse(c.base)
	if err != nil {
		return err
	}
	basePath := strings.TrimSuffix(base.Path, "/")
	s.secretive = map[string]bool{basePath + "/authorize": true}
	s.extra = make(map[string]http.Handler, len(mode.Endpoints))
	for path, handler := range mode.Endpoints {
		s.extra[basePath+path] = handler
		s.secretive[basePath+path] = true
	}
	s.absent = make(map[string]bool)
	for _, endpoint := range []string{"/register", "/revoke", "/.well-known/jwks.json"} {
		if server.Endpoint(basePath+endpoint) == nil && s.extra[basePath+endpoint] == nil {
			s.absent[basePath+endpoint] = true
		}
	}
	for _, resource := range p.guarded {
		if resource.Path != "/" && (server.Endpoint(resource.Path) != nil || s.extra[resource.Path] != nil) {
			return fmt.Errorf("resource %s is an endpoint of the authorization server; move the MCP server to another path, or give mcp_auth a base_url with a path", resource.Path)
		}
	}
	return nil
}

func (c *siteConfig) addGuard(s *site, p *plan, app *App, mode *Mode) error {
	sessionKey, err := c.sessionKey(app, mode)
	if err != nil {
		return err
	}
	servers := mode.AuthorizationServers
	if servers == nil {
		servers = []string{c.issuer}
	}
	for i := range p.guarded {
		p.guarded[i].Audiences = mode.Audiences
		p.guarded[i].AnyAudience = mode.AnyAudience
		metadataURL, err := oauth.ProtectedResourceMetadataURL(p.guarded[i].Identifier)
		if err != nil {
			return err
		}
		if !c.everywhere {
			s.probes = append(s.probes, metadataURL)
		}
	}
	guard, err := bearer.NewGuard(bearer.GuardConfig{
		Resources:            p.guarded,
		AuthorizationServers: servers,
		Verifier:             mode.Verifier,
		AllowNoExpiry:        mode.AllowNoExpiry,
		SessionKey:           sessionKey,
		Logger:               c.logger,
	})
	if err != nil {
		return err
	}
	s.guard = guard
	return nil
}

// library returns the limits for the authserver package. Registration that the
// identity provider has to store is scarcer than one that only costs CPU.
func (l *RateLimits) library(forwardsRegistration bool) authserver.RateLimits {
	var limits authserver.RateLimits
	if forwardsRegistration {
		limits.Register = &authserver.RateLimit{Count: 60, Window: time.Hour}
	}
	if l == nil {
		return limits
	}
	limits.Off = l.Off
	for _, pair := range []struct {
		from *RateLimit
		to   **authserver.RateLimit
	}{{l.Authorize, &limits.Authorize}, {l.Token, &limits.Token}, {l.Register, &limits.Register}, {l.Revoke, &limits.Revoke}} {
		if pair.from != nil {
			*pair.to = &authserver.RateLimit{Count: pair.from.Count, Window: timeDuration(pair.from.Window), Off: pair.from.Count == 0}
		}
	}
	return limits
}

func timeDuration(d caddy.Duration) time.Duration { return time.Duration(d) }
