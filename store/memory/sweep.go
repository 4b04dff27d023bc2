package memory

import (
	"maps"
	"time"

	"github.com/caddy-mcp/mcpauth/store/internal/expiry"
)

func (s *Store) sweepEvery(interval time.Duration) {
	defer close(s.swept)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
			for i := range s.shards {
				s.shards[i].sweep(s.now())
			}
		}
	}
}

// sweep drops what is expired. A map keeps its room when entries are deleted,
// so one that is mostly empty is made anew.
func (h *shard) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		return
	}
	maps.DeleteFunc(h.m, func(_ string, r record) bool { return expiry.Over(r.expiry, now) })
	if h.peak > 64 && len(h.m) < h.peak/4 {
		smaller := make(map[string]record, len(h.m))
		maps.Copy(smaller, h.m)
		h.m, h.peak = smaller, len(smaller)
	}
}
