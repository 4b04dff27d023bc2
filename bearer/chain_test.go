package bearer_test

import (
	"context"
	"crypto/elliptic"
	"strings"
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

// Tokens of this server stay with it, bad ones too, whatever the others take.
func TestOfIssuer(t *testing.T) {
	own, s, stranger := newIssuer(t), newEC("k", elliptic.P256()), newEC("k", elliptic.P256())
	var asked []string
	everything := bearer.VerifierFunc(func(_ context.Context, token string) (*oauth.TokenInfo, error) {
		asked = append(asked, token)
		return &oauth.TokenInfo{Issuer: "rest"}, nil
	})
	v := bearer.Chain(bearer.OfIssuer(own.URL, newJWT(t, own, bearer.JWTConfig{}, s)), everything)
	if info, err := v.VerifyAccessToken(t.Context(), s.token(nil, own.claims(nil))); err != nil || info.Issuer != own.URL {
		t.Errorf("got %v, %v", info, err)
	}
	for _, token := range []string{
		stranger.token(nil, own.claims(nil)), s.token(nil, own.claims(object{"exp": 1})),
		segment(`{"alg":"none"}`) + "." + segment(`{"iss":"`+own.URL+`"}`) + ".",
	} {
		_, err := v.VerifyAccessToken(t.Context(), token)
		wantError(t, err, oauth.ErrInvalidToken, "Token ")
	}
	if len(asked) != 0 {
		t.Errorf("another verifier got %q", asked)
	}
	for _, token := range []string{"opaque", s.token(nil, object{"iss": "https://other.example"}), s.token(nil, object{})} {
		if info, err := v.VerifyAccessToken(t.Context(), token); err != nil || info.Issuer != "rest" {
			t.Errorf("%.12s: %v, %v", token, info, err)
		}
	}
}

func TestIssuedFor(t *testing.T) {
	shared := &oauth.TokenInfo{UserID: "alice", Audience: []string{"our-app"}}
	inner := bearer.VerifierFunc(func(_ context.Context, token string) (*oauth.TokenInfo, error) {
		if token != "good" {
			return nil, oauth.ErrInvalidToken
		}
		return shared, nil
	})
	v := bearer.IssuedFor(inner, "https://a.example/mcp")
	info, err := v.VerifyAccessToken(t.Context(), "good")
	if err != nil || info.UserID != "alice" || strings.Join(info.Audience, " ") != "https://a.example/mcp" {
		t.Errorf("got %v, %v", info, err)
	}
	if shared.Audience[0] != "our-app" {
		t.Error("what is shared was changed")
	}
	if info, err := v.VerifyAccessToken(t.Context(), "bad"); err == nil || info != nil {
		t.Errorf("a refusal became %v, %v", info, err)
	}
}

// In front of a guard that accepts tokens without an expiry, some verifiers may
// still want one.
func TestRequireExpiry(t *testing.T) {
	i, s := newIssuer(t), newEC("k", elliptic.P256())
	keys := newStatic(t, bearer.StaticConfig{Keys: []bearer.APIKey{{ID: "a", Key: strings.Repeat("r4nd0m", 8), User: "alice"}}})
	v := remembering(t, bearer.Chain(keys, bearer.RequireExpiry(newJWT(t, i, bearer.JWTConfig{}, s))).(bearer.CacheableVerifier), bearer.TokenCacheConfig{})
	for range 2 {
		for _, token := range []string{strings.Repeat("r4nd0m", 8), s.token(nil, i.claims(nil))} {
			if _, err := v.VerifyAccessToken(t.Context(), token); err != nil {
				t.Errorf("%.10s: %v", token, err)
			}
		}
		_, err := v.VerifyAccessToken(t.Context(), s.token(nil, i.claims(object{"exp": nil})))
		wantError(t, err, oauth.ErrInvalidToken, "Token has no expiration time")
		_, err = v.VerifyAccessToken(t.Context(), "opaque")
		wantError(t, err, oauth.ErrInvalidToken, "Token was not issued by")
	}
	if !v.Recognizes(strings.Repeat("r4nd0m", 8)) || v.Recognizes("opaque") {
		t.Error("the cache recognises something else than the verifiers behind it")
	}
}
