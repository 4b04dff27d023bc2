package authclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const whatToken = "token endpoint"

// CodeExchange is the redemption of an authorization code.
type CodeExchange struct {
	Client *ClientInformation
	// Code and Iss are those of the callback; Iss is "" if it had none.
	Code, Iss    string
	CodeVerifier string
	RedirectURL  string
	// Resource is the resource parameter; "" for none.
	Resource string
	// Provider may add client authentication and proofs; nil for none.
	Provider Provider
}

// ExchangeAuthorization redeems a code, the SDK's exchangeAuthorization, after
// the check of iss.
func ExchangeAuthorization(ctx context.Context, s AuthorizationServer, x CodeExchange) (*Tokens, error) {
	if err := s.checkIss(x.Iss); err != nil {
		return nil, err
	}
	return s.requestTokens(ctx, x.Provider, x.Client, codeForm(&x), x.Resource)
}

func codeForm(x *CodeExchange) url.Values {
	return url.Values{
		"grant_type":    {oauth.GrantTypeAuthorizationCode},
		"code":          {x.Code},
		"code_verifier": {x.CodeVerifier},
		"redirect_uri":  {x.RedirectURL},
	}
}

// RefreshRequest is a refresh of tokens.
type RefreshRequest struct {
	Client *ClientInformation
	// Tokens are the old ones. The new ones keep their refresh token and scope if
	// the server does not say others.
	Tokens *Tokens
	// Resource is the resource parameter; "" for none.
	Resource string
	// Provider may add client authentication and proofs; nil for none.
	Provider Provider
}

// RefreshAuthorization refreshes tokens, the SDK's refreshAuthorization. Tokens
// of another issuer are an AuthorizationServerMismatchError.
func RefreshAuthorization(ctx context.Context, s AuthorizationServer, r RefreshRequest) (*Tokens, error) {
	if r.Tokens == nil || r.Tokens.RefreshToken == "" {
		return nil, errors.New("there is no refresh token: authorize again")
	}
	if r.Tokens.Issuer != "" && !sameIssuer(r.Tokens.Issuer, s.Issuer()) {
		return nil, &AuthorizationServerMismatchError{What: "the refresh token", Recorded: r.Tokens.Issuer, Current: s.Issuer()}
	}
	form := url.Values{"grant_type": {oauth.GrantTypeRefreshToken}, "refresh_token": {r.Tokens.RefreshToken}}
	tokens, err := s.requestTokens(ctx, r.Provider, r.Client, form, r.Resource)
	if err != nil {
		return nil, err
	}
	if tokens.RefreshToken == "" {
		tokens.RefreshToken = r.Tokens.RefreshToken
	}
	if tokens.Scope == "" { // RFC 6749 §6: the same as before
		tokens.Scope = r.Tokens.Scope
	}
	return tokens, nil
}

// FetchRequest is a token request of any grant.
type FetchRequest struct {
	// Client is nil for a grant that needs none.
	Client *ClientInformation
	// Code and Iss are those of the callback if there was one.
	Code, Iss string
	// Resource and Scope are the parameters; "" for none.
	Resource, Scope string

	// verifier is that of the code; "" for the provider's.
	verifier string
}

// FetchToken gets tokens with the grant of the provider if it is a
// TokenRequestPreparer, else for the code, the SDK's fetchToken.
func FetchToken(ctx context.Context, p Provider, s AuthorizationServer, r FetchRequest) (*Tokens, error) {
	if r.Code != "" {
		if err := s.checkIss(r.Iss); err != nil {
			return nil, err
		}
	}
	form, err := s.grantForm(ctx, p, &r)
	if err != nil {
		return nil, err
	}
	tokens, err := s.requestTokens(ctx, p, r.Client, form, r.Resource)
	if err == nil && tokens.Scope == "" { // RFC 6749 §5.1: what was asked for
		tokens.Scope = r.Scope
		if asked := form.Get("scope"); asked != "" {
			tokens.Scope = asked
		}
	}
	return tokens, err
}

