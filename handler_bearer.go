package mcpauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func init() {
	caddy.RegisterModule(BearerHandler{})
}

// BearerHandler is the resource server's side alone: it checks the tokens that
// some authorization server issues, and serves the resource's metadata. Use it
// for a resource on another host than its authorization server; `mcp_auth` does
// the same for its own site.
//
// It sets the same placeholders as `mcp_auth`.
type BearerHandler struct {
	// Resource is the protected resource; its `url` is required. The path of
	// the URL, and everything below it, is guarded.
	Resource *Resource `json:"resource"`

	// AuthorizationServers are the issuers that clients are sent to; tokens of
	// the first are expected.
	AuthorizationServers []string `json:"authorization_servers"`

	// Audience is what the `aud` of the tokens must hold, one of these. Default:
	// the resource's identifier. `any` skips the check.
	Audience []string `json:"audience,omitempty"`

	// VerifyRaw checks the tokens. Default: the verifier of the issuer itself if
	// that is an `mcp_auth` site of this Caddy with upstream or accounts, else jwt
	// with the issuer's keys.
	VerifyRaw json.RawMessage `json:"verify,omitempty" caddy:"namespace=mcp_auth.verifiers inline_key=type"`

	// InsecureDev allows http on hosts that are not loopback. For development.
	InsecureDev bool `json:"insecure_dev,omitempty"`

	served
}

// CaddyModule returns the Caddy module information.
func (BearerHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.mcp_bearer", New: func() caddy.Module { return new(BearerHandler) }}
}

// Provision checks the configuration and builds the guard. It opens nothing.
func (h *BearerHandler) Provision(ctx caddy.Context) error {
	return h.provision(ctx, "mcp_bearer", false)
}

// provision builds the guard for the resource's path, or for every path.
func (h *BearerHandler) provision(ctx caddy.Context, name string, everywhere bool) error {
	h.logger = ctx.Logger()
	h.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	r, err := resolved(h)
	if err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	verifier, err := loadVerifier(ctx, h, h.VerifyRaw)
	if err != nil {
		return err
	}
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	if !everywhere {
		app.appendConnContext(h.server)
	}
	origin, err := oauth.Origin(r.Resource.URL)
	if err != nil {
		return fmt.Errorf("resource %s: %w", r.Resource.URL, err)
	}
	cfg := &siteConfig{
		issuer:      r.AuthorizationServers[0],
		base:        origin,
		vouches:     origin,
		everywhere:  everywhere,
		insecureDev: r.InsecureDev,
		resources:   []*Resource{r.Resource},
		logger:      ctx.Slogger(),
	}
	h.site, err = app.registerSite(name+" "+r.Resource.URL, r, func() (*site, error) {
		return cfg.newSite(app, func(env ModeEnv) (*Mode, error) { return r.newMode(env, verifier) })
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", name, r.Resource.URL, err)
	}
	return nil
}

// check holds the rules that need nothing but the settings themselves.
func (h *BearerHandler) check() error {
	if h.Resource == nil || h.Resource.URL == "" {
		return fmt.Errorf("mcp_bearer: write the full URL of the protected resource: resource https://api.example.com/mcp")
	}
	if err := h.Resource.check(); err != nil {
		return err
	}
	if u, err := url.Parse(h.Resource.URL); err == nil && u.Scheme == "http" && !h.InsecureDev && !oauth.IsLoopbackHost(u.Hostname()) {
		return fmt.Errorf("resource %s: use https; http is for loopback hosts, or insecure_dev", h.Resource.URL)
	}
	if len(h.AuthorizationServers) == 0 {
		return fmt.Errorf("mcp_bearer: write the issuer that tokens come from: authorization_server https://auth.example.com")
	}
	for _, issuer := range h.AuthorizationServers {
		if err := checkIssuer(issuer, h.InsecureDev); err != nil {
			return fmt.Errorf("authorization_server: %w", err)
		}
	}
	if slices.Contains(h.Audience, "any") && len(h.Audience) > 1 {
		return fmt.Errorf("audience any stands alone")
	}
	return nil
}

func (h *BearerHandler) newMode(env ModeEnv, verifier VerifierModule) (*Mode, error) {
	mode := &Mode{AuthorizationServers: h.AuthorizationServers}
	if slices.Equal(h.Audience, []string{"any"}) {
		mode.AnyAudience = true
		env.Logger.Warn("mcp_bearer: the audience of tokens is not checked (audience any): every token of the authorization server, also one issued for another service, is accepted here", "resource", h.Resource.URL)
	} else {
		mode.Audiences = h.Audience
	}
	_, v, err := env.verifier(h.AuthorizationServers[0], verifier, mode)
	if err != nil {
		return nil, err
	}
	mode.Verifier = v
	if verifier == nil {
		// The issuer may be a site of this Caddy, whose own verifier needs no
		// detour and sees revocation. Which it is shows when the first token comes:
		// that site may be provisioned after this one.
		issuer, app := h.AuthorizationServers[0], env.app
		mode.Verifier = bearer.VerifierChoice(sync.OnceValue(func() bearer.Verifier {
			if s := app.siteOf(issuer); s != nil && s.live != nil {
				return s.live
			}
			return v
		}))
	}
	return mode, nil
}

// ServeHTTP answers what is for us and passes the rest on.
func (h *BearerHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return h.serve(w, r, next)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*BearerHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*BearerHandler)(nil)
)
