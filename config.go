package mcpauth

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Resource is a protected resource: an MCP endpoint of this site that needs a
// token.
type Resource struct {
	// Path is the site path that is guarded with everything below it: "/mcp"
	// guards /mcp and /mcp/…, and not /mcpfoo. "/" guards the whole site. It is a
	// plain path, not a matcher: no *, ?, #, % and no trailing slash. The
	// resource's identifier is the site's origin and this path.
	Path string `json:"path,omitempty"`

	// URL is the identifier of a resource, in place of `path`. With the origin
	// of this site it means the same as its path. With another origin it names
	// a resource that some other server guards: clients may ask for tokens for
	// it here.
	URL string `json:"url,omitempty"`

	// Name is shown to people (resource_name, RFC 9728 §2).
	Name string `json:"name,omitempty"`

	// Documentation is the URL of a page for developers (resource_documentation).
	Documentation string `json:"documentation,omitempty"`

	// Scopes are advertised in the resource's metadata, and needed for every
	// request unless `require` says otherwise.
	Scopes []string `json:"scopes,omitempty"`

	// Require are the scopes that every request needs. Default: `scopes`. An
	// empty list needs none.
	Require []string `json:"require,omitzero"`

	// Implies maps a scope to the narrower ones that it includes.
	Implies map[string][]string `json:"implies,omitempty"`

	// Paths are further scopes for parts of the resource.
	Paths []PathScopes `json:"paths,omitempty"`

	// Origins are the browser origins that may call the resource. Default: the
	// site's own origin and those on loopback hosts.
	Origins []string `json:"origins,omitempty"`

	// Forward says what the server behind learns of the caller. Default: identity.
	Forward *Forward `json:"forward,omitempty"`

	// SessionBindingOff leaves the session ids of MCP (Mcp-Session-Id, revisions up
	// to 2025-11-25) as they are. By default clients see them with a MAC that binds
	// them to their user, and the session of another user is 404.
	SessionBindingOff bool `json:"session_binding_off,omitempty"`

	// StreamGrace is how long an event stream, or any other request under way, may
	// outlive its token. Default: 0. A revoked token ends it all the same.
	StreamGrace caddy.Duration `json:"stream_grace,omitempty"`

	// FilterLists leaves out of the lists of tools, prompts and resources that the
	// server answers with what the token cannot call. The server is asked for
	// answers without compression.
	FilterLists bool `json:"filter_lists,omitempty"`

	ResourcePolicy

	// ScopeDescriptions say to people what a scope allows, by scope.
	ScopeDescriptions map[string]string `json:"scope_descriptions,omitempty"`

	// Default marks the resource that is meant when several are configured and
	// a client names none.
	Default bool `json:"default,omitempty"`
}

// PathScopes are scopes needed for site paths below a resource.
type PathScopes struct {
	// Path is a site path; a trailing * makes it a prefix.
	Path string `json:"path"`
	// Scopes are needed besides the resource's own.
	Scopes []string `json:"scopes"`
}

// Client is a client that the operator registers by hand.
type Client struct {
	// ID is the client_id.
	ID string `json:"id"`

	// Secret makes the client a confidential one. Use a placeholder such as
	// {env.MY_APP_SECRET} or {file./run/secrets/my_app}.
	Secret string `json:"secret,omitempty"`

	// Name is shown to people.
	Name string `json:"name,omitempty"`

	// RedirectURIs are compared exactly; the port of a loopback one is free.
	RedirectURIs []string `json:"redirect_uris,omitempty"`

	// Scopes that the client may ask for. Default: all.
	Scopes []string `json:"scopes,omitempty"`

	// Introspect makes the client a resource server elsewhere: with its secret it
	// may ask at the introspection endpoint about tokens for this resource, a
	// URL. Such a client needs no redirect_uris.
	Introspect string `json:"introspect,omitempty"`
}

