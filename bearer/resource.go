package bearer

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// offlineAccess is a scope of the authorization server only: it never appears
// in a challenge or in protected-resource metadata (SEP-2207).
const offlineAccess = "offline_access"

// Resource is a protected resource: an identifier that tokens are issued for,
// and the part of the site that needs such a token.
type Resource struct {
	// Identifier is the resource identifier (RFC 8707 §2), an absolute https or
	// http URL without query and fragment. It is published byte for byte.
	Identifier string
	// Path is the part of the site that is guarded: a path that begins with a
	// slash and guards itself and everything below it. "" and "/" guard the
	// whole site. It need not be the path of the identifier.
	Path string
	// Name and Documentation (a URL) describe the resource to people.
	Name          string
	Documentation string

	// Scopes are advertised to clients, which ask for all of them. offline_access
	// is left out.
	Scopes []string
	// Require are the scopes that every request needs. nil means Scopes; empty
	// but not nil means none.
	Require []string
	// Implies tells which narrower scopes a scope includes. It is transitive.
	Implies map[string][]string
	// Paths ask for more scopes on parts of the resource.
	Paths []PathRule
	// Policy is about the MCP calls to the resource.
	Policy Policy

	// Origins are the web origins whose pages may call the resource, besides
	// its own. nil means loopback origins with any port; empty but not nil
	// means no others.
	Origins []string
	// Audiences are accepted besides the identifier, in any spelling that
	// oauth.SameResource takes for equal.
	// Without them and with no other resource in the guard, the bare origin of
	// the identifier and URLs below the identifier are accepted too.
	Audiences []string
	// AnyAudience accepts tokens that were issued for anybody. It turns off
	// what keeps a token of another service out.
	AnyAudience bool

	// Default marks the resource whose metadata is served at the bare
	// well-known path.
	Default bool
	// AuthorizationServers, if set, replaces those of the GuardConfig.
	AuthorizationServers []string

	// SessionBindingOff leaves Mcp-Session-Id as it is. Whoever learns the session
	// id of another user can then go on with the session, unless the server looks
	// who asks.
	SessionBindingOff bool
	// StreamGrace is how long a request under way may outlive its token. A token
	// that is revoked ends it all the same.
	StreamGrace time.Duration
	// FilterLists leaves out of answers to tools/list, prompts/list,
	// resources/list and resources/templates/list what Decision.MayList denies.
	FilterLists bool
}

// PathRule asks for further scopes on a part of a resource. All rules that
// match add theirs.
type PathRule struct {
	// Pattern is a site path at or below the resource's. A "*" at its end
	// matches every path that begins with what is before it, as Caddy's path
	// matcher does. Case is ignored.
	Pattern string
	Scopes  []string
}

// guardedResource is a Resource, checked and made ready for requests.
type guardedResource struct {
	Resource
	// id names the resource among those of all guards that share a TokenCache, over
	// reloads, too. It is random, never 0.
	id uint64
	// lastRefusal is how a request was refused before. Most are refused alike.
	lastRefusal atomic.Pointer[renderedRefusal]
	path        string // lower-case, "/" for the whole site
	advertised  []string
	required    []string
	rules       []scopeRule
	policy      policy
	impliedBy   map[string][]string // narrower scope → all broader ones
	grantable   map[string]bool     // every scope that the configuration names
	metadataURL string
	origin      string
	origins     []string // canonical
	// alone, if the guard has no other resource, knows the further forms of the
	// identifier that can then mean nothing else.
	alone *oauth.ResourceSet
	// notAlone is set where those forms may mean the resource of another guard.
	notAlone atomic.Bool
}

type scopeRule struct {
	sitePattern
	scopes []string
}

// newGuardedResource checks r. Error texts say what to write.
func newGuardedResource(r Resource) (*guardedResource, error) {
	g := &guardedResource{Resource: r, id: rand.Uint64() | 1} //nolint:gosec // a name, no secret
	for _, check := range []func(*guardedResource) error{
		(*guardedResource).setIdentifier,
		(*guardedResource).setPath,
		(*guardedResource).setScopes,
		(*guardedResource).setRules,
		(*guardedResource).setPolicy,
		(*guardedResource).setImplies,
		(*guardedResource).setOrigins,
		(*guardedResource).checkAudiences,
		(*guardedResource).checkDocumentation,
		(*guardedResource).checkAnswers,
	} {
		if err := check(g); err != nil {
			return nil, fmt.Errorf("resource %q: %w", r.Identifier, err)
		}
	}
	return g, nil
}

