package caddytest_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signInIDP is an OpenID provider whose session never ends: whoever comes is
// the current user and is sent back at once.
type signInIDP struct {
	*scriptedIDP

	mu     sync.Mutex
	user   map[string]any // claims of who signs in
	codes  map[string]signIn
	access map[string]map[string]any // claims by access token
	// answer changes the parameters of the next authorization responses.
	answer func(url.Values)
}

// signIn is what a code stands for.
type signIn struct {
	nonce, challenge, redirectURI string
	claims                        map[string]any
}

var aliceClaims = map[string]any{"sub": "a-1", "email": "alice@example.com", "email_verified": true, "name": "Alice"}

func newSignInIDP(t *testing.T) *signInIDP {
	t.Helper()
	idp := &signInIDP{
		scriptedIDP: newScriptedIDP(t), user: aliceClaims,
		codes: make(map[string]signIn), access: make(map[string]map[string]any),
	}
	idp.handle("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, map[string]any{
			"issuer": idp.URL, "authorization_endpoint": idp.URL + "/authorize", "token_endpoint": idp.URL + "/token",
			"userinfo_endpoint": idp.URL + "/userinfo", "revocation_endpoint": idp.URL + "/revoke", "jwks_uri": idp.URL + "/keys",
			"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"ES256"}, "code_challenge_methods_supported": []string{"S256"},
			"authorization_response_iss_parameter_supported": true,
		})
	})
	idp.handle("/authorize", idp.authorize)
	idp.handle("/token", idp.issue)
	idp.handle("/userinfo", idp.userinfo)
	return idp
}

// signsIn makes somebody else the current user.
func (idp *signInIDP) signsIn(claims map[string]any) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	idp.user = claims
}

// answers has fn change all authorization responses from now on.
func (idp *signInIDP) answers(fn func(url.Values)) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	idp.answer = fn
}

func (idp *signInIDP) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	code := rand.Text()
	idp.mu.Lock()
	idp.codes[code] = signIn{q.Get("nonce"), q.Get("code_challenge"), q.Get("redirect_uri"), idp.user}
	back := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {idp.URL}}
	if idp.answer != nil {
		idp.answer(back)
	}
	idp.mu.Unlock()
	w.Header().Set("Location", q.Get("redirect_uri")+"?"+back.Encode())
	w.WriteHeader(http.StatusFound)
}

// issue redeems codes, each once, and refresh tokens, each for ever.
func (idp *signInIDP) issue(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	refuse := func() { answerJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"}) }
	idp.mu.Lock()
	defer idp.mu.Unlock()
	var in signIn
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		code := r.PostForm.Get("code")
		var ok bool
		in, ok = idp.codes[code]
		delete(idp.codes, code)
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if !ok || base64.RawURLEncoding.EncodeToString(sum[:]) != in.challenge || r.PostForm.Get("redirect_uri") != in.redirectURI {
			refuse()
			return
		}
	case "refresh_token":
		in.claims = idp.user
	default:
		refuse()
		return
	}
	claims := jwt.MapClaims{"iss": idp.URL, "aud": "broker", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	if in.nonce != "" {
		claims["nonce"] = in.nonce
	}
	maps.Copy(claims, in.claims)
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = "k1"
	signed, err := token.SignedString(idp.key)
	if err != nil {
		panic(err)
	}
	access := rand.Text()
	idp.access[access] = in.claims
	answerJSON(w, http.StatusOK, map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": 300, "refresh_token": "upstream-" + rand.Text(), "id_token": signed,
	})
}

func (idp *signInIDP) userinfo(w http.ResponseWriter, r *http.Request) {
	idp.mu.Lock()
	claims := idp.access[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	idp.mu.Unlock()
	if claims == nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	answerJSON(w, http.StatusOK, claims)
}