// Registration says who may become a client without the operator.
type Registration struct {
	// DynamicOff turns dynamic client registration (RFC 7591) off.
	DynamicOff bool `json:"dynamic_off,omitempty"`

	// PrivateSchemesOff refuses redirect URIs with private-use schemes
	// (RFC 8252 §7.1), which Cursor, VS Code and others use.
	PrivateSchemesOff bool `json:"private_schemes_off,omitempty"`

	// ClientSets limits https redirect URIs to those of well-known clients, by
	// name, for example claude, chatgpt, cursor, vscode.
	ClientSets []string `json:"client_sets,omitempty"`

	// RedirectURIs limits https redirect URIs to these patterns, besides those
	// of `client_sets`, and adds private-use schemes. https://*.example.com/cb
	// and https://example.com/cb/* are patterns.
	RedirectURIs []string `json:"redirect_uris,omitempty"`

	// MetadataDocumentsOff refuses clients that identify themselves by the URL of
	// a metadata document.
	MetadataDocumentsOff bool `json:"metadata_documents_off,omitempty"`

	// DocumentHosts limits metadata documents to these hosts; *.example.com is
	// one or more labels below. Default: any public host.
	DocumentHosts []string `json:"document_hosts,omitempty"`

	// PrivateDocumentOrigins may have private addresses. Exact origins.
	PrivateDocumentOrigins []string `json:"private_document_origins,omitempty"`

	// SecretExpiry is how long the secrets of registered clients last. Default:
	// for ever, since clients do not register again in time.
	SecretExpiry caddy.Duration `json:"secret_expiry,omitempty"`

	// InitialAccessToken, if set, must be sent as a bearer token to register
	// (RFC 7591 §3).
	InitialAccessToken string `json:"initial_access_token,omitempty"`
}

func (r *Registration) policy() *oauth.RedirectPolicy {
	if r == nil {
		return nil
	}
	return &oauth.RedirectPolicy{
		NoPrivateSchemes: r.PrivateSchemesOff,
		ClientSets:       r.ClientSets,
		Patterns:         r.RedirectURIs,
	}
}

// RateLimits bound what one address may do. See the directive's page for what
// each limit counts.
type RateLimits struct {
	// Off turns every limit off.
	Off bool `json:"off,omitempty"`
	// Authorize counts requests. Default: 600 in 15 minutes.
	Authorize *RateLimit `json:"authorize,omitempty"`
	// Token counts failures of one client from one address; an address may have 20
	// times as many in all. Over it, requests that fail are refused; those that
	// succeed never are. Default: 50 in 15 minutes.
	Token *RateLimit `json:"token,omitempty"`
	// Register counts requests. Default: 60 in an hour where each registration
	// is forwarded to the identity provider, else 300 in 15 minutes.
	Register *RateLimit `json:"register,omitempty"`
	// Revoke counts as Token does. Default: 50 in 15 minutes.
	Revoke *RateLimit `json:"revoke,omitempty"`
}

// RateLimit is a number of events in a time.
type RateLimit struct {
	// Count is the number of events; 0 turns this limit off.
	Count int `json:"count"`
	// Window is the time in which they count.
	Window caddy.Duration `json:"window,omitempty"`
}

// hasPlaceholder reports whether s is known only once the configuration is
// provisioned.
func hasPlaceholder(s string) bool { return strings.Contains(s, "{") }

func checkIssuer(issuer string, insecureDev bool) error {
	if hasPlaceholder(issuer) {
		return nil
	}
	if issuer == "" {
		return fmt.Errorf("the issuer is missing: write the URL that clients reach this site under, for example https://mcp.example.com")
	}
	return oauth.CheckIssuer(issuer, insecureDev)
}

