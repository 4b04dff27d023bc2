package bearer

import (
	"net/http"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Refuse answers a request that Check admitted and that cannot go on after all,
// as if Check had found out: with the challenge of its resource, CORS headers and
// a line in the log. w is the writer that Check was given.
func (g *Guard) Refuse(w http.ResponseWriter, r *http.Request, d Decision, err *oauth.Error) {
	c := check{
		guard: g, request: r, writer: w,
		resource: d.guarded, other: d.also, needed: d.asked.scopes, info: d.Info, token: d.asked.token,
	}
	if origins := r.Header["Origin"]; len(origins) == 1 { // which Check has allowed
		c.origin = origins[0]
	}
	c.refuse(err)
	c.decide(w)
}
