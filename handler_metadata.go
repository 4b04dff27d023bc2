package mcpauth

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(MetadataHandler{})
}

// MetadataHandler serves the metadata of an issuer on the issuer's own host,
// where RFC 8414 has clients look for it, when `base_url` puts the endpoints
// and resources on another one.
type MetadataHandler struct {
	// Issuer is that of an `mcp_auth` handler of this configuration.
	Issuer string `json:"issuer"`

	issuer string
	app    *App
}

// CaddyModule returns the Caddy module information.
func (MetadataHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.mcp_auth_metadata", New: func() caddy.Module { return new(MetadataHandler) }}
}

// Provision remembers the issuer for the app, which checks it at start: the
// handler that serves the issuer may be provisioned after this one.
func (h *MetadataHandler) Provision(ctx caddy.Context) error {
	r, err := resolved(h)
	if err != nil {
		return err
	}
	if r.Issuer == "" {
		return fmt.Errorf("mcp_auth_metadata: the issuer is missing")
	}
	h.issuer = r.Issuer
	if h.app, err = appOf(ctx); err != nil {
		return err
	}
	h.app.expectIssuer(r.Issuer)
	return nil
}

// ServeHTTP answers the well-known paths of the issuer's metadata.
func (h *MetadataHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path := originalURL(r).Path
	if !strings.Contains(path, "/.well-known/") {
		return next.ServeHTTP(w, r)
	}
	s := h.app.siteOf(h.issuer)
	if s == nil || s.server == nil {
		return next.ServeHTTP(w, r)
	}
	endpoint := s.server.Endpoint(path)
	if endpoint == nil {
		return next.ServeHTTP(w, r)
	}
	endpoint.ServeHTTP(w, r)
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*MetadataHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*MetadataHandler)(nil)
)
