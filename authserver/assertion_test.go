package authserver_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
)

func TestAssertionRules(t *testing.T) {
	k := newSigner(t, "k1", "ES256")
	stranger := newSigner(t, "k1", "ES256")
	rsaKey, p384, pss := newSigner(t, "k2", "RS256"), newSigner(t, "k3", "ES384"), newSigner(t, "k2", "PS256")
	s := newAssertionSite(t, k, rsaKey, p384)
	pss.key = rsaKey.key
	now := s.clock.Now().Unix()
	hmacKey := []byte(jwks(t, k))
	hs := func(claims jwt.MapClaims) string {
		compact, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(hmacKey)
		if err != nil {
			t.Fatal(err)
		}
		return compact
	}
	none := func() string {
		compact, err := jwt.NewWithClaims(jwt.SigningMethodNone, s.claims()).SignedString(jwt.UnsafeAllowNoneSignatureType)
		if err != nil {
			t.Fatal(err)
		}
		return compact
	}
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	good := k.sign(t, s.claims())
	pieces := strings.Split(good, ".")
	own, err := jwkset.NewJWKFromKey(stranger.key.Public(), jwkset.JWKOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ rule, assertion, want string }{
		{"good", good, ""},
		{"typ client-authentication+jwt", k.sign(t, s.claims(), "typ", "client-authentication+jwt"), ""},
		{"typ absent", k.sign(t, s.claims(), "typ", nil), ""},
		{"no kid", k.sign(t, s.claims(), "kid", nil), ""},
		{"no iat", k.sign(t, s.claims("iat", nil)), ""},
		{"fractional times", k.sign(t, s.claims("iat", float64(now)+0.5, "exp", float64(now)+60.5)), ""},
		{"exp 5 minutes ahead", k.sign(t, s.claims("exp", now+300)), ""},
		{"aud both of ours", k.sign(t, s.claims("aud", []string{issuer, issuer + "/token"})), ""},
		{"RS256", rsaKey.sign(t, s.claims()), ""},
		{"key of another in its header", k.sign(t, s.claims(), "jwk", own.Marshal(), "jku", "https://evil.example/keys", "x5u", "https://evil.example/cert"), ""},

		{"another key of the same id", stranger.sign(t, s.claims()), "not by a key"},
		{"another key, sent along", stranger.sign(t, s.claims(), "kid", nil, "jwk", own.Marshal()), "not by a key"},
		{"another key, by jku", stranger.sign(t, s.claims(), "jku", "https://evil.example/keys"), "not by a key"},
		{"unknown kid", k.sign(t, s.claims(), "kid", "k9"), "not by a key"},
		{"key of another algorithm", rsaKey.sign(t, s.claims(), "kid", "k1"), "not by a key"},
		{"none", none(), "alg"},
		{"HS256 with the public key", hs(s.claims()), "alg"},
		{"PS256", pss.sign(t, s.claims()), "alg"},
		{"ES384", p384.sign(t, s.claims()), "alg"},
		{"crit", k.sign(t, s.claims(), "crit", []string{"exp"}), "crit"},
		{"typ of an access token", k.sign(t, s.claims(), "typ", "at+jwt"), "typ"},
		{"typ that is no string", k.sign(t, s.claims(), "typ", 1), "typ is not a string"},
		{"iss of another", k.sign(t, s.claims("iss", "https://evil.example/c")), "iss and sub"},
		{"sub of another", k.sign(t, s.claims("sub", "https://evil.example/c")), "iss and sub"},
		{"no iss", k.sign(t, s.claims("iss", nil)), "iss and sub"},
		{"no sub", k.sign(t, s.claims("sub", nil, "iss", nil)), "iss and sub"},
		{"both of another than client_id", k.sign(t, s.claims("iss", "https://evil.example/c", "sub", "https://evil.example/c")), "not the client_id"},
		{"aud of another server", k.sign(t, s.claims("aud", "https://other.example")), "aud"},
		{"aud of another server beside us", k.sign(t, s.claims("aud", []string{issuer, "https://other.example"})), "aud"},
		{"aud with a slash more", k.sign(t, s.claims("aud", issuer+"/")), "aud"},
		{"aud in capitals", k.sign(t, s.claims("aud", strings.ToUpper(issuer))), "aud"},
		{"aud of another endpoint", k.sign(t, s.claims("aud", issuer+"/authorize")), "aud"},
		{"no aud", k.sign(t, s.claims("aud", nil)), "aud"},
		{"empty aud", k.sign(t, s.claims("aud", []string{})), "aud"},
		{"aud of a wrong type", k.sign(t, s.claims("aud", []any{issuer, 1})), "aud"},
		{"no exp", k.sign(t, s.claims("exp", nil)), "exp"},
		{"exp as text", k.sign(t, s.claims("exp", fmt.Sprint(now+60))), "exp"},
		{"exp of null", k.sign(t, s.claims("exp", json.RawMessage("null"))), "exp"},
		{"expired", k.sign(t, s.claims("exp", now-31, "iat", now-90)), "expired"},
		{"exp too far ahead", k.sign(t, s.claims("exp", now+331)), "ahead"},
		{"iat in the future", k.sign(t, s.claims("iat", now+31)), "iat"},
		{"iat long ago", k.sign(t, s.claims("iat", now-601)), "iat"},
		{"nbf in the future", k.sign(t, s.claims("nbf", now+31)), "nbf"},
		{"no jti", k.sign(t, s.claims("jti", nil)), "jti"},
		{"jti too long", k.sign(t, s.claims("jti", strings.Repeat("x", 257))), "jti"},
		{"not a JWT", "abc", "not a signed JWT"},
		{"encrypted", "a.b.c.d.e", "not a signed JWT"},
		{"too long", strings.Repeat("a", 9000), "longer"},
		{"claims changed", pieces[0] + "." + part(`{"iss":"`+documentURL+`","sub":"`+documentURL+`","aud":"`+issuer+`","exp":`+fmt.Sprint(now+60)+`,"jti":"x"}`) + "." + pieces[2], "not by a key"},
		{"no signature", pieces[0] + "." + pieces[1] + ".", "not by a key"},
		{"a claim twice", pieces[0] + "." + part(`{"iss":"a","iss":"`+documentURL+`"}`) + "." + pieces[2], "same name"},
		{"claims that are no object", pieces[0] + "." + part(`[]`) + "." + pieces[2], "JSON objects"},
		{"padding", pieces[0] + "=." + pieces[1] + "." + pieces[2], "base64url"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			a := s.postForm("/token", asserted(s.code("client_id", documentURL), test.assertion))
			if test.want == "" {
				if a.Status != http.StatusOK {
					t.Errorf("status %d: %s", a.Status, a.Body)
				}
				return
			}
			code, description := a.oauthError(t)
			if a.Status != http.StatusUnauthorized || code != "invalid_client" || !strings.Contains(description, test.want) {
				t.Errorf("%d %s: %s", a.Status, code, description)
			}
		})
	}
	if s.web.hitsOf("https://evil.example/keys") != 0 {
		t.Error("a URL in the assertion was fetched")
	}
}

