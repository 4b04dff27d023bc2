package bearer_test

import (
	"context"
	"crypto/elliptic"
	"testing"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestChain(t *testing.T) {
	one, two := newIssuer(t), newIssuer(t)
	s, stranger := newEC("k", elliptic.P256()), newEC("k", elliptic.P256())
	var asked []string
	rest := bearer.VerifierFunc(func(_ context.Context, token string) (*oauth.TokenInfo, error) {
		asked = append(asked, token)
		return &oauth.TokenInfo{Issuer: "rest"}, nil
	})
	jwts := bearer.Chain(newJWT(t, one, bearer.JWTConfig{}, s), newJWT(t, two, bearer.JWTConfig{}, s))
	all := bearer.Chain(jwts, rest)
	for _, test := range []struct {
		name, token string
		verifier    bearer.Verifier
		issuer      string // "" if refused
	}{
		{"first issuer", s.token(nil, one.claims(nil)), all, one.URL},
		{"second issuer", s.token(nil, two.claims(nil)), all, two.URL},
		{"recognised and bad does not fall through", stranger.token(nil, two.claims(nil)), all, ""},
		{"recognised and expired does not fall through", s.token(nil, two.claims(object{"exp": 1})), all, ""},
		{"unsigned does not fall through", segment(`{"alg":"none"}`) + "." + segment(`{"iss":"`+one.URL+`"}`) + ".", all, ""},
		{"JWT of somebody else", s.token(nil, object{"iss": "https://other.example"}), all, "rest"},
		{"opaque", "opaque", all, "rest"},
		{"opaque with two dots", "a.b.c", all, "rest"},
		{"nobody recognises it", "opaque", jwts, ""},
		{"no verifiers", "opaque", bearer.Chain(), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked = nil
			info, err := test.verifier.VerifyAccessToken(t.Context(), test.token)
			if test.issuer == "" {
				wantError(t, err, oauth.ErrInvalidToken, "Token ")
				if len(asked) != 0 {
					t.Error("the token fell through")
				}
				return
			}
			if err != nil || info.Issuer != test.issuer {
				t.Errorf("got %v, %v", info, err)
			}
		})
	}
}
