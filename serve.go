package mcpauth

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// served is the part that the handlers share: a request's way through a site.
type served struct {
	site   *site
	logger *zap.Logger
	// server has the handler; nil if that is not known.
	server *caddyhttp.Server
}

// serve takes a request through its steps.
func (h *served) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.RemoteAddr == probeAddr { // nearly none
		if question, ok := r.Context().Value(probeKey{}).(*probeQuestion); ok {
			return question.ask(h, w, r, next)
		}
	}
	original := originalURL(r)
	if endpoint := h.endpoint(original, r.URL); endpoint != nil {
		h.warnOfUntrustedProxy(r)
		h.serveEndpoint(w, r, endpoint)
		return nil
	}
	if h.site.stripCookies != nil {
		h.site.stripCookies(r)
	}
	if queryHoldsToken(original) || queryHoldsToken(r.URL) {
		return h.serveRedacted(w, r, func(w http.ResponseWriter) error { return h.guard(w, r, original, next) })
	}
	return h.guard(w, r, original, next)
}

// guard lets a request pass to next if it may.
func (h *served) guard(w http.ResponseWriter, r *http.Request, original *url.URL, next caddyhttp.Handler) error {
	taken := h.site.takeOver(r)
	decision, admitted := h.site.guard.Check(w, r, original)
	if !admitted {
		return nil
	}
	if !decision.Guarded {
		taken.restore(r)
		return next.ServeHTTP(w, r)
	}
	h.site.handOn(r)
	h.setUser(r, decision.Info)
	h.setCaller(r, decision)
	if err := h.forward(r, decision); err != nil {
		return h.cannotForward(w, r, decision, err)
	}
	return h.site.guard.Pass(w, r, decision, next.ServeHTTP)
}

// endpoint finds what answers the URL that the client asked for, or the one
// that it was rewritten to. The first counts too, so that try_files and other
// rewrites do not hide the well-known documents.
func (h *served) endpoint(original, current *url.URL) http.Handler {
	if endpoint := h.site.endpoint(original.Path); endpoint != nil {
		return endpoint
	}
	if current.Path == original.Path {
		return nil
	}
	return h.site.endpoint(current.Path)
}

// originalURL returns the request's URL as it was before any rewrite.
func originalURL(r *http.Request) *url.URL {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return original.URL
	}
	return r.URL
}

// clientIP returns the address that Caddy trusts to be the client's.
func clientIP(r *http.Request) string {
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok {
		return ip
	}
	return r.RemoteAddr
}

// untrustedProxyWarned makes the advice about trusted_proxies appear once in a
// process, since it is about the whole server.
var untrustedProxyWarned atomic.Bool

// warnOfUntrustedProxy tells an operator whose Caddy stands behind a proxy that
// it does not trust that all clients share one rate limit.
func (h *served) warnOfUntrustedProxy(r *http.Request) {
	if untrustedProxyWarned.Load() || len(r.Header["X-Forwarded-For"]) == 0 {
		return
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		return
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsPrivate() && !peer.Addr().Unmap().IsLoopback() {
		return
	}
	if untrustedProxyWarned.CompareAndSwap(false, true) {
		h.logger.Warn("requests come through a proxy that Caddy does not trust, so all clients count as one address in rate limits and logs; set the global option: servers { trusted_proxies static private_ranges }",
			zap.String("proxy", peer.Addr().String()))
	}
}

var errNoReplacer = errors.New("the request has no replacer: the handler runs outside Caddy's HTTP server")

func replacerOf(r *http.Request) (*caddy.Replacer, error) {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return nil, errNoReplacer
	}
	return repl, nil
}
