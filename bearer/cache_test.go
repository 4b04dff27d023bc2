package bearer_test

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// remembering puts a cache in front of a verifier, as a guard does.
func remembering(t testing.TB, v bearer.CacheableVerifier, c bearer.TokenCacheConfig) *bearer.CachedVerifier {
	t.Helper()
	cache, err := bearer.NewTokenCache(c)
	if err != nil {
		t.Fatal(err)
	}
	return bearer.NewCachedVerifier(v, cache)
}

// verdicts is a verifier of somebody else, and counts how often it is asked.
type verdicts struct {
	asked  atomic.Int32
	answer func(ctx context.Context, token string) (bearer.Verdict, error)
}

func (v *verdicts) Verdict(ctx context.Context, token string) (bearer.Verdict, error) {
	v.asked.Add(1)
	return v.answer(ctx, token)
}

func (v *verdicts) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	verdict, err := v.Verdict(ctx, token)
	return verdict.Info, err
}

// lasting answers that every token is good until then.
func lasting(until func() time.Time) *verdicts {
	return &verdicts{answer: func(_ context.Context, token string) (bearer.Verdict, error) {
		return bearer.Verdict{Info: &oauth.TokenInfo{Token: token, UserID: "alice"}, Until: until()}, nil
	}}
}

func TestCacheRemembers(t *testing.T) {
	var c clock
	in := func(d time.Duration) time.Time { return c.now().Add(d) }
	refusal := oauth.ErrInvalidToken.Describe("no")
	trouble := oauth.ErrTemporarilyUnavailable.Describe("later")
	for _, test := range []struct {
		name    string
		expires time.Time
		until   time.Time
		err     error
		// last is about the last moment at which nobody is asked, 0 for always asked.
		last time.Duration
	}{
		{"until the verifier wants to be asked", time.Time{}, in(time.Hour), nil, time.Hour - time.Second},
		{"never beyond the expiry", in(time.Minute), in(time.Hour), nil, time.Minute - time.Second},
		{"not if the verifier says nothing", in(time.Minute), time.Time{}, nil, 0},
		{"a refusal", time.Time{}, in(5 * time.Second), refusal, 4 * time.Second},
		{"a refusal for 10 s at most", time.Time{}, in(time.Hour), refusal, 9 * time.Second},
		{"no refusal about which the verifier says nothing", time.Time{}, time.Time{}, refusal, 0},
		{"no trouble", time.Time{}, in(time.Hour), trouble, 0},
		{"no unknown error", time.Time{}, in(time.Hour), errors.New("x"), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := c.now()
			defer func() { c.advance(start.Sub(c.now())) }()
			v := &verdicts{answer: func(context.Context, string) (bearer.Verdict, error) {
				return bearer.Verdict{Info: &oauth.TokenInfo{ExpiresAt: test.expires}, Until: test.until}, test.err
			}}
			r := remembering(t, v, bearer.TokenCacheConfig{Now: c.now})
			asks := func(when string, want int32) {
				t.Helper()
				_, err := r.VerifyAccessToken(t.Context(), "token")
				if !errors.Is(err, test.err) || test.err == nil && err != nil {
					t.Errorf("%s: got %v", when, err)
				}
				if n := v.asked.Load(); n != want {
					t.Errorf("%s: asked %d times, want %d", when, n, want)
				}
			}
			asks("first", 1)
			if test.last == 0 {
				asks("second", 2)
				return
			}
			c.advance(test.last)
			asks("at the end", 1)
			c.advance(2 * time.Second)
			asks("after it", 2)
		})
	}
}

// What a verifier said of a token is never given for another token, nor for
// another verifier that shares the cache.
func TestCacheKeepsVerifiersApart(t *testing.T) {
	cache, err := bearer.NewTokenCache(bearer.TokenCacheConfig{})
	if err != nil {
		t.Fatal(err)
	}
	good := bearer.NewCachedVerifier(lasting(func() time.Time { return time.Now().Add(time.Hour) }), cache)
	bad := bearer.NewCachedVerifier(&verdicts{answer: func(context.Context, string) (bearer.Verdict, error) {
		return bearer.Verdict{Until: time.Now().Add(time.Hour)}, oauth.ErrInvalidToken
	}}, cache)
	for range 2 {
		if _, err := good.VerifyAccessToken(t.Context(), "token"); err != nil {
			t.Error(err)
		}
		if _, err := bad.VerifyAccessToken(t.Context(), "token"); !errors.Is(err, oauth.ErrInvalidToken) {
			t.Errorf("got %v", err)
		}
	}
	if info, _ := good.VerifyAccessToken(t.Context(), "other"); info.Token != "other" {
		t.Errorf("got the answer for %q", info.Token)
	}
}

