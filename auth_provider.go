package mcpauth

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"

	"github.com/caddy-mcp/mcpauth/oauth"
)

func init() {
	caddy.RegisterModule(AuthProvider{})
}

// AuthProvider is `mcp_bearer` for Caddy's `authentication` handler, for routes
// in which tokens are one of several ways to authenticate. It has the settings of
// the handler `mcp_bearer`, which does more and is the better choice wherever it
// fits:
//
//   - It decides about every request of its route: that the resource has a path
//     does not matter.
//   - It serves no metadata. Clients find the authorization server only if an
//     `mcp_bearer` handler with the same settings answers the route with the paths
//     `/.well-known/oauth-protected-resource*`, and for `forward jwt`
//     `/mcp-auth/jwks.json`.
//   - It sees no answers: sessions are not bound to users, lists are not filtered,
//     streams do not end with their token, and the server behind must not set CORS
//     headers.
//   - Beside other providers every refusal is 401, with our challenge or that of
//     another provider, and without a body. Requests that another provider lets in
//     may carry identity headers of the client's: remove them before.
//
// After the check the placeholders of `mcp_auth` are available.
type AuthProvider struct {
	BearerHandler
}

// CaddyModule returns the Caddy module information.
func (AuthProvider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.authentication.providers.mcp_bearer", New: func() caddy.Module { return new(AuthProvider) }}
}

// Provision checks the configuration and builds the guard. It opens nothing.
func (p *AuthProvider) Provision(ctx caddy.Context) error {
	if r := p.Resource; r != nil {
		for setting, set := range map[string]bool{
			"filter_lists": r.FilterLists, "stream_grace": r.StreamGrace != 0, "session_binding_off": r.SessionBindingOff,
		} {
			if set {
				return fmt.Errorf("%s has no meaning in an authentication provider, which does not see answers; use the handler mcp_bearer", setting)
			}
		}
	}
	return p.provision(ctx, "http.authentication.providers.mcp_bearer", true)
}

// Authenticate implements caddyauth.Authenticator. When it returns false the
// answer is written. An error is about this server: the token may be good.
func (p *AuthProvider) Authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	user, ok, err := p.authenticate(w, r)
	if !ok && keepsApart(w) {
		// Of an answer beside those of other providers Caddy sends the header alone,
		// which then must not speak of the body.
		w.Header().Del("Content-Length")
		w.Header().Del("Content-Type")
	}
	return user, ok, err
}

// keepsApart reports whether what is written does not reach the client as it is:
// the header is not that of the writer below.
func keepsApart(w http.ResponseWriter) bool {
	wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
	return ok && reflect.ValueOf(w.Header()).Pointer() != reflect.ValueOf(wrapper.Unwrap().Header()).Pointer()
}

func (p *AuthProvider) authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	original := originalURL(r)
	if queryHoldsToken(original) || queryHoldsToken(r.URL) {
		// The answer is not ours to see, so all that can be done is not to log it.
		caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
		p.logger.Warn("a request with a token in its URL is left out of the access log", zap.String("client_ip", clientIP(r)), zap.String("path", original.Path))
	}
	p.site.takeOver(r)
	decision, admitted := p.site.guard.Check(w, r, original)
	if !admitted {
		return caddyauth.User{}, false, nil
	}
	if decision.Info == nil { // no path is outside of the resource
		return caddyauth.User{}, false, errors.New("the request was not checked")
	}
	p.site.handOn(r)
	if err := p.forward(r, decision); err != nil {
		var refusal *oauth.Error
		if !errors.As(err, &refusal) {
			return caddyauth.User{}, false, err
		}
		p.site.guard.Refuse(w, r, decision, refusal)
		return caddyauth.User{}, false, nil
	}
	p.setUser(r, decision.Info)
	return authUser(decision.Info), true, nil
}

// authUser is the caller as Caddy knows users. What is not in it, as the claims,
// setUser has made known.
func authUser(info *oauth.TokenInfo) caddyauth.User {
	user := caddyauth.User{ID: info.UserID, Metadata: make(map[string]string)}
	if user.ID == "" {
		user.ID = info.ClientID
	}
	for _, name := range []string{"client_id", "scopes", "email", "name", "groups"} {
		value, _ := userPlaceholder(info, userPrefix+name)
		user.Metadata[name], _ = value.(string)
	}
	return user
}

// Interface guards
var (
	_ caddy.Provisioner       = (*AuthProvider)(nil)
	_ caddyauth.Authenticator = (*AuthProvider)(nil)
)
