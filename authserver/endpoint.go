package authserver

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Where the endpoints are, below the base URL. Clients of 2025-03-26 guess
// these names (MCP 2025-03-26, "Fallbacks for Servers without Metadata
// Discovery").
const (
	authorizePath = "/authorize"
	tokenPath     = "/token"
	registerPath  = "/register"
	revokePath    = "/revoke"
)

// endpoint is what all endpoints have in common: methods, CORS, caching and
// the time budget.
type endpoint struct {
	server  *Server
	methods []string
	// browser marks an endpoint that people visit: it must not support CORS
	// (OAuth 2.1 §3.1).
	browser bool
	// cacheable marks a public document.
	cacheable bool
	serve     http.HandlerFunc
}

// ServeHTTP implements http.Handler.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Whoever reads the body sets a longer one.
	safehttp.BoundReading(w, r, safehttp.RefusalTime)
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if !e.cacheable {
		noStore(h)
	}
	if !e.browser {
		allowAllOrigins(h)
		if r.Method == http.MethodOptions {
			e.servePreflight(w, r)
			return
		}
	}
	if !slices.Contains(e.methods, r.Method) {
		noStore(h)
		e.serveWrongMethod(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), e.server.config.Timeout)
	defer cancel()
	if !e.cacheable {
		ctx = ContextWithCaller(ctx, e.server.config.ClientIP(r))
	}
	e.serve(w, r.WithContext(ctx))
}

// noStore forbids every cache to keep the answer (RFC 6749 §5.1; Pragma is
// for HTTP/1.0 caches).
func noStore(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
}

// allowAllOrigins lets web pages of any origin read the answer. No cookie is
// ever read on these endpoints, so there is nothing to borrow.
func allowAllOrigins(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers",
		"WWW-Authenticate, RateLimit-Policy, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After")
}

// servePreflight answers a CORS preflight, or any other OPTIONS request, as
// the SDK does. The requested headers are allowed, for clients add headers of
// their own (MCP-Protocol-Version, tracing).
func (e *endpoint) servePreflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", e.allow())
	allowed := "Authorization, Content-Type, MCP-Protocol-Version"
	if requested := r.Header.Get("Access-Control-Request-Headers"); requested != "" {
		allowed = requested
	}
	h.Set("Access-Control-Allow-Headers", allowed)
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Max-Age", "7200")
	w.WriteHeader(http.StatusNoContent)
}

func (e *endpoint) serveWrongMethod(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", e.allow())
	writeError(w, oauth.ErrMethodNotAllowed.Describe("The method "+r.Method+" is not allowed for this endpoint"))
}

// allow returns the value of the Allow header.
func (e *endpoint) allow() string {
	allow := strings.Join(e.methods, ", ")
	if !e.browser {
		allow += ", OPTIONS"
	}
	return allow
}

// boundReading ends a read of the request's body after the time budget. Not
// every ResponseWriter can do that; those of http.Server and Caddy can. The
// deadline need not be lifted: net/http does that at the end of the body.
func (s *Server) boundReading(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return // the server may be reading ahead, which must not be disturbed
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.config.Timeout))
}
