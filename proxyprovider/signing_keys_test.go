package proxyprovider_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
)

// published are the key ids in the JWKS.
func published(t testing.TB, g *proxyprovider.Grants) (ids []string) {
	t.Helper()
	r := httptest.NewRecorder()
	g.JWKS().ServeHTTP(r, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/.well-known/jwks.json", nil))
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(r.Body.Bytes(), &set); err != nil || r.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", r.Code, r.Body, err)
	}
	for _, k := range set.Keys {
		if k["d"] != "" || k["p"] != "" || k["use"] != "sig" || k["alg"] == "" {
			t.Errorf("key %v", k)
		}
		ids = append(ids, k["kid"])
	}
	return ids
}

// keyID is the kid that a token was signed with.
func keyID(t testing.TB, token string) string {
	t.Helper()
	part, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ Kid string }
	if err := json.Unmarshal(raw, &header); err != nil {
		t.Fatal(err)
	}
	return header.Kid
}

func TestFirstKeyIsMadeOnceAndUsedAtOnce(t *testing.T) {
	w := newGrantsWorld(t)
	var wg sync.WaitGroup
	nodes := make([]*proxyprovider.Grants, 8)
	for i := range nodes {
		nodes[i] = w.node()
		wg.Go(func() { published(t, nodes[i]) })
	}
	wg.Wait()
	want := published(t, nodes[0])
	if len(want) != 1 {
		t.Fatalf("%d keys", len(want))
	}
	for i, g := range nodes {
		if got := published(t, g); !slices.Equal(got, want) {
			t.Errorf("node %d has %v, node 0 %v", i, got, want)
		}
	}
}

func TestKeyRotation(t *testing.T) {
	w := newGrantsWorld(t, func(c *proxyprovider.GrantsConfig) {
		c.RotateKeys, c.AccessTTL = 10*24*time.Hour, 24*time.Hour
	})
	g := w.node()
	tokens := w.tokens(g)
	first := keyID(t, tokens.AccessToken)
	step := func(d time.Duration) (signer string, keys []string) {
		w.clock.advance(d)
		tokens = w.mustRefresh(g, tokens.RefreshToken)
		return keyID(t, tokens.AccessToken), published(t, g)
	}
	lead := 12 * time.Minute
	if signer, keys := step(10*24*time.Hour - lead - 10*time.Second); signer != first || len(keys) != 1 {
		t.Errorf("before its time: signer %s of %v", signer, keys)
	}
	signer, keys := step(10 * time.Second)
	if signer != first || len(keys) != 2 {
		t.Fatalf("published, not used: signer %s of %v", signer, keys)
	}
	second := keys[1]
	if signer, _ := step(lead - time.Second); signer != first {
		t.Error("used before everybody can know it")
	}
	old := tokens.AccessToken
	if signer, _ := step(time.Second); signer != second {
		t.Error("not used after its time")
	}
	w.clock.advance(24*time.Hour - 2*time.Second)
	w.wantVerify(g, "a token of the old key", old, "")
	w.wantVerify(w.node(), "a token of the old key on a new node", old, "")
	if _, keys := step(24 * time.Hour); len(keys) != 2 {
		t.Errorf("the old key is gone too early: %v", keys)
	}
	if _, keys := step(5 * time.Second); !slices.Equal(keys, []string{second}) {
		t.Errorf("the old key is still there: %v", keys)
	}
}

