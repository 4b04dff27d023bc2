package caddytest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// scriptedIDP is an identity provider whose every answer a test can choose.
// What it is asked is recorded.
type scriptedIDP struct {
	*httptest.Server
	key *ecdsa.PrivateKey

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc
	requests []recordedRequest
}

type recordedRequest struct {
	Method, Path, Query string
	Header              http.Header
	Form                map[string][]string
}

// newScriptedIDP starts one that publishes metadata and a key, hands out
// tokens for any code and refresh token, and registers any client.
func newScriptedIDP(t testing.TB) *scriptedIDP {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	idp := &scriptedIDP{key: key, handlers: make(map[string]http.HandlerFunc)}
	idp.Server = httptest.NewServer(http.HandlerFunc(idp.serve))
	t.Cleanup(idp.Close)
	idp.handle("/.well-known/oauth-authorization-server", idp.metadata)
	idp.handle("/keys", idp.keys)
	idp.handle("/token", func(w http.ResponseWriter, r *http.Request) {
		answerJSON(w, http.StatusOK, map[string]any{
			"access_token": idp.token(nil), "token_type": "Bearer", "expires_in": 300, "refresh_token": "upstream-refresh",
		})
	})
	registered := 0
	idp.handle("/register", func(w http.ResponseWriter, r *http.Request) {
		var metadata map[string]any
		if err := json.NewDecoder(r.Body).Decode(&metadata); err != nil {
			answerJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_client_metadata"})
			return
		}
		registered++
		metadata["client_id"] = "upstream-" + strconv.Itoa(registered)
		answerJSON(w, http.StatusCreated, metadata)
	})
	idp.handle("/revoke", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusOK) })
	return idp
}

func (idp *scriptedIDP) handle(path string, h http.HandlerFunc) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	idp.handlers[path] = h
}

func (idp *scriptedIDP) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		_ = r.ParseForm()
	}
	idp.mu.Lock()
	idp.requests = append(idp.requests, recordedRequest{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), maps.Clone(r.PostForm)})
	h := idp.handlers[r.URL.Path]
	idp.mu.Unlock()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

// count returns how many requests came for path.
func (idp *scriptedIDP) count(path string) int {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	n := 0
	for _, r := range idp.requests {
		if r.Path == path {
			n++
		}
	}
	return n
}

// total returns how many requests came.
func (idp *scriptedIDP) total() int {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	return len(idp.requests)
}

// last returns the last request for path.
func (idp *scriptedIDP) last(path string) recordedRequest {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	for i := len(idp.requests) - 1; i >= 0; i-- {
		if idp.requests[i].Path == path {
			return idp.requests[i]
		}
	}
	return recordedRequest{}
}

func (idp *scriptedIDP) metadata(w http.ResponseWriter, _ *http.Request) {
	answerJSON(w, http.StatusOK, map[string]any{
		"issuer": idp.URL, "authorization_endpoint": idp.URL + "/authorize", "token_endpoint": idp.URL + "/token",
		"registration_endpoint": idp.URL + "/register", "revocation_endpoint": idp.URL + "/revoke", "jwks_uri": idp.URL + "/keys",
		"response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"},
	})
}

func (idp *scriptedIDP) keys(w http.ResponseWriter, _ *http.Request) {
	size := 32
	x, y := make([]byte, size), make([]byte, size)
	point, err := idp.key.PublicKey.Bytes() // 0x04 ‖ X ‖ Y
	if err != nil {
		panic(err)
	}
	copy(x, point[1:1+size])
	copy(y, point[1+size:])
	answerJSON(w, http.StatusOK, map[string]any{"keys": []any{map[string]any{
		"kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256",
		"x": base64.RawURLEncoding.EncodeToString(x), "y": base64.RawURLEncoding.EncodeToString(y),
	}}})
}

// token returns an access token with the usual claims, those given on top; a
// nil value removes a claim.
func (idp *scriptedIDP) token(claims map[string]any) string {
	now := time.Now()
	all := jwt.MapClaims{
		"iss": idp.URL, "sub": "alice", "client_id": "c1", "scope": "mcp:read", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	for name, value := range claims {
		if value == nil {
			delete(all, name)
		} else {
			all[name] = value
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	token.Header["kid"] = "k1"
	token.Header["typ"] = "at+jwt"
	signed, err := token.SignedString(idp.key)
	if err != nil {
		panic(err)
	}
	return signed
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
