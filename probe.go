package mcpauth

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// probeKey marks a request that only asks which site answers a URL.
type probeKey struct{}

// probeAnswer takes the answer of a probe.
type probeAnswer struct{ site atomic.Pointer[site] }

// probeAddr is where probes come from: a port that nobody has.
const probeAddr = "127.0.0.1:0"

// answerProbe reports whether r is a probe, and tells it who answered.
func answerProbe(r *http.Request, s *site) bool {
	if r.RemoteAddr != probeAddr {
		return false // nearly all
	}
	answer, ok := r.Context().Value(probeKey{}).(*probeAnswer)
	if ok && s.endpoint(r.URL.Path) != nil {
		answer.site.Store(s)
		return true
	}
	return false
}

// probe asks this Caddy, in-process, for each resource's metadata. Where our
// handler does not see the request, because the block stands below a path
// matcher or behind something that answers first, clients would not find their
// way, and worse, the guard might be bypassed: the operator is told.
func (a *App) probe(ctx context.Context) {
	// The HTTP app may start after this one, and its servers change until it has.
	for !a.isActive() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	servers := a.httpServers()
	a.sitesMu.Lock()
	sites := make([]*site, 0, len(a.sites))
	for _, s := range a.sites {
		sites = append(sites, s.site)
	}
	a.sitesMu.Unlock()
	for _, s := range sites {
		for _, metadataURL := range s.probes {
			if ctx.Err() != nil {
				return
			}
			if !reaches(ctx, servers, metadataURL, s) {
				a.logger.Error("the metadata of a protected resource cannot be reached, so MCP clients will not find the authorization server, and the resource may be open: put the mcp_auth block at the top level of the site that serves this URL, not inside handle, handle_path or route, and use the host name of the issuer or base_url as the site's address",
					zap.String("issuer", s.issuer), zap.String("url", metadataURL))
			}
		}
	}
}

// isActive reports whether the configuration of this app runs, all of it.
func (a *App) isActive() bool {
	active := caddy.ActiveContext()
	if active.Context == nil {
		return false
	}
	module, err := active.AppIfConfigured("mcp_auth")
	return err == nil && module == caddy.App(a)
}

// reaches reports whether a request for rawURL to one of the servers ends at s.
func reaches(ctx context.Context, servers map[string]*caddyhttp.Server, rawURL string, s *site) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	answer := new(probeAnswer)
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, probeKey{}, answer), 2*time.Second)
	defer cancel()
	for _, server := range servers {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, u.RequestURI(), nil)
		r.Host = u.Host
		r.RemoteAddr = probeAddr
		r.Header.Set("User-Agent", "mcp_auth probe")
		server.ServeHTTP(httptest.NewRecorder(), r)
		if answer.site.Load() == s {
			return true
		}
	}
	return false
}
