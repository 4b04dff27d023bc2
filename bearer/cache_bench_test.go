package bearer_test

import (
	"crypto/elliptic"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// longToken returns a token of the signer with 700 bytes.
func longToken(i *issuer, s *signer) string {
	const length = 700
	for fill := 0; ; fill++ {
		if token := s.token(nil, i.claims(object{"fill": strings.Repeat("x", fill)})); len(token) >= length {
			return token
		}
	}
}

// BenchmarkKnownToken is the way from a token to its cached identity, and the
// whole check of a request.
func BenchmarkKnownToken(b *testing.B) {
	i, s := newIssuer(b), newEC("ec", elliptic.P256())
	v := remembering(b, newJWT(b, i, bearer.JWTConfig{}, s), bearer.TokenCacheConfig{})
	token := longToken(i, s)
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.VerifyAccessToken(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
	g, err := bearer.NewGuard(bearer.GuardConfig{
		Resources:            []bearer.Resource{{Identifier: "https://mcp.example.com/mcp", Path: "/mcp", Scopes: []string{"mcp:read"}}},
		AuthorizationServers: []string{i.URL},
		Verifier:             v,
	})
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/mcp", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := g.Check(nil, r, nil); !ok {
				b.Fatal("refused")
			}
		}
	})
	b.Run("identity", func(b *testing.B) {
		b.ReportAllocs()
		d, _ := g.Check(nil, r, nil)
		h := http.Header{}
		for b.Loop() {
			if err := d.SetIdentity(h, bearer.IdentityFields{Email: true, Name: true, Groups: true}); err != nil {
				b.Fatal(err)
			}
		}
	})
	r.Header.Set("Authorization", "Bearer "+strings.Repeat("garbage", 100))
	b.Run("garbage", func(b *testing.B) {
		b.ReportAllocs()
		w := httptest.NewRecorder()
		for b.Loop() {
			clear(w.Header())
			if _, ok := g.Check(w, r, nil); ok {
				b.Fatal("accepted")
			}
		}
	})
	b.Run("strip", func(b *testing.B) {
		b.ReportAllocs()
		r.Header.Set("Accept", "application/json")
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("User-Agent", "x")
		r.Header.Set("Mcp-Protocol-Version", "x")
		for b.Loop() {
			bearer.StripIdentity(r)
		}
	})
}