func TestCacheChecksAgain(t *testing.T) {
	var answer error
	v := &verdicts{}
	v.answer = func(context.Context, string) (bearer.Verdict, error) {
		return bearer.Verdict{
			Info: &oauth.TokenInfo{}, Until: time.Now().Add(time.Hour), Recheck: func(context.Context) error { return answer },
		}, nil
	}
	r := remembering(t, v, bearer.TokenCacheConfig{})
	for _, step := range []struct {
		name   string
		answer error
		want   error
		asked  int32
	}{
		{"first", nil, nil, 1},
		{"it holds", nil, nil, 1},
		{"the store is down", oauth.ErrTemporarilyUnavailable, oauth.ErrTemporarilyUnavailable, 1},
		{"it is up again", nil, nil, 1},
		{"the keys have changed", bearer.ErrVerifyAnew, nil, 2},
		{"revoked", oauth.ErrInvalidToken, oauth.ErrInvalidToken, 2},
		{"a revoked token was forgotten", nil, nil, 3},
	} {
		answer = step.answer
		_, err := r.VerifyAccessToken(t.Context(), "token")
		if !errors.Is(err, step.want) || step.want == nil && err != nil {
			t.Errorf("%s: got %v", step.name, err)
		}
		if n := v.asked.Load(); n != step.asked {
			t.Errorf("%s: asked %d times, want %d", step.name, n, step.asked)
		}
	}
}

func TestManyRequestsVerifyATokenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &verdicts{answer: func(context.Context, string) (bearer.Verdict, error) {
			time.Sleep(time.Second)
			return bearer.Verdict{Info: &oauth.TokenInfo{}, Until: time.Now().Add(time.Hour)}, nil
		}}
		r := remembering(t, v, bearer.TokenCacheConfig{})
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if _, err := r.VerifyAccessToken(t.Context(), "token"); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := v.asked.Load(); n != 1 {
			t.Errorf("verified %d times", n)
		}
	})
}

// Whoever came first may leave, and the others get their answer all the same.
func TestVerificationOutlivesTheRequestThatBeganIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &verdicts{answer: func(ctx context.Context, _ string) (bearer.Verdict, error) {
			select {
			case <-time.After(time.Second):
				return bearer.Verdict{Info: &oauth.TokenInfo{}, Until: time.Now().Add(time.Hour)}, nil
			case <-ctx.Done():
				return bearer.Verdict{}, oauth.ErrTemporarilyUnavailable
			}
		}}
		r := remembering(t, v, bearer.TokenCacheConfig{})
		leader, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := r.VerifyAccessToken(leader, "token"); !errors.Is(err, oauth.ErrTemporarilyUnavailable) {
				t.Errorf("the one who left: %v", err)
			}
		})
		synctest.Wait()
		follower, quit := context.WithCancel(t.Context())
		all.Go(func() {
			if _, err := r.VerifyAccessToken(follower, "token"); !errors.Is(err, oauth.ErrTemporarilyUnavailable) {
				t.Errorf("the follower who left: %v", err)
			}
		})
		for range 10 {
			all.Go(func() {
				if _, err := r.VerifyAccessToken(t.Context(), "token"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		quit()
		synctest.Wait()
		leave()
		all.Wait()
		if n := v.asked.Load(); n != 2 {
			t.Errorf("verified %d times, want 2", n)
		}
	})
}

func TestAVerifierThatPanicsBlocksNobody(t *testing.T) {
	v := &verdicts{answer: func(context.Context, string) (bearer.Verdict, error) { panic("mistake") }}
	r := remembering(t, v, bearer.TokenCacheConfig{})
	for range 2 {
		func() {
			defer func() { _ = recover() }()
			_, _ = r.VerifyAccessToken(t.Context(), "token")
			t.Error("no panic")
		}()
	}
}

// A flood of bad tokens takes its own part of the memory and drives out no good
// one.
func TestAFloodOfBadTokensIsBounded(t *testing.T) {
	v := &verdicts{answer: func(_ context.Context, token string) (bearer.Verdict, error) {
		until := time.Now().Add(time.Hour)
		if token != "good" {
			return bearer.Verdict{Until: until}, oauth.ErrInvalidToken.Describe("Token signature is not valid").Because(errors.New(strings.Repeat("x", 200)))
		}
		return bearer.Verdict{Info: &oauth.TokenInfo{}, Until: until}, nil
	}}
	const bound = 1 << 20
	r := remembering(t, v, bearer.TokenCacheConfig{MaxBytes: bound})
	if _, err := r.VerifyAccessToken(t.Context(), "good"); err != nil {
		t.Fatal(err)
	}
	before := heap()
	for n := range 50_000 {
		if _, err := r.VerifyAccessToken(t.Context(), fmt.Sprint("bad", n)); err == nil {
			t.Fatal("accepted")
		}
	}
	if grown := heap() - before; grown > bound/2 {
		t.Errorf("the flood takes %d bytes", grown)
	}
	asked := v.asked.Load()
	if _, err := r.VerifyAccessToken(t.Context(), "good"); err != nil || v.asked.Load() != asked {
		t.Errorf("the good token was driven out: %v", err)
	}
	runtime.KeepAlive(r)
}

// The memory of the cache stays within its bound, whatever the tokens hold.
func TestCacheMemoryIsBounded(t *testing.T) {
	for _, test := range []struct {
		name   string
		claims int
	}{{"few claims", 4}, {"many claims", 40}} {
		t.Run(test.name, func(t *testing.T) {
			v := &verdicts{answer: func(_ context.Context, token string) (bearer.Verdict, error) {
				info := &oauth.TokenInfo{
					Token: token, ClientID: token[:40], UserID: token[:20], Scopes: []string{token[:8], token[8:16]},
					Audience: []string{token[:60]}, Issuer: "https://idp.example", ExpiresAt: time.Now().Add(time.Hour), Extra: map[string]any{},
				}
				for n := range test.claims {
					info.Extra[fmt.Sprint("claim", n)] = []any{strings.Clone(token[:24]), int64(n), map[string]any{"x": true}}
				}
				return bearer.Verdict{Info: info, Until: info.ExpiresAt, Recheck: func(context.Context) error { return nil }}, nil
			}}
			const bound = 4 << 20
			before := heap()
			r := remembering(t, v, bearer.TokenCacheConfig{MaxBytes: bound})
			for n := range 20_000 {
				if _, err := r.VerifyAccessToken(t.Context(), fmt.Sprintf("%0700d", n)); err != nil {
					t.Fatal(err)
				}
			}
			grown := heap() - before
			t.Logf("%d bytes of %d", grown, bound)
			if grown > bound {
				t.Errorf("the cache takes %d bytes, more than %d", grown, bound)
			}
			runtime.KeepAlive(r)
		})
	}
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc) //nolint:gosec // not that large
}