func TestRotateNow(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	tokens := w.tokens(g)
	w.wantVerify(other, "before", tokens.AccessToken, "")
	if err := g.RotateNow(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(time.Second)
	next := w.mustRefresh(g, tokens.RefreshToken)
	if keyID(t, next.AccessToken) == keyID(t, tokens.AccessToken) {
		t.Error("the new key is not used")
	}
	w.wantVerify(other, "a token of the new key: it is looked up", next.AccessToken, "")
	w.wantVerify(g, "a token of the old key", tokens.AccessToken, "")

	if err := g.RotateNow(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	w.wantVerify(g, "a token of a dropped key here", next.AccessToken, "invalid_token")
	w.clock.advance(5 * time.Second)
	w.wantVerify(other, "a token of a dropped key elsewhere, 5 s later", next.AccessToken, "invalid_token")
	if keys := published(t, other); len(keys) != 1 {
		t.Errorf("keys %v", keys)
	}
	if tokens = w.mustRefresh(other, next.RefreshToken); keyID(t, tokens.AccessToken) != published(t, g)[0] {
		t.Error("the new key is not used")
	}
}

func TestUnknownKeysAreLookedUpAtMostOnceASecond(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	tokens := w.tokens(g)
	_, rest, _ := strings.Cut(tokens.AccessToken, ".")
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"AAAAAAAAAAAA","typ":"at+jwt"}`))
	w.clock.advance(2 * time.Second)
	before := w.faulty.reads.Load()
	for range 100 {
		w.wantVerify(g, "unknown key", header+"."+rest, "invalid_token")
	}
	if n := w.faulty.reads.Load() - before; n != 1 {
		t.Errorf("%d reads of the store", n)
	}
	w.wantVerify(g, "a good one", tokens.AccessToken, "")
}

// Two nodes of a rolling update with another algorithm each: both sign, both
// accept, and the keys do not multiply.
func TestChangeOfAlgorithm(t *testing.T) {
	w := newGrantsWorld(t)
	old := w.node()
	w.config.SigningAlg = "EdDSA"
	updated := w.node()
	tokens := w.tokens(old)
	for range 20 {
		tokens = w.mustRefresh(old, tokens.RefreshToken)
		w.wantVerify(updated, "of the old node", tokens.AccessToken, "")
		tokens = w.mustRefresh(updated, tokens.RefreshToken)
		w.wantVerify(old, "of the updated node", tokens.AccessToken, "")
		w.clock.advance(time.Minute)
	}
	if n := len(published(t, old)); n != 2 {
		t.Errorf("%d keys", n)
	}
}

// Dropping the encryption key is the documented revocation of all that it
// sealed; it must not be the end of the server.
func TestDroppedEncryptionKey(t *testing.T) {
	w := newGrantsWorld(t)
	tokens := w.tokens(w.node())
	ring, err := seal.NewRing(seal.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	w.ring = ring
	g := w.node()
	w.wantVerify(g, "an access token of before", tokens.AccessToken, "invalid_token")
	_, err = w.refresh(g, tokens.RefreshToken)
	wantError(t, "a refresh token of before", err, "invalid_grant")
	tokens = w.tokens(g)
	w.wantVerify(g, "a new access token", tokens.AccessToken, "")
	if list, err := g.ListBySubject(t.Context(), proxyprovider.SubjectKey(upstreamIssuer, "alice")); err != nil || len(list) != 1 {
		t.Errorf("%d grants, %v", len(list), err)
	}
}

// A rotation of the encryption keys is: put the new one first, wait, drop the old
// one. Whoever refreshed meanwhile notices nothing.
func TestEncryptionKeyRotation(t *testing.T) {
	w := newGrantsWorld(t)
	old, fresh := seal.GenerateKey(), seal.GenerateKey()
	ring := func(keys ...seal.Key) {
		t.Helper()
		r, err := seal.NewRing(keys...)
		if err != nil {
			t.Fatal(err)
		}
		w.ring = r
	}
	ring(old)
	tokens := w.tokens(w.node())
	ring(fresh, old)
	g := w.node()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	g.Run(ctx) // with time for nothing
	tokens = w.mustRefresh(g, tokens.RefreshToken)
	ctx, stop = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	g.Run(ctx)
	ring(fresh)
	g = w.node()
	w.wantVerify(g, "an access token of before", tokens.AccessToken, "")
	w.mustRefresh(g, tokens.RefreshToken)
}