func (s *AuthorizationServer) grantForm(ctx context.Context, p Provider, r *FetchRequest) (url.Values, error) {
	if preparer, ok := p.(TokenRequestPreparer); ok {
		n, done, err := s.Options.connected(s.URL)
		if err != nil {
			return nil, err
		}
		defer done()
		form, err := preparer.PrepareTokenRequest(ctx, Grant{
			Scope: r.Scope, ChallengeScope: s.Options.Scope, Issuer: s.Issuer(), AuthorizationServerURL: s.URL,
			Resource: r.Resource, Metadata: s.Metadata, HTTPClient: n.client,
		})
		if err != nil || form != nil {
			return form, err
		}
	}
	if r.Code == "" {
		return nil, errors.New("the provider has neither a TokenRequestPreparer nor an authorization code: implement one, or set a redirect URL")
	}
	if p.RedirectURL() == "" {
		return nil, errors.New("the provider has no redirect URL, which the redemption of a code needs")
	}
	verifier, err := r.verifier, error(nil)
	if verifier == "" {
		verifier, err = p.CodeVerifier(ctx)
	}
	if err != nil {
		return nil, err
	}
	if verifier == "" {
		return nil, errNoLogin()
	}
	return codeForm(&CodeExchange{Code: r.Code, CodeVerifier: verifier, RedirectURL: p.RedirectURL()}), nil
}

// requestTokens sends a token request, once more if a proof needs a nonce.
func (s *AuthorizationServer) requestTokens(ctx context.Context, p Provider, client *ClientInformation, form url.Values, resource string) (*Tokens, error) {
	n, done, err := s.Options.connected(s.URL)
	if err != nil {
		return nil, err
	}
	defer done()
	r, err := s.tokenRequest(ctx, n, p, client, form, resource)
	if err != nil {
		return nil, err
	}
	tokens, again, err := s.sendTokenRequest(ctx, n, p, r)
	if again {
		// Anew, for a client assertion may be used once.
		if r, err = s.tokenRequest(ctx, n, p, client, form, resource); err != nil {
			return nil, err
		}
		tokens, _, err = s.sendTokenRequest(ctx, n, p, r)
	}
	return tokens, err
}

// tokenRequest adds the resource and the client's authentication to the form.
func (s *AuthorizationServer) tokenRequest(ctx context.Context, n *network, p Provider, client *ClientInformation, form url.Values, resource string) (*TokenRequest, error) {
	fromMetadata := ""
	if s.Metadata != nil {
		fromMetadata = s.Metadata.TokenEndpoint
	}
	endpoint, err := n.endpoint(whatToken, fromMetadata, s.URL, "/token")
	if err != nil {
		return nil, err
	}
	if client != nil && client.Issuer != "" && !sameIssuer(client.Issuer, s.Issuer()) {
		return nil, &AuthorizationServerMismatchError{What: "the client " + client.ClientID, Recorded: client.Issuer, Current: s.Issuer()}
	}
	r := &TokenRequest{
		Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}},
		Form:   form, URL: endpoint.String(), Issuer: s.Issuer(), Metadata: s.Metadata, Client: client,
	}
	if resource != "" {
		r.Form.Set("resource", resource)
	}
	if a, ok := p.(ClientAuthenticator); ok {
		return r, a.AddClientAuthentication(ctx, r)
	}
	r.authenticate()
	return r, nil
}

func (s *AuthorizationServer) sendTokenRequest(ctx context.Context, n *network, p Provider, r *TokenRequest) (tokens *Tokens, again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, strings.NewReader(r.Form.Encode()))
	if err != nil {
		return nil, false, err
	}
	req.Header = r.Header.Clone()
	prover, proves := p.(Prover)
	if proves {
		if err := prover.ProveTokenRequest(ctx, req, s.Metadata); err != nil {
			return nil, false, err
		}
	}
	sent := s.Options.now()
	answer, err := n.do(whatToken, req)
	if err != nil {
		return nil, false, err
	}
	tokens, err = s.readTokens(req, answer, sent, secretsOf(r))
	if err == nil {
		err = checkTokenType(tokens, r, proves)
	}
	if err != nil {
		tokens = nil
		err = s.blameClock(err, r, req, answer)
	}
	if proves {
		again = prover.ProofAnswered(ctx, ProofAnswer{URL: req.URL, Status: answer.Status, Header: answer.Header, Code: codeOf(err)})
		again = again && err != nil
		if err == nil {
			if err = prover.AcceptTokens(ctx, tokens); err != nil {
				return nil, false, err
			}
		}
	}
	return tokens, again, err
}

// codeOf is the OAuth error code of err, "" if it has none.
func codeOf(err error) string {
	if e, ok := errors.AsType[*oauth.Error](err); ok {
		return e.Code
	}
	return ""
}

