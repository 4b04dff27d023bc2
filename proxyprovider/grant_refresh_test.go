package proxyprovider_test

import (
	"context"
	"encoding/base64"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

func TestRefreshIsIdempotentInsideGrace(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	first := w.tokens(g).RefreshToken
	answer := w.mustRefresh(g, first)
	w.clock.advance(30 * time.Second)
	if got := w.mustRefresh(other, first); asJSON(t, got) != asJSON(t, answer) {
		t.Errorf("the second answer differs:\n%s\n%s", asJSON(t, got), asJSON(t, answer))
	}
	w.wantVerify(other, "its access token", answer.AccessToken, "")

	_, err := w.refresh(g, first, "mcp:read")
	wantError(t, "with another scope", err, "invalid_grant")
	if got, err := w.refresh(g, first, "mcp:write", "mcp:read"); err != nil || asJSON(t, got) != asJSON(t, answer) {
		t.Errorf("with the same scope in other words: %v", err)
	}
	_, err = g.ExchangeRefreshToken(t.Context(), publicClient("app"), authserver.RefreshExchange{RefreshToken: first, Resource: resource + "2"})
	wantError(t, "with another resource", err, "invalid_grant")
	_, err = g.ExchangeRefreshToken(t.Context(), publicClient("evil"), authserver.RefreshExchange{RefreshToken: first})
	wantError(t, "by another client", err, "invalid_grant")
	w.mustRefresh(g, answer.RefreshToken)
}

func TestRefreshReplayAfterGraceRevokesTheGrant(t *testing.T) {
	w := newGrantsWorld(t)
	g, other := w.node(), w.node()
	tokens := w.tokens(g)
	first := tokens.RefreshToken
	answer := w.mustRefresh(g, first)
	w.clock.advance(30*time.Second + time.Millisecond)
	_, err := w.refresh(other, first)
	wantError(t, "replay", err, "invalid_grant")
	_, err = w.refresh(g, answer.RefreshToken)
	wantError(t, "the current refresh token after it", err, "invalid_grant")
	w.wantVerify(other, "access token on the node that saw it", answer.AccessToken, "invalid_token")
	w.wantVerify(other, "the first access token", tokens.AccessToken, "invalid_token")
}

func TestRefreshReplayOfOldGenerations(t *testing.T) {
	t.Run("two rotations inside grace: refused, nothing revoked", func(t *testing.T) {
		w := newGrantsWorld(t)
		g := w.node()
		first := w.tokens(g).RefreshToken
		third := w.mustRefresh(g, w.mustRefresh(g, first).RefreshToken)
		w.clock.advance(10 * time.Second)
		_, err := w.refresh(g, first)
		wantError(t, "replay", err, "invalid_grant")
		w.mustRefresh(g, third.RefreshToken)
	})
	t.Run("retired longer ago than grace, though the last rotation was not: revoked", func(t *testing.T) {
		w := newGrantsWorld(t)
		g := w.node()
		first := w.tokens(g).RefreshToken
		second := w.mustRefresh(g, first)
		w.clock.advance(31 * time.Second)
		third := w.mustRefresh(g, second.RefreshToken)
		_, err := w.refresh(g, first)
		wantError(t, "replay", err, "invalid_grant")
		_, err = w.refresh(g, third.RefreshToken)
		wantError(t, "the current one after it", err, "invalid_grant")
	})
	t.Run("grace off: the second use revokes", func(t *testing.T) {
		w := newGrantsWorld(t, func(c *proxyprovider.GrantsConfig) { c.Grace = -1 })
		g := w.node()
		first := w.tokens(g).RefreshToken
		second := w.mustRefresh(g, first)
		_, err := w.refresh(g, first)
		wantError(t, "replay", err, "invalid_grant")
		_, err = w.refresh(g, second.RefreshToken)
		wantError(t, "the current one after it", err, "invalid_grant")
	})
}

// A refresh token is base64url(grant id ‖ generation ‖ 32 random ‖ 16 MAC).
func TestForgedRefreshTokens(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	token := w.mustRefresh(g, w.tokens(g).RefreshToken).RefreshToken
	other := w.tokens(g).RefreshToken
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 68 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	foreign, _ := base64.RawURLEncoding.DecodeString(other)
	w.clock.advance(time.Minute) // so that a genuine old one would revoke
	before := w.faulty.writes.Load()
	for name, change := range map[string]func(b []byte){
		"an older generation":                func(b []byte) { b[19] = 1 },
		"generation 0":                       func(b []byte) { b[19] = 0 },
		"a generation to come":               func(b []byte) { b[19] = 3 },
		"a far generation":                   func(b []byte) { b[16] = 255 },
		"another secret":                     func(b []byte) { b[20] ^= 1 },
		"another MAC":                        func(b []byte) { b[67] ^= 1 },
		"no MAC":                             func(b []byte) { clear(b[52:]) },
		"another grant's id":                 func(b []byte) { copy(b, foreign[:16]) },
		"another grant's MAC":                func(b []byte) { copy(b[52:], foreign[52:]) },
		"another grant's generation and MAC": func(b []byte) { copy(b[16:20], foreign[16:20]); copy(b[52:], foreign[52:]) },
	} {
		t.Run(name, func(t *testing.T) {
			b := append([]byte(nil), raw...)
			change(b)
			_, err := w.refresh(g, base64.RawURLEncoding.EncodeToString(b))
			wantError(t, "refresh", err, "invalid_grant")
		})
	}
	for name, s := range map[string]string{
		"cut": token[:90], "longer": token + "A", "padded": token + "=", "a line break": token[:40] + "\n" + token[40:],
		"empty": "", "an access token": "a.b.c",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.refresh(g, s)
			wantError(t, "refresh", err, "invalid_grant")
		})
	}
	if n := w.faulty.writes.Load() - before; n != 0 {
		t.Errorf("forgeries caused %d writes", n)
	}
	w.mustRefresh(g, token)
	w.mustRefresh(g, other)
}