func TestForgottenVerifier(t *testing.T) {
	cache, err := bearer.NewTokenCache(bearer.TokenCacheConfig{})
	if err != nil {
		t.Fatal(err)
	}
	until := func() time.Time { return time.Now().Add(time.Hour) }
	old, other := lasting(until), lasting(until)
	oldCached, otherCached := bearer.NewCachedVerifier(old, cache), bearer.NewCachedVerifier(other, cache)
	both := func() {
		for token, v := range map[string]*bearer.CachedVerifier{"old": oldCached, "other": otherCached} {
			if _, err := v.VerifyAccessToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 { // they are in use
		both()
	}
	oldCached.Forget()
	both()
	if old.asked.Load() != 2 || other.asked.Load() != 1 {
		t.Errorf("asked %d and %d times, want 2 and 1", old.asked.Load(), other.asked.Load())
	}
}

// A token in use that was revoked is not let in once more, and neither are two
// tokens or two verifiers mixed up, whatever the order.
func TestTokensInUseThatAreRevoked(t *testing.T) {
	const tokens = 500 // more than the quick table of the smallest cache has room for
	cache, err := bearer.NewTokenCache(bearer.TokenCacheConfig{MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var revoked sync.Map
	verifiers := make([]*bearer.CachedVerifier, 2)
	for i := range verifiers {
		verifiers[i] = bearer.NewCachedVerifier(&verdicts{answer: func(_ context.Context, token string) (bearer.Verdict, error) {
			name := fmt.Sprint(i, token)
			check := func(context.Context) error {
				if _, is := revoked.Load(name); is {
					return oauth.ErrInvalidToken.Describe("Token has been revoked")
				}
				return nil
			}
			return bearer.Verdict{Info: &oauth.TokenInfo{Token: token, UserID: name}, Until: time.Now().Add(time.Hour), Recheck: check}, check(t.Context())
		}}, cache)
	}
	for round := range 6 {
		for n := range tokens {
			for i, v := range verifiers {
				token := fmt.Sprint("token-", n)
				name := fmt.Sprint(i, token)
				if round >= 3 && n%2 == i {
					revoked.Store(name, true)
				}
				_, isRevoked := revoked.Load(name)
				info, err := v.VerifyAccessToken(t.Context(), token)
				switch {
				case isRevoked && !errors.Is(err, oauth.ErrInvalidToken):
					t.Fatalf("round %d: %s is let in once more: %v", round, name, err)
				case !isRevoked && (err != nil || info.UserID != name):
					t.Fatalf("round %d: %s is %v, %v", round, name, info, err)
				}
			}
		}
	}
}

func TestTokenCacheThatIsTooSmall(t *testing.T) {
	if _, err := bearer.NewTokenCache(bearer.TokenCacheConfig{MaxBytes: 100}); err == nil {
		t.Error("100 bytes are accepted")
	}
}

// A key that the issuer takes back ends its tokens as soon as the JWKS was
// loaded anew, though they are remembered; keys that stay cost nothing.
func TestRemovedKeyEndsRememberedTokens(t *testing.T) {
	var c clock
	i, old, current := newIssuer(t), newEC("old", elliptic.P256()), newEC("current", elliptic.P256())
	v := remembering(t, newJWT(t, i, bearer.JWTConfig{Now: c.now, RefreshInterval: time.Minute}, old, current), bearer.TokenCacheConfig{Now: c.now})
	token := old.token(nil, i.claims(nil))
	verify := func() error {
		_, err := v.VerifyAccessToken(t.Context(), token)
		return err
	}
	if err := verify(); err != nil {
		t.Fatal(err)
	}
	i.answer(jwksPath, 200, jwks(current.jwk(nil)))
	if err := verify(); err != nil {
		t.Errorf("before the JWKS is due: %v", err)
	}
	c.advance(2 * time.Minute)
	loaded := i.count(jwksPath)
	_ = verify() // has the JWKS loaded in the background
	for deadline := time.Now().Add(5 * time.Second); i.count(jwksPath) == loaded; {
		if time.Now().After(deadline) {
			t.Fatal("the JWKS is not loaded anew")
		}
		time.Sleep(time.Millisecond)
	}
	var err error
	for deadline := time.Now().Add(5 * time.Second); err == nil && time.Now().Before(deadline); {
		err = verify()
	}
	wantError(t, err, oauth.ErrInvalidToken, "Token is signed with a key that the authorization server does not publish")
}

// A wrong signature is checked once in a while and causes no load of keys.
func TestWrongSignatureIsRemembered(t *testing.T) {
	i, s := newIssuer(t), newEC("k", elliptic.P256())
	v := newJWT(t, i, bearer.JWTConfig{}, s)
	token := newEC("k", elliptic.P256()).token(nil, i.claims(nil))
	counting := &verdicts{answer: v.Verdict}
	r := remembering(t, counting, bearer.TokenCacheConfig{})
	for range 10 {
		_, err := r.VerifyAccessToken(t.Context(), token)
		wantError(t, err, oauth.ErrInvalidToken, "Token signature is not valid")
	}
	if counting.asked.Load() != 1 || i.count(jwksPath) != 1 {
		t.Errorf("verified %d times, %d loads", counting.asked.Load(), i.count(jwksPath))
	}
}

// ARCHITECTURE "Cost": a known token costs no allocation.
func TestKnownTokenAllocatesNothing(t *testing.T) {
	i, s := newIssuer(t), newEC("k", elliptic.P256())
	v := remembering(t, newJWT(t, i, bearer.JWTConfig{}, s), bearer.TokenCacheConfig{})
	token, ctx := longToken(i, s), t.Context()
	allocations := testing.AllocsPerRun(1000, func() {
		if _, err := v.VerifyAccessToken(ctx, token); err != nil {
			t.Fatal(err)
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
	info, _ := v.VerifyAccessToken(ctx, token)
	identity, h := bearer.NewIdentity(info), http.Header{"X-Mcp-User": nil, "X-Mcp-Client": nil, "X-Mcp-Scope": nil}
	allocations = testing.AllocsPerRun(1000, func() { _ = identity.SetHeaders(h, bearer.IdentityFields{}) })
	if allocations > 1 {
		t.Errorf("%v allocations for the headers", allocations)
	}
}

// Handlers behind may write into the header values, which must not show in
// another request's.
func TestHeaderValuesAreTheRequestsOwn(t *testing.T) {
	identity := bearer.NewIdentity(&oauth.TokenInfo{UserID: "alice", ClientID: "app", Scopes: []string{"a"}})
	first, second := http.Header{}, http.Header{}
	for _, h := range []http.Header{first, second} {
		if err := identity.SetHeaders(h, bearer.IdentityFields{}); err != nil {
			t.Fatal(err)
		}
	}
	first["X-Mcp-User"][0] = "mallory"
	first["X-Mcp-Client"] = append(first["X-Mcp-Client"], "more")
	if second.Get("X-Mcp-User") != "alice" || first.Get("X-Mcp-Scope") != "a" || second.Get("X-Mcp-Scope") != "a" {
		t.Errorf("got %v and %v", first, second)
	}
}
