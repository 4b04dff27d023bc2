package authserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxState bounds the client's state, in bytes: it comes back in a URL and may
// travel in a cookie.
const maxState = 2 << 10

// serveAuthorize is the authorization endpoint (RFC 6749 §3.1). Until the
// redirect URI is proven to be the client's, errors are shown here; after that
// they go to it (§4.1.2.1).
func (s *Server) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	if err := s.limits.countRequest(w.Header(), r, authorizePath); err != nil {
		s.showError(w, r, "", err)
		return
	}
	query, err := s.authorizationQuery(w, r)
	if err != nil {
		s.showError(w, r, "", err)
		return
	}
	client, err := s.authorizationClient(r, query)
	if err != nil {
		s.showError(w, r, query.get("client_id"), err)
		return
	}
	params, err := s.provenRedirect(r.Context(), client, query)
	if err != nil {
		s.showError(w, r, client.ClientID, err)
		return
	}
	if answerWithoutEffect(w, r) {
		return
	}
	if params, err = s.checkAuthorization(client, query, params); err != nil {
		s.redirectError(w, r, client.ClientID, params, err)
		return
	}
	if err := s.config.Provider.Authorize(w, r, client, params); err != nil {
		s.redirectError(w, r, client.ClientID, params, err)
	}
}

// authorizationQuery reads the parameters: the query of a GET, the form of a
// POST.
func (s *Server) authorizationQuery(w http.ResponseWriter, r *http.Request) (params, error) {
	if r.Method == http.MethodPost {
		return s.readForm(w, r)
	}
	if len(r.URL.RawQuery) > maxQuery {
		return params{}, oauth.ErrInvalidRequest.Describe(fmt.Sprintf("The query is longer than %d bytes", maxQuery))
	}
	return parseParams(r.URL.RawQuery)
}

// authorizationClient finds the client. The texts say what to do, for they are
// read by people whose client keeps an id that this server no longer knows.
func (s *Server) authorizationClient(r *http.Request, query params) (*oauth.Client, error) {
	if err := query.once("client_id", "redirect_uri"); err != nil {
		return nil, err
	}
	id, err := query.required("client_id")
	if err != nil {
		return nil, err
	}
	client, err := s.config.Provider.Clients().GetClient(r.Context(), id)
	switch {
	case errors.Is(err, oauth.ErrInvalidClient) && isDocumentID(id):
		// Registering anew would not help: the description says what is wrong with
		// the document.
		return nil, asError(err).WithStatus(http.StatusBadRequest)
	case errors.Is(err, oauth.ErrInvalidClient), err == nil && client == nil:
		return nil, oauth.ErrInvalidClient.WithStatus(http.StatusBadRequest).Because(err).
			Describe("Invalid client_id: remove this server from the client and add it again, so that it registers anew")
	case err != nil:
		return nil, err
	}
	return client, nil
}

// provenRedirect returns the parameters that an error redirect needs, once the
// redirect URI is known to be one that the client registered (RFC 6749
// §3.1.2.3, RFC 8252 §7.3) and that the policy still allows.
func (s *Server) provenRedirect(ctx context.Context, client *oauth.Client, query params) (AuthorizationParams, error) {
	p := AuthorizationParams{RedirectURI: query.get("redirect_uri"), Issuer: s.issFor(ctx, client)}
	if p.RedirectURI == "" {
		p.RedirectURIOmitted = true
		uri, ok := oauth.DefaultRedirectURI(client.RedirectURIs)
		if !ok {
			return p, oauth.ErrInvalidRequest.Describe("redirect_uri must be specified when client has multiple registered URIs")
		}
		p.RedirectURI = uri
	} else if !oauth.MatchRedirectURI(client.RedirectURIs, p.RedirectURI) {
		return p, oauth.ErrInvalidRequest.Describe("Unregistered redirect_uri")
	}
	if err := s.checkRedirectPolicy(client, p.RedirectURI); err != nil {
		return p, oauth.ErrInvalidRequest.Describe("redirect_uri is registered, but this server does not allow it").Because(err)
	}
	// A state that cannot be sent back is not; checkAuthorization refuses it.
	if state := query.get("state"); len(state) <= maxState && !query.repeated["state"] {
		p.State = state
	}
	return p, nil
}

// issFor returns the iss parameter of answers to the client, "" for none.
func (s *Server) issFor(ctx context.Context, client *oauth.Client) string {
	p, ok := s.config.Provider.(ClientIssParameter)
	switch {
	case !ok:
		return s.iss
	case p.SendsIss(ctx, client):
		return s.config.Issuer
	}
	return ""
}