func TestConcurrentRefreshesGetOneAnswer(t *testing.T) {
	w := newGrantsWorld(t)
	nodes := []*proxyprovider.Grants{w.node(), w.node()}
	tokens := w.tokens(nodes[0])
	for _, due := range []bool{false, true} {
		if due {
			w.clock.advance(2 * time.Hour)
		}
		answers := make([]string, 64)
		next := make([]*oauth.Tokens, 64)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				var err error
				if next[i], err = w.refresh(nodes[i%2], tokens.RefreshToken); err != nil {
					t.Errorf("refresh %d: %v", i, err)
					return
				}
				answers[i] = asJSON(t, next[i])
			})
		}
		wg.Wait()
		for i, a := range answers {
			if a != answers[0] {
				t.Fatalf("answers 0 and %d differ:\n%s\n%s", i, answers[0], a)
			}
		}
		w.wantVerify(nodes[1], "access token", next[0].AccessToken, "")
		tokens = next[0]
	}
	if w.upstream.refreshes != 1 {
		t.Errorf("the upstream was asked %d times", w.upstream.refreshes)
	}
	w.mustRefresh(nodes[0], tokens.RefreshToken)
}

func TestRefreshScope(t *testing.T) {
	for _, row := range []struct {
		name      string
		requested []string
		scope     string
		want      string
	}{
		{"none: as granted", nil, "mcp:read mcp:write", ""},
		{"narrower", []string{"mcp:write"}, "mcp:write", ""},
		{"all, in another order", []string{"mcp:write", "mcp:read"}, "mcp:read mcp:write", ""},
		{"wider", []string{"mcp:read", "mcp:admin"}, "", "invalid_scope"},
		{"other", []string{"mcp:admin"}, "", "invalid_scope"},
		{"offline_access is no widening", []string{"offline_access", "mcp:read"}, "mcp:read", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newGrantsWorld(t)
			g := w.node()
			token := w.tokens(g).RefreshToken
			got, err := w.refresh(g, token, row.requested...)
			wantError(t, "refresh", err, row.want)
			if err != nil {
				w.mustRefresh(g, token) // it changed nothing
				return
			}
			info, err := g.VerifyAccessToken(t.Context(), got.AccessToken)
			if err != nil || got.Scope != row.scope || oauth.JoinScope(info.Scopes) != row.scope {
				t.Errorf("scope %q, token %+v, %v", got.Scope, info, err)
			}
			// RFC 6749 §6: the refresh token keeps the granted scope.
			if next := w.mustRefresh(g, got.RefreshToken); next.Scope != "mcp:read mcp:write" {
				t.Errorf("the next scope is %q", next.Scope)
			}
		})
	}
}

func TestRefreshResource(t *testing.T) {
	w := newGrantsWorld(t)
	g := w.node()
	token := w.tokens(g).RefreshToken
	_, err := g.ExchangeRefreshToken(t.Context(), publicClient("app"), authserver.RefreshExchange{RefreshToken: token, Resource: resource + "/other"})
	wantError(t, "another resource", err, "invalid_target")
	got, err := g.ExchangeRefreshToken(t.Context(), publicClient("app"), authserver.RefreshExchange{RefreshToken: token, Resource: resource})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := g.VerifyAccessToken(t.Context(), w.mustRefresh(g, got.RefreshToken).AccessToken); err != nil || info.Resource != resource {
		t.Errorf("inherited resource: %+v, %v", info, err)
	}
}