// checkResourcePath checks a site path that is meant literally.
func checkResourcePath(path string) error {
	if hasPlaceholder(path) {
		return nil
	}
	switch {
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("resource %s: write a path that begins with / or a full URL", path)
	case path == "/":
		return nil
	case strings.Contains(path, "*"):
		return fmt.Errorf("resource %s: a resource is a path, not a matcher; write %s, which guards everything below it as well",
			path, "/"+strings.Trim(strings.TrimRight(path, "*"), "/"))
	case strings.ContainsAny(path, "?#%;\\"):
		return fmt.Errorf("resource %s: write the plain path, without ?, #, %%, ; and \\", path)
	case strings.HasSuffix(path, "/"):
		return fmt.Errorf("resource %s: write %s, without the slash at the end", path, strings.TrimRight(path, "/"))
	case strings.Contains(path, "//") || slices.Contains(strings.Split(path, "/"), ".") || slices.Contains(strings.Split(path, "/"), ".."):
		return fmt.Errorf("resource %s: write the path without empty and dot segments", path)
	}
	for _, r := range path {
		if r <= 0x20 || r >= 0x7f {
			return fmt.Errorf("resource %s: write the path in printable ASCII", path)
		}
	}
	return nil
}

func checkScopes(setting string, scopes []string) error {
	for _, scope := range scopes {
		if hasPlaceholder(scope) {
			continue
		}
		if !oauth.ValidScope(scope) {
			return fmt.Errorf("%s: %q is no scope: RFC 6749 section 3.3 allows printable ASCII without space, quote and backslash", setting, scope)
		}
		if strings.Contains(scope, ",") {
			return fmt.Errorf("%s: %q holds a comma: separate scopes by spaces alone", setting, scope)
		}
	}
	return nil
}

