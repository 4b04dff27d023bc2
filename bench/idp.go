package main

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// idp is an identity provider that answers at once: any code is good, and the
// user is who the code says.
type idp struct {
	server *http.Server
	url    string
	key    *rsa.PrivateKey
}

// upstreamTokens is the length of the tokens that it gives for a user, in bytes.
const upstreamTokens = 300

func startIDP() (*idp, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &idp{url: "http://" + l.Addr().String(), key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /userinfo", p.userinfo)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", p.metadata)
	p.server = &http.Server{Handler: mux, ReadHeaderTimeout: answerTime}
	go func() { _ = p.server.Serve(l) }()
	return p, nil
}

func (p *idp) close() { _ = p.server.Close() }

func (p *idp) token(w http.ResponseWriter, r *http.Request) {
	user := r.PostFormValue("code")
	if user == "" {
		http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
		return
	}
	access := padded("a."+user+".", upstreamTokens/2)
	answer(w, map[string]any{"access_token": access, "refresh_token": padded("r."+user+".", upstreamTokens/2), "token_type": "Bearer", "expires_in": 7200})
}

func (p *idp) userinfo(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.Header.Get("Authorization"), ".")
	if len(parts) != 3 {
		http.Error(w, "{}", http.StatusUnauthorized)
		return
	}
	answer(w, map[string]any{"sub": parts[1], "email": parts[1] + "@example.com", "email_verified": true, "name": "User " + parts[1]})
}

func (p *idp) keys(w http.ResponseWriter, _ *http.Request) {
	encode := base64.RawURLEncoding.EncodeToString
	answer(w, map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "kid": "k1", "use": "sig", "alg": "RS256",
		"n": encode(p.key.N.Bytes()), "e": encode(big.NewInt(int64(p.key.E)).Bytes()),
	}}})
}

func (p *idp) metadata(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"issuer": p.url, "jwks_uri": p.url + "/keys", "authorization_endpoint": p.url + "/authorize", "token_endpoint": p.url + "/token",
		"response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"},
	})
}

// accessToken makes a JWT of about 700 bytes for a user.
func (p *idp) accessToken(audience string, user int) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, tokenClaims(p.url, audience, user, time.Now()))
	token.Header["kid"] = "k1"
	token.Header["typ"] = "at+jwt"
	return token.SignedString(p.key)
}

func tokenClaims(issuer, audience string, user int, now time.Time) jwt.MapClaims {
	return jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": fmt.Sprintf("user-%d", user), "client_id": "bench", "scope": "mcp:read",
		"jti": fmt.Sprintf("%032d", user), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"email": fmt.Sprintf("user-%d@example.com", user), "email_verified": true, "name": "User", "groups": []string{"engineering"},
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func padded(s string, n int) string { return s + strings.Repeat("x", max(0, n-len(s))) }