// checkRedirectPolicy holds a registered URI to the policy of today, since the
// registration may be older than it.
func (s *Server) checkRedirectPolicy(client *oauth.Client, uri string) error {
	if store, ok := s.config.Provider.Clients().(PreregisteredStore); ok && store.Preregistered(client) {
		return oauth.CheckSafeScheme(uri)
	}
	return s.config.RedirectPolicy.Check(uri, client.ApplicationType)
}

// answerWithoutEffect answers requests that only look: HEAD, which link
// checkers and previews send, and prefetches by a browser that guesses where
// its user may go. Neither may start or use up anything, and the provider
// cannot be trusted to know. A prefetch is refused instead of answered with an
// empty success, which the browser would show when the user does come.
func answerWithoutEffect(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case strings.HasPrefix(r.Header.Get("Sec-Purpose"), "prefetch"), r.Header.Get("Purpose") == "prefetch":
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Method == http.MethodHead:
		w.WriteHeader(http.StatusNoContent)
	default:
		return false
	}
	return true
}

// checkAuthorization checks the rest of the request. The returned parameters
// are good for an error redirect even if there is an error.
func (s *Server) checkAuthorization(client *oauth.Client, query params, p AuthorizationParams) (AuthorizationParams, error) {
	if err := query.once(); err != nil {
		return p, err
	}
	if len(query.get("state")) > maxState {
		return p, oauth.ErrInvalidRequest.Describe(fmt.Sprintf("state is longer than %d bytes", maxState))
	}
	if err := checkResponseType(client, query); err != nil {
		return p, err
	}
	if err := checkPKCE(query); err != nil {
		return p, err
	}
	scopes, err := oauth.ParseScope(query.get("scope"))
	if err != nil {
		return p, err
	}
	resource, err := s.resource(query)
	if err != nil {
		return p, err
	}
	p.Scopes = scopes
	p.CodeChallenge = query.get("code_challenge")
	p.Resource = resource
	p.Prompt = query.get("prompt")
	p.Nonce = query.get("nonce")
	p.LoginHint = query.get("login_hint")
	p.MaxAge = query.get("max_age")
	p.UILocales = query.get("ui_locales")
	p.ACRValues = query.get("acr_values")
	return p, nil
}

func checkResponseType(client *oauth.Client, query params) error {
	responseType, err := query.required("response_type")
	if err != nil {
		return err
	}
	if responseType != "code" {
		return oauth.ErrUnsupportedResponseType.Describe("The only response_type of this server is code")
	}
	if mode := query.get("response_mode"); mode != "" && mode != "query" {
		return oauth.ErrInvalidRequest.Describe("The only response_mode of this server is query")
	}
	if len(client.ResponseTypes) > 0 && !slices.Contains(client.ResponseTypes, "code") {
		return oauth.ErrUnauthorizedClient.Describe("The client is not registered for response_type code")
	}
	if !client.AllowsGrant(oauth.GrantTypeAuthorizationCode) {
		return oauth.ErrUnauthorizedClient.Describe("The client is not registered for grant type authorization_code")
	}
	return nil
}

// checkPKCE requires S256 (OAuth 2.1 §4.1.1). A missing method means plain,
// which would hand the verifier to whoever sees the request.
func checkPKCE(query params) error {
	challenge, err := query.required("code_challenge")
	if err != nil {
		return err
	}
	if query.get("code_challenge_method") != "S256" {
		return oauth.ErrInvalidRequest.Describe("code_challenge_method must be S256")
	}
	if !oauth.ValidChallenge(challenge) {
		return oauth.ErrInvalidRequest.Describe("code_challenge must be 43 characters of base64url, the SHA-256 hash of the verifier")
	}
	return nil
}

// resource returns the resource that the request names, "" if it names none
// (RFC 8707 §2).
func (s *Server) resource(query params) (string, error) {
	named := query.get("resource")
	if named == "" {
		return "", nil
	}
	if s.config.Resources != nil {
		return s.config.Resources.Resolve(named)
	}
	u, err := url.Parse(named)
	if err != nil || !u.IsAbs() || strings.Contains(named, "#") {
		return "", oauth.ErrInvalidTarget.Describe("resource must be an absolute URI without a fragment")
	}
	return named, nil
}

// redirectError sends err to the redirect URI.
func (s *Server) redirectError(w http.ResponseWriter, r *http.Request, clientID string, p AuthorizationParams, err error) {
	e := asError(err)
	s.logError(r, authorizePath, clientID, e)
	RedirectError(w, r, p, e)
}

// showError answers err here, as a page or as JSON.
func (s *Server) showError(w http.ResponseWriter, r *http.Request, clientID string, err error) {
	e := asError(err)
	s.logError(r, authorizePath, clientID, e)
	writePage(w, r, e)
}
