package idp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/idp"
)

func publicPEM(t *testing.T, key *rsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func TestIDTokenAttacks(t *testing.T) {
	stranger := newRSAKey()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := idClaims(issuer, object{"email": "a@example.com"})
	rs := func(change object) func(t *testing.T) string {
		return func(t *testing.T) string {
			return sign(t, jwt.SigningMethodRS256, rsaKey(), "k1", good.with(change))
		}
	}
	for _, test := range []struct {
		name  string
		token func(t *testing.T) string
		want  string // part of the error, "" if it is accepted
	}{
		{"good", rs(nil), ""},
		{"no kid", func(t *testing.T) string { return sign(t, jwt.SigningMethodRS256, rsaKey(), "", good) }, ""},
		{"no at_hash", rs(object{"at_hash": nil}), ""},
		{"azp is us", rs(object{"aud": []string{clientID, "other"}, "azp": clientID}), ""},
		{"expired, within the leeway", rs(object{"exp": clock.Add(-59 * time.Second).Unix()}), ""},
		{"issued in a fast clock's future", rs(object{"iat": clock.Add(59 * time.Second).Unix()}), ""},

		{"alg none", func(t *testing.T) string {
			return sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "k1", good)
		}, "malformed jwt"},
		{"HS256 with the client secret", func(t *testing.T) string { return sign(t, jwt.SigningMethodHS256, []byte(secret), "k1", good) }, "malformed jwt"},
		{"HS256 with the public key", func(t *testing.T) string {
			return sign(t, jwt.SigningMethodHS256, publicPEM(t, rsaKey()), "k1", good)
		}, "malformed jwt"},
		{"an algorithm that is not announced", func(t *testing.T) string { return sign(t, jwt.SigningMethodRS384, rsaKey(), "k1", good) }, "malformed jwt"},
		{"ES256 with an RSA kid", func(t *testing.T) string { return sign(t, jwt.SigningMethodES256, ec, "k1", good) }, "malformed jwt"},
		{"another key under our kid", func(t *testing.T) string { return sign(t, jwt.SigningMethodRS256, stranger, "k1", good) }, "signature"},
		{"another key", func(t *testing.T) string { return sign(t, jwt.SigningMethodRS256, stranger, "k2", good) }, "does not publish"},
		{"another key without kid", func(t *testing.T) string { return sign(t, jwt.SigningMethodRS256, stranger, "", good) }, "signature"},
		{"a key in the header", func(t *testing.T) string {
			token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims(good))
			token.Header["jwk"] = jwk(stranger, "k1")
			token.Header["kid"] = "k1"
			s, err := token.SignedString(stranger)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}, "signature"},
		{"a changed payload", func(t *testing.T) string {
			parts := strings.Split(rs(nil)(t), ".")
			parts[1] = base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"admin"}`))
			return strings.Join(parts, ".")
		}, "signature"},
		{"garbage", func(*testing.T) string { return "a.b.c" }, "cannot be accepted"},
		{"no JWT", func(*testing.T) string { return "opaque" }, "cannot be accepted"},
		{"too large", func(*testing.T) string { return strings.Repeat("x", 70<<10) }, "too large"},
		{"other issuer", rs(object{"iss": "https://evil.example.com"}), "from issuer"},
		{"issuer with a slash", rs(object{"iss": issuer + "/"}), "from issuer"},
		{"no issuer", rs(object{"iss": nil}), "from issuer"},
		{"two spellings of the issuer", rs(object{"iſs": "https://evil.example.com"}), "from issuer"},
		{"wrong aud", rs(object{"aud": "other"}), "audience"},
		{"no aud", rs(object{"aud": nil}), "audience"},
		{"two audiences and no azp", rs(object{"aud": []string{clientID, "other"}}), "azp"},
		{"azp is another", rs(object{"azp": "other"}), "azp"},
		{"azp is no string", rs(object{"azp": 5}), "azp"},
		{"wrong nonce", rs(object{"nonce": "other"}), "nonce"},
		{"no nonce", rs(object{"nonce": nil}), "nonce"},
		{"at_hash of another token", rs(object{"at_hash": atHash("other")}), "at_hash"},
		{"empty at_hash", rs(object{"at_hash": ""}), "at_hash"},
		{"expired", rs(object{"exp": clock.Add(-61 * time.Second).Unix()}), "expired"},
		{"no exp", rs(object{"exp": nil}), "no exp"},
		{"no iat", rs(object{"iat": nil}), "no iat"},
		{"of the future", rs(object{"iat": clock.Add(2 * time.Minute).Unix()}), "future"},
		{"not yet good", rs(object{"nbf": clock.Add(2 * time.Minute).Unix()}), "future"},
		{"nbf is no time", rs(object{"nbf": "soon"}), "cannot be accepted"},
		{"no subject", rs(object{"sub": nil}), "subject"},
		{"subject with control characters", rs(object{"sub": "a\nb"}), "subject"},
		{"long subject", rs(object{"sub": strings.Repeat("x", 256)}), "subject"},
		{"two spellings of the subject", rs(object{"ſub": "admin"}), "subject"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.discovered(issuer, issuer, nil)
			w.answer(issuer+"/token", 200, w.tokens(test.token(t)))
			id, _, err := w.oidc(nil).Exchange(t.Context(), back("code=code-1"))
			if test.want == "" {
				if err != nil || id.Subject != "user-1" {
					t.Errorf("identity %v, error %v", id, err)
				}
				return
			}
			if kind(t, err) != "trouble" || id != nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("identity %v, error %v, want %q", id, err, test.want)
			}
		})
	}
}

func TestIDTokenIsRequired(t *testing.T) {
	w := newWorld(t)
	w.discovered(issuer, issuer, nil)
	w.answer(issuer+"/token", 200, w.tokens(""))
	if _, _, err := w.oidc(nil).Exchange(t.Context(), back("code=code-1")); kind(t, err) != "trouble" {
		t.Errorf("error %v", err)
	}
	cb := back("code=code-1")
	cb.Nonce = ""
	if _, _, err := w.oidc(nil).Exchange(t.Context(), cb); kind(t, err) != "trouble" {
		t.Errorf("a callback whose nonce is lost: %v", err)
	}
}

// A key that is not known may be new; the provider is not stormed for it.
func TestKeyRotation(t *testing.T) {
	next := newRSAKey()
	w := newWorld(t)
	w.discovered(issuer, issuer, nil)
	current := clock
	u := w.oidc(func(o *idp.OIDCOptions) { o.Now = func() time.Time { return current } })
	claims := idClaims(issuer, object{"email": "a@example.com"})
	w.answer(issuer+"/token", 200, w.tokens(w.idToken(claims)))
	exchange(t, u)

	w.answer(issuer+"/token", 200, w.tokens(sign(t, jwt.SigningMethodRS256, next, "k2", claims)))
	w.answer(issuer+"/keys", 200, object{"keys": []any{jwk(next, "k2")}})
	for range 5 {
		if _, _, err := u.Exchange(t.Context(), back("code=code-1")); kind(t, err) != "trouble" {
			t.Fatalf("error %v", err)
		}
	}
	if n := w.count(issuer + "/keys"); n != 1 {
		t.Errorf("the keys were asked for %d times within 10 s", n)
	}
	current = current.Add(11 * time.Second)
	exchange(t, u)

	// What the provider no longer publishes is no longer good.
	w.answer(issuer+"/token", 200, w.tokens(w.idToken(claims)))
	if _, _, err := u.Exchange(t.Context(), back("code=code-1")); kind(t, err) != "trouble" {
		t.Errorf("the old key is still accepted: %v", err)
	}
}

func TestKeysThatAreNotUsed(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][]any{
		"weak":             {jwk(small, "k1")},
		"for encryption":   {jwk(rsaKey(), "k1").with(object{"use": "enc"})},
		"not for verify":   {jwk(rsaKey(), "k1").with(object{"key_ops": []string{"sign"}})},
		"another alg":      {jwk(rsaKey(), "k1").with(object{"alg": "PS256"})},
		"private":          {jwk(rsaKey(), "k1").with(object{"d": "AQAB"})},
		"symmetric":        {object{"kty": "oct", "kid": "k1", "k": "c2VjcmV0"}},
		"none":             {},
		"garbage":          {5, "x", object{}},
		"more than bounds": make([]any, 101),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.discovered(issuer, issuer, nil)
			w.answer(issuer+"/keys", 200, object{"keys": keys})
			w.answer(issuer+"/token", 200, w.tokens(w.idToken(idClaims(issuer, object{"email": "a@example.com"}))))
			if _, _, err := w.oidc(nil).Exchange(t.Context(), back("code=code-1")); kind(t, err) != "trouble" {
				t.Errorf("error %v", err)
			}
		})
	}
}