// readTokens reads a token response (RFC 6749 §5). sent is when the request
// was, so that a slow answer does not lengthen the life of the token. secrets do
// not get into errors.
func (s *AuthorizationServer) readTokens(req *http.Request, answer *safehttp.Answer, sent time.Time, secrets []string) (*Tokens, error) {
	body, err := tokenAnswer(req, answer, secrets)
	if err != nil {
		return nil, err
	}
	tokens := &Tokens{Issuer: s.Issuer()}
	if err := json.Unmarshal(body, &tokens.Tokens); err != nil {
		return nil, &EndpointError{What: whatToken, URL: bare(req.URL), Status: answer.Status, Err: err, Reason: "the answer is no token response: tell its operator"}
	}
	if !isHeaderToken(tokens.AccessToken) {
		return nil, &EndpointError{What: whatToken, URL: bare(req.URL), Status: answer.Status, Reason: "the access token is empty or holds characters that no header can carry: tell its operator"}
	}
	if tokens.ExpiresIn != nil {
		tokens.ExpiresAt = sent.Add(*tokens.ExpiresIn)
	}
	return tokens, nil
}

// tokenAnswer returns the JSON of a successful answer, else an *oauth.Error or
// an EndpointError.
func tokenAnswer(req *http.Request, answer *safehttp.Answer, secrets []string) ([]byte, error) {
	body := answer.Body
	if mediaType, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type")); err == nil && mediaType == "application/x-www-form-urlencoded" {
		body = formToJSON(body) // GitHub
	}
	// Some servers send errors with status 200 (typescript-sdk#1342).
	if refusal := oauthError(body, answer.Status, secrets...); refusal != nil {
		if answer.Status >= 500 || answer.Status == http.StatusTooManyRequests || temporary(refusal) {
			e := unavailable(whatToken, req, answer)
			e.Err = refusal
			return nil, e
		}
		return nil, refusal
	}
	if answer.Status >= 300 && answer.Status < 400 || answer.Status >= 500 || answer.Status == http.StatusTooManyRequests {
		return nil, unavailable(whatToken, req, answer)
	}
	var anything json.RawMessage
	if isWebPage(answer) || answer.Status >= 400 {
		err := readJSON(whatToken, req, answer, &anything)
		if err == nil {
			err = &EndpointError{What: whatToken, URL: bare(req.URL), Status: answer.Status, Reason: fmt.Sprintf("it refuses the request (HTTP %d) without saying why: check the URL of the MCP server, and tell its operator", answer.Status)}
		}
		return nil, err
	}
	if err := strictjson.Check(body); err != nil {
		return nil, &EndpointError{What: whatToken, URL: bare(req.URL), Status: answer.Status, Err: err, Reason: "the answer is not the JSON that the standard asks for: tell its operator"}
	}
	return body, nil
}

// oauthError reads an error response, nil if the body is none. It has none of
// the secrets that were sent and come back in it.
func oauthError(body []byte, status int, secrets ...string) *oauth.Error {
	var fields struct {
		Code        any `json:"error"`
		Description any `json:"error_description"`
		URI         any `json:"error_uri"`
	}
	if strictjson.Unmarshal(body, &fields) != nil {
		return nil
	}
	code, _ := fields.Code.(string)
	if code == "" {
		return nil
	}
	description, _ := fields.Description.(string)
	uri, _ := fields.URI.(string)
	code, description, uri = redact(code, secrets), redact(description, secrets), redact(uri, secrets)
	return oauth.NewError(oauth.CleanDescription(code), description).WithURI(oauth.CleanDescription(uri)).WithStatus(status)
}

// temporary reports whether the code says that the server has trouble.
func temporary(e *oauth.Error) bool {
	switch e.Code {
	case oauth.ErrServerError.Code, oauth.ErrTemporarilyUnavailable.Code, oauth.ErrTooManyRequests.Code, "slow_down":
		return true
	}
	return false
}

// formToJSON makes an object of strings of a form; of an invalid one an empty one.
func formToJSON(body []byte) []byte {
	object := make(map[string]string)
	form, err := url.ParseQuery(string(body))
	if err == nil {
		for name, values := range form {
			object[name] = values[0]
		}
	}
	encoded, err := json.Marshal(object)
	if err != nil {
		return nil
	}
	return encoded
}

// isHeaderToken reports whether s can stand in an Authorization header.
func isHeaderToken(s string) bool {
	for i := range len(s) {
		if s[i] <= 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}
