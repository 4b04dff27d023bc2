package bearer_test

import (
	"context"
	"crypto/elliptic"
	"encoding/base64"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestKeyRotation(t *testing.T) {
	i := newIssuer(t)
	var c clock
	older, newer := newEC("1", elliptic.P256()), newEC("2", elliptic.P256())
	v := newJWT(t, i, bearer.JWTConfig{Now: c.now}, older)
	if _, err := v.VerifyAccessToken(t.Context(), older.token(nil, i.claims(nil))); err != nil {
		t.Fatal(err)
	}
	i.answer(jwksPath, 200, jwks(newer.jwk(nil)))
	if _, err := v.VerifyAccessToken(t.Context(), newer.token(nil, i.claims(nil))); err != nil {
		t.Errorf("a new key is found when a token names it: %v", err)
	}
	_, err := v.VerifyAccessToken(t.Context(), older.token(nil, i.claims(longAgo())))
	wantError(t, err, oauth.ErrInvalidToken, "Token is signed with a key that the authorization server does not publish")
}

// longAgo makes a token that was issued before its keys were last loaded, whatever
// the skew.
func longAgo() object { return object{"iat": time.Now().Unix() - 120} }

// Anybody can use up the throttle with a key id of his own. Then nobody knows
// whether a key is new: that is no fault of the token, and is not remembered.
func TestNewKeyAfterAStrangers(t *testing.T) {
	for _, kid := range []any{"2", nil} {
		i := newIssuer(t)
		var c clock
		older, newer, stranger := newEC("1", elliptic.P256()), newEC("2", elliptic.P256()), newEC("9", elliptic.P256())
		direct := newJWT(t, i, bearer.JWTConfig{Now: c.now}, older)
		v := remembering(t, direct, bearer.TokenCacheConfig{Now: c.now})
		verify := func(token string) error {
			_, err := v.VerifyAccessToken(t.Context(), token)
			return err
		}
		before := older.token(nil, i.claims(nil))
		if err := verify(before); err != nil {
			t.Fatal(err)
		}
		wantError(t, verify(stranger.token(nil, i.claims(nil))), oauth.ErrInvalidToken, "Token is signed with a key")
		i.answer(jwksPath, 200, jwks(older.jwk(nil), newer.jwk(nil)))
		genuine := newer.token(object{"kid": kid}, i.claims(nil))
		for range 3 {
			wantError(t, verify(genuine), oauth.ErrTemporarilyUnavailable, "The key of the token is not known")
			wantError(t, verify(stranger.token(object{"kid": "8"}, i.claims(object{"iat": nil}))), oauth.ErrTemporarilyUnavailable, "")
			wantError(t, verify(stranger.token(object{"kid": kid}, i.claims(longAgo()))), oauth.ErrInvalidToken, "")
			if err := verify(older.token(nil, i.claims(nil))); err != nil {
				t.Errorf("a known key: %v", err)
			}
		}
		if n := i.count(jwksPath); n != 2 {
			t.Errorf("%d requests for the JWKS, want 2", n)
		}
		c.advance(31 * time.Second)
		if err := verify(genuine); err != nil {
			t.Errorf("a new key: %v", err)
		}
	}
}

func TestKeyRotationWithoutKeyIDs(t *testing.T) {
	i := newIssuer(t)
	older, newer := newEC("", elliptic.P256()), newEC("", elliptic.P256())
	v := newJWT(t, i, bearer.JWTConfig{}, older)
	if _, err := v.VerifyAccessToken(t.Context(), older.token(object{"kid": nil}, i.claims(nil))); err != nil {
		t.Fatal(err)
	}
	i.answer(jwksPath, 200, jwks(newer.jwk(nil)))
	if _, err := v.VerifyAccessToken(t.Context(), newer.token(object{"kid": nil}, i.claims(nil))); err != nil {
		t.Error(err)
	}
	_, err := v.VerifyAccessToken(t.Context(), older.token(object{"kid": nil}, i.claims(longAgo())))
	wantError(t, err, oauth.ErrInvalidToken, "Token signature is not valid")
	if n := i.count(jwksPath); n != 2 {
		t.Errorf("%d requests for the JWKS, want 2", n)
	}
}

func TestUnknownKeyStorm(t *testing.T) {
	i := newIssuer(t)
	var c clock
	s, stranger := newEC("k", elliptic.P256()), newEC("stranger", elliptic.P256())
	v := newJWT(t, i, bearer.JWTConfig{Now: c.now}, s)
	if _, err := v.VerifyAccessToken(t.Context(), s.token(nil, i.claims(nil))); err != nil {
		t.Fatal(err)
	}
	storm := func() {
		var group sync.WaitGroup
		for n := range 50 {
			group.Go(func() {
				token := stranger.token(object{"kid": "stranger" + strings.Repeat("x", n)}, i.claims(longAgo()))
				_, err := v.VerifyAccessToken(t.Context(), token)
				wantError(t, err, oauth.ErrInvalidToken, "Token is signed with a key")
			})
		}
		group.Wait()
	}
	for n := range 3 {
		storm()
		storm()
		if got := i.count(jwksPath); got != 2+n {
			t.Fatalf("%d requests for the JWKS, want the first load and %d more", got, n+1)
		}
		c.advance(31 * time.Second)
	}
}

func TestExpiredAndForeignTokensWithUnknownKeysLoadNothing(t *testing.T) {
	i := newIssuer(t)
	s := newEC("k", elliptic.P256())
	v := newJWT(t, i, bearer.JWTConfig{}, s)
	stranger := newEC("stranger", elliptic.P256())
	for _, payload := range []object{{"exp": 1}, {"iss": "https://other.example"}, {"cnf": object{}}} {
		_, err := v.VerifyAccessToken(t.Context(), stranger.token(nil, i.claims(payload)))
		wantError(t, err, oauth.ErrInvalidToken, "")
	}
	if n := i.count(jwksPath); n != 0 {
		t.Errorf("%d requests for the JWKS, want 0", n)
	}
}

func TestRefetchIsSharedAndLeftByCallersWhoseTimeIsOver(t *testing.T) {
	i := newIssuer(t)
	older, newer := newEC("1", elliptic.P256()), newEC("2", elliptic.P256())
	v := newJWT(t, i, bearer.JWTConfig{}, older)
	if _, err := v.VerifyAccessToken(t.Context(), older.token(nil, i.claims(nil))); err != nil {
		t.Fatal(err)
	}
	asked, release := make(chan struct{}), make(chan struct{})
	i.handle(jwksPath, func(w http.ResponseWriter, _ *http.Request) {
		close(asked) // a second request would panic
		<-release
		_, _ = w.Write([]byte(jwks(newer.jwk(nil))))
	})
	token := newer.token(nil, i.claims(nil))
	results := make(chan error, 20)
	for range cap(results) {
		go func() {
			_, err := v.VerifyAccessToken(t.Context(), token)
			results <- err
		}()
	}
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := v.VerifyAccessToken(ctx, token)
	wantError(t, err, oauth.ErrTemporarilyUnavailable, "The signing keys")
	if _, err := v.VerifyAccessToken(t.Context(), older.token(nil, i.claims(nil))); err != nil {
		t.Errorf("tokens with known keys do not wait: %v", err)
	}
	close(release)
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestUnknownKeyWhileTheJWKSIsDown(t *testing.T) {
	i := newIssuer(t)
	var c clock
	older, newer := newEC("1", elliptic.P256()), newEC("2", elliptic.P256())
	v := newJWT(t, i, bearer.JWTConfig{Now: c.now}, older)
	if _, err := v.VerifyAccessToken(t.Context(), older.token(nil, i.claims(nil))); err != nil {
		t.Fatal(err)
	}
	i.answer(jwksPath, 500, "{}")
	for range 2 { // the second is throttled, and still not the token's fault
		_, err := v.VerifyAccessToken(t.Context(), newer.token(nil, i.claims(nil)))
		wantError(t, err, oauth.ErrTemporarilyUnavailable, "The signing keys")
	}
	if _, err := v.VerifyAccessToken(t.Context(), older.token(nil, i.claims(nil))); err != nil {
		t.Errorf("old keys stay in use: %v", err)
	}
	if n := i.count(jwksPath); n != 2 {
		t.Errorf("%d requests for the JWKS, want 2", n)
	}
	i.answer(jwksPath, 200, jwks(newer.jwk(nil)))
	c.advance(31 * time.Second)
	if _, err := v.VerifyAccessToken(t.Context(), newer.token(nil, i.claims(nil))); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

// A JWKS that cannot be used is 503 at first, and never replaces one in use.
func TestBadJWKS(t *testing.T) {
	s := newEC("k", elliptic.P256())
	tooMany := make([]object, 101)
	for n := range tooMany {
		tooMany[n] = s.jwk(nil)
	}
	body := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
		}
	}
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
	}{
		{"404", body(404, "")},
		{"500", body(500, jwks(s.jwk(nil)))},
		{"201", body(201, jwks(s.jwk(nil)))},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }},
		{"HTML", body(200, "<!doctype html><title>Sign in</title>")},
		{"empty", body(200, "")},
		{"no keys", body(200, "{}")},
		{"empty keys", body(200, jwks())},
		{"keys is an object", body(200, `{"keys":{}}`)},
		{"null", body(200, `null`)},
		{"duplicate member", body(200, `{"keys":[],"keys":[]}`)},
		{"cut off", body(200, jwks(s.jwk(nil))[:60])},
		{"10 MB", body(200, `{"keys":["`+strings.Repeat("x", 10<<20)+`"]}`)},
		{"101 keys", body(200, jwks(tooMany...))},
		{"only keys for encryption", body(200, jwks(s.jwk(object{"use": "enc"})))},
		{"connection reset", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := newIssuer(t)
			i.answer("/elsewhere", 200, jwks(s.jwk(nil)))
			i.handle(jwksPath, test.handler)
			var c clock
			var lines logLines
			v := newJWT(t, i, bearer.JWTConfig{Now: c.now, Logger: slog.New(slog.NewTextHandler(&lines, nil))})
			token := s.token(nil, i.claims(nil))
			for range 3 {
				_, err := v.VerifyAccessToken(t.Context(), token)
				wantError(t, err, oauth.ErrTemporarilyUnavailable, "The signing keys")
			}
			if n := i.count(jwksPath); n != 1 {
				t.Errorf("%d requests, want 1: a failure is remembered for a second", n)
			}

			i.answer(jwksPath, 200, jwks(s.jwk(nil)))
			c.advance(time.Second)
			if _, err := v.VerifyAccessToken(t.Context(), token); err != nil {
				t.Fatalf("after recovery: %v", err)
			}

			i.handle(jwksPath, test.handler)
			c.advance(16 * time.Minute)
			token = s.token(nil, i.claims(object{"exp": time.Now().Unix() + 7200}))
			if _, err := v.VerifyAccessToken(t.Context(), token); err != nil {
				t.Errorf("while it is bad again: %v", err)
			}
			stranger := newEC("stranger", elliptic.P256())
			_, err := v.VerifyAccessToken(t.Context(), stranger.token(nil, i.claims(object{"exp": time.Now().Unix() + 7200})))
			wantError(t, err, oauth.ErrTemporarilyUnavailable, "")
			if _, err := v.VerifyAccessToken(t.Context(), token); err != nil {
				t.Errorf("after the failed load: %v", err)
			}
			if !strings.Contains(lines.String(), "the old one stays in use") {
				t.Errorf("nothing was logged: %q", lines.String())
			}
			if n := i.count("/elsewhere"); n != 0 {
				t.Errorf("a redirect was followed")
			}
		})
	}
}

