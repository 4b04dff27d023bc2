package proxyprovider_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

// grantModel says in a few lines what a grant does, to be compared with what it
// does.
type grantModel struct {
	created, rotated time.Time
	over             bool
	answers          []string    // to generation i, as JSON
	tokens           []*tokenSet // of generation i
}

type tokenSet struct {
	refresh, access string
	retired         time.Time // zero for the current one
	accessUntil     time.Time
}

// outcome is what refreshing generation i has to do now: "new", "same" (the kept
// answer), "refused", or "revoked" (refused, and the grant is over).
func (m *grantModel) outcome(i int, now time.Time) string {
	current := len(m.tokens) - 1
	age := current - 1 - i
	switch {
	case m.over:
		return "refused"
	case !now.Before(m.created.Add(30*24*time.Hour)) || !now.Before(m.rotated.Add(14*24*time.Hour)):
		return "refused"
	case i == current:
		return "new"
	case age < 8 && now.Sub(m.tokens[i].retired) <= 30*time.Second && age == 0:
		return "same"
	case age < 8 && now.Sub(m.tokens[i].retired) <= 30*time.Second:
		return "refused"
	}
	return "revoked"
}

func TestRefreshLikeTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newGrantsWorld(t)
		nodes := []*proxyprovider.Grants{w.node(), w.node()}
		start := w.clock.now()
		code := w.code(nodes[0])
		first, err := nodes[0].ExchangeCode(t.Context(), publicClient("app"), exchange(code))
		if err != nil {
			rt.Fatal(err)
		}
		m := &grantModel{created: start, rotated: start}
		add := func(tokens *oauth.Tokens) {
			m.answers = append(m.answers, asJSON(t, tokens))
			m.tokens = append(m.tokens, &tokenSet{
				refresh: tokens.RefreshToken, access: tokens.AccessToken, accessUntil: w.clock.now().Add(*tokens.ExpiresIn),
			})
		}
		add(first)
		node := func(rt *rapid.T) *proxyprovider.Grants { return nodes[rapid.IntRange(0, 1).Draw(rt, "node")] }
		generation := func(rt *rapid.T) int {
			back := rapid.IntRange(0, min(len(m.tokens)-1, 10)).Draw(rt, "back")
			return len(m.tokens) - 1 - back
		}
		// refused checks a request that must change nothing.
		refused := func(rt *rapid.T, what string, err error) {
			if oauth.AsError(err).Code != "invalid_grant" {
				rt.Fatalf("%s: %v", what, err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"wait": func(rt *rapid.T) {
				w.clock.advance(time.Duration(rapid.SampledFrom([]int{0, 1, 999, 10_000, 29_000, 30_000, 31_000, 15 * 60_000, 3_600_000, 7 * 24 * 3_600_000}).Draw(rt, "ms")) * time.Millisecond)
			},
			"refresh": func(rt *rapid.T) {
				i, g := generation(rt), node(rt)
				now := w.clock.now()
				want := m.outcome(i, now)
				got, err := w.refresh(g, m.tokens[i].refresh)
				switch want {
				case "new":
					if err != nil {
						rt.Fatalf("refresh of the current generation %d: %v", i, err)
					}
					m.tokens[i].retired, m.rotated = now, now
					add(got)
				case "same":
					if err != nil || asJSON(t, got) != m.answers[i+1] {
						rt.Fatalf("refresh of the previous generation %d: %v\n%s\n%s", i, err, asJSON(t, got), m.answers[i+1])
					}
				case "revoked":
					refused(rt, fmt.Sprint("replay of generation ", i), err)
					m.over = true
				default:
					refused(rt, fmt.Sprint("refresh of generation ", i), err)
				}
			},
			"another client": func(rt *rapid.T) {
				_, err := node(rt).ExchangeRefreshToken(t.Context(), publicClient("evil"), authserver.RefreshExchange{RefreshToken: m.tokens[generation(rt)].refresh})
				refused(rt, "another client", err)
			},
			"forgery": func(rt *rapid.T) {
				token := []byte(m.tokens[generation(rt)].refresh)
				i := rapid.IntRange(0, len(token)-1).Draw(rt, "position")
				c := rapid.SampledFrom([]byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")).Draw(rt, "character")
				if token[i] == c {
					return
				}
				token[i] = c
				_, err := w.refresh(node(rt), string(token))
				refused(rt, "forgery", err)
			},
			"code with a wrong verifier": func(rt *rapid.T) {
				x := exchange(code)
				x.Verifier = challenge
				_, err := node(rt).ExchangeCode(t.Context(), publicClient("app"), x)
				refused(rt, "code", err)
			},
			"wider scope": func(rt *rapid.T) {
				i := generation(rt)
				if m.outcome(i, w.clock.now()) == "revoked" {
					return
				}
				if _, err := w.refresh(node(rt), m.tokens[i].refresh, "mcp:admin"); err == nil {
					rt.Fatal("the scope was widened")
				}
			},
			"revocation": func(rt *rapid.T) {
				if rapid.IntRange(0, 9).Draw(rt, "dice") > 0 {
					return
				}
				if err := node(rt).RevokeToken(t.Context(), publicClient("app"), authserver.Revocation{Token: m.tokens[generation(rt)].refresh}); err != nil {
					rt.Fatal(err)
				}
				m.over = true
			},
			"": func(rt *rapid.T) {
				// 5 s pass, so that every node must know.
				w.clock.advance(5 * time.Second)
				for i, tokens := range m.tokens[max(0, len(m.tokens)-3):] {
					_, err := nodes[i%2].VerifyAccessToken(t.Context(), tokens.access)
					if good := !m.over && w.clock.now().Before(tokens.accessUntil); good != (err == nil) {
						rt.Fatalf("access token: %v, want good: %t", err, good)
					}
				}
			},
		})
	})
}
