package authclient

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// AuthorizationRequest is the beginning of an authorization with a user.
type AuthorizationRequest struct {
	Client      *ClientInformation
	RedirectURL string
	// Scope, State and Resource are the parameters; "" for none.
	Scope, State, Resource string
	// CodeKey is the thumbprint of a key that the code is bound to (RFC 9449
	// §10); "" for none.
	CodeKey string
	// CodeVerifier is a PKCE verifier (RFC 7636 §4.1); a new one if "".
	CodeVerifier string
}

// StartAuthorization returns where to send the user, the SDK's
// startAuthorization, and the code verifier, a secret that the redemption of
// the code needs.
func StartAuthorization(s AuthorizationServer, a AuthorizationRequest) (u *url.URL, codeVerifier string, err error) {
	n, done, err := s.Options.connected(s.URL)
	if err != nil {
		return nil, "", err
	}
	defer done()
	if err := s.checkCodeFlow(); err != nil {
		return nil, "", err
	}
	fromMetadata := ""
	if s.Metadata != nil {
		fromMetadata = s.Metadata.AuthorizationEndpoint
	}
	if u, err = n.endpoint("authorization endpoint", fromMetadata, s.URL, "/authorize"); err != nil {
		return nil, "", err
	}
	if a.CodeVerifier == "" {
		a.CodeVerifier = newVerifier()
	}
	params := [][2]string{
		{"response_type", "code"},
		{"client_id", a.Client.ClientID},
		{"code_challenge", oauth.ChallengeS256(a.CodeVerifier)},
		{"code_challenge_method", "S256"},
		{"redirect_uri", a.RedirectURL},
		{"state", a.State},
		{"scope", a.Scope},
		{"dpop_jkt", a.CodeKey},
	}
	if hasScope(a.Scope, scopeOfflineAccess) {
		// OpenID Connect Core 1.0 §11: without it offline_access is ignored.
		params = append(params, [2]string{"prompt", "consent"})
	}
	u.RawQuery = setParams(u.RawQuery, append(params, [2]string{"resource", a.Resource}))
	return u, a.CodeVerifier, nil
}

// setParams adds the parameters to a query in their order, in place of those of
// the same name. Empty ones are left out.
func setParams(query string, params [][2]string) string {
	var pairs []string
	for pair := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if pair != "" && err == nil && !slices.ContainsFunc(params, func(p [2]string) bool { return p[0] == name }) {
			pairs = append(pairs, pair)
		}
	}
	for _, p := range params {
		if p[1] != "" {
			pairs = append(pairs, p[0]+"="+url.QueryEscape(p[1]))
		}
	}
	return strings.Join(pairs, "&")
}

// checkCodeFlow refuses a server with which the flow cannot be safe.
func (s *AuthorizationServer) checkCodeFlow() error {
	m := s.Metadata
	switch {
	case m == nil:
		return nil
	case m.AuthorizationEndpoint == "":
		return fmt.Errorf("%w: the metadata of %s have no authorization_endpoint", ErrIncompatible, s.Issuer())
	case len(m.ResponseTypesSupported) > 0 && !slices.Contains(m.ResponseTypesSupported, "code"):
		return fmt.Errorf("%w: %s does not support the response type code", ErrIncompatible, s.Issuer())
	case slices.Contains(m.CodeChallengeMethodsSupported, "S256"):
		return nil
	case len(m.CodeChallengeMethodsSupported) > 0:
		return fmt.Errorf("%w: %s does not support PKCE with S256 (RFC 7636)", ErrIncompatible, s.Issuer())
	case s.Options.AssumePKCE:
		return nil
	}
	// MCP authorization, "Authorization Code Protection": absent means no PKCE.
	return fmt.Errorf("%w: the metadata of %s do not say code_challenge_methods_supported, so it may ignore PKCE (RFC 7636): ask its operator, or set AssumePKCE if it is known to support S256", ErrIncompatible, s.Issuer())
}

// newVerifier returns a code verifier of 256 random bits.
func newVerifier() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// stateOf derives the state from the code verifier, so that a callback which
// belongs to another request is known without keeping more than the verifier.
func stateOf(verifier string) string {
	mac := hmac.New(sha256.New, []byte(verifier))
	mac.Write([]byte("state"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:18])
}

func sameState(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// ValidateAuthorizationResponseIssuer checks the iss of a callback against the
// metadata (RFC 9207 §2.4), the SDK's function of that name: byte for byte, and
// present if the metadata promise it. Without metadata there is nothing to
// check.
func ValidateAuthorizationResponseIssuer(iss string, metadata *oauth.Metadata) error {
	if metadata == nil {
		return nil
	}
	if iss == "" && !metadata.AuthorizationResponseIssParameterSupported || iss == metadata.Issuer {
		return nil
	}
	return &IssuerMismatchError{Kind: mismatchResponse, Expected: metadata.Issuer, Received: iss}
}

func (s *AuthorizationServer) checkIss(iss string) error {
	return ValidateAuthorizationResponseIssuer(iss, s.Metadata)
}

func errNoLogin() error {
	return fmt.Errorf("%w: no login is under way, or it was finished already: begin it again", ErrState)
}

// single returns the parameters of a callback, of which none may come twice.
func single(callback url.Values) (code, state, iss string, err error) {
	for _, name := range []string{"code", "state", "iss", "error", "error_description", "error_uri"} {
		if len(callback[name]) > 1 {
			return "", "", "", errors.New("the callback has the parameter " + name + " twice")
		}
	}
	return callback.Get("code"), callback.Get("state"), callback.Get("iss"), nil
}

// callbackError is the error response of a callback (RFC 6749 §4.1.2.1), which
// counts only after state and iss have been checked.
func callbackError(callback url.Values) error {
	code := callback.Get("error")
	if code == "" {
		return errors.New("the callback has neither code nor error: begin the login again")
	}
	return oauth.NewError(oauth.CleanDescription(code), callback.Get("error_description")).
		WithURI(oauth.CleanDescription(callback.Get("error_uri")))
}