func TestHangingJWKSEndsWithTheCaller(t *testing.T) {
	i := newIssuer(t)
	i.hang(jwksPath)
	v := newJWT(t, i, bearer.JWTConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := v.VerifyAccessToken(ctx, newEC("k", elliptic.P256()).token(nil, i.claims(nil)))
	wantError(t, err, oauth.ErrTemporarilyUnavailable, "The signing keys")
}

func TestKeysThatAreNotUsed(t *testing.T) {
	good, s := newEC("good", elliptic.P256()), newEC("k", elliptic.P256())
	weak := newRSA("k", 1024)
	private := s.jwk(object{"d": "AAAA"})
	offCurve := s.jwk(object{"x": base64.RawURLEncoding.EncodeToString(big.NewInt(5).FillBytes(make([]byte, 32)))})
	for _, test := range []struct {
		name string
		key  object
		by   *signer
	}{
		{"use enc", s.jwk(object{"use": "enc"}), s},
		{"use of something unknown", s.jwk(object{"use": "other"}), s},
		{"key_ops without verify", s.jwk(object{"use": nil, "key_ops": []string{"encrypt"}}), s},
		{"the private key is published", private, s},
		{"a point that is not on the curve", offCurve, s},
		{"RSA with 1024 bits", weak.jwk(nil), weak},
		{"RSA with exponent 1", rsaSigner().as("RS256", "k").jwk(object{"e": "AQ"}), rsaSigner().as("RS256", "k")},
		{"RSA with an exponent beyond 64 bits", rsaSigner().as("RS256", "k").jwk(object{"e": "AQAAAAAAAAAAAQAB"}), rsaSigner().as("RS256", "k")},
		{"symmetric", object{"kty": "oct", "k": "AAAA", "kid": "k"}, s},
		{"unknown type", object{"kty": "XYZ", "kid": "k"}, s},
		{"no object", nil, s},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := newIssuer(t)
			document := jwks(test.key, good.jwk(nil))
			i.answer(jwksPath, 200, document)
			v := newJWT(t, i, bearer.JWTConfig{})
			_, err := v.VerifyAccessToken(t.Context(), test.by.token(object{"kid": "k"}, i.claims(nil)))
			wantError(t, err, oauth.ErrInvalidToken, "Token is signed with a key that the authorization server does not publish")
			if _, err := v.VerifyAccessToken(t.Context(), good.token(nil, i.claims(nil))); err != nil {
				t.Errorf("the good key beside it: %v", err)
			}
		})
	}
}

