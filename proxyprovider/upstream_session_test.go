package proxyprovider_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

func TestUpstreamIsAskedWhenItsWordIsOld(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	token := w.tokens(g).RefreshToken
	w.clock.advance(time.Hour - time.Second)
	token = w.mustRefresh(g, token).RefreshToken
	if w.upstream.refreshes != 0 {
		t.Errorf("asked %d times within the hour", w.upstream.refreshes)
	}
	w.clock.advance(time.Second)
	token = w.mustRefresh(g, token).RefreshToken
	token = w.mustRefresh(g, token).RefreshToken
	if w.upstream.refreshes != 1 {
		t.Errorf("asked %d times after the hour", w.upstream.refreshes)
	}
	w.clock.advance(time.Hour)
	w.mustRefresh(g, token) // with the rotated upstream token
	if w.upstream.refreshes != 2 || w.upstream.userinfos != 0 {
		t.Errorf("asked %d times, userinfo %d times", w.upstream.refreshes, w.upstream.userinfos)
	}
}

func TestUpstreamCheckEachTime(t *testing.T) {
	w := newGrantsWorld(t, func(c *proxyprovider.GrantsConfig) { c.UpstreamCheck = -1 })
	g := w.node()
	token := w.mustRefresh(g, w.tokens(g).RefreshToken).RefreshToken
	w.mustRefresh(g, token)
	if w.upstream.refreshes != 2 {
		t.Errorf("asked %d times in two refreshes", w.upstream.refreshes)
	}
}

func TestUpstreamAnswers(t *testing.T) {
	mallory := &idp.Identity{Issuer: upstreamIssuer, Subject: "mallory"}
	foreign := alice()
	foreign.Issuer = "https://other-tenant.example"
	rows := []struct {
		name   string
		change func(*sessionUpstream)
		want   string
		over   bool // the grant
	}{
		{"the user goes on", nil, "", false},
		{"dead", func(u *sessionUpstream) { u.err = idp.ErrDead }, "invalid_grant", true},
		{"denied", func(u *sessionUpstream) { u.err = idp.ErrDenied }, "invalid_grant", true},
		{"trouble", func(u *sessionUpstream) { u.err = idp.ErrTrouble }, "temporarily_unavailable", false},
		{"an error of no kind", func(u *sessionUpstream) { u.err = errors.New("?") }, "temporarily_unavailable", false},
		{"time is up", func(u *sessionUpstream) { u.err = context.DeadlineExceeded }, "temporarily_unavailable", false},
		{"new tokens, then trouble", func(u *sessionUpstream) { u.errAfter = idp.ErrTrouble }, "temporarily_unavailable", false},
		{"new tokens, then dead", func(u *sessionUpstream) { u.errAfter = idp.ErrDead }, "invalid_grant", true},
		{"another user", func(u *sessionUpstream) { u.identity = mallory }, "invalid_grant", true},
		{"the same subject of another issuer", func(u *sessionUpstream) { u.identity = foreign }, "invalid_grant", true},
		{"refresh tells nobody: userinfo does", func(u *sessionUpstream) { u.silent = true }, "", false},
		{"refresh tells nobody, userinfo another user", func(u *sessionUpstream) { u.silent, u.identity = true, mallory }, "invalid_grant", true},
		{"refresh tells nobody, no userinfo", func(u *sessionUpstream) { u.silent, u.able.UserInfo = true, false }, "", false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := newGrantsWorld(t)
			g := w.node()
			tokens := w.tokens(g)
			w.clock.advance(time.Hour)
			if row.change != nil {
				w.upstream.set(row.change)
			}
			_, err := w.refresh(g, tokens.RefreshToken)
			wantError(t, "refresh", err, row.want)
			if row.want == "" {
				return
			}
			// The upstream comes to its senses.
			w.upstream.set(func(u *sessionUpstream) {
				u.err, u.errAfter, u.identity, u.silent = nil, nil, alice(), false
			})
			want := ""
			if row.over {
				want = "invalid_grant"
			}
			_, err = w.refresh(g, tokens.RefreshToken)
			wantError(t, "the refresh after it", err, want)
		})
	}
}

func TestUserInfoWithoutRefreshToken(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	expiry := time.Time{}
	without := func(n *proxyprovider.NewGrant) { n.Upstream = &idp.Tokens{AccessToken: "up", Expiry: expiry} }
	token := w.tokens(g, without).RefreshToken
	w.clock.advance(20 * time.Hour)
	token = w.mustRefresh(g, token).RefreshToken
	w.clock.advance(20 * time.Hour) // beyond the 24 h of those who cannot be asked
	token = w.mustRefresh(g, token).RefreshToken
	if w.upstream.userinfos != 2 || w.upstream.refreshes != 0 {
		t.Errorf("userinfo %d times, refresh %d times", w.upstream.userinfos, w.upstream.refreshes)
	}
	w.clock.advance(time.Hour)
	w.upstream.set(func(u *sessionUpstream) { u.err = idp.ErrDead })
	_, err := w.refresh(g, token)
	wantError(t, "dead at userinfo", err, "invalid_grant")
	w.upstream.set(func(u *sessionUpstream) { u.err = nil })

	// An access token whose time is known to be up says nothing of the user.
	expiry = w.clock.now().Add(time.Hour)
	token = w.tokens(g, without).RefreshToken
	w.clock.advance(23 * time.Hour)
	token = w.mustRefresh(g, token).RefreshToken
	w.clock.advance(time.Hour)
	_, err = w.refresh(g, token)
	wantError(t, "after 24 h", err, "invalid_grant")
}

