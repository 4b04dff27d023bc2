package proxyprovider_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

// Others can verify our tokens with the JWKS and nothing else (RFC 9068).
func TestAccessTokensVerifyElsewhere(t *testing.T) {
	for _, alg := range []string{"", "ES256", "EdDSA", "RS256"} {
		t.Run("alg "+alg, func(t *testing.T) {
			w := newGrantsWorld(t, func(c *proxyprovider.GrantsConfig) { c.SigningAlg = alg })
			g := w.node()
			srv := httptest.NewServer(g.JWKS())
			defer srv.Close()
			v, err := bearer.NewJWTVerifier(bearer.JWTConfig{Issuer: issuer, JWKSURI: srv.URL, RequireType: "at+jwt", Now: w.clock.now})
			if err != nil {
				t.Fatal(err)
			}
			tokens := w.tokens(g)
			info, err := v.VerifyAccessToken(t.Context(), tokens.AccessToken)
			if err != nil {
				t.Fatal(err)
			}
			if info.UserID != "alice" || info.ClientID != "app" || !slices.Equal(info.Audience, []string{resource}) {
				t.Errorf("info %+v", info)
			}
			w.wantVerify(w.node(), "the same token on another node", tokens.AccessToken, "")
		})
	}
}

func TestJWKSHandler(t *testing.T) {
	w := newGrantsWorld(t)
	h := w.node().JWKS()
	call := func(method, etag string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, "/.well-known/jwks.json", nil)
		if etag != "" {
			r.Header.Set("If-None-Match", etag)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	got := call(http.MethodGet, "")
	etag := got.Header().Get("ETag")
	if got.Code != 200 || got.Header().Get("Cache-Control") != "public, max-age=600" || got.Header().Get("Access-Control-Allow-Origin") != "*" || etag == "" {
		t.Errorf("GET: %d %v", got.Code, got.Header())
	}
	if got := call(http.MethodHead, ""); got.Code != 200 || got.Body.Len() != 0 {
		t.Errorf("HEAD: %d, %d bytes", got.Code, got.Body.Len())
	}
	if got := call(http.MethodGet, etag); got.Code != 304 || got.Body.Len() != 0 {
		t.Errorf("If-None-Match: %d", got.Code)
	}
	if got := call(http.MethodOptions, ""); got.Code != 204 {
		t.Errorf("OPTIONS: %d", got.Code)
	}
	if got := call(http.MethodPost, ""); got.Code != 405 {
		t.Errorf("POST: %d", got.Code)
	}
	w.faulty.down.Store(true)
	if got := call(http.MethodGet, ""); got.Code != 200 {
		t.Errorf("with the store down: %d", got.Code)
	}
	rec := httptest.NewRecorder()
	w.node().JWKS().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if rec.Code != 503 || rec.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("a new node with the store down: %d %v", rec.Code, rec.Header())
	}
}
