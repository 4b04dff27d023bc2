package proxyprovider

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Authorize redirects to the upstream's authorization endpoint with the
// client's request. The upstream redirects to the client itself, unless its
// answers are relayed.
func (p *proxy) Authorize(w http.ResponseWriter, r *http.Request, c *oauth.Client, x authserver.AuthorizationParams) error {
	var err error
	if x.Scopes, err = p.confined(c, x.Scopes); err != nil {
		return err
	}
	if p.relays(r.Context(), c) {
		return p.relay.authorize(w, r, c, x)
	}
	client, err := p.clients.upstreamClient(c)
	if err != nil {
		return err
	}
	to, err := p.upstream.requiredURL(r.Context(), authorizationEndpoint)
	if err != nil {
		return err
	}
	scope := p.scope(r.Context(), p.orDefaultScopes(to, x))
	x.Resource = p.orDefaultResource(to, x.Resource)
	query := p.authorizationQuery(client, x, scope)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", withQuery(to, query))
	w.WriteHeader(http.StatusFound)
	return nil
}

// confined returns those of the scopes that the operator lets a static client
// ask for; none left is invalid_scope. What a client registered for itself
// confines nobody.
func (p *proxy) confined(c *oauth.Client, scopes []string) ([]string, error) {
	if len(scopes) == 0 || c.Scope == "" || !p.clients.Preregistered(c) {
		return scopes, nil
	}
	allowed, err := oauth.ParseScope(c.Scope)
	if err != nil {
		return nil, err
	}
	kept := slices.DeleteFunc(slices.Clone(scopes), func(s string) bool {
		return s != "offline_access" && !slices.Contains(allowed, s)
	})
	if len(kept) == 0 {
		return nil, oauth.ErrInvalidScope.Describe("This client may not ask for any of the requested scopes")
	}
	return kept, nil
}

// authorizationQuery is the request to the upstream.
func (p *proxy) authorizationQuery(client *upstreamClient, x authserver.AuthorizationParams, scope string) form {
	var query form
	query.add("client_id", client.id)
	query.add("response_type", "code")
	query.add("redirect_uri", x.RedirectURI)
	if x.CodeChallenge != "" {
		query.add("code_challenge", x.CodeChallenge)
		query.add("code_challenge_method", "S256")
	}
	query.addSet("state", x.State)
	query.addSet("scope", scope)
	query.addSet("resource", p.resource(x.Resource))
	query.addSet("prompt", x.Prompt)
	query.addSet("nonce", x.Nonce)
	query.addSet("login_hint", x.LoginHint)
	query.addSet("max_age", x.MaxAge)
	query.addSet("ui_locales", x.UILocales)
	query.addSet("acr_values", x.ACRValues)
	return query
}

// orDefaultScopes returns the requested scopes, or those that the resource
// needs if the client names none: many upstreams give a token without any scope
// then, which is of no use here. A configured ?scope=… goes first.
func (p *proxy) orDefaultScopes(to string, x authserver.AuthorizationParams) []string {
	if len(x.Scopes) > 0 || p.defaults == nil {
		return x.Scopes
	}
	if u, err := url.Parse(to); err != nil || u.Query().Has("scope") {
		return nil
	}
	return p.defaults(x.Resource)
}

// orDefaultResource returns the resource that the client names, or the one that it
// means if it names none, as clients from before MCP 2025-06-18 do: the upstream
// has to know for which one the token is. A configured ?resource=… goes first.
func (p *proxy) orDefaultResource(to, resource string) string {
	if resource != "" || p.defaultResource == "" {
		return resource
	}
	if u, err := url.Parse(to); err != nil || u.Query().Has("resource") {
		return ""
	}
	return p.defaultResource
}

// orOnlyResource is for requests with a grant. With several resources only the
// upstream knows which one the grant is for.
func (p *proxy) orOnlyResource(ctx context.Context, resource string) string {
	if resource != "" || !p.onlyResource {
		return resource
	}
	to, err := p.upstream.requiredURL(ctx, authorizationEndpoint)
	if err != nil {
		return ""
	}
	return p.orDefaultResource(to, resource)
}

// withQuery adds the parameters to a configured URL. Its own parameters stay
// as they are written (?audience=x, or a default ?scope=openid), except those
// that the request sets, and state, which is the client's alone.
func withQuery(to string, query form) string {
	base, configured, _ := strings.Cut(to, "?")
	var kept []string
	for part := range strings.SplitSeq(configured, "&") {
		name, _, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if part == "" || err != nil || name == "state" || query.has(name) {
			continue
		}
		kept = append(kept, part)
	}
	return base + "?" + strings.Join(append(kept, query.encode()), "&")
}

// scope is what is asked of the upstream when a client asks for scopes.
func (p *proxy) scope(ctx context.Context, scopes []string) string {
	if len(scopes) == 0 {
		return ""
	}
	noOffline := slices.Contains(scopes, "offline_access") && p.upstream.refusesOfflineAccess(ctx)
	return oauth.JoinScope(slices.DeleteFunc(slices.Clone(scopes), func(s string) bool {
		return slices.Contains(p.dropScopes, s) || noOffline && s == "offline_access"
	}))
}

// resource is what the upstream is told of the resource.
func (p *proxy) resource(resource string) string {
	if p.omitResource {
		return ""
	}
	return resource
}
