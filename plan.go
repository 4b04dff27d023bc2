package mcpauth

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

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
