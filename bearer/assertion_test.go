package bearer_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	assertionIssuer   = "https://mcp.example.com"
	assertionAudience = "https://mcp.example.com/mcp"
)

// assertionWorld is a site that tells its server who is asking.
type assertionWorld struct {
	t       *testing.T
	clock   atomic.Int64 // seconds
	secrets atomic.Pointer[[][32]byte]
	keys    *bearer.AssertionKeys
}

func newAssertionWorld(t *testing.T) *assertionWorld {
	t.Helper()
	w := &assertionWorld{t: t}
	w.clock.Store(time.Date(2026, 7, 28, 12, 0, 0, 0, time.UTC).Unix())
	w.secrets.Store(&[][32]byte{{1}})
	w.keys = w.node()
	return w
}

// node is one more process with the same secrets.
func (w *assertionWorld) node() *bearer.AssertionKeys {
	w.t.Helper()
	keys, err := bearer.NewAssertionKeys(bearer.AssertionKeysConfig{
		Secrets: func() ([][32]byte, error) { return *w.secrets.Load(), nil },
		Now:     w.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return keys
}

func (w *assertionWorld) now() time.Time          { return time.Unix(w.clock.Load(), 0) }
func (w *assertionWorld) advance(d time.Duration) { w.clock.Add(int64(d / time.Second)) }

func (w *assertionWorld) assertions(change ...func(*bearer.AssertionConfig)) *bearer.Assertions {
	w.t.Helper()
	c := bearer.AssertionConfig{
		Issuer: assertionIssuer, Audience: assertionAudience, Keys: w.keys, Now: w.now,
		Fields: bearer.IdentityFields{Email: true, Name: true, Groups: true},
	}
	for _, fn := range change {
		fn(&c)
	}
	a, err := bearer.NewAssertions(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// send returns the assertion that the server gets.
func (w *assertionWorld) send(a *bearer.Assertions, info *oauth.TokenInfo) string {
	w.t.Helper()
	h := http.Header{}
	if err := a.SetHeader(h, info); err != nil {
		w.t.Fatal(err)
	}
	if len(h) != 1 || len(h["X-Mcp-Identity"]) != 1 {
		w.t.Fatalf("headers %v", h)
	}
	return h["X-Mcp-Identity"][0]
}

func (w *assertionWorld) caller() *oauth.TokenInfo {
	return &oauth.TokenInfo{
		Token: "the access token", ClientID: "app", UserID: "alice", Scopes: []string{"mcp:read", "mcp:write"},
		Issuer: assertionIssuer, Audience: []string{assertionAudience}, ExpiresAt: w.now().Add(time.Hour),
		Extra: map[string]any{"email": "alice@example.com", "email_verified": true, "name": "Alice", "groups": []any{"a", "b"}, "grant_id": "secret"},
	}
}

// jwks is what the server reads.
func (w *assertionWorld) jwks(keys *bearer.AssertionKeys) []byte {
	w.t.Helper()
	recorder := httptest.NewRecorder()
	keys.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/mcp-auth/jwks.json", nil))
	if recorder.Code != http.StatusOK {
		w.t.Fatalf("JWKS: %d %s", recorder.Code, recorder.Body)
	}
	return recorder.Body.Bytes()
}

// verify is the server's side: it has the JWKS and checks all that the docs say.
func (w *assertionWorld) verify(jwks []byte, token string) jwt.MapClaims {
	w.t.Helper()
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal(jwks, &set); err != nil {
		w.t.Fatal(err)
	}
	keys, err := set.JWKSlice()
	if err != nil {
		w.t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	parsed, err := jwt.NewParser(
		jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(assertionIssuer), jwt.WithAudience(assertionAudience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithTimeFunc(w.now),
	).ParseWithClaims(token, claims, func(token *jwt.Token) (any, error) {
		for _, key := range keys {
			if key.Marshal().KID == token.Header["kid"] {
				return key.Key(), nil
			}
		}
		return nil, errors.New("unknown key")
	})
	if err != nil {
		w.t.Fatalf("%s: %v", token, err)
	}
	if parsed.Header["typ"] != "mcp-identity+jwt" {
		w.t.Errorf("typ %v", parsed.Header["typ"])
	}
	return claims
}

func TestAssertionClaims(t *testing.T) {
	w := newAssertionWorld(t)
	now := float64(w.clock.Load())
	all := object{
		"iss": assertionIssuer, "aud": assertionAudience, "sub": "alice", "client_id": "app", "scope": "mcp:read mcp:write",
		"email": "alice@example.com", "name": "Alice", "groups": []any{"a", "b"}, "iat": now, "exp": now + 300,
	}
	none := func(c *bearer.AssertionConfig) { c.Fields = bearer.IdentityFields{} }
	for _, row := range []struct {
		name   string
		config func(*bearer.AssertionConfig)
		change func(*oauth.TokenInfo)
		want   object
	}{
		{"all that is asked for and nothing else", nil, nil, all},
		{"fields are asked for", none, nil, with(all, object{"email": nil, "name": nil, "groups": nil})},
		{
			"mail that nobody vouches for is not told", nil, func(i *oauth.TokenInfo) { i.Extra = map[string]any{"email": "x@example.com", "email_verified": false} },
			with(all, object{"email": nil, "name": nil, "groups": nil}),
		},
		{"a machine has no sub", none, func(i *oauth.TokenInfo) { i.UserID = "" }, with(all, object{"sub": nil, "email": nil, "name": nil, "groups": nil})},
		{
			"the issuer that knows the user", none, func(i *oauth.TokenInfo) { i.Issuer = "https://idp.example.com" },
			with(all, object{"idp": "https://idp.example.com", "email": nil, "name": nil, "groups": nil}),
		},
		{
			"it does not outlive the access token", none, func(i *oauth.TokenInfo) { i.ExpiresAt = w.now().Add(20 * time.Second) },
			with(all, object{"exp": now + 20, "email": nil, "name": nil, "groups": nil}),
		},
		{
			"nor the token's own end, which differing clocks do not move", none,
			func(i *oauth.TokenInfo) { i.ExpiresAt, i.Leeway = w.now().Add(80*time.Second), time.Minute },
			with(all, object{"exp": now + 20, "email": nil, "name": nil, "groups": nil}),
		},
		{
			"ttl", func(c *bearer.AssertionConfig) { none(c); c.TTL = time.Minute }, nil,
			with(all, object{"exp": now + 60, "email": nil, "name": nil, "groups": nil}),
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			info := w.caller()
			if row.change != nil {
				row.change(info)
			}
			config := row.config
			if config == nil {
				config = func(*bearer.AssertionConfig) {}
			}
			claims := w.verify(w.jwks(w.keys), w.send(w.assertions(config), info))
			if id, _ := claims["jti"].(string); len(id) < 20 {
				t.Errorf("jti %q", id)
			}
			delete(claims, "jti")
			if diff := cmp.Diff(row.want, object(claims)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A token that is accepted only because clocks differ makes no assertion: a
// server that looks at the clock would refuse it.
func TestNoAssertionOfATokenThatIsOver(t *testing.T) {
	w := newAssertionWorld(t)
	a, info := w.assertions(), w.caller()
	info.ExpiresAt, info.Leeway = w.now().Add(80*time.Second), time.Minute
	first := w.send(a, info)
	w.advance(19 * time.Second)
	if w.send(a, info) != first {
		t.Error("signed again while the first one lasts")
	}
	w.verify(w.jwks(w.keys), first)
	w.advance(time.Second)
	h := http.Header{"Keep": {"1"}}
	if err := a.SetHeader(h, info); !errors.Is(err, oauth.ErrInvalidToken) || !strings.Contains(err.Error(), "Token has expired") || len(h) != 1 {
		t.Errorf("%v, headers %v", err, h)
	}
}

func TestAssertionInAuthorization(t *testing.T) {
	w := newAssertionWorld(t)
	h := http.Header{"Authorization": {"Bearer the access token"}}
	a := w.assertions(func(c *bearer.AssertionConfig) { c.InAuthorization = true })
	if err := a.SetHeader(h, w.caller()); err != nil {
		t.Fatal(err)
	}
	token, ok := strings.CutPrefix(h.Get("Authorization"), "Bearer ")
	if !ok || len(h) != 1 {
		t.Fatal(h)
	}
	w.verify(w.jwks(w.keys), token)
}

// TestAssertionIsNoAccessToken: neither here nor at another server that takes
// our keys and our issuer for those of access tokens.
func TestAssertionIsNoAccessToken(t *testing.T) {
	w := newAssertionWorld(t)
	keys := serveHandler(t, w.keys)
	assertion := w.send(w.assertions(), w.caller())
	for _, typ := range []string{"", "at+jwt", "JWT"} {
		verifier, err := bearer.NewJWTVerifier(bearer.JWTConfig{Issuer: assertionIssuer, JWKSURI: keys.URL, RequireType: typ, Now: w.now})
		if err != nil {
			t.Fatal(err)
		}
		if info, err := verifier.VerifyAccessToken(t.Context(), assertion); !errors.Is(err, oauth.ErrInvalidToken) || !strings.Contains(err.Error(), "typ") {
			t.Errorf("require_typ %q: %v, %v", typ, info, err)
		}
	}
	// It is the typ that stops it: a server that asks for this one gets it.
	verifier, err := bearer.NewJWTVerifier(bearer.JWTConfig{Issuer: assertionIssuer, JWKSURI: keys.URL, RequireType: bearer.AssertionType, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := verifier.VerifyAccessToken(t.Context(), assertion); err != nil || info.UserID != "alice" {
		t.Errorf("%v, %v", info, err)
	}
}

func TestAssertionIsUsedAgain(t *testing.T) {
	w := newAssertionWorld(t)
	a, info := w.assertions(), w.caller()
	first := w.send(a, info)
	w.advance(4*time.Minute - time.Second)
	if w.send(a, info) != first {
		t.Error("signed again within four fifths of its life")
	}
	again := w.caller()
	again.ExpiresAt = info.ExpiresAt
	if w.send(a, again) != first {
		t.Error("signed again although the verifier said the same of the token")
	}
	for name, change := range map[string]func(*oauth.TokenInfo){
		"another user":     func(i *oauth.TokenInfo) { i.UserID = "bob" },
		"fewer scopes":     func(i *oauth.TokenInfo) { i.Scopes = i.Scopes[:1] },
		"another group":    func(i *oauth.TokenInfo) { i.Extra = with(i.Extra, object{"groups": []any{"a"}}) },
		"an earlier end":   func(i *oauth.TokenInfo) { i.ExpiresAt = w.now().Add(time.Minute) },
		"another token":    func(i *oauth.TokenInfo) { i.Token = "another" },
		"an unknown token": func(i *oauth.TokenInfo) { i.Token = "" },
	} {
		changed := w.caller()
		changed.ExpiresAt = info.ExpiresAt
		change(changed)
		a := w.assertions()
		first := w.send(a, info)
		if got := w.send(a, changed); got == first {
			t.Errorf("%s: the old assertion was sent", name)
		}
	}
	w.advance(time.Second)
	if w.send(a, info) == first {
		t.Error("sent in the last fifth of its life")
	}
}

// TestAssertionKeys: nodes agree, each key is published a period before it signs
// and a period after, and a new secret before the old one goes.
func TestAssertionKeys(t *testing.T) {
	w := newAssertionWorld(t)
	const period = 30 * 24 * time.Hour
	kid := func(token string) string {
		header, _, _ := strings.Cut(token, ".")
		raw, err := base64.RawURLEncoding.DecodeString(header)
		if err != nil {
			t.Fatal(err)
		}
		var h struct{ Kid string }
		if err := json.Unmarshal(raw, &h); err != nil {
			t.Fatal(err)
		}
		return h.Kid
	}
	a := w.assertions()
	info := w.caller()
	info.ExpiresAt = w.now().Add(10 * period)
	var kids []string
	var before []byte
	for range 3 {
		token := w.send(a, info)
		w.verify(w.jwks(w.node()), token)
		if before != nil {
			w.verify(before, token) // with what was read a period ago
		}
		before = w.jwks(w.keys)
		w.advance(4 * time.Minute)
		w.verify(before, token)
		kids = append(kids, kid(token))
		w.advance(period)
		// An assertion of the key before is not sent any more.
	}
	if kids[0] == kids[1] || kids[1] == kids[2] {
		t.Errorf("keys %v", kids)
	}

	old := kid(w.send(a, info))
	before = w.jwks(w.keys)
	w.secrets.Store(&[][32]byte{{2}, {1}}) // the operator puts a new key in front
	w.keys = w.node()
	a = w.assertions()
	token := w.send(a, info)
	w.verify(before, token)
	if kid(token) != old {
		t.Error("a key signs that nobody knows yet")
	}
	before = w.jwks(w.keys)
	w.secrets.Store(&[][32]byte{{2}}) // and drops the old one
	w.keys = w.node()
	a = w.assertions()
	token = w.send(a, info)
	w.verify(before, token)
	if kid(token) == old || slices.Contains(kids, kid(token)) {
		t.Error("the dropped key signs")
	}
}

func TestAssertionIsSignedAnewWithTheNextKey(t *testing.T) {
	w := newAssertionWorld(t)
	const period = int64(30 * 24 * 3600)
	w.clock.Store((w.clock.Load()/period+1)*period - 1) // the last second of a period
	a, info := w.assertions(), w.caller()
	first := w.send(a, info)
	w.advance(time.Second)
	if w.send(a, info) == first {
		t.Error("an assertion of a key that is not in use is sent")
	}
}

func TestAssertionKeysTrouble(t *testing.T) {
	fail := true
	keys, err := bearer.NewAssertionKeys(bearer.AssertionKeysConfig{Secrets: func() ([][32]byte, error) {
		if fail {
			return nil, errors.New("disk on fire")
		}
		return [][32]byte{{1}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := bearer.NewAssertions(bearer.AssertionConfig{Issuer: assertionIssuer, Audience: assertionAudience, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetHeader(http.Header{}, &oauth.TokenInfo{}); !errors.Is(err, oauth.ErrTemporarilyUnavailable) {
		t.Errorf("%v", err)
	}
	recorder := httptest.NewRecorder()
	keys.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil))
	if recorder.Code != http.StatusServiceUnavailable || strings.Contains(recorder.Body.String(), "fire") {
		t.Errorf("%d %s", recorder.Code, recorder.Body)
	}
	fail = false
	if err := a.SetHeader(http.Header{}, &oauth.TokenInfo{}); err != nil {
		t.Error(err)
	}
}

func TestAssertionRefusals(t *testing.T) {
	w := newAssertionWorld(t)
	for name, change := range map[string]func(*oauth.TokenInfo){
		"too large": func(i *oauth.TokenInfo) { i.UserID = strings.Repeat("x", 8<<10) },
		"not UTF-8": func(i *oauth.TokenInfo) { i.UserID = "al\xffice" },
	} {
		info, h := w.caller(), http.Header{}
		change(info)
		if err := w.assertions().SetHeader(h, info); err == nil || len(h) > 0 {
			t.Errorf("%s: %v, %v", name, err, h)
		}
	}
	for name, config := range map[string]bearer.AssertionConfig{
		"no issuer":   {Audience: "a", Keys: w.keys},
		"no audience": {Issuer: "i", Keys: w.keys},
		"no keys":     {Issuer: "i", Audience: "a"},
		"short":       {Issuer: "i", Audience: "a", Keys: w.keys, TTL: time.Second},
		"long":        {Issuer: "i", Audience: "a", Keys: w.keys, TTL: 2 * time.Hour},
	} {
		if _, err := bearer.NewAssertions(config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := bearer.NewAssertionKeys(bearer.AssertionKeysConfig{}); err == nil {
		t.Error("keys without secrets")
	}
}

func TestAssertionJWKS(t *testing.T) {
	w := newAssertionWorld(t)
	get := func(method, etag string) *http.Response {
		r := httptest.NewRequest(method, "/mcp-auth/jwks.json", nil)
		r.Header.Set("If-None-Match", etag)
		recorder := httptest.NewRecorder()
		w.keys.ServeHTTP(recorder, r)
		return recorder.Result()
	}
	resp := get(http.MethodGet, "")
	if resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Origin") != "*" || resp.Header.Get("Cache-Control") != "public, max-age=600" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if strings.Contains(string(w.jwks(w.keys)), `"d"`) {
		t.Error("the private key is published")
	}
	for _, row := range []struct {
		method, etag string
		status       int
	}{{"GET", resp.Header.Get("ETag"), 304}, {"HEAD", "", 200}, {"OPTIONS", "", 204}, {"POST", "", 405}} {
		if got := get(row.method, row.etag); got.StatusCode != row.status {
			t.Errorf("%s: %d, want %d", row.method, got.StatusCode, row.status)
		}
	}
}

// BenchmarkAssertion is the price of a request with a known token.
func BenchmarkAssertion(b *testing.B) {
	keys, err := bearer.NewAssertionKeys(bearer.AssertionKeysConfig{Secrets: func() ([][32]byte, error) { return [][32]byte{{1}}, nil }})
	if err != nil {
		b.Fatal(err)
	}
	a, err := bearer.NewAssertions(bearer.AssertionConfig{Issuer: assertionIssuer, Audience: assertionAudience, Keys: keys})
	if err != nil {
		b.Fatal(err)
	}
	info := &oauth.TokenInfo{Token: strings.Repeat("t", 700), UserID: "alice", ExpiresAt: time.Now().Add(time.Hour)}
	h := http.Header{}
	for b.Loop() {
		if err := a.SetHeader(h, info); err != nil {
			b.Fatal(err)
		}
	}
}