func (g *guardedResource) setIdentifier() (err error) {
	if err := checkAbsoluteURL(g.Identifier); err != nil {
		return fmt.Errorf("the identifier %w", err)
	}
	if g.origin, err = oauth.Origin(g.Identifier); err != nil {
		return fmt.Errorf("the identifier: %w", err)
	}
	g.metadataURL, err = oauth.ProtectedResourceMetadataURL(g.Identifier)
	return err
}

// checkAbsoluteURL returns an error, to be read after the name of a setting,
// unless s is an absolute http or https URL without userinfo, query, fragment.
func checkAbsoluteURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("is not a URL; write an absolute one, for example https://mcp.example.com/mcp")
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "", u.Opaque != "":
		return errors.New("must be an absolute https or http URL, for example https://mcp.example.com/mcp")
	case u.User != nil:
		return errors.New("must not hold a user name or password; write the URL without them")
	case strings.ContainsAny(s, "?#"):
		return errors.New("must not hold a query or fragment; write the URL without them")
	}
	return nil
}

func (g *guardedResource) setPath() error {
	if g.Path == "" || g.Path == "/" {
		g.path = "/"
		return nil
	}
	if err := checkSitePath(g.Path); err != nil {
		return fmt.Errorf("path %q %w", g.Path, err)
	}
	if trimmed := strings.TrimRight(g.Path, "/"); trimmed != g.Path {
		return fmt.Errorf("path %q ends in a slash; write %q, which guards everything below it too", g.Path, trimmed)
	}
	if strings.Contains(g.Path, "*") {
		return fmt.Errorf("path %q is no pattern; write the path without *, it guards everything below it too", g.Path)
	}
	g.path = strings.ToLower(g.Path)
	return nil
}

// checkSitePath returns an error unless p is a path with one reading.
func checkSitePath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("must begin with a slash; write %q", "/"+p)
	case !isPlainPath(p):
		return errors.New("must not hold escapes, dot segments, doubled slashes, spaces or any of ? # % ; \\; write the decoded path in plain ASCII")
	}
	return nil
}

func (g *guardedResource) setScopes() error {
	g.grantable = map[string]bool{}
	if err := checkScopes("scopes", g.Scopes); err != nil {
		return err
	}
	for _, scope := range g.Scopes {
		if scope != offlineAccess && !slices.Contains(g.advertised, scope) {
			g.advertised = append(g.advertised, scope)
		}
	}
	required := g.Require
	if required == nil {
		required = g.advertised
	}
	if err := checkNeededScopes("require", required); err != nil {
		return err
	}
	g.required = unionScopes(nil, required)
	g.addGrantable(g.advertised)
	g.addGrantable(g.required)
	return nil
}

func (g *guardedResource) addGrantable(scopes []string) {
	for _, scope := range scopes {
		g.grantable[scope] = true
	}
	delete(g.grantable, offlineAccess)
}

func checkScopes(setting string, scopes []string) error {
	for _, scope := range scopes {
		if !oauth.ValidScope(scope) {
			return fmt.Errorf("%s: %q is not a scope; a scope is printable ASCII without space, quote and backslash (RFC 6749 section 3.3)", setting, scope)
		}
	}
	return nil
}

func checkNeededScopes(setting string, scopes []string) error {
	if slices.Contains(scopes, offlineAccess) {
		return fmt.Errorf("%s: offline_access is a scope of the authorization server; leave it out here", setting)
	}
	return checkScopes(setting, scopes)
}

func (g *guardedResource) setRules() error {
	for _, rule := range g.Paths {
		if err := CheckPathPattern(rule.Pattern, g.path); err != nil {
			return err
		}
		pattern, prefix := strings.CutSuffix(rule.Pattern, "*")
		if len(rule.Scopes) == 0 {
			return fmt.Errorf("path rule %q names no scope; write the scopes that it needs", rule.Pattern)
		}
		if err := checkNeededScopes(fmt.Sprintf("path rule %q", rule.Pattern), rule.Scopes); err != nil {
			return err
		}
		g.rules = append(g.rules, scopeRule{sitePattern{strings.ToLower(pattern), prefix}, slices.Clone(rule.Scopes)})
		g.addGrantable(rule.Scopes)
	}
	return nil
}

// CheckPathPattern returns an error unless pattern can be that of a PathRule in a
// resource with the path, "/" for a whole site.
func CheckPathPattern(pattern, path string) error {
	plain, _ := strings.CutSuffix(pattern, "*")
	if err := checkSitePath(plain); err != nil {
		return fmt.Errorf("path rule %q %w", pattern, err)
	}
	if strings.Contains(plain, "*") {
		return fmt.Errorf("path rule %q: a * is understood at the end only; write one rule for each path", pattern)
	}
	if path = strings.ToLower(path); !liesBelow(plain, path) {
		return fmt.Errorf("path rule %q lies outside of the resource; write a site path that begins with %q", pattern, path)
	}
	return nil
}

