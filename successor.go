package mcpauth

import (
	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// successor is the bearer.Successor of the site's guard: the guard of the site
// with the same name in the running configuration. There is none while the
// site's own configuration runs, also while another is being loaded, which may
// fail, nor while Caddy ends.
func (s *site) successor() (guard *bearer.Guard, gone bool) {
	if !s.app.stopped.Load() {
		return nil, false
	}
	active := caddy.ActiveContext()
	if active.Context == nil {
		return nil, false
	}
	module, err := active.AppIfConfigured("mcp_auth")
	if err != nil {
		return nil, true
	}
	next := module.(*App).siteOf(s.name)
	if next == nil {
		return nil, true
	}
	return next.guard, false
}
