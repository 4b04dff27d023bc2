package bearer_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// BenchmarkJWTVerify measures a whole verification beside the signature check
// alone.
func BenchmarkJWTVerify(b *testing.B) {
	i := newIssuer(b)
	for _, s := range []*signer{rsaSigner(), newEC("ec", elliptic.P256()), newEd25519("ed")} {
		v := newJWT(b, i, bearer.JWTConfig{}, s)
		token := s.token(nil, i.claims(nil))
		b.Run(s.alg+"/token", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.VerifyAccessToken(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(s.alg+"/signature", func(b *testing.B) {
			method, key := jwt.GetSigningMethod(s.alg), s.private.Public()
			signed, signature := token[:strings.LastIndexByte(token, '.')], token[strings.LastIndexByte(token, '.')+1:]
			raw, err := base64.RawURLEncoding.DecodeString(signature)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := method.Verify(signed, raw, key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
