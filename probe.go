package mcpauth

import (
	"cmp"
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// probe is what must reach a site: a resource, and its metadata.
type probe struct{ metadata, resource string }

// probeKey marks a request that only asks which site answers a URL.
type probeKey struct{}

// probeQuestion asks whether a request reaches a site, and takes the answer.
type probeQuestion struct {
	site *site
	// guarded asks for the guard in place of an endpoint.
	guarded bool
	reached atomic.Bool
	// statuses are what others answered.
	statuses []int
}

// probeAddr is where probes come from: a port that nobody has.
const probeAddr = "127.0.0.1:0"

// ask is what a handler does with a probe.
func (q *probeQuestion) ask(h *served, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	original := originalURL(r)
	switch {
	case q.guarded && (h.site.guard.Guards(original) || h.site.guard.Guards(r.URL)):
		q.reached.Store(true)
	case !q.guarded && h.endpoint(original, r.URL) != nil:
		q.reached.Store(h.site == q.site)
	default:
		return next.ServeHTTP(w, r)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// probe asks this Caddy, in-process, for each resource and its metadata. Where
// our handler does not see such a request, because the block stands below a path
// matcher or behind something that answers first, clients do not find their way,
// and worse, the guard is bypassed: the operator is told.
func (a *App) probe(ctx context.Context) {
	// The HTTP app may start after this one, and its servers change until it has.
	for !a.isActive() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	httpApp := a.httpApp()
	if httpApp == nil {
		return
	}
	a.sitesMu.Lock()
	sites := make([]*site, 0, len(a.sites))
	for _, s := range a.sites {
		sites = append(sites, s.site)
	}
	a.sitesMu.Unlock()
	for _, s := range sites {
		if ctx.Err() != nil {
			return
		}
		a.probeSite(ctx, httpApp, s)
	}
	a.logger.Debug("what the sites protect has been probed")
}

// probeSite asks for the resources of a site.
func (a *App) probeSite(ctx context.Context, httpApp *caddyhttp.App, s *site) {
	portsChecked := false
	for _, p := range s.probes {
		found := serversOf(ctx, httpApp.Servers, p.metadata, &probeQuestion{site: s})
		if len(found) == 0 {
			a.logger.Error("the metadata of a protected resource cannot be reached, so MCP clients will not find the authorization server, and the resource may be open: put the mcp_auth block at the top level of the site that serves this URL, not inside handle, handle_path or route, and use the host name of the issuer or base_url as the site's address",
				zap.String("issuer", s.issuer), zap.String("url", p.metadata))
			continue
		}
		question := &probeQuestion{site: s, guarded: true}
		switch reached := serversOf(ctx, found, p.resource, question); {
		case len(reached) > 0:
		case !slices.ContainsFunc(question.statuses, answersRequests):
			a.logger.Warn("requests for a protected resource are redirected or refused before they reach its guard: put the mcp_auth block at the top level of the site, before what answers them",
				zap.String("issuer", s.issuer), zap.String("url", p.resource), zap.Ints("statuses", question.statuses))
		default:
			a.logger.Error("requests for a protected resource do not reach its guard, so whatever answers them is open to everybody: put the mcp_auth block at the top level of the site, not into a handle or route that other requests take, nor behind what answers these, and leave out a global option order that puts it behind reverse_proxy",
				zap.String("issuer", s.issuer), zap.String("url", p.resource))
		}
		if !portsChecked {
			portsChecked = true
			a.warnOfOtherPort(s, httpApp, found, p.resource)
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

// serversOf returns those of the servers where a request for rawURL reaches what
// the question is about.
func serversOf(ctx context.Context, servers map[string]*caddyhttp.Server, rawURL string, question *probeQuestion) map[string]*caddyhttp.Server {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil
	}
	found := make(map[string]*caddyhttp.Server)
	for name, server := range servers {
		question.reached.Store(false)
		status := askServer(ctx, server, u, question)
		if question.reached.Load() {
			found[name] = server
		} else {
			question.statuses = append(question.statuses, status)
		}
	}
	return found
}

// askServer sends a probe. The one for a resource is what an MCP client sends,
// but it is cancelled from the start: where there is no guard on its way, no
// proxy takes it to the MCP server. The status is that of the answer.
func askServer(ctx context.Context, server *caddyhttp.Server, u *url.URL, question *probeQuestion) int {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, probeKey{}, question), 2*time.Second)
	defer cancel()
	method := http.MethodGet
	if question.guarded {
		method = http.MethodPost
		cancel()
	}
	r := httptest.NewRequestWithContext(ctx, method, u.RequestURI(), nil)
	r.Host = u.Host
	r.RemoteAddr = probeAddr
	r.Header.Set("User-Agent", "mcp_auth probe")
	if question.guarded {
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set("Content-Type", "application/json")
	}
	if u.Scheme == "https" && len(server.TLSConnPolicies) > 0 {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: u.Hostname()}
	}
	answer := httptest.NewRecorder()
	server.ServeHTTP(answer, r)
	return answer.Code
}

// answersRequests reports whether a probe's status may be that of whatever serves
// a resource. reverse_proxy says 499 where a client has left.
func answersRequests(status int) bool {
	const clientClosedRequest = 499
	return status < 300 || status >= 500 || status == clientClosedRequest
}

// warnOfOtherPort tells an operator whose clients are sent to a port, or a
// scheme, on which none of the site's servers listens. Behind a proxy that is
// as it should be, and trusted_proxies says that there is one.
func (a *App) warnOfOtherPort(s *site, httpApp *caddyhttp.App, servers map[string]*caddyhttp.Server, rawURL string) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return
	}
	port := listenPort(httpApp, u)
	var listens []string
	for _, server := range servers {
		if trustsProxies(server) {
			return
		}
		hasTLS := len(server.TLSConnPolicies) > 0
		for _, text := range server.Listen {
			addr, err := caddy.ParseNetworkAddress(text)
			if err != nil || !strings.HasPrefix(addr.Network, "tcp") || addr.StartPort == 0 {
				return // it cannot be told
			}
			if addr.StartPort <= port && port <= addr.EndPort && hasTLS == (u.Scheme == "https") {
				return
			}
			listens = append(listens, text)
		}
	}
	slices.Sort(listens)
	a.logger.Warn("clients are told to use a URL whose scheme and port this site does not listen on, so they do not come through unless a proxy or a port mapping leads here: make the issuer (or base_url) and the site's address the same, or say that there is a proxy, with the global option servers { trusted_proxies static private_ranges }",
		zap.String("issuer", s.issuer), zap.String("url", rawURL), zap.Strings("listens", listens))
}

// trustsProxies reports whether a server has the option trusted_proxies. Caddy
// keeps the loaded one to itself, so this looks at it by reflection. Should the
// field be renamed, a warning too many is written.
func trustsProxies(server *caddyhttp.Server) bool {
	field := reflect.ValueOf(server).Elem().FieldByName("trustedProxies")
	return server.TrustedProxiesUnix || field.Kind() == reflect.Interface && !field.IsNil()
}

// listenPort is the port on which requests for u arrive here. The options
// http_port and https_port say where those of the standard ports do.
func listenPort(httpApp *caddyhttp.App, u *url.URL) uint {
	port, _ := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Scheme == "http" && (port == 0 || port == caddyhttp.DefaultHTTPPort):
		return uint(cmp.Or(httpApp.HTTPPort, caddyhttp.DefaultHTTPPort))
	case u.Scheme == "https" && (port == 0 || port == caddyhttp.DefaultHTTPSPort):
		return uint(cmp.Or(httpApp.HTTPSPort, caddyhttp.DefaultHTTPSPort))
	}
	return uint(port)
}
