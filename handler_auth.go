package mcpauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-mcp/mcpauth/oauth"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler gives the MCP servers of a site complete OAuth. It answers the
// endpoints of an authorization server and the well-known documents, checks the
// token of every request for one of its resources, and passes everything else
// on.
//
// It belongs at the top of a site, before whatever answers requests: the
// well-known documents are at the root of the origin, so a handler below a path
// matcher would never see them.
//
// After the check these placeholders are available:
//
// Placeholder | Description
// ------------|---------------
// `{http.auth.user.id}` | The user (`sub`), or the client where a token has no user
// `{http.auth.user.client_id}` | The OAuth client
// `{http.auth.user.scopes}` | The granted scopes, separated by spaces
// `{http.auth.user.email}` | The user's mail address, if the token holds it
// `{http.auth.user.name}` | The user's name, if the token holds it
// `{http.auth.user.groups}` | The user's groups, separated by commas
// `{http.auth.user.claims.*}` | Any other claim of the token
type Handler struct {
	// Issuer identifies the authorization server, and by default is the URL that
	// clients reach this site under. It is used byte for byte as written. https,
	// or http on a loopback host.
	Issuer string `json:"issuer"`

	// BaseURL is the origin of this site's endpoints and resources, if it is not
	// the issuer. The issuer's own host then needs `mcp_auth_metadata`.
	BaseURL string `json:"base_url,omitempty"`

	// InsecureDev allows http on hosts that are not loopback. For development.
	InsecureDev bool `json:"insecure_dev,omitempty"`

	// ProviderRaw decides who signs people in and who issues tokens.
	ProviderRaw json.RawMessage `json:"provider" caddy:"namespace=mcp_auth.providers inline_key=mode"`

	// Resources are the protected parts of the site. Default: all of it, under
	// the identifier <origin>/mcp.
	Resources []*Resource `json:"resources,omitempty"`

	// Clients are registered by the operator.
	Clients []*Client `json:"clients,omitempty"`

	// Registration says who may register without the operator.
	Registration *Registration `json:"registration,omitempty"`

	// RateLimits bound what one address may do.
	RateLimits *RateLimits `json:"rate_limits,omitempty"`

	// ServiceDocumentation is the URL of a page for developers.
	ServiceDocumentation string `json:"service_documentation,omitempty"`

	served
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.mcp_auth", New: func() caddy.Module { return new(Handler) }}
}

// Provision checks the configuration and builds the site. It opens nothing.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	r, err := resolved(h)
	if err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	if h.ProviderRaw == nil {
		return errNoMode
	}
	module, err := ctx.LoadModule(h, "ProviderRaw")
	if err != nil {
		return err
	}
	mode, ok := module.(ModeModule)
	if !ok {
		return fmt.Errorf("provider: module %T is no mode", module)
	}
	if err := r.checkMode(mode); err != nil {
		return err
	}
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	app.appendConnContext(h.server)
	if r.InsecureDev {
		h.logger.Warn("insecure_dev: tokens and codes may travel in clear text; never use it in production")
	}
	cfg := &siteConfig{
		issuer:               r.Issuer,
		base:                 r.base(),
		insecureDev:          r.InsecureDev,
		resources:            r.Resources,
		clients:              r.Clients,
		registration:         r.Registration,
		rateLimits:           r.RateLimits,
		serviceDocumentation: r.ServiceDocumentation,
		logger:               ctx.Slogger(),
	}
	h.site, err = app.registerSite(r.Issuer, r, func() (*site, error) { return cfg.newSite(app, mode.NewMode) })
	if err != nil {
		return fmt.Errorf("mcp_auth %s: %w", r.Issuer, err)
	}
	return nil
}

var errNoMode = fmt.Errorf("say who signs people in: one of upstream, accounts, proxy and authorization_server")

func (h *Handler) base() string {
	if h.BaseURL != "" {
		return h.BaseURL
	}
	return h.Issuer
}

// check holds the rules that need nothing but the settings themselves. A value
// with a placeholder is left to Provision.
func (h *Handler) check() error {
	if err := checkIssuer(h.Issuer, h.InsecureDev); err != nil {
		return err
	}
	if h.BaseURL != "" && !hasPlaceholder(h.BaseURL) {
		if err := oauth.CheckIssuer(h.BaseURL, h.InsecureDev); err != nil {
			return fmt.Errorf("base_url: %w", err)
		}
	}
	defaults := 0
	seen := make(map[string]bool)
	for _, r := range h.Resources {
		if err := r.check(); err != nil {
			return err
		}
		if u, err := url.Parse(r.URL); err == nil && u.Scheme == "http" && !h.InsecureDev && !oauth.IsLoopbackHost(u.Hostname()) {
			return fmt.Errorf("resource %s: use https; http is for loopback hosts, or insecure_dev", r.URL)
		}
		key := strings.ToLower(r.label())
		if seen[key] {
			return fmt.Errorf("resource %s is configured twice", r.label())
		}
		seen[key] = true
		if r.Default {
			defaults++
		}
	}
	if defaults > 1 {
		return fmt.Errorf("only one resource can be the default one")
	}
	ids := make(map[string]bool)
	for _, c := range h.Clients {
		if err := c.check(); err != nil {
			return err
		}
		if ids[c.ID] {
			return fmt.Errorf("client %s is configured twice", c.ID)
		}
		ids[c.ID] = true
	}
	if err := h.Registration.check(); err != nil {
		return err
	}
	if err := h.RateLimits.check(); err != nil {
		return err
	}
	if h.ServiceDocumentation != "" && !hasPlaceholder(h.ServiceDocumentation) {
		if u, err := url.Parse(h.ServiceDocumentation); err != nil || u.Host == "" {
			return fmt.Errorf("service_documentation %s: write a full URL", h.ServiceDocumentation)
		}
	}
	return nil
}

// checkMode finds settings that mean nothing in a mode.
func (h *Handler) checkMode(mode any) error {
	if _, ok := mode.(*ResourceServerMode); !ok {
		return nil
	}
	for setting, set := range map[string]bool{
		"registration": h.Registration != nil, "rate_limit": h.RateLimits != nil, "client": len(h.Clients) > 0,
	} {
		if set {
			return fmt.Errorf("%s has no meaning with authorization_server: the authorization server is elsewhere; set it there", setting)
		}
	}
	return nil
}

// ServeHTTP answers what is for us and passes the rest on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return h.serve(w, r, next)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