func TestAssertionWithAnotherMethod(t *testing.T) {
	k := newSigner(t, "k1", "ES256")
	s := newAssertionSite(t, k)
	for _, test := range []struct{ rule, form, header, want string }{
		{"secret", asserted("x", k.sign(t, s.claims()), "client_secret", "x"), "", "invalid_request"},
		{"Basic", asserted("x", k.sign(t, s.claims())), "Basic " + base64.StdEncoding.EncodeToString([]byte("a:b")), "invalid_request"},
		{"type alone", asserted("x", ""), "", "invalid_request"},
		{"assertion alone", asserted("x", k.sign(t, s.claims()), "client_assertion_type", ""), "", "invalid_request"},
		{"another type", asserted("x", k.sign(t, s.claims()), "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"), "", "invalid_client"},
		{"two assertions", asserted("x", k.sign(t, s.claims())) + "&client_assertion=x", "", "invalid_request"},
	} {
		header := []string{}
		if test.header != "" {
			header = append(header, "Authorization", test.header)
		}
		a := s.postForm("/token", test.form, header...)
		if code, description := a.oauthError(t); code != test.want {
			t.Errorf("%s: %d %s: %s", test.rule, a.Status, code, description)
		}
	}
	// A server whose clients have no keys does not take it for nothing.
	plain := newSite(t)
	a := plain.postForm("/token", redemption(plain.code(), "client_assertion_type", assertionType, "client_assertion", "x"))
	if code, _ := a.oauthError(t); code != "invalid_client" {
		t.Errorf("without support: %d %s", a.Status, code)
	}
}

