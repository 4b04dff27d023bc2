package bearer_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// TestSuccessorDecides: what is under way is judged by the guard that has taken
// the place, or ends with it.
func TestSuccessorDecides(t *testing.T) {
	for _, row := range []struct {
		rule string
		next bearer.Verifier
		gone bool
	}{
		{"a successor that does not know the token", guardTokens{}, false},
		{"a successor for which it is over", guardTokens{"a": guardToken("mcp:read")}, false},
		{"no successor", nil, true},
	} {
		t.Run(row.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var next *bearer.Guard
				if row.next != nil {
					now := func() time.Time { return guardTime.Add(2 * time.Hour) }
					var err error
					if next, err = bearer.NewGuard(bearer.GuardConfig{Resources: []bearer.Resource{guardResource()}, AuthorizationServers: []string{guardIssuer}, Verifier: row.next, Now: now}); err != nil {
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
