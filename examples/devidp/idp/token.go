package idp

import (
	"crypto/rand"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// tokens is the answer of the token endpoint (RFC 6749 §5.1).
type tokens struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"` // seconds
	Scope        string `json:"scope"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token,omitempty"`
}

// token answers the token endpoint.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	f, c, err := s.clientForm(r)
	if err != nil {
		writeError(w, err)
		return
	}
	var answer *tokens
	switch f.Get("grant_type") {
	case "authorization_code":
		answer, err = s.exchangeCode(c, f)
	case "refresh_token":
		answer, err = s.exchangeRefresh(c, f)
	case "":
		err = &oauthError{"invalid_request", "send grant_type"}
	default:
		err = &oauthError{"unsupported_grant_type", "use authorization_code or refresh_token"}
	}
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// revoke answers RFC 7009. Access tokens live until they expire.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	f, c, err := s.clientForm(r)
	if err == nil && f.Get("token") == "" {
		err = &oauthError{"invalid_request", "send token"}
	}
	if err != nil {
		writeError(w, err)
		return
	}
	s.grants.revoke(f.Get("token"), c.ID)
	w.WriteHeader(http.StatusOK)
}

// clientForm reads a form body and the public client that it names.
func (s *Server) clientForm(r *http.Request) (url.Values, *client, error) {
	if err := r.ParseForm(); err != nil {
		return nil, nil, &oauthError{"invalid_request", "the body must be a form of at most 64 KiB"}
	}
	f, err := form(r.PostForm)
	if err != nil {
		return nil, nil, err
	}
	c := s.grants.client(f.Get("client_id"))
	if c == nil {
		return nil, nil, &oauthError{"invalid_client", "the client is unknown, register again"}
	}
	return f, c, nil
}

func (s *Server) exchangeCode(c *client, f url.Values) (*tokens, error) {
	g, err := s.grants.redeem(f.Get("code"), c.ID, f.Get("redirect_uri"), f.Get("code_verifier"), f.Get("resource"))
	if err != nil {
		return nil, err
	}
	return s.issue(g, g.scope)
}

func (s *Server) exchangeRefresh(c *client, f url.Values) (*tokens, error) {
	g, scope, err := s.grants.rotate(f.Get("refresh_token"), c.ID, f.Get("resource"), strings.Fields(f.Get("scope")))
	if err != nil {
		return nil, err
	}
	return s.issue(g, scope)
}

// issue signs the tokens of a grant.
func (s *Server) issue(g *grant, scope []string) (*tokens, error) {
	now := s.opts.Now()
	claims := jwt.MapClaims{
		"iss":       s.opts.Issuer,
		"sub":       g.user,
		"aud":       g.resource,
		"client_id": g.clientID,
		"scope":     strings.Join(scope, " "),
		"iat":       now.Unix(),
		"exp":       now.Add(s.opts.AccessTTL).Unix(),
		"jti":       rand.Text(),
	}
	access, err := s.sign("at+jwt", claims)
	if err != nil {
		return nil, err
	}
	answer := &tokens{
		AccessToken: access,
		TokenType:   "Bearer",
		ExpiresIn:   int(s.opts.AccessTTL.Seconds()),
		Scope:       strings.Join(scope, " "),
	}
	if answer.RefreshToken, err = s.grants.addRefresh(g, s.opts.RefreshTTL); err != nil {
		return nil, err
	}
	if slices.Contains(scope, "openid") {
		claims := jwt.MapClaims{
			"iss": s.opts.Issuer,
			"sub": g.user,
			"aud": g.clientID,
			"iat": now.Unix(),
			"exp": now.Add(s.opts.AccessTTL).Unix(),
		}
		if g.nonce != "" {
			claims["nonce"] = g.nonce
		}
		if answer.IDToken, err = s.sign("JWT", claims); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// sign makes a JWT; typ at+jwt is RFC 9068.
func (s *Server) sign(typ string, claims jwt.MapClaims) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	t.Header["typ"] = typ
	t.Header["kid"] = s.keyID
	return t.SignedString(s.key)
}

// jwks answers with the public key (RFC 7517).
func (s *Server) jwks(w http.ResponseWriter, _ *http.Request) {
	b64 := base64.RawURLEncoding.EncodeToString
	writeJSON(w, http.StatusOK, map[string]any{"keys": []any{map[string]string{
		"kty": "RSA",
		"use": "sig",
		"alg": "RS256",
		"kid": s.keyID,
		"n":   b64(s.key.N.Bytes()),
		"e":   b64(big.NewInt(int64(s.key.E)).Bytes()),
	}}})
}
