package proxyprovider_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/store"
)

// Run rotates keys by itself, and ends when it is told to.
func TestGrantsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantsWorld(t, func(c *proxyprovider.GrantsConfig) {
			c.RotateKeys = time.Hour
			c.Now = time.Now
		})
		g := w.node()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			g.Run(ctx)
		}()
		time.Sleep(time.Minute)
		if n := len(published(t, g)); n != 1 {
			t.Errorf("%d keys after a minute", n)
		}
		time.Sleep(time.Hour)
		if n := len(published(t, g)); n != 2 {
			t.Errorf("%d keys after an hour", n)
		}
		stop()
		<-done
	})
}

// The last use is written by Run, every ten minutes at most.
func TestLastUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantsWorld(t)
		g := w.node()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			g.Run(ctx)
		}()
		start := w.clock.now()
		tokens := w.tokens(g)
		lastUsed := func() time.Duration {
			time.Sleep(time.Minute)
			synctest.Wait()
			infos, err := g.ListBySubject(t.Context(), proxyprovider.SubjectKey(upstreamIssuer, "alice"))
			if err != nil || len(infos) != 1 {
				t.Fatalf("%v, %v", infos, err)
			}
			return infos[0].LastUsed.Sub(start)
		}
		w.clock.advance(9 * time.Minute)
		w.wantVerify(g, "after 9 min", tokens.AccessToken, "")
		if got := lastUsed(); got != 0 {
			t.Errorf("written after 9 min: %s", got)
		}
		w.clock.advance(2 * time.Minute)
		writes := w.faulty.writes.Load()
		for range 10 {
			w.wantVerify(g, "after 11 min", tokens.AccessToken, "")
		}
		if n := w.faulty.writes.Load() - writes; n != 0 {
			t.Errorf("%d writes on the path of requests", n)
		}
		if got := lastUsed(); got != 11*time.Minute {
			t.Errorf("after 11 min: %s", got)
		}
		stop()
		<-done
		w.mustRefresh(g, tokens.RefreshToken)
	})
}

// Entries of logins that were not finished are swept from the index, by one node.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newGrantsWorld(t)
		nodes := []*proxyprovider.Grants{w.node(), w.node()}
		for range 5 {
			w.code(nodes[0])
		}
		tokens := w.tokens(nodes[0])
		st, err := w.sealed()
		if err != nil {
			t.Fatal(err)
		}
		size := func() int {
			value, err := st.Get(t.Context(), "subject/"+proxyprovider.SubjectKey(upstreamIssuer, "alice")[:22])
			if err != nil {
				t.Fatal(err)
			}
			return len(value)
		}
		before := size()
		w.clock.advance(6 * time.Minute)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, g := range nodes {
			wg.Go(func() { g.Run(ctx) })
		}
		synctest.Wait()
		stop()
		wg.Wait()
		if after := size(); after > before/4 {
			t.Errorf("the index has %d bytes, before the sweep %d", after, before)
		}
		w.mustRefresh(nodes[1], tokens.RefreshToken)
	})
}

func TestStoreIsOpenedOnFirstUse(t *testing.T) {
	opened := 0
	var fail error = errDown
	w := newGrantsWorld(t)
	w.config.Store = func() (store.Store, error) {
		opened++
		if fail != nil {
			return nil, fail
		}
		return w.sealed()
	}
	g := w.node()
	if opened != 0 {
		t.Error("NewGrants opened the store")
	}
	_, err := g.Create(t.Context(), w.newGrant())
	wantError(t, "while it does not open", err, oauth.ErrTemporarilyUnavailable.Code)
	fail = nil
	w.mustRefresh(g, w.tokens(g).RefreshToken)
	if opened != 2 {
		t.Errorf("opened %d times", opened)
	}
}