// setImplies turns Implies into its transitive closure, upside down.
func (g *guardedResource) setImplies() error {
	g.impliedBy = map[string][]string{}
	for _, broad := range slices.Sorted(maps.Keys(g.Implies)) {
		if err := checkScopes("implies", append([]string{broad}, g.Implies[broad]...)); err != nil {
			return err
		}
		narrower, err := g.impliedScopes(broad, broad, nil)
		if err != nil {
			return err
		}
		for _, scope := range narrower {
			g.impliedBy[scope] = append(g.impliedBy[scope], broad)
		}
		g.addGrantable([]string{broad})
		g.addGrantable(narrower)
	}
	return nil
}

// CheckImplies returns an error that names a scope which implies itself.
func CheckImplies(implies map[string][]string) error {
	g := &guardedResource{Resource: Resource{Implies: implies}}
	for _, broad := range slices.Sorted(maps.Keys(implies)) {
		if _, err := g.impliedScopes(broad, broad, nil); err != nil {
			return err
		}
	}
	return nil
}

// impliedScopes adds to found all that scope implies, directly or not.
func (g *guardedResource) impliedScopes(start, scope string, found []string) (_ []string, err error) {
	for _, narrow := range g.Implies[scope] {
		if narrow == start {
			return nil, fmt.Errorf("implies: %q implies itself, through %q; remove one of the lines", start, scope)
		}
		if slices.Contains(found, narrow) {
			continue
		}
		if found, err = g.impliedScopes(start, narrow, append(found, narrow)); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (g *guardedResource) checkAudiences() error {
	if slices.Contains(g.Audiences, "") {
		return errors.New("audiences: an audience is empty; check that its variable is set")
	}
	if g.AnyAudience && len(g.Audiences) > 0 {
		return errors.New("audiences are given and any audience is accepted; choose one")
	}
	return nil
}

func (g *guardedResource) checkDocumentation() error {
	if g.Documentation == "" {
		return nil
	}
	return CheckDocumentation(g.Documentation)
}

// CheckDocumentation returns an error unless s can be the URL of a resource's
// documentation.
func CheckDocumentation(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("documentation %q must be an absolute https or http URL", s)
	}
	return nil
}

// contains reports whether a reading of a path lies in the resource.
func (g *guardedResource) contains(reading string) bool { return liesBelow(reading, g.path) }

// needs returns the scopes that a request for p needs: those of every request
// and those of all rules that match, in the order of the configuration. The
// result is shared and must not be changed.
func (g *guardedResource) needs(p *sitePath) []string {
	needed := slices.Clip(g.required)
	for i := range g.rules {
		if g.rules[i].matches(p) {
			needed = unionScopes(needed, g.rules[i].scopes)
		}
	}
	return needed
}

// unionScopes appends to scopes those of more that are not in it.
func unionScopes(scopes, more []string) []string {
	for _, scope := range more {
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// grants reports whether the granted scopes hold every needed one, directly or
// because a broader one implies it.
func (g *guardedResource) grants(granted, needed []string) bool {
	for _, scope := range needed {
		if !slices.Contains(granted, scope) && !g.grantsBroader(granted, scope) {
			return false
		}
	}
	return true
}

func (g *guardedResource) grantsBroader(granted []string, scope string) bool {
	for _, broader := range g.impliedBy[scope] {
		if slices.Contains(granted, broader) {
			return true
		}
	}
	return false
}

// isAudienceOf reports whether the token was issued for this resource
// (RFC 8707 §2, SECURITY §8).
func (g *guardedResource) isAudienceOf(info *oauth.TokenInfo) bool {
	return g.AnyAudience || issuedFor(info, g.acceptsAudience)
}

// issuedFor reports whether accept takes one of the token's audiences.
func issuedFor(info *oauth.TokenInfo, accept func(audience string) bool) bool {
	return info.Resource != "" && accept(info.Resource) || slices.ContainsFunc(info.Audience, accept)
}

func (g *guardedResource) acceptsAudience(audience string) bool {
	if audience == g.Identifier || slices.Contains(g.Audiences, audience) {
		return true // most tokens end here, and nothing is parsed for them
	}
	if oauth.SameResource(audience, g.Identifier) {
		return true
	}
	for _, accepted := range g.Audiences {
		if oauth.SameResource(audience, accepted) {
			return true
		}
	}
	if g.alone == nil || g.notAlone.Load() || len(g.Audiences) > 0 {
		return false
	}
	_, ok := g.alone.Canonical(audience)
	return ok
}
