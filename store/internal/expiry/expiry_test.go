package expiry_test

import (
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/store/internal/expiry"
)

func TestOver(t *testing.T) {
	now := time.Unix(2_000_000_000, 500)
	rows := []struct {
		name  string
		ttl   time.Duration
		later time.Duration
		over  bool
	}{
		{"none never ends", 0, 1<<63 - 1, false},
		{"a nanosecond is not none", 1, 2 * time.Millisecond, true},
		{"at once", time.Minute, 0, false},
		{"not early", time.Minute, time.Minute - 1, false},
		{"at most a millisecond late", time.Minute, time.Minute + time.Millisecond, true},
		{"the longest does not overflow", 1<<63 - 1, 100 * 365 * 24 * time.Hour, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := expiry.Over(expiry.At(now, row.ttl), now.Add(row.later)); got != row.over {
				t.Errorf("over: %v, want %v", got, row.over)
			}
		})
	}
}