// A process that ends between the upstream's rotation and our write loses that
// upstream session, and nothing else: the user signs in again.
func TestCrashBetweenRotationAndWrite(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	session := w.upstream.login()
	token := w.tokens(g, func(n *proxyprovider.NewGrant) { n.Upstream = session }).RefreshToken
	other := w.tokens(g).RefreshToken
	if _, _, err := w.upstream.Refresh(t.Context(), *session); err != nil { // and the process is gone
		t.Fatal(err)
	}
	w.clock.advance(time.Hour)
	_, err := w.refresh(w.node(), token)
	wantError(t, "refresh", err, "invalid_grant")
	w.mustRefresh(w.node(), other)
}

// A process that ends with the lease in its hands holds others up no longer than
// the lease lasts.
func TestCrashWithTheLease(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	tokens := w.tokens(g)
	info, err := g.VerifyAccessToken(t.Context(), tokens.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.advance(time.Hour)
	st, err := w.sealed()
	if err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprint("lease/upstream/", info.Extra[proxyprovider.GrantIDClaim])
	if err := st.Put(t.Context(), key, []byte("a node that is gone"), 15*time.Second); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	_, err = g.ExchangeRefreshToken(ctx, publicClient("app"), authserver.RefreshExchange{RefreshToken: tokens.RefreshToken})
	wantError(t, "while it lasts", err, "temporarily_unavailable")
	w.clock.advance(15 * time.Second)
	w.mustRefresh(g, tokens.RefreshToken)
}

// The rotation is finished although the client has gone.
func TestClientLeavesDuringTheUpstreamRefresh(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	tokens := w.tokens(g)
	w.clock.advance(time.Hour)
	hold, holding := make(chan struct{}), make(chan struct{}, 1)
	w.upstream.set(func(u *sessionUpstream) { u.holdLate, u.holding = hold, holding })
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := g.ExchangeRefreshToken(ctx, publicClient("app"), authserver.RefreshExchange{RefreshToken: tokens.RefreshToken})
		done <- err
	}()
	<-holding
	leave()

	// Another node waits for it.
	second := make(chan *oauth.Tokens)
	go func() {
		got, err := w.refresh(other, tokens.RefreshToken)
		if err != nil {
			t.Errorf("the waiting node: %v", err)
		}
		second <- got
	}()
	w.upstream.set(func(u *sessionUpstream) { u.holdLate = nil })
	close(hold)
	<-done
	got := <-second
	if got == nil {
		return
	}
	if w.upstream.refreshes != 1 {
		t.Errorf("the upstream was asked %d times", w.upstream.refreshes)
	}
	w.clock.advance(time.Hour)
	w.mustRefresh(g, got.RefreshToken) // with the upstream token that was written
}

// A node whose lease ran out while the upstream kept it waiting writes nothing.
func TestFencedNodeWritesNothing(t *testing.T) {
	w := newGrantsWorld(t)
	slow, fast := w.node(), w.node()
	tokens := w.tokens(slow)
	w.clock.advance(time.Hour)
	hold, holding := make(chan struct{}), make(chan struct{}, 1)
	w.upstream.set(func(u *sessionUpstream) { u.hold, u.holding = hold, holding })
	done := make(chan error)
	go func() {
		_, err := w.refresh(slow, tokens.RefreshToken)
		done <- err
	}()
	<-holding
	w.upstream.set(func(u *sessionUpstream) { u.hold = nil })
	w.clock.advance(15 * time.Second) // the lease is over
	next := w.mustRefresh(fast, tokens.RefreshToken)
	close(hold) // the slow one uses the old upstream token now, and hears that it is dead
	wantError(t, "the slow node", <-done, "temporarily_unavailable")
	w.wantVerify(fast, "access token", next.AccessToken, "")
	w.clock.advance(time.Hour)
	w.mustRefresh(slow, next.RefreshToken)
	if strings.Contains(w.log.String(), "revoked") {
		t.Errorf("log:\n%s", w.log)
	}
}

// Where the upstream does not rotate, the slow node's word on the user is old.
func TestFencedNodeDoesNotBringBackAnOldIdentity(t *testing.T) {
	w := newGrantsWorld(t, func(c *proxyprovider.GrantsConfig) { c.Claims = []string{"name"} })
	slow, fast := w.node(), w.node()
	tokens := w.tokens(slow)
	w.clock.advance(time.Hour)
	before, after := alice(), alice()
	after.Name = "Alice Newname"
	hold, holding := make(chan struct{}), make(chan struct{}, 1)
	w.upstream.set(func(u *sessionUpstream) {
		u.keep, u.identity, u.holdLate, u.holding = true, before, hold, holding
	})
	done := make(chan error)
	go func() {
		_, err := w.refresh(slow, tokens.RefreshToken)
		done <- err
	}()
	<-holding // it has heard the old name
	w.upstream.set(func(u *sessionUpstream) { u.identity, u.holdLate = after, nil })
	w.clock.advance(15 * time.Second) // the lease is over
	next := w.mustRefresh(fast, tokens.RefreshToken)
	close(hold)
	wantError(t, "the slow node", <-done, "temporarily_unavailable")
	next = w.mustRefresh(slow, next.RefreshToken)
	info, err := fast.VerifyAccessToken(t.Context(), next.AccessToken)
	if err != nil || info.Extra["name"] != "Alice Newname" {
		t.Errorf("token %+v, %v", info, err)
	}
}
