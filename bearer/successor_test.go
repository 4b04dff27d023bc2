package bearer_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// TestSuccessorDecides: what is under way is judged by the guard that has taken
// the place, or ends with it.
func TestSuccessorDecides(t *testing.T) {
	for _, row := range []struct {
		rule   string
		next   bearer.Verifier
		change func(*bearer.Resource)
		gone   bool
	}{
		{rule: "a successor that does not know the token", next: guardTokens{}},
		{rule: "a successor for which it is over", next: guardTokens{"a": guardToken("mcp:read")}},
		{rule: "a resource that needs more", next: &liveTokens{}, change: func(r *bearer.Resource) { r.Scopes = append(r.Scopes, "mcp:admin") }},
		{rule: "a resource that does not allow the user", next: &liveTokens{}, change: func(r *bearer.Resource) {
			r.Policy.Allow = func(*oauth.TokenInfo) (bool, string) { return false, "nobody is" }
		}},
		{rule: "another resource", next: &liveTokens{}, change: func(r *bearer.Resource) { r.Identifier += "/v2" }},
		{rule: "no successor", gone: true},
	} {
		t.Run(row.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var next *bearer.Guard
				if row.next != nil {
					resource := guardResource()
					if row.change != nil {
						row.change(&resource)
					}
					config := bearer.GuardConfig{Resources: []bearer.Resource{resource}, AuthorizationServers: []string{guardIssuer}, Verifier: row.next}
					if _, live := row.next.(*liveTokens); live {
						config.AllowNoExpiry = true
					} else {
						config.Now = func() time.Time { return guardTime.Add(2 * time.Hour) }
					}
					var err error
					if next, err = bearer.NewGuard(config); err != nil {
						t.Fatal(err)
					}
				}
				start := time.Now()
				guard, err := bearer.NewGuard(bearer.GuardConfig{
					Resources: []bearer.Resource{guardResource()}, AuthorizationServers: []string{guardIssuer}, Verifier: &liveTokens{}, AllowNoExpiry: true,
					Successor: func() (*bearer.Guard, bool) {
						if time.Since(start) < 5*time.Second {
							return nil, false
						}
						return next, row.gone
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				rec, panicked, _ := serveLive(t, guard, "GET", "a", eventStream)
				if took := time.Since(start); panicked != nil || rec.Code != 200 || !between(took, 5*time.Second, 7*time.Second) {
					t.Errorf("%d after %s, panic %v", rec.Code, took, panicked)
				}
			})
		})
	}
}
