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
	// app is that of the configuration of the site, and name the site's there.
	app  *App
	name string
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
	// connects are the pages on which users connect accounts at remote servers, by
	// path.
	connects map[string]*connectPage
	// secretive are the endpoints whose URLs and redirects no log may show.
	secretive map[string]bool
	// stripCookies removes our cookies from what is passed on; nil if there are
	// none.
	stripCookies func(*http.Request)
	// control is for the admin API; nil if there is nothing to control.
	control *control
	// live checks the tokens of this issuer for other sites; nil if it cannot.
	live bearer.Verifier
	// probes are what must reach this site.
	probes []probe

	// shared tells that there are other handlers of ours for the same host.
	shared atomic.Bool

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
	metadata := s.guard.Metadata(path)
	if metadata != nil && s.describedElsewhere(path) {
		return nil
	}
	return metadata
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
	c.warnOfDescriptions(p, mode)
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

// warnOfDescriptions tells of descriptions that nobody will read. In proxy mode the
// identity provider may have scopes that are not known here.
func (c *siteConfig) warnOfDescriptions(p *plan, mode *Mode) {
	if mode.Provider != nil && !mode.NeedsStore {
		return
	}
	known := slices.Concat(mode.ScopesSupported, []string{"openid", "profile", "email", "offline_access"}, slices.Concat(slices.Collect(maps.Values(p.grantable))...))
	for scope := range p.descriptions {
		if !slices.Contains(known, scope) {
			c.logger.Warn("a scope is described that no resource grants; is it spelled as in scopes?", "scope", scope, "issuer", c.issuer)
		}
	}
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
			s.probes = append(s.probes, probe{metadata: metadataURL, resource: p.guarded[i].Identifier})
		}
	}
	guard, err := bearer.NewGuard(bearer.GuardConfig{
		Resources:            p.guarded,
		AuthorizationServers: servers,
		Verifier:             mode.Verifier,
		AllowNoExpiry:        mode.AllowNoExpiry,
		SessionKey:           sessionKey,
		Successor:            s.successor,
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
