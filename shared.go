package mcpauth

import (
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// Several of our handlers can stand one behind the other, such as mcp_bearer
// blocks for two resources of a host. None may take away what another has made
// of a request that is not its own; where both guard it, both check the token,
// and what the last one forwards reaches the server.

// handedOnVar is the variable of a request that holds its *handedOn.
const handedOnVar = "mcp_auth.handed_on"

// handedOn is what a handler that guards a request leaves for the next one.
type handedOn struct{ authorization []string }

// takenOver is what a request had before the next handler looked at it.
type takenOver struct {
	authorization []string
	identity      http.Header
}

// takeOver gives a request that came through another handler its access token
// back; nil if it did not. On most sites there is one handler, and nothing to do.
func (s *site) takeOver(r *http.Request) *takenOver {
	if !s.shared.Load() {
		return nil
	}
	handed, ok := caddyhttp.GetVar(r.Context(), handedOnVar).(*handedOn)
	if !ok {
		return nil
	}
	t := &takenOver{r.Header["Authorization"], bearer.IdentityHeaders(r.Header)}
	setValues(r.Header, "Authorization", handed.authorization)
	return t
}

// restore undoes takeOver and what the guard has stripped.
func (t *takenOver) restore(r *http.Request) {
	if t == nil {
		return
	}
	setValues(r.Header, "Authorization", t.authorization)
	maps.Copy(r.Header, t.identity)
}

// handOn is called before anything is forwarded.
func (s *site) handOn(r *http.Request) {
	if s.shared.Load() {
		caddyhttp.SetVar(r.Context(), handedOnVar, &handedOn{r.Header["Authorization"]})
	}
}

func setValues(h http.Header, name string, values []string) {
	if values == nil {
		delete(h, name)
	} else {
		h[name] = values
	}
}

// noteShared finds the sites that a new one shares its host with. The caller
// holds sitesMu.
func (a *App) noteShared(s *site) {
	for _, other := range a.sites {
		if other.site != s && sameHost(other.base, s.base) {
			for _, one := range []*site{s, other.site} {
				one.shared.Store(true)
				one.guard.NotAlone()
			}
		}
	}
}

// describedElsewhere reports whether another handler of the host publishes
// metadata at the path.
func (s *site) describedElsewhere(path string) bool {
	if !s.shared.Load() || s.guard.HasMetadata(path) {
		return false
	}
	s.app.sitesMu.Lock()
	defer s.app.sitesMu.Unlock()
	for _, other := range s.app.sites {
		if other.site != s && sameHost(other.base, s.base) && other.guard.HasMetadata(path) {
			return true
		}
	}
	return false
}

// sameHost reports whether two base URLs have the same host and port.
func sameHost(a, b string) bool {
	u, errA := url.Parse(a)
	v, errB := url.Parse(b)
	return errA == nil && errB == nil && strings.EqualFold(u.Host, v.Host)
}