func TestKeyIsUsedForItsAlgorithmOnly(t *testing.T) {
	s, rsa := newEC("k", elliptic.P256()), rsaSigner().as("RS256", "k")
	for _, test := range []struct {
		name string
		key  object
		by   *signer
	}{
		{"EC key for another algorithm", s.jwk(object{"alg": "ES384"}), s},
		{"EC key for encryption", s.jwk(object{"alg": "ECDH-ES"}), s},
		{"RSA key for another padding", rsa.jwk(object{"alg": "PS256"}), rsa},
		{"RSA key for another hash", rsa.jwk(object{"alg": "RS512"}), rsa},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := newIssuer(t)
			i.answer(jwksPath, 200, jwks(test.key))
			v := newJWT(t, i, bearer.JWTConfig{})
			_, err := v.VerifyAccessToken(t.Context(), test.by.token(nil, i.claims(nil)))
			wantError(t, err, oauth.ErrInvalidToken, "Token signature is not valid")
		})
	}
}

func TestTokenWithoutKeyIDTriesFourFittingKeys(t *testing.T) {
	i := newIssuer(t)
	signers := []*signer{rsaSigner(), newEC("a", elliptic.P384()), newEd25519("b")} // none of these fits
	for _, kid := range []string{"1", "2", "3", "4", "5"} {
		signers = append(signers, newEC(kid, elliptic.P256()))
	}
	v := newJWT(t, i, bearer.JWTConfig{}, signers...)
	for n, s := range signers[3:] {
		_, err := v.VerifyAccessToken(t.Context(), s.token(object{"kid": nil}, i.claims(nil)))
		if n < 4 && err != nil {
			t.Errorf("key %d: %v", n+1, err)
		}
		if n == 4 {
			wantError(t, err, oauth.ErrInvalidToken, "Token signature is not valid")
		}
	}
}

