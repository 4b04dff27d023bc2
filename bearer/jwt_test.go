package bearer_test

import (
	"context"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// newJWT returns a verifier of the issuer's tokens; the issuer publishes the
// keys of signers.
func newJWT(t testing.TB, i *issuer, c bearer.JWTConfig, signers ...*signer) *bearer.JWTVerifier {
	t.Helper()
	if len(signers) > 0 {
		keys := make([]object, len(signers))
		for n, s := range signers {
			keys[n] = s.jwk(nil)
		}
		i.answer(jwksPath, 200, jwks(keys...))
	}
	c.Issuer, c.JWKSURI, c.Client = i.URL, i.URL+jwksPath, client(t)
	v, err := bearer.NewJWTVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wantError fails unless err is the OAuth error, described as said, and its
// description is fit to be sent.
func wantError(t *testing.T, err error, want *oauth.Error, description string) {
	t.Helper()
	var e *oauth.Error
	if !errors.As(err, &e) || e.Code != want.Code {
		t.Fatalf("got error %v, want %s", err, want.Code)
	}
	if !strings.HasPrefix(e.Description, description) {
		t.Errorf("got description %q, want %q (error: %v)", e.Description, description, err)
	}
	if e.Description != oauth.CleanDescription(e.Description) {
		t.Errorf("description %q is not fit for the wire", e.Description)
	}
}

func TestJWTIsAccepted(t *testing.T) {
	i := newIssuer(t)
	p256, p384, p521, ed := newEC("p256", elliptic.P256()), newEC("p384", elliptic.P384()), newEC("p521", elliptic.P521()), newEd25519("ed")
	v := newJWT(t, i, bearer.JWTConfig{}, rsaSigner(), p256, p384, p521, ed)
	for _, alg := range []struct {
		name string
		by   *signer
	}{
		{"RS256", rsaSigner()},
		{"RS384", rsaSigner()},
		{"RS512", rsaSigner()},
		{"PS256", rsaSigner()},
		{"PS384", rsaSigner()},
		{"PS512", rsaSigner()},
		{"ES256", p256},
		{"ES384", p384},
		{"ES512", p521},
		{"EdDSA", ed},
	} {
		t.Run(alg.name, func(t *testing.T) {
			token := alg.by.as(alg.name, alg.by.kid).token(nil, i.claims(object{
				"email": "a@example.com", "groups": []string{"x"}, "id": 12345678901, "ratio": 0.5,
				"nested": object{"n": []int{1}}, "exp": 4000000000, "iat": 1000000000,
			}))
			got, err := v.VerifyAccessToken(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			want := &oauth.TokenInfo{
				Token: token, ClientID: "client", UserID: "alice", Scopes: []string{"mcp:read", "mcp:write"},
				ExpiresAt: time.Unix(4000000060, 0), Leeway: time.Minute, Audience: []string{"https://mcp.example.com/mcp"}, Issuer: i.URL,
				Extra: map[string]any{
					"email": "a@example.com", "groups": []any{"x"}, "id": int64(12345678901), "ratio": 0.5,
					"nested": map[string]any{"n": []any{int64(1)}}, "iat": int64(1000000000), "jti": "1",
				},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if n := i.count(jwksPath); n != 1 {
		t.Errorf("%d requests for the JWKS, want 1", n)
	}
}

func TestJWTFormsOfIdentityProviders(t *testing.T) {
	i := newIssuer(t)
	s := newEC("k", elliptic.P256())
	v := newJWT(t, i, bearer.JWTConfig{ClientIDs: []string{"app"}}, s)
	type want struct {
		Client, User string
		Scopes, Aud  []string
		NoExpiry     bool
	}
	for _, test := range []struct {
		name            string
		header, payload object
		want            want
	}{
		{"typ JWT", object{"typ": "JWT"}, nil, want{"client", "alice", []string{"mcp:read", "mcp:write"}, []string{"https://mcp.example.com/mcp"}, false}},
		{"typ application/at+jwt", object{"typ": "application/AT+JWT"}, nil, want{"client", "alice", []string{"mcp:read", "mcp:write"}, []string{"https://mcp.example.com/mcp"}, false}},
		{"no typ", object{"typ": nil}, nil, want{"client", "alice", []string{"mcp:read", "mcp:write"}, []string{"https://mcp.example.com/mcp"}, false}},
		{"several audiences", nil, object{"aud": []string{"a", "b"}}, want{"client", "alice", []string{"mcp:read", "mcp:write"}, []string{"a", "b"}, false}},
		{"no audience", nil, object{"aud": nil}, want{"client", "alice", []string{"mcp:read", "mcp:write"}, nil, false}},
		{"scp as string, azp (Entra)", nil, object{"scope": nil, "scp": "a b", "client_id": nil, "azp": "x"}, want{"x", "alice", []string{"a", "b"}, []string{"https://mcp.example.com/mcp"}, false}},
		{"scp as array, cid (Okta)", nil, object{"scope": nil, "scp": []string{"a", "b"}, "client_id": nil, "cid": "x"}, want{"x", "alice", []string{"a", "b"}, []string{"https://mcp.example.com/mcp"}, false}},
		{"empty scope, then scp", nil, object{"scope": "", "scp": "a"}, want{"client", "alice", []string{"a"}, []string{"https://mcp.example.com/mcp"}, false}},
		{"client_id before azp", nil, object{"azp": "other"}, want{"client", "alice", []string{"mcp:read", "mcp:write"}, []string{"https://mcp.example.com/mcp"}, false}},
		{"machine without scope and user", nil, object{"scope": nil, "sub": nil}, want{"client", "", nil, []string{"https://mcp.example.com/mcp"}, false}},
		{"no exp is left to the guard", nil, object{"exp": nil}, want{"client", "alice", []string{"mcp:read", "mcp:write"}, []string{"https://mcp.example.com/mcp"}, true}},
		{"client as audience, with scope and client_id", nil, object{"aud": "app", "client_id": "app"}, want{"app", "alice", []string{"mcp:read", "mcp:write"}, []string{"app"}, false}},
		{"client as audience, with scope and azp", nil, object{"aud": "app", "client_id": nil, "azp": "app"}, want{"app", "alice", []string{"mcp:read", "mcp:write"}, []string{"app"}, false}},
		{"nonce with a resource as audience", nil, object{"nonce": "n"}, want{"client", "alice", []string{"mcp:read", "mcp:write"}, []string{"https://mcp.example.com/mcp"}, false}},
		{"token_use access (Cognito)", nil, object{"token_use": "access"}, want{"client", "alice", []string{"mcp:read", "mcp:write"}, []string{"https://mcp.example.com/mcp"}, false}},
		{"typ Bearer in the payload (Keycloak)", nil, object{"typ": "Bearer"}, want{"client", "alice", []string{"mcp:read", "mcp:write"}, []string{"https://mcp.example.com/mcp"}, false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			info, err := v.VerifyAccessToken(t.Context(), s.token(test.header, i.claims(test.payload)))
			if err != nil {
				t.Fatal(err)
			}
			got := want{info.ClientID, info.UserID, info.Scopes, info.Audience, info.ExpiresAt.IsZero()}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestJWTIsRefused(t *testing.T) {
	i := newIssuer(t)
	s, other := newEC("k", elliptic.P256()), newEC("k", elliptic.P256())
	p384 := newEC("p384", elliptic.P384())
	v := newJWT(t, i, bearer.JWTConfig{ClientIDs: []string{"app", "app2"}}, s, rsaSigner(), p384)
	good := i.claims(nil)
	goodJSON, _ := json.Marshal(good)
	token := s.token(nil, good)
	if _, err := v.VerifyAccessToken(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	header, payload, signature := splitToken(token)
	now := time.Now().Unix()

	// lastBit is the token with the unused bits of its last character set,
	// which a lenient decoder takes for the same signature.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	lastBit := token[:len(token)-1] + string(alphabet[last|1])

	none := segment(`{"alg":"none","kid":"k"}`) + "." + payload + "."
	const (
		malformed = "Token is malformed"
		badSig    = "Token signature is not valid"
		badAlg    = "Token is signed with an algorithm that is not accepted"
		notAccess = "Token is not an access token"
		idToken   = "Token is an id_token"
		badIssuer = "Token was not issued by the expected authorization server"
		tooEarly  = "Token is not valid yet"
		expired   = "Token has expired"
	)
	for _, test := range []struct{ name, token, want string }{
		{"empty", "", malformed},
		{"one segment", "abc", malformed},
		{"two segments", "abc.def", malformed},
		{"four segments", token + ".x", malformed},
		{"encrypted (five segments)", token + ".x.y", malformed},
		{"dots alone", "..", malformed},
		{"longer than 16 KiB", s.token(nil, with(good, object{"pad": strings.Repeat("x", 16<<10)})), malformed},
		{"padded segment", header + "=." + payload + "." + signature, malformed},
		{"padded signature", token + "==", malformed},
		{"line break in the signature", header + "." + payload + "." + signature[:4] + "\n" + signature[4:], malformed},
		{"unused bits set in the signature", lastBit, malformed},
		{"standard base64", strings.ReplaceAll(header, "e", "+") + "." + payload + "." + signature, malformed},
		{"space before", " " + token, malformed},
		{"header is no object", s.sign(`["alg"]`, string(goodJSON)), malformed},
		{"header is null", s.sign(`null`, string(goodJSON)), malformed},
		{"payload is no object", s.sign(`{"alg":"ES256","kid":"k"}`, `"x"`), malformed},
		{"payload is not JSON", s.sign(`{"alg":"ES256","kid":"k"}`, `{`), malformed},
		{"payload is not UTF-8", s.sign(`{"alg":"ES256","kid":"k"}`, "{\"iss\":\"\xff\"}"), malformed},
		{"data after the payload", s.sign(`{"alg":"ES256","kid":"k"}`, string(goodJSON)+"{}"), malformed},
		{"deep nesting", s.sign(`{"alg":"ES256","kid":"k"}`, strings.Repeat("[", 2000)+strings.Repeat("]", 2000)), malformed},
		{"duplicate header member", s.sign(`{"alg":"none","alg":"ES256","kid":"k"}`, string(goodJSON)), malformed},
		{"duplicate claim", s.sign(`{"alg":"ES256","kid":"k"}`, strings.Replace(string(goodJSON), "{", `{"sub":"bob",`, 1)), malformed},
		{"duplicate claim, nested", s.sign(`{"alg":"ES256","kid":"k"}`, strings.Replace(string(goodJSON), "{", `{"x":{"a":1,"a":2},`, 1)), malformed},
		{"claim in another case does not count", s.token(nil, with(good, object{"iss": nil, "ISS": i.URL})), badIssuer},
		{"alg in another case does not count", s.token(object{"alg": nil, "ALG": "ES256"}, good), badAlg},

		{"alg none", none, badAlg},
		{"alg none with a signature", segment(`{"alg":"none","kid":"k"}`) + "." + payload + "." + signature, badAlg},
		{"alg NONE", segment(`{"alg":"NonE","kid":"k"}`) + "." + payload + ".", badAlg},
		{"alg missing", segment(`{"kid":"k"}`) + "." + payload + "." + signature, badAlg},
		{"alg is a number", segment(`{"alg":1,"kid":"k"}`) + "." + payload + "." + signature, malformed},
		{"HS256 with the public key as secret, PEM", hs256(t, "rsa", publicPEM(t), good), badAlg},
		{"HS256 with the public key as secret, modulus", hs256(t, "rsa", rsaSigner().private.Public().(*rsa.PublicKey).N.Bytes(), good), badAlg},
		{"signed with a key of another owner", other.token(nil, good), badSig},
		{"no signature", header + "." + payload + ".", badSig},
		{"signature of another token", header + "." + segment(strings.Replace(string(goodJSON), "alice", "mallory", 1)) + "." + signature, badSig},
		{"algorithm of another key type", s.token(object{"kid": "rsa"}, good), badSig},
		{"RSA algorithm with an EC key", rsaSigner().token(object{"kid": "k"}, good), badSig},
		{"curve of another algorithm", s.token(object{"kid": "p384"}, good), badSig},
		{"kid is a number", s.token(object{"kid": 1}, good), malformed},
		{"crit", s.token(object{"crit": []string{"exp"}, "exp": 1}, good), "Token uses an extension that is not supported"},
		{"crit b64", s.token(object{"crit": []string{"b64"}, "b64": true}, good), "Token uses an extension that is not supported"},
		{"empty crit", s.token(object{"crit": []string{}}, good), "Token uses an extension that is not supported"},
		{"typ of something else", s.token(object{"typ": "logout+jwt"}, good), notAccess},
		{"typ dpop+jwt", s.token(object{"typ": "dpop+jwt"}, good), notAccess},
		{"typ is a number", s.token(object{"typ": 1}, good), malformed},

		{"other issuer", s.token(nil, with(good, object{"iss": "https://evil.example"})), badIssuer},
		{"issuer with one slash more", s.token(nil, with(good, object{"iss": i.URL + "/"})), badIssuer},
		{"issuer in another case", s.token(nil, with(good, object{"iss": strings.ToUpper(i.URL)})), badIssuer},
		{"no issuer", s.token(nil, with(good, object{"iss": nil})), badIssuer},
		{"issuer is an array", s.token(nil, with(good, object{"iss": []string{i.URL}})), malformed},
		{"expired", s.token(nil, with(good, object{"exp": now - 120})), expired},
		{"exp 0", s.token(nil, with(good, object{"exp": 0})), expired},
		{"exp negative", s.token(nil, with(good, object{"exp": -5})), expired},
		{"exp is a string", s.token(nil, with(good, object{"exp": "4000000000"})), malformed},
		{"exp in milliseconds", s.token(nil, with(good, object{"exp": now * 1000})), malformed},
		{"exp without bounds", s.sign(`{"alg":"ES256","kid":"k"}`, `{"iss":"`+i.URL+`","exp":1e999}`), malformed},
		{"exp is null", s.sign(`{"alg":"ES256","kid":"k"}`, `{"iss":"`+i.URL+`","exp":null}`), malformed},
		{"nbf in the future", s.token(nil, with(good, object{"nbf": now + 120})), tooEarly},
		{"nbf is no number", s.token(nil, with(good, object{"nbf": true})), malformed},
		{"iat in the future", s.token(nil, with(good, object{"iat": now + 120})), tooEarly},
		{"aud is a number", s.token(nil, with(good, object{"aud": 1})), malformed},
		{"aud holds a number", s.token(nil, with(good, object{"aud": []any{"a", 1}})), malformed},
		{"aud is null", s.sign(`{"alg":"ES256","kid":"k"}`, `{"iss":"`+i.URL+`","aud":null}`), malformed},
		{"scope is a number", s.token(nil, with(good, object{"scope": 1})), malformed},
		{"scope with a line break", s.token(nil, with(good, object{"scope": "a\r\nb"})), malformed},
		{"client_id is an array", s.token(nil, with(good, object{"client_id": []string{"a"}})), malformed},
		{"sub is a number", s.token(nil, with(good, object{"sub": 1})), malformed},

		{"bound to a DPoP key", s.token(nil, with(good, object{"cnf": object{"jkt": "x"}})), "Token is bound to a key"},
		{"bound to a certificate", s.token(nil, with(good, object{"cnf": object{"x5t#S256": "x"}})), "Token is bound to a key"},
		{"at_hash", s.token(nil, with(good, object{"at_hash": "x"})), idToken},
		{"c_hash", s.token(nil, with(good, object{"c_hash": "x"})), idToken},
		{"nonce with a client as audience", s.token(nil, with(good, object{"nonce": "n", "aud": "app", "client_id": "app"})), idToken},
		{"nonce with a client among the audiences", s.token(nil, with(good, object{"nonce": "n", "aud": []string{"https://mcp.example.com/mcp", "app"}, "client_id": "app"})), idToken},
		{"nonce with its own client as audience", s.token(nil, with(good, object{"nonce": "n", "aud": "client"})), idToken},
		{"client as audience without scope", s.token(nil, with(good, object{"aud": "app", "client_id": "app", "scope": nil})), "Token has no scope and a client as audience"},
		{"client as audience, issued to another", s.token(nil, with(good, object{"aud": "app"})), "Token was issued to another client"},
		{"client as audience, issued to nobody", s.token(nil, with(good, object{"aud": "app", "client_id": nil})), "Token was issued to another client"},
		{"token_use id (Cognito)", s.token(nil, with(good, object{"token_use": "id"})), notAccess},
		{"refresh token (Keycloak)", s.token(nil, with(good, object{"typ": "Refresh"})), notAccess},
		{"id_token (Keycloak)", s.token(nil, with(good, object{"typ": "ID"})), notAccess},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := v.VerifyAccessToken(t.Context(), test.token)
			wantError(t, err, oauth.ErrInvalidToken, test.want)
			if test.token != "" && len(test.token) > 20 && strings.Contains(err.Error(), test.token) {
				t.Error("the error repeats the token")
			}
		})
	}
	if n := i.count(jwksPath); n != 1 {
		t.Errorf("%d requests for the JWKS, want 1: no refused token with a known key may cause one", n)
	}
}

func splitToken(token string) (header, payload, signature string) {
	parts := strings.Split(token, ".")
	return parts[0], parts[1], parts[2]
}

func publicPEM(t *testing.T) []byte {
	der, err := x509.MarshalPKIXPublicKey(rsaSigner().private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func hs256(t *testing.T, kid string, secret []byte, payload object) string {
	text, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	signed := segment(`{"alg":"HS256","typ":"at+jwt","kid":"`+kid+`"}`) + "." + segment(string(text))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestJWTSkew(t *testing.T) {
	i := newIssuer(t)
	s := newEC("k", elliptic.P256())
	now := time.Unix(2000000000, 0)
	for _, test := range []struct {
		name    string
		skew    time.Duration
		payload object
		want    string // "" if accepted
	}{
		{"default: expired 59 s ago", 0, object{"exp": now.Unix() - 59}, ""},
		{"default: expired 60 s ago", 0, object{"exp": now.Unix() - 60}, "Token has expired"},
		{"default: valid in 60 s", 0, object{"nbf": now.Unix() + 60}, ""},
		{"default: valid in 61 s", 0, object{"nbf": now.Unix() + 61}, "Token is not valid yet"},
		{"default: issued in 60 s", 0, object{"iat": now.Unix() + 60}, ""},
		{"default: issued in 61 s", 0, object{"iat": now.Unix() + 61}, "Token is not valid yet"},
		{"none: expires in 1 s", -1, object{"exp": now.Unix() + 1}, ""},
		{"none: expires now", -1, object{"exp": now.Unix()}, "Token has expired"},
		{"none: valid now", -1, object{"nbf": now.Unix()}, ""},
		{"none: valid in half a second", -1, object{"nbf": float64(now.Unix()) + 0.5}, "Token is not valid yet"},
		{"5 s: expired 4 s ago", 5 * time.Second, object{"exp": now.Unix() - 4}, ""},
		{"5 s: expired 5 s ago", 5 * time.Second, object{"exp": now.Unix() - 5}, "Token has expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := newJWT(t, i, bearer.JWTConfig{Skew: test.skew, Now: func() time.Time { return now }}, s)
			claims := with(i.claims(object{"iat": nil, "exp": now.Unix() + 600}), test.payload)
			_, err := v.VerifyAccessToken(t.Context(), s.token(nil, claims))
			if test.want != "" {
				wantError(t, err, oauth.ErrInvalidToken, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestJWTOptions(t *testing.T) {
	i := newIssuer(t)
	s := newEC("k", elliptic.P256())
	for _, test := range []struct {
		name            string
		config          bearer.JWTConfig
		header, payload object
		want            string // "" if accepted
	}{
		{"an algorithm that is not listed", bearer.JWTConfig{Algorithms: []string{"RS256"}}, nil, nil, "Token is signed with an algorithm"},
		{"an algorithm that is listed", bearer.JWTConfig{Algorithms: []string{"RS256", "ES256"}}, nil, nil, ""},
		{"at+jwt required, JWT sent", bearer.JWTConfig{RequireType: "at+jwt"}, object{"typ": "JWT"}, nil, "Token is not an access token"},
		{"at+jwt required, none sent", bearer.JWTConfig{RequireType: "at+jwt"}, object{"typ": nil}, nil, "Token is not an access token"},
		{"at+jwt required, long form sent", bearer.JWTConfig{RequireType: "at+jwt"}, object{"typ": "application/at+jwt"}, nil, ""},
		{"long form required, at+jwt sent", bearer.JWTConfig{RequireType: "application/at+jwt"}, nil, nil, ""},
		{"other scope claim", bearer.JWTConfig{ScopeClaims: []string{"permissions"}}, nil, object{"permissions": []string{"mcp:read", "mcp:write"}, "scope": "x"}, ""},
		{"other user claim", bearer.JWTConfig{UserClaim: "oid"}, nil, object{"oid": "alice", "sub": "x"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := newJWT(t, i, test.config, s)
			info, err := v.VerifyAccessToken(t.Context(), s.token(test.header, i.claims(test.payload)))
			if test.want != "" {
				wantError(t, err, oauth.ErrInvalidToken, test.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"mcp:read", "mcp:write"}, info.Scopes); diff != "" || info.UserID != "alice" {
				t.Errorf("user %q, scopes %s", info.UserID, diff)
			}
		})
	}
}

func TestJWTClientAsAudienceWarnsOnce(t *testing.T) {
	i := newIssuer(t)
	s := newEC("k", elliptic.P256())
	var lines logLines
	v := newJWT(t, i, bearer.JWTConfig{ClientIDs: []string{"app"}, Logger: slog.New(slog.NewTextHandler(&lines, nil))}, s)
	for range 3 {
		if _, err := v.VerifyAccessToken(t.Context(), s.token(nil, i.claims(object{"aud": "app", "client_id": "app"}))); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(lines.String(), "client id into the audience"); n != 1 {
		t.Errorf("warned %d times:\n%s", n, lines.String())
	}
}

func TestJWTKeysInTheHeaderAreIgnored(t *testing.T) {
	i, evil := newIssuer(t), newIssuer(t)
	s, mallory := newEC("k", elliptic.P256()), newEC("k", elliptic.P256())
	evil.answer(jwksPath, 200, jwks(mallory.jwk(nil)))
	v := newJWT(t, i, bearer.JWTConfig{}, s)
	for _, header := range []object{
		{"jwk": mallory.jwk(nil)},
		{"jku": evil.URL + jwksPath},
		{"x5u": evil.URL + jwksPath},
		{"x5c": []string{"AAAA"}},
		{"jwk": mallory.jwk(nil), "kid": nil},
	} {
		_, err := v.VerifyAccessToken(t.Context(), mallory.token(header, i.claims(nil)))
		wantError(t, err, oauth.ErrInvalidToken, "Token signature is not valid")
		if _, err := v.VerifyAccessToken(t.Context(), s.token(header, i.claims(nil))); err != nil {
			t.Errorf("a good token with %v: %v", header, err)
		}
	}
	if n := evil.count(jwksPath); n != 0 {
		t.Errorf("a URL from a token's header was fetched %d times", n)
	}
}

func TestNewJWTVerifierRefuses(t *testing.T) {
	discovery, err := bearer.NewDiscovery(bearer.DiscoveryConfig{Issuer: "https://a.example"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		config bearer.JWTConfig
		want   string
	}{
		{"no issuer", bearer.JWTConfig{JWKSURI: "https://a.example/jwks"}, "issuer"},
		{"no source of keys", bearer.JWTConfig{Issuer: "https://a.example"}, "JWKS URI or discovery"},
		{"discovery of another issuer", bearer.JWTConfig{Issuer: "https://b.example", Discovery: discovery}, "https://b.example"},
		{"relative JWKS URI", bearer.JWTConfig{Issuer: "https://a.example", JWKSURI: "/jwks"}, "absolute"},
		{"file as JWKS URI", bearer.JWTConfig{Issuer: "https://a.example", JWKSURI: "file:///etc/passwd"}, "absolute"},
		{"password in the JWKS URI", bearer.JWTConfig{Issuer: "https://a.example", JWKSURI: "https://u:p@a.example/jwks"}, "password"},
		{"none", bearer.JWTConfig{Issuer: "https://a.example", Discovery: discovery, Algorithms: []string{"none"}}, "asymmetric"},
		{"HS256", bearer.JWTConfig{Issuer: "https://a.example", Discovery: discovery, Algorithms: []string{"RS256", "HS256"}}, "HS256"},
		{"lower case", bearer.JWTConfig{Issuer: "https://a.example", Discovery: discovery, Algorithms: []string{"rs256"}}, "rs256"},
		{"empty client id", bearer.JWTConfig{Issuer: "https://a.example", Discovery: discovery, ClientIDs: []string{""}}, "client id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := bearer.NewJWTVerifier(test.config); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error that names %q", err, test.want)
			}
		})
	}
}

func FuzzJWT(f *testing.F) {
	i := newIssuer(f)
	s := newEC("k", elliptic.P256())
	v := newJWT(f, i, bearer.JWTConfig{RefetchInterval: time.Hour}, s)
	token := s.token(nil, i.claims(nil))
	header, payload, signature := splitToken(token)
	if _, err := v.VerifyAccessToken(context.Background(), token); err != nil {
		f.Fatal(err)
	}
	decode := func(s string) string {
		data, _ := base64.RawURLEncoding.DecodeString(s)
		return string(data)
	}
	f.Add(decode(header), decode(payload), signature, true)
	f.Add(header, payload, signature, false)
	f.Add(`{"alg":"none"}`, decode(payload), "", true)
	f.Add(`{"alg":"ES256","kid":"k","crit":["x"]}`, `{"iss":1e999,"aud":[[]]}`, "AA", true)
	f.Add(`{"alg":"RS256"}`, `{"exp":-1e300,"cnf":null,"scope":["a",1]}`, "", true)
	f.Fuzz(func(t *testing.T, h, p, sig string, encode bool) {
		if encode {
			h, p = segment(h), segment(p)
		}
		mutated := h + "." + p + "." + sig
		v.Recognizes(mutated)
		info, err := v.VerifyAccessToken(t.Context(), mutated)
		if mutated == token {
			return
		}
		// The fuzzer holds no key, so whatever differs from the token is refused.
		if info != nil || !errors.Is(err, oauth.ErrInvalidToken) {
			t.Fatalf("%q: %v, %v", mutated, info, err)
		}
	})
}
