package proxyprovider_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

func TestRevocationIsSeenHereAtOnceAndElsewhereWithin5Seconds(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	tokens := w.tokens(g)
	w.wantVerify(g, "here before", tokens.AccessToken, "")
	w.wantVerify(other, "elsewhere before", tokens.AccessToken, "")
	if err := g.RevokeToken(t.Context(), publicClient("app"), authserver.Revocation{Token: tokens.RefreshToken}); err != nil {
		t.Fatal(err)
	}
	w.wantVerify(g, "here", tokens.AccessToken, "invalid_token")
	w.wantVerify(other, "elsewhere, still cached", tokens.AccessToken, "")
	w.clock.advance(5 * time.Second)
	w.wantVerify(other, "elsewhere after 5 s", tokens.AccessToken, "invalid_token")
	_, err := w.refresh(other, tokens.RefreshToken)
	wantError(t, "refresh elsewhere", err, "invalid_grant")
	w.clock.advance(14 * time.Minute)
	w.wantVerify(g, "when the tombstone has gone", tokens.AccessToken, "invalid_token")
}

func TestStatusIsCached(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	tokens := w.tokens(g)
	w.wantVerify(g, "once", tokens.AccessToken, "")
	before := w.faulty.reads.Load()
	for range 100 {
		w.wantVerify(g, "again", tokens.AccessToken, "")
	}
	if n := w.faulty.reads.Load() - before; n != 0 {
		t.Errorf("%d reads of the store", n)
	}
}

func TestStoreTroubleDuringVerification(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	tokens, unseen := w.tokens(g), w.tokens(w.node())
	w.wantVerify(g, "before", tokens.AccessToken, "")
	w.faulty.down.Store(true)
	w.clock.advance(29 * time.Second)
	w.wantVerify(g, "a status of 29 s", tokens.AccessToken, "")
	w.wantVerify(g, "no status at all", unseen.AccessToken, "temporarily_unavailable")
	w.clock.advance(time.Second)
	w.wantVerify(g, "a status of 30 s", tokens.AccessToken, "temporarily_unavailable")
	w.faulty.down.Store(false)
	w.clock.advance(time.Second)
	w.wantVerify(g, "after it", tokens.AccessToken, "")
}

func TestMissingRecordIsRevoked(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	tokens := w.tokens(g)
	st, err := w.sealed()
	if err != nil {
		t.Fatal(err)
	}
	info, err := w.node().VerifyAccessToken(t.Context(), tokens.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Delete(t.Context(), "grant/"+info.Extra[proxyprovider.GrantIDClaim].(string)); err != nil { //nolint:forcetypeassert // a string
		t.Fatal(err)
	}
	w.clock.advance(5 * time.Second)
	w.wantVerify(g, "access token", tokens.AccessToken, "invalid_token")
}

func TestForgedAccessTokens(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	tokens := w.tokens(g)
	parts := strings.Split(tokens.AccessToken, ".")
	decode := func(s string) (m map[string]any) {
		raw, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	header, payload := decode(parts[0]), decode(parts[1])
	encode := func(m map[string]any) string {
		return base64.RawURLEncoding.EncodeToString([]byte(asJSON(t, m)))
	}
	with := func(m map[string]any, name string, value any) map[string]any {
		m = maps.Clone(m)
		if m[name] = value; value == nil {
			delete(m, name)
		}
		return m
	}
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(h, p map[string]any) string {
		s := encode(h) + "." + encode(p)
		sig, err := jwt.SigningMethodES256.Sign(s, attacker)
		if err != nil {
			t.Fatal(err)
		}
		return s + "." + base64.RawURLEncoding.EncodeToString(sig)
	}
	hmacSigned := func() string {
		s := encode(with(header, "alg", "HS256")) + "." + parts[1]
		sig, err := jwt.SigningMethodHS256.Sign(s, []byte(published(t, g)[0]))
		if err != nil {
			t.Fatal(err)
		}
		return s + "." + base64.RawURLEncoding.EncodeToString(sig)
	}
	for name, token := range map[string]string{
		"empty":                       "",
		"two segments":                parts[0] + "." + parts[1],
		"four segments":               tokens.AccessToken + ".x",
		"padding":                     tokens.AccessToken + "==",
		"a line break":                tokens.AccessToken[:60] + "\n" + tokens.AccessToken[60:],
		"too long":                    tokens.AccessToken + strings.Repeat("A", 16<<10),
		"no signature":                parts[0] + "." + parts[1] + ".",
		"alg none":                    encode(with(header, "alg", "none")) + "." + parts[1] + ".",
		"alg none, our signature":     encode(with(header, "alg", "none")) + "." + parts[1] + "." + parts[2],
		"alg HS256":                   hmacSigned(),
		"another known alg":           encode(with(header, "alg", "EdDSA")) + "." + parts[1] + "." + parts[2],
		"another key, our kid":        signed(header, payload),
		"a key in the header":         signed(with(header, "jwk", map[string]any{"kty": "EC"}), payload),
		"a crit header":               signed(with(header, "crit", []string{"exp"}), payload),
		"typ JWT":                     encode(with(header, "typ", "JWT")) + "." + parts[1] + "." + parts[2],
		"another subject":             parts[0] + "." + encode(with(payload, "sub", "mallory")) + "." + parts[2],
		"another issuer":              parts[0] + "." + encode(with(payload, "iss", "https://evil.example")) + "." + parts[2],
		"a longer life":               parts[0] + "." + encode(with(payload, "exp", 99999999999)) + "." + parts[2],
		"no exp":                      parts[0] + "." + encode(with(payload, "exp", nil)) + "." + parts[2],
		"no grant":                    parts[0] + "." + encode(with(payload, "grant_id", nil)) + "." + parts[2],
		"a claim twice":               parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"a","sub":"b"}`)) + "." + parts[2],
		"a payload that is no object": parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`null`)) + "." + parts[2],
		"the refresh token":           tokens.RefreshToken,
	} {
		t.Run(name, func(t *testing.T) {
			w.wantVerify(g, "token", token, "invalid_token")
			w.wantVerify(w.node(), "token at a new node", token, "invalid_token")
		})
	}
	w.wantVerify(g, "the real one", tokens.AccessToken, "")
	w.config.Issuer = "https://other.example.com"
	w.wantVerify(w.node(), "the real one at another issuer of the same store", tokens.AccessToken, "invalid_token")
}

func TestExpiredAccessToken(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	tokens := w.tokens(g)
	w.wantVerify(g, "before", tokens.AccessToken, "")
	w.clock.advance(15 * time.Minute)
	w.wantVerify(g, "remembered", tokens.AccessToken, "invalid_token")
	w.wantVerify(w.node(), "at a new node", tokens.AccessToken, "invalid_token")
}
