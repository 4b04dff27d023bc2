package mcpauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// callerVar is the variable of a request that holds its *caller.
const callerVar = "mcp_auth.caller"

// caller is who sends a guarded request, for a transport behind the guard.
type caller struct {
	site     *site
	decision bearer.Decision
}

// setCaller keeps the guard's decision for a transport that wants it.
func (h *served) setCaller(r *http.Request, decision bearer.Decision) {
	if h.site.callers.Load() && decision.Info != nil {
		caddyhttp.SetVar(r.Context(), callerVar, &caller{h.site, decision})
	}
}

var errNoCaller = errors.New("the request did not come through the mcp_auth site that knows the users: put the resource that guards this path into that mcp_auth block")

// callerOf returns who sends a request, if the site has let it in.
func callerOf(r *http.Request, s *site) (*caller, error) {
	c, ok := caddyhttp.GetVar(r.Context(), callerVar).(*caller)
	if !ok || c.site != s {
		return nil, errNoCaller
	}
	return c, nil
}

// siteInFront returns the site that knows the users: the one of that issuer, or
// the only one. It is provisioned before what stands behind it.
func (a *App) siteInFront(kind, issuer string) (*site, error) {
	a.sitesMu.Lock()
	defer a.sitesMu.Unlock()
	if issuer != "" {
		if s, ok := a.sites[issuer]; ok && s.control != nil {
			return s.site, nil
		}
		return nil, fmt.Errorf("%s: no mcp_auth with upstream or accounts in front of this proxy has the issuer %s", kind, issuer)
	}
	var found *site
	for _, s := range a.sites {
		if s.control == nil || s.site == found {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s: there are several mcp_auth sites; write the issuer of the one in front: %s https://mcp.example.com", kind, kind)
		}
		found = s.site
	}
	if found == nil {
		return nil, fmt.Errorf("%s: users have to be known: put an mcp_auth with upstream or accounts into this site, in front of the proxy", kind)
	}
	return found, nil
}

// upstreamTokenFor is whose tokens a broker has, and for what they were asked.
type upstreamTokenFor struct{ issuer, resource string }

// upstreamTokenFor reads the resource parameter that the operator sends to the
// identity provider.
func (m *BrokerMode) upstreamTokenFor(issuer string) (upstreamTokenFor, error) {
	config, err := resolvedModule(m.upstream)
	if err != nil {
		return upstreamTokenFor{}, err
	}
	f := upstreamTokenFor{issuer: issuer}
	if members, ok := config.(map[string]any); ok {
		if params, ok := members["params"].(map[string]any); ok {
			f.resource, _ = params["resource"].(string)
		}
	}
	return f, nil
}

// upstreamTokenSource sends each user's own token of the identity provider, which
// must have been issued for this very server. Any other token that is passed on
// is one that the server could use elsewhere, or that was meant for somebody
// else (MCP security best practices, "Token Passthrough").
func (t *Transport) upstreamTokenSource(r *RemoteServer) (tokenSource, error) {
	s, err := t.app.siteInFront(kindUpstreamToken, r.Credentials.Site)
	if err != nil {
		return nil, err
	}
	whose := s.upstreamTokenFor
	switch {
	case s.upstreamToken == nil:
		return nil, fmt.Errorf("upstream_token: %s signs people in itself and has no token of an identity provider", s.issuer)
	case strings.TrimSuffix(whose.issuer, "/") != strings.TrimSuffix(r.AuthorizationServer, "/"):
		return nil, fmt.Errorf("upstream_token: people sign in at %s, and this MCP server's tokens come from %s: passing a token on to a server that it is not for is token passthrough, which MCP forbids; use client_credentials, login or user", whose.issuer, r.AuthorizationServer)
	case whose.resource == "":
		return nil, fmt.Errorf("upstream_token: the tokens of %s are not asked for %s, so it may be anybody's whom they are for: passing them on is token passthrough, which MCP forbids; write param resource %s in the upstream block if the identity provider knows resource indicators (RFC 8707), else use client_credentials, login or user", whose.issuer, r.Resource, r.Resource)
	case whose.resource != r.Resource:
		return nil, fmt.Errorf("upstream_token: the tokens are asked for %s and would go to %s: passing a token on to a server that it is not for is token passthrough, which MCP forbids", whose.resource, r.Resource)
	}
	t.app.callers.Store(true)
	next := server{&t.HTTPTransport}
	return &upstreamTokens{site: s, next: next}, nil
}

// upstreamTokens is the source of upstream_token.
type upstreamTokens struct {
	site *site
	next http.RoundTripper
}

func (u *upstreamTokens) client(r *http.Request) (remoteClient, error) {
	c, err := callerOf(r, u.site)
	if err != nil {
		return nil, err
	}
	token, err := u.site.upstreamToken(r.Context(), c.decision.Info)
	var refusal *oauth.Error
	switch {
	case errors.As(err, &refusal):
		return nil, &signInError{caller: c, refusal: refusal}
	case err != nil:
		return nil, err
	}
	return &tokenAdder{u.next, token}, nil
}

func (*upstreamTokens) closeIdle() {}

// tokenAdder adds a token that is not ours to renew.
type tokenAdder struct {
	next  http.RoundTripper
	token string
}

// RoundTrip implements http.RoundTripper.
func (a *tokenAdder) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.Header.Set("Authorization", "Bearer "+a.token)
	return a.next.RoundTrip(out)
}

func (*tokenAdder) failed(_ context.Context, err error) error { return err }

// callerError is one about which the caller, and not the operator, has to do
// something.
type callerError interface {
	error
	answer(r *http.Request) *http.Response
}

// signInError sends the client through the sign-in again.
type signInError struct {
	caller *caller
	// refusal is what the caller's own token is refused with.
	refusal *oauth.Error
}

func (e *signInError) Error() string { return e.refusal.Error() }

// answer is that of the guard in front.
func (e *signInError) answer(r *http.Request) *http.Response {
	recorder := httptest.NewRecorder()
	e.caller.site.guard.Refuse(recorder, r, e.caller.decision, e.refusal)
	resp := recorder.Result()
	resp.Request = r
	return resp
}