func TestAssertionKeyDocument(t *testing.T) {
	k := newSigner(t, "k1", "ES256")
	good := jwks(t, k)
	var many []string
	for range 33 {
		many = append(many, strings.TrimSuffix(strings.TrimPrefix(good, `{"keys":[`), `]}`))
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	private, err := jwkset.NewJWKFromKey(k.key, jwkset.JWKOptions{Marshal: jwkset.JWKMarshalOptions{Private: true}, Metadata: jwkset.JWKMetadataOptions{KID: "k1"}})
	if err != nil {
		t.Fatal(err)
	}
	privateJSON, err := json.Marshal(map[string]any{"keys": []any{private.Marshal()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		rule string
		page page
		ok   bool
	}{
		{"good", page{body: good}, true},
		{"jwk-set type", page{body: good, contentType: "application/jwk-set+json"}, true},
		{"html", page{body: good, contentType: "text/html"}, false},
		{"no keys", page{body: `{"keys":[]}`}, false},
		{"no array", page{body: `{}`}, false},
		{"member twice", page{body: `{"keys":[],` + good[1:]}, false},
		{"too many", page{body: `{"keys":[` + strings.Join(many, ",") + `]}`}, false},
		{"too large", page{body: good + strings.Repeat(" ", 65<<10)}, false},
		{"weak", page{body: jwks(t, &signer{id: "k1", method: jwt.SigningMethodRS256, key: small})}, false},
		{"private", page{body: string(privateJSON)}, false},
		{"for encryption", page{body: strings.Replace(good, `"use":"sig"`, `"use":"enc"`, 1)}, false},
		{"for another algorithm", page{body: strings.Replace(good, `"use":"sig"`, `"use":"sig","alg":"ES512"`, 1)}, false},
		{"redirect", page{body: good, status: 302, header: map[string]string{"Location": keysURL}}, false},
	} {
		t.Run(test.rule, func(t *testing.T) {
			s := newAssertionSite(t, k)
			s.web.put(keysURL, test.page)
			a := s.postForm("/token", asserted(s.code("client_id", documentURL), k.sign(t, s.claims())))
			if test.ok && a.Status != http.StatusOK || !test.ok && a.Status != http.StatusUnauthorized {
				t.Errorf("status %d: %s", a.Status, a.Body)
			}
		})
	}
}

// The address of the keys is under the same guard as that of the document.
func TestAssertionKeysSSRF(t *testing.T) {
	for _, keys := range []string{"https://127.0.0.1/keys", "https://user@client.example/keys", "http://169.254.169.254/keys"} {
		s := newAssertionSite(t)
		s.web.put(documentURL, page{body: document(t, "token_endpoint_auth_method", "private_key_jwt", "jwks_uri", keys)})
		// The document comes through the web, everything else through the guard.
		guarded, err := safehttp.NewGuardedClient(safehttp.GuardOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.web.client.Transport = byHost{"client.example": s.web.client.Transport, "": guarded.Transport}
		k := newSigner(t, "k1", "ES256")
		a := s.postForm("/token", asserted("x", k.sign(t, s.claims())))
		if code, _ := a.oauthError(t); code != "invalid_client" {
			t.Errorf("%s: %d %s", keys, a.Status, code)
		}
	}
}

// byHost is one transport for each host, and "" for the others.
type byHost map[string]http.RoundTripper

func (b byHost) RoundTrip(r *http.Request) (*http.Response, error) {
	if t := b[r.URL.Hostname()]; t != nil {
		return t.RoundTrip(r)
	}
	return b[""].RoundTrip(r)
}
