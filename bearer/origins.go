package bearer

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxOrigin bounds an Origin header, in bytes: a host name has at most 253.
const maxOrigin = 512

func (g *guardedResource) setOrigins() error {
	for _, allowed := range g.Origins {
		if allowed == "*" {
			return errors.New("origins: * would let any web page call the resource; list the origins, for example https://app.example.com")
		}
		origin, ok := canonicalOrigin(allowed)
		if !ok {
			return fmt.Errorf("origins: %q is not a web origin; write scheme and host without path, for example https://app.example.com", allowed)
		}
		g.origins = append(g.origins, origin)
	}
	return nil
}

// allowsOrigin reports whether a page of the origin may call the resource.
func (g *guardedResource) allowsOrigin(header string) bool {
	if header == g.origin {
		return true // the usual case, without parsing
	}
	origin, ok := canonicalOrigin(header)
	if !ok {
		return false // also "null", which any sandboxed page can send
	}
	if origin == g.origin || slices.Contains(g.origins, origin) {
		return true
	}
	return g.Origins == nil && isLoopbackOrigin(origin)
}

// canonicalOrigin returns a serialized origin (RFC 6454 §6.2) in lower case and
// without its scheme's default port; false if s is not one.
func canonicalOrigin(s string) (string, bool) {
	_, authority, found := strings.Cut(s, "://")
	if !found || len(s) > maxOrigin || strings.ContainsAny(authority, "/?#@") {
		return "", false
	}
	origin, err := oauth.Origin(s)
	return origin, err == nil
}

// isLoopbackOrigin reports whether a canonical origin is a page that this
// computer serves itself.
func isLoopbackOrigin(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	return oauth.IsLoopbackHost(u.Hostname())
}
