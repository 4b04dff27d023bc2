package authserver

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// serveToken is the token endpoint (RFC 6749 §3.2).
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	form, err := s.readForm(w, r)
	if err != nil {
		s.failCounted(w, r, tokenPath, form, err)
		return
	}
	if err := form.once(); err != nil {
		s.failCounted(w, r, tokenPath, form, err)
		return
	}
	client, err := s.authenticate(w, r, tokenPath, form)
	if err != nil {
		s.failCounted(w, r, tokenPath, form, err)
		return
	}
	tokens, err := s.grant(r.Context(), client, form)
	if err != nil {
		s.failCounted(w, r, tokenPath, form, err)
		return
	}
	writeJSON(w, http.StatusOK, tokens)
}

// grant answers the request of an authenticated client by its grant type.
func (s *Server) grant(ctx context.Context, client *oauth.Client, form params) (tokens *oauth.Tokens, err error) {
	grantType, err := form.required("grant_type")
	if err != nil {
		return nil, err
	}
	switch grantType {
	case oauth.GrantTypeAuthorizationCode, oauth.GrantTypeRefreshToken:
	default:
		return nil, oauth.ErrUnsupportedGrantType.Describe("The grant type is not supported by this authorization server.")
	}
	if !client.AllowsGrant(grantType) {
		return nil, oauth.ErrUnauthorizedClient.Describe("The client is not registered for grant type " + grantType)
	}
	if grantType == oauth.GrantTypeAuthorizationCode {
		tokens, err = s.exchangeCode(ctx, client, form)
	} else {
		tokens, err = s.exchangeRefreshToken(ctx, client, form)
	}
	if err == nil && (tokens == nil || tokens.AccessToken == "") {
		err = errors.New("the provider returned no access token")
	}
	return tokens, err
}

// exchangeCode is grant_type=authorization_code (RFC 6749 §4.1.3, RFC 7636
// §4.5).
func (s *Server) exchangeCode(ctx context.Context, client *oauth.Client, form params) (*oauth.Tokens, error) {
	code, err := form.required("code")
	if err != nil {
		return nil, err
	}
	verifier, err := form.required("code_verifier")
	if err != nil {
		return nil, err
	}
	if !oauth.ValidVerifier(verifier) {
		return nil, oauth.ErrInvalidRequest.Describe("code_verifier must be 43 to 128 letters, digits and -._~ (RFC 7636 section 4.1)")
	}
	resource, err := s.resource(form)
	if err != nil {
		return nil, err
	}
	if err := s.checkVerifier(ctx, client, code, verifier); err != nil {
		return nil, err
	}
	return s.config.Provider.ExchangeCode(ctx, client, CodeExchange{
		Code:        code,
		Verifier:    verifier,
		RedirectURI: form.get("redirect_uri"),
		Resource:    resource,
	})
}

// checkVerifier checks PKCE here, unless the upstream does. A code without a
// stored challenge matches no verifier (RFC 9700 §4.8.2, downgrade).
func (s *Server) checkVerifier(ctx context.Context, client *oauth.Client, code, verifier string) error {
	if p, ok := s.config.Provider.(PKCESkipper); ok && p.SkipPKCE() {
		return nil
	}
	challenge, err := s.config.Provider.ChallengeForCode(ctx, client, code)
	if err != nil {
		return err
	}
	if !oauth.VerifyS256(verifier, challenge) {
		return oauth.ErrInvalidGrant.Describe("code_verifier does not match the challenge")
	}
	return nil
}

// exchangeRefreshToken is grant_type=refresh_token (RFC 6749 §6).
func (s *Server) exchangeRefreshToken(ctx context.Context, client *oauth.Client, form params) (*oauth.Tokens, error) {
	refreshToken, err := form.required("refresh_token")
	if err != nil {
		return nil, err
	}
	scopes, err := oauth.ParseScope(form.get("scope"))
	if err != nil {
		return nil, err
	}
	resource, err := s.resource(form)
	if err != nil {
		return nil, err
	}
	return s.config.Provider.ExchangeRefreshToken(ctx, client, RefreshExchange{
		RefreshToken: refreshToken,
		Scopes:       scopes,
		Resource:     resource,
	})
}

// failCounted answers err and counts it. Beyond the limit the answer is 429
// instead. Trouble of the server is not the client's and does not count, nor
// does what is a limit already.
func (s *Server) failCounted(w http.ResponseWriter, r *http.Request, endpoint string, form params, err error) {
	clientID := claimedClient(r, form)
	e := asError(err)
	if e.HTTPStatus() < http.StatusInternalServerError && !errors.Is(e, oauth.ErrTooManyRequests) {
		if limited := s.limits.countFailure(w.Header(), r, endpoint, clientID); limited != nil {
			err = limited
		}
	}
	s.fail(w, r, endpoint, clientID, err)
}