func TestJWKSByDiscovery(t *testing.T) {
	i := newIssuer(t)
	s := newEC("k", elliptic.P256())
	i.answer(jwksPath, 200, jwks(s.jwk(nil)))
	v := newJWTByDiscovery(t, i, bearer.JWTConfig{})
	if _, err := v.VerifyAccessToken(t.Context(), s.token(nil, i.claims(nil))); err != nil {
		t.Fatal(err)
	}
}

func newJWTByDiscovery(t *testing.T, i *issuer, c bearer.JWTConfig) *bearer.JWTVerifier {
	t.Helper()
	d, err := bearer.NewDiscovery(bearer.DiscoveryConfig{Issuer: i.URL, Client: client(t), Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	c.Issuer, c.Discovery, c.Client = i.URL, d, client(t)
	v, err := bearer.NewJWTVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestJWKSThatMovedIsFound(t *testing.T) {
	i := newIssuer(t)
	var c clock
	older, newer := newEC("1", elliptic.P256()), newEC("2", elliptic.P256())
	i.answer(jwksPath, 200, jwks(older.jwk(nil)))
	v := newJWTByDiscovery(t, i, bearer.JWTConfig{Now: c.now})
	if _, err := v.VerifyAccessToken(t.Context(), older.token(nil, i.claims(nil))); err != nil {
		t.Fatal(err)
	}
	i.answer(jwksPath, 404, "")
	i.answer("/jwks2", 200, jwks(newer.jwk(nil)))
	i.answer(metadataPath, 200, i.metadata(object{"jwks_uri": i.URL + "/jwks2"}))
	if _, err := v.VerifyAccessToken(t.Context(), newer.token(nil, i.claims(nil))); err != nil {
		t.Error(err)
	}
}

func TestJWKSURIOfTheMetadataIsChecked(t *testing.T) {
	s := newEC("k", elliptic.P256())
	for _, test := range []struct {
		name string
		uri  any
	}{
		{"none", nil},
		{"relative", "/jwks"},
		{"file", "file:///etc/passwd"},
		{"with a password", "http://a:b@127.0.0.1/jwks"},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := newIssuer(t)
			i.answer(jwksPath, 200, jwks(s.jwk(nil)))
			i.answer(metadataPath, 200, i.metadata(object{"jwks_uri": test.uri}))
			var c clock
			v := newJWTByDiscovery(t, i, bearer.JWTConfig{Now: c.now})
			_, err := v.VerifyAccessToken(t.Context(), s.token(nil, i.claims(nil)))
			wantError(t, err, oauth.ErrTemporarilyUnavailable, "The signing keys")
			if !strings.Contains(err.Error(), "jwks_uri") {
				t.Errorf("the cause does not name jwks_uri: %v", err)
			}
			i.answer(metadataPath, 200, i.metadata(nil))
			c.advance(10 * time.Second)
			if _, err := v.VerifyAccessToken(t.Context(), s.token(nil, i.claims(nil))); err != nil {
				t.Errorf("after it was mended: %v", err)
			}
		})
	}
}

func TestHTTPJWKSURIOfAnHTTPSIssuerIsRefused(t *testing.T) {
	var fetched atomic.Int32
	c := &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != metadataPath {
			fetched.Add(1)
		}
		_, _ = w.Write([]byte(`{"issuer":"https://idp.example","jwks_uri":"http://idp.example/jwks"}`))
	})}}
	d, err := bearer.NewDiscovery(bearer.DiscoveryConfig{Issuer: "https://idp.example", Client: c})
	if err != nil {
		t.Fatal(err)
	}
	v, err := bearer.NewJWTVerifier(bearer.JWTConfig{Issuer: "https://idp.example", Discovery: d, Client: c})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.VerifyAccessToken(t.Context(), newEC("k", elliptic.P256()).token(nil, object{"iss": "https://idp.example"}))
	wantError(t, err, oauth.ErrTemporarilyUnavailable, "The signing keys")
	if fetched.Load() != 0 {
		t.Error("the http URL was fetched")
	}
}

func FuzzJWKS(f *testing.F) {
	s := newEC("k", elliptic.P256())
	f.Add(jwks(s.jwk(nil)))
	f.Add(jwks(newEd25519("x").jwk(object{"x5c": []string{"AAAA"}})))
	f.Add(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`)
	f.Add(`{"keys":[{"kty":"EC","crv":"P-521","x":"AA","y":"AA","kid":"k"}]}`)
	stranger := newEC("k", elliptic.P256())
	token := stranger.token(nil, object{"iss": "https://idp.example"})
	f.Fuzz(func(t *testing.T, document string) {
		c := &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(document))
		})}}
		v, err := bearer.NewJWTVerifier(bearer.JWTConfig{Issuer: "https://idp.example", JWKSURI: "https://idp.example/jwks", Client: c})
		if err != nil {
			t.Fatal(err)
		}
		if info, err := v.VerifyAccessToken(t.Context(), token); err == nil {
			t.Fatalf("accepted: %v", info)
		}
	})
}