func (r *Resource) check() error {
	switch {
	case r.Path == "" && r.URL == "":
		return fmt.Errorf("resource: path or url is needed")
	case r.Path != "" && r.URL != "":
		return fmt.Errorf("resource %s: give path or url, not both", r.Path)
	case r.Path != "":
		if err := checkResourcePath(r.Path); err != nil {
			return err
		}
	case !hasPlaceholder(r.URL):
		u, err := url.Parse(r.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Fragment != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery {
			return fmt.Errorf("resource %s: write an https URL without user, query and fragment, or a path", r.URL)
		}
		if u.Path != "" {
			if err := checkResourcePath(u.EscapedPath()); err != nil {
				return err
			}
		}
	}
	if err := checkScopes("scopes", r.Scopes); err != nil {
		return err
	}
	if slices.Contains(r.Scopes, "offline_access") {
		return fmt.Errorf("resource %s: offline_access is not a scope of a resource (MCP 2026-07-28, authorization); clients learn it from the authorization server", r.label())
	}
	if err := checkScopes("require", r.Require); err != nil {
		return err
	}
	for scope, narrower := range r.Implies {
		if err := checkScopes("implies", append([]string{scope}, narrower...)); err != nil {
			return err
		}
	}
	if err := bearer.CheckImplies(r.Implies); err != nil {
		return err
	}
	for _, p := range r.Paths {
		if len(p.Scopes) == 0 {
			return fmt.Errorf("path %s: name the scopes that it needs", p.Path)
		}
		if err := checkScopes("path", p.Scopes); err != nil {
			return err
		}
		if err := r.checkPathPattern(p.Path, cmp.Or(r.Path, "/")); err != nil {
			return err
		}
	}
	if r.Documentation != "" && !hasPlaceholder(r.Documentation) {
		if err := bearer.CheckDocumentation(r.Documentation); err != nil {
			return fmt.Errorf("resource %s: %w", r.label(), err)
		}
	}
	if r.StreamGrace < 0 {
		return fmt.Errorf("stream_grace: write how long a stream may outlive its token, for example stream_grace 5m")
	}
	if r.FilterLists && r.UpgradeAllow {
		return fmt.Errorf("lists filter and upgrade allow exclude each other: what goes through a WebSocket cannot be filtered")
	}
	if err := r.ResourcePolicy.check(); err != nil {
		return fmt.Errorf("resource %s: %w", r.label(), err)
	}
	for _, origin := range r.Origins {
		if hasPlaceholder(origin) {
			continue
		}
		if o, err := oauth.Origin(origin); err != nil || o != strings.ToLower(origin) {
			return fmt.Errorf("origins: %q is no origin; write scheme and host, for example https://app.example.com", origin)
		}
	}
	return r.Forward.check()
}

// checkPathPattern finds what is wrong with a path rule of a resource at a path.
func (r *Resource) checkPathPattern(pattern, path string) error {
	if hasPlaceholder(pattern) || hasPlaceholder(r.label()) {
		return nil
	}
	if err := bearer.CheckPathPattern(pattern, path); err != nil {
		return fmt.Errorf("resource %s: %w", r.label(), err)
	}
	return nil
}

// checkBelowURL finds path rules that lie outside of the path of the resource's
// URL. An authentication provider guards other paths, too.
func (r *Resource) checkBelowURL() error {
	u, err := url.Parse(r.URL)
	if err != nil || r.URL == "" {
		return nil // said elsewhere
	}
	for _, p := range r.Paths {
		if err := r.checkPathPattern(p.Path, cmp.Or(u.Path, "/")); err != nil {
			return err
		}
	}
	return nil
}

// label names the resource in messages.
func (r *Resource) label() string {
	if r.URL != "" {
		return r.URL
	}
	return r.Path
}

func (c *Client) check() error {
	if c.ID == "" {
		return fmt.Errorf("client: an id is needed")
	}
	if strings.HasPrefix(c.ID, "https://") {
		return fmt.Errorf("client %s: an id that is a URL names a client metadata document, which is fetched and not configured", c.ID)
	}
	for _, b := range []byte(c.ID) {
		if b < 0x20 || b > 0x7e {
			return fmt.Errorf("client %q: write the id in printable ASCII (RFC 6749 appendix A.1)", c.ID)
		}
	}
	if c.Introspect != "" && c.Secret == "" {
		return fmt.Errorf("client %s: introspect needs a secret", c.ID)
	}
	if len(c.RedirectURIs) == 0 && c.Introspect == "" {
		return fmt.Errorf("client %s: name its redirect_uris", c.ID)
	}
	for _, uri := range c.RedirectURIs {
		if hasPlaceholder(uri) {
			continue
		}
		if err := oauth.CheckSafeScheme(uri); err != nil {
			return fmt.Errorf("client %s: %q: %w", c.ID, uri, err)
		}
		u, err := url.Parse(uri)
		if err != nil || u.Scheme == "" || u.Fragment != "" || strings.Contains(uri, "#") || u.User != nil {
			return fmt.Errorf("client %s: %q is no redirect URI; write it in full, without user and fragment", c.ID, uri)
		}
		if u.Scheme == "http" && !oauth.IsLoopbackHost(u.Hostname()) {
			return fmt.Errorf("client %s: %s: http is for loopback hosts only; use https", c.ID, uri)
		}
		if strings.Contains(uri, "*") {
			return fmt.Errorf("client %s: %s: redirect URIs are compared as they are, without wildcards (RFC 9700 section 4.1); write each in full", c.ID, uri)
		}
	}
	return checkScopes("scopes", c.Scopes)
}

func (r *Registration) check() error {
	if r == nil {
		return nil
	}
	if slices.ContainsFunc(r.RedirectURIs, hasPlaceholder) || slices.ContainsFunc(r.ClientSets, hasPlaceholder) {
		return nil
	}
	if err := r.policy().Validate(); err != nil {
		return fmt.Errorf("registration: %w", err)
	}
	return nil
}

func (l *RateLimits) check() error {
	if l == nil {
		return nil
	}
	for name, limit := range map[string]*RateLimit{"authorize": l.Authorize, "token": l.Token, "register": l.Register, "revoke": l.Revoke} {
		if limit == nil || limit.Count == 0 {
			continue
		}
		if limit.Count < 0 || limit.Window <= 0 {
			return fmt.Errorf("rate_limit %s: write a number of events and a time, for example rate_limit %s 50 15m", name, name)
		}
	}
	return nil
}
