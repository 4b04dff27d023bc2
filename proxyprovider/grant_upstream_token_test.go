package proxyprovider_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

// upstreamToken verifies the access token and asks for the upstream's one, as
// the guard does.
func (w *grantsWorld) upstreamToken(g *proxyprovider.Grants, access string) (string, error) {
	w.t.Helper()
	info, err := g.VerifyAccessToken(w.t.Context(), access)
	if err != nil {
		return "", err
	}
	return g.UpstreamToken(w.t.Context(), info)
}

func (w *grantsWorld) wantUpstream(g *proxyprovider.Grants, what, access, want, wantErr string) {
	w.t.Helper()
	got, err := w.upstreamToken(g, access)
	wantError(w.t, what, err, wantErr)
	if got != want {
		w.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// longLived gives access tokens that outlive those of the upstream.
func longLived(c *proxyprovider.GrantsConfig) { c.AccessTTL = 5 * time.Hour }

func TestUpstreamTokenIsRefreshedWhenDue(t *testing.T) {
	w := newGrantsWorld(t, longLived)
	g := w.node()
	access := w.tokens(g).AccessToken
	w.wantUpstream(g, "as at the login", access, "up-access-1", "")
	reads := w.faulty.reads.Load()
	w.wantUpstream(g, "again", access, "up-access-1", "")
	if got := w.faulty.reads.Load() - reads; got != 0 {
		t.Errorf("%d reads of the store for a token that is at hand", got)
	}
	w.clock.advance(time.Hour - 31*time.Second)
	w.wantUpstream(g, "good for 31 s", access, "up-access-1", "")
	w.clock.advance(time.Second)
	w.wantUpstream(g, "good for 30 s", access, "up-access-2", "")
	w.wantUpstream(w.node(), "on another node", access, "up-access-2", "")
	if w.upstream.refreshes != 1 {
		t.Errorf("%d refreshes", w.upstream.refreshes)
	}
}

func TestUpstreamTokenOfAnotherNodeIsSeen(t *testing.T) {
	w := newGrantsWorld(t, longLived, func(c *proxyprovider.GrantsConfig) { c.UpstreamCheck = -1 })
	g, other := w.node(), w.node()
	tokens := w.tokens(g)
	w.wantUpstream(g, "as at the login", tokens.AccessToken, "up-access-1", "")
	w.mustRefresh(other, tokens.RefreshToken) // asks the upstream, which rotates
	w.clock.advance(time.Minute)
	w.wantUpstream(g, "after a minute", tokens.AccessToken, "up-access-2", "")
}

func TestUpstreamTokenIsRefreshedOnceForAll(t *testing.T) {
	w := newGrantsWorld(t, longLived)
	nodes := []*proxyprovider.Grants{w.node(), w.node()}
	access := w.tokens(nodes[0]).AccessToken
	w.clock.advance(2 * time.Hour)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			info, err := nodes[i%2].VerifyAccessToken(t.Context(), access)
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := nodes[i%2].UpstreamToken(t.Context(), info); err != nil || got != "up-access-2" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	all.Wait()
	if w.upstream.refreshes != 1 {
		t.Errorf("%d refreshes", w.upstream.refreshes)
	}
}

// TestUpstreamTokenTrouble: which answers of the upstream are a challenge, which
// are 503, and which end the grant.
func TestUpstreamTokenTrouble(t *testing.T) {
	mallory := &idp.Identity{Issuer: upstreamIssuer, Subject: "mallory"}
	fired := alice()
	fired.Email = "gone@example.com"
	for _, row := range []struct {
		name   string
		change func(*sessionUpstream)
		want   string
		over   bool
	}{
		{"dead", func(u *sessionUpstream) { u.err = idp.ErrDead }, "invalid_token", true},
		{"denied", func(u *sessionUpstream) { u.err = idp.ErrDenied }, "invalid_token", true},
		{"trouble", func(u *sessionUpstream) { u.err = idp.ErrTrouble }, "temporarily_unavailable", false},
		{"new tokens, then dead", func(u *sessionUpstream) { u.errAfter = idp.ErrDead }, "invalid_token", true},
		{"another user", func(u *sessionUpstream) { u.identity = mallory }, "invalid_token", true},
		{"a user who is not allowed any more", func(u *sessionUpstream) { u.identity = fired }, "invalid_token", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newGrantsWorld(t, longLived, func(c *proxyprovider.GrantsConfig) {
				c.Allow = func(id *idp.Identity) (bool, string) { return id.Email != "gone@example.com", "" }
			})
			g := w.node()
			tokens := w.tokens(g)
			w.clock.advance(2 * time.Hour)
			w.upstream.set(row.change)
			w.wantUpstream(g, "while it lasts", tokens.AccessToken, "", row.want)
			w.upstream.set(func(u *sessionUpstream) { u.err, u.errAfter, u.identity = nil, nil, alice() })
			w.clock.advance(5 * time.Second)
			if row.over {
				w.wantUpstream(g, "after it", tokens.AccessToken, "", "invalid_token")
				_, err := w.refresh(g, tokens.RefreshToken)
				wantError(t, "the client's refresh after it", err, "invalid_grant")
				return
			}
			if got, err := w.upstreamToken(g, tokens.AccessToken); err != nil || got == "" {
				t.Errorf("after it: %q, %v", got, err)
			}
		})
	}
}

// TestUpstreamTroubleIsNotAskedForAgainAtOnce: an identity provider that is down
// costs a request in 5 s, not all of them, and not while the token is good.
func TestUpstreamTroubleIsNotAskedForAgainAtOnce(t *testing.T) {
	w := newGrantsWorld(t, longLived)
	g := w.node()
	access := w.tokens(g).AccessToken
	w.upstream.set(func(u *sessionUpstream) { u.err = idp.ErrTrouble })
	w.clock.advance(time.Hour - 20*time.Second)
	for range 3 {
		w.wantUpstream(g, "still good", access, "up-access-1", "")
	}
	if w.upstream.refreshes != 1 {
		t.Errorf("%d refreshes", w.upstream.refreshes)
	}
	w.clock.advance(20 * time.Second)
	for range 3 {
		w.wantUpstream(g, "over", access, "", "temporarily_unavailable")
	}
	if w.upstream.refreshes != 2 {
		t.Errorf("%d refreshes", w.upstream.refreshes)
	}
}

// TestShortUpstreamTokens: an upstream whose tokens last for 10 s is not asked for
// every request.
func TestShortUpstreamTokens(t *testing.T) {
	w := newGrantsWorld(t, longLived)
	w.upstream.set(func(u *sessionUpstream) { u.life = 10 * time.Second })
	g := w.node()
	access := w.tokens(g).AccessToken
	for range 3 {
		w.wantUpstream(g, "fresh", access, "up-access-2", "")
	}
	w.clock.advance(5 * time.Second)
	w.wantUpstream(g, "after half its life", access, "up-access-3", "")
	if w.upstream.refreshes != 2 {
		t.Errorf("%d refreshes", w.upstream.refreshes)
	}
}

// TestUpstreamSaysNoWhileItsTokenIsGood: the word counts, not the token's time.
func TestUpstreamSaysNoWhileItsTokenIsGood(t *testing.T) {
	w := newGrantsWorld(t, longLived)
	g := w.node()
	access := w.tokens(g).AccessToken
	w.clock.advance(time.Hour - 20*time.Second)
	w.upstream.set(func(u *sessionUpstream) { u.err = idp.ErrDead })
	w.wantUpstream(g, "with 20 s left", access, "", "invalid_token")
}

func TestUpstreamTokenThatCannotBeRefreshed(t *testing.T) {
	w := newGrantsWorld(t, longLived)
	g := w.node()
	forever := w.tokens(g, func(n *proxyprovider.NewGrant) { n.Upstream = &idp.Tokens{AccessToken: "github"} })
	hour := w.tokens(g, func(n *proxyprovider.NewGrant) {
		n.Upstream = &idp.Tokens{AccessToken: "hour", Expiry: w.clock.now().Add(time.Hour)}
	})
	none := w.tokens(g, func(n *proxyprovider.NewGrant) { n.Upstream = nil })
	w.wantUpstream(g, "no token at all", none.AccessToken, "", "invalid_token")
	w.clock.advance(time.Hour - time.Second)
	w.wantUpstream(g, "its last second", hour.AccessToken, "hour", "")
	w.clock.advance(time.Second)
	w.wantUpstream(g, "over", hour.AccessToken, "", "invalid_token")
	_, err := w.refresh(g, hour.RefreshToken) // or the client would go in circles
	wantError(t, "the client's refresh", err, "invalid_grant")
	w.wantUpstream(g, "without an end", forever.AccessToken, "github", "")
}

func TestUpstreamTokenOfARevokedGrant(t *testing.T) {
	w := newGrantsWorld(t, longLived)
	g := w.node()
	tokens := w.tokens(g)
	info, err := g.VerifyAccessToken(t.Context(), tokens.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.UpstreamToken(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	if err := g.RevokeToken(t.Context(), publicClient("app"), authserver.Revocation{Token: tokens.RefreshToken}); err != nil {
		t.Fatal(err)
	}
	_, err = g.UpstreamToken(t.Context(), info) // by a request that was verified just before
	wantError(t, "revoked here", err, "invalid_token")
}

func TestUpstreamTokenForOthers(t *testing.T) {
	w := newGrantsWorld(t)
	for name, extra := range map[string]map[string]any{"no grant": nil, "not a grant": {"grant_id": "x"}, "not a text": {"grant_id": 1}} {
		_, err := w.node().UpstreamToken(t.Context(), &oauth.TokenInfo{Extra: extra})
		wantError(t, name, err, "server_error")
	}
	g := w.node()
	info, err := g.VerifyAccessToken(t.Context(), w.tokens(g).AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	foreign := *info
	foreign.Issuer = "https://other.example"
	_, err = g.UpstreamToken(t.Context(), &foreign)
	wantError(t, "another issuer's token that names our grant", err, "server_error")
	local := newGrantsWorld(t, func(c *proxyprovider.GrantsConfig) {
		c.Upstream = nil
		c.Refresh = func(context.Context, string) (*idp.Identity, error) { return alice(), nil }
	})
	g = local.node()
	_, err = local.upstreamToken(g, local.tokens(g, func(n *proxyprovider.NewGrant) { n.Upstream = nil }).AccessToken)
	wantError(t, "a local account", err, "server_error")
}
