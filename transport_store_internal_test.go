package mcpauth

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/memory"
)

// opens returns a function that opens the same store of memory each time.
func opens(t *testing.T) func() (store.Store, error) {
	t.Helper()
	s := memory.New(memory.Options{})
	t.Cleanup(func() { _ = s.Close() })
	return func() (store.Store, error) { return s, nil }
}

func testTokens(access, refresh string) *authclient.Tokens {
	t := &authclient.Tokens{Issuer: "https://auth.example"}
	t.AccessToken, t.RefreshToken, t.TokenType = access, refresh, "Bearer"
	return t
}

// TestGrantStoreLock: of all callers of all nodes one has the lock.
func TestGrantStoreLock(t *testing.T) {
	t.Parallel()
	open := opens(t)
	nodes := []*grantStore{newGrantStore(open, "grant"), newGrantStore(open, "grant")}
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			unlock, err := nodes[i%2].Lock(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			most.Store(max(most.Load(), inside.Add(1)))
			inside.Add(-1)
			unlock()
			unlock() // does nothing
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d had the lock at once", most.Load())
	}
	unlock, err := nodes[0].Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	other, err := newGrantStore(open, "another grant").Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for i, node := range nodes {
		if _, err := node.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("node %d: %v", i, err)
		}
	}
}

// TestGrantStoreLease: a hold lasts as long as its work, and no longer than a
// lease after the node that had it died.
func TestGrantStoreLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Options{})
		defer s.Close()
		open := func() (store.Store, error) { return s, nil }
		a, b := newGrantStore(open, "grant"), newGrantStore(open, "grant")
		unlock, err := a.Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Lock(t.Context()); !errors.Is(err, errLeaseHeld) {
			t.Errorf("while it is held: %v", err)
		}
		unlock()
		if unlock, err = b.Lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		unlock()

		dead := &grantLease{store: s, key: "lease/grant", holder: "dead"}
		if err := dead.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		dead.cancel()
		dead.renewing.Wait()
		begun := time.Now()
		if unlock, err = b.Lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		unlock()
		if waited := time.Since(begun); waited > leaseTime+time.Second {
			t.Errorf("waited %s for a dead node", waited)
		}
	})
}

// TestGrantStoreSeed: the configured refresh token counts until it is replaced,
// and another one that is configured counts again.
func TestGrantStoreSeed(t *testing.T) {
	t.Parallel()
	open := opens(t)
	with := func(seed string) *grantStore {
		s := newGrantStore(open, "grant")
		s.seed = seed
		return s
	}
	refreshOf := func(s *grantStore) string {
		t.Helper()
		tokens, err := s.Tokens(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if tokens == nil {
			return ""
		}
		return tokens.RefreshToken
	}
	first := with("first")
	if got := refreshOf(first); got != "first" {
		t.Errorf("at first: %q", got)
	}
	if err := first.SaveTokens(t.Context(), testTokens("a", "rotated")); err != nil {
		t.Fatal(err)
	}
	if got := refreshOf(with("first")); got != "rotated" {
		t.Errorf("after a rotation: %q", got)
	}
	if got := refreshOf(with("second")); got != "second" {
		t.Errorf("after another was configured: %q", got)
	}
	if got, err := with("first").Tokens(t.Context(), "https://other.example"); got != nil || err != nil {
		t.Errorf("for another issuer: %v %v", got, err)
	}
}

// TestGrantStoreKeeps what it is given, all of it, and forgets by scope.
func TestGrantStoreKeeps(t *testing.T) {
	t.Parallel()
	s := newGrantStore(opens(t), "grant")
	ctx := t.Context()
	client := &authclient.ClientInformation{Issuer: "https://auth.example"}
	client.ClientID, client.ClientSecret = "c", "s"
	found := &authclient.DiscoveryState{AuthorizationServerURL: "https://auth.example", Scope: "x"}
	for _, err := range []error{
		s.SaveClientInformation(ctx, client), s.SaveTokens(ctx, testTokens("a", "r")),
		s.SaveCodeVerifier(ctx, "v"), s.SaveDiscoveryState(ctx, found),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	state := func() [4]bool {
		t.Helper()
		c, err1 := s.ClientInformation(ctx, "https://auth.example/")
		tokens, err2 := s.Tokens(ctx, "https://auth.example")
		verifier, err3 := s.CodeVerifier(ctx)
		d, err4 := s.DiscoveryState(ctx)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
		return [4]bool{
			c != nil && c.ClientSecret == "s", tokens != nil && tokens.AccessToken == "a" && tokens.Issuer == "https://auth.example",
			verifier == "v", d != nil && d.Scope == "x",
		}
	}
	if diff := cmp.Diff([4]bool{true, true, true, true}, state()); diff != "" {
		t.Fatal(diff)
	}
	for i, test := range []struct {
		scope  authclient.CredentialScope
		issuer string
		want   [4]bool
	}{
		{authclient.CredentialsTokens, "https://other.example", [4]bool{true, true, true, true}},
		{authclient.CredentialsTokens, "https://auth.example", [4]bool{true, false, true, true}},
		{authclient.CredentialsVerifier, "", [4]bool{true, false, false, true}},
		{authclient.CredentialsAll, "", [4]bool{}},
	} {
		if err := s.InvalidateCredentials(ctx, test.scope, test.issuer); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, state()); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
	}
}

// TestGrantStoreNewer: a record of a later version is not misread.
func TestGrantStoreNewer(t *testing.T) {
	t.Parallel()
	open := opens(t)
	opened, _ := open()
	if err := opened.Put(t.Context(), "grant", []byte(`{"v":2}`), 0); err != nil {
		t.Fatal(err)
	}
	s := newGrantStore(open, "grant")
	if _, err := s.Tokens(t.Context(), ""); err == nil {
		t.Error("it was read")
	}
	if err := s.SaveTokens(t.Context(), testTokens("a", "r")); err == nil {
		t.Error("it was overwritten")
	}
}

// TestGrantStoreFormer: a grant that was kept without its seed's name is found,
// goes on under the new one, and is nobody else's.
func TestGrantStoreFormer(t *testing.T) {
	t.Parallel()
	open := opens(t)
	before := newGrantStore(open, "grant")
	before.seed = "first"
	if err := before.SaveTokens(t.Context(), testTokens("a", "rotated")); err != nil {
		t.Fatal(err)
	}
	with := func(seed string) *grantStore {
		s := newGrantStore(open, "grant/"+seed)
		s.seed, s.formerKey = seed, "grant"
		return s
	}
	for seed, want := range map[string]string{"first": "rotated", "second": "second"} {
		got, err := with(seed).Tokens(t.Context(), "")
		if err != nil || got == nil || got.RefreshToken != want {
			t.Errorf("%s: %v %v, want %s", seed, got, err, want)
		}
	}
	if err := with("first").SaveCodeVerifier(t.Context(), "v"); err != nil { // any change takes all along
		t.Fatal(err)
	}
	opened, _ := open()
	if err := opened.Delete(t.Context(), "grant"); err != nil {
		t.Fatal(err)
	}
	if got, err := with("first").Tokens(t.Context(), ""); err != nil || got == nil || got.RefreshToken != "rotated" {
		t.Errorf("after a change: %v %v", got, err)
	}
}