func TestGrantExpiry(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		w := newGrantsWorld(t)
		g := w.node()
		token := w.tokens(g).RefreshToken
		w.clock.advance(14*24*time.Hour - time.Second)
		token = w.mustRefresh(g, token).RefreshToken
		w.clock.advance(14 * 24 * time.Hour)
		_, err := w.refresh(g, token)
		wantError(t, "refresh after 14 days", err, "invalid_grant")
	})
	t.Run("absolute", func(t *testing.T) {
		w := newGrantsWorld(t)
		g := w.node()
		token := w.tokens(g).RefreshToken
		for range 3 {
			w.clock.advance(9*24*time.Hour + 23*time.Hour)
			token = w.mustRefresh(g, token).RefreshToken
		}
		w.clock.advance(3*time.Hour - 5*time.Minute)
		last := w.mustRefresh(g, token)
		if *last.ExpiresIn != 5*time.Minute {
			t.Errorf("an access token of %s five minutes before the end of its grant", *last.ExpiresIn)
		}
		w.clock.advance(5 * time.Minute)
		_, err := w.refresh(g, last.RefreshToken)
		wantError(t, "refresh after 30 days", err, "invalid_grant")
		w.wantVerify(g, "access token after 30 days", last.AccessToken, "invalid_token")
	})
	t.Run("an idle policy that was tightened counts at once", func(t *testing.T) {
		w := newGrantsWorld(t)
		token := w.tokens(w.node()).RefreshToken
		w.clock.advance(2 * time.Hour)
		w.config.RefreshIdle = time.Hour
		_, err := w.refresh(w.node(), token)
		wantError(t, "refresh", err, "invalid_grant")
	})
	t.Run("an upstream that cannot be asked: 24 hours", func(t *testing.T) {
		w := newGrantsWorld(t)
		w.upstream.set(func(u *sessionUpstream) { u.able = idp.Capabilities{} })
		g := w.node()
		token := w.tokens(g).RefreshToken
		w.clock.advance(23*time.Hour + 59*time.Minute)
		tokens := w.mustRefresh(g, token)
		if *tokens.ExpiresIn != time.Minute {
			t.Errorf("access token of %s", *tokens.ExpiresIn)
		}
		w.clock.advance(time.Minute)
		_, err := w.refresh(g, tokens.RefreshToken)
		wantError(t, "refresh after 24 h", err, "invalid_grant")
	})
}

func TestAllowIsAskedAtEveryRefresh(t *testing.T) {
	allowed := true
	w := newGrantsWorld(t, func(c *proxyprovider.GrantsConfig) {
		c.Allow = func(id *idp.Identity) (bool, string) {
			return allowed && len(id.Groups) == 1 && id.Groups[0] == "engineering" && id.EmailVerified, "not on the list"
		}
	})
	g, other := w.node(), w.node()
	tokens := w.tokens(g)
	tokens = w.mustRefresh(g, tokens.RefreshToken)
	w.wantVerify(other, "access token", tokens.AccessToken, "")
	allowed = false
	_, err := w.refresh(g, tokens.RefreshToken)
	wantError(t, "refresh", err, "invalid_grant")
	allowed = true
	_, err = w.refresh(g, tokens.RefreshToken)
	wantError(t, "the grant is over", err, "invalid_grant")
	w.wantVerify(g, "access token here", tokens.AccessToken, "invalid_token")
	w.clock.advance(5 * time.Second)
	w.wantVerify(other, "access token elsewhere, 5 s later", tokens.AccessToken, "invalid_token")

	// The freshest claims decide.
	tokens = w.tokens(g)
	w.clock.advance(time.Hour)
	w.upstream.set(func(u *sessionUpstream) { u.identity = alice(); u.identity.Groups = []string{"alumni"} })
	_, err = w.refresh(g, tokens.RefreshToken)
	wantError(t, "refresh of somebody who left the group", err, "invalid_grant")
}

func TestLocalAccounts(t *testing.T) {
	account, err := alice(), error(nil)
	w := newGrantsWorld(t, func(c *proxyprovider.GrantsConfig) {
		c.Upstream = nil
		c.Claims = []string{"name"}
		c.Refresh = func(_ context.Context, subject string) (*idp.Identity, error) {
			if subject != "alice" {
				return nil, idp.ErrDead
			}
			return account, err
		}
	})
	g := w.node()
	local := func(n *proxyprovider.NewGrant) { n.Upstream = nil }
	tokens := w.tokens(g, local)
	account = alice()
	account.Name = "Alice Newname"
	tokens = w.mustRefresh(g, tokens.RefreshToken)
	if info, err := g.VerifyAccessToken(t.Context(), tokens.AccessToken); err != nil || info.Extra["name"] != "Alice Newname" {
		t.Errorf("token %+v, %v", info, err)
	}
	err = idp.ErrTrouble
	w.wantVerify(g, "access token in trouble", tokens.AccessToken, "temporarily_unavailable")
	_, got := w.refresh(g, tokens.RefreshToken)
	wantError(t, "refresh in trouble", got, "temporarily_unavailable")
	err = idp.ErrDead
	w.wantVerify(g, "access token of a disabled account, at once", tokens.AccessToken, "invalid_token")
	_, got = w.refresh(g, tokens.RefreshToken)
	wantError(t, "refresh of a disabled account", got, "invalid_grant")
	err = nil
	_, got = w.refresh(g, tokens.RefreshToken)
	wantError(t, "the grant is over", got, "invalid_grant")

	tokens = w.tokens(g, local)
	account = &idp.Identity{Issuer: "https://elsewhere.example", Subject: "alice"}
	_, got = w.refresh(g, tokens.RefreshToken)
	wantError(t, "an account of the same name elsewhere", got, "invalid_grant")
}
