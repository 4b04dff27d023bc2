package memory

import (
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

// sweep drops what is expired. Maps and arenas keep their room when records are
// deleted, so those that are mostly empty are made anew.
func (h *shard) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		return
	}
	for key, r := range h.m {
		if expiry.Over(r.expiry(), now) {
			h.delete(key, r)
		}
	}
	if h.peak > 64 && len(h.m) < h.peak/4 {
		full, room := h.m, h.arena
		h.m, h.arena, h.peak = make(map[string]slot, len(full)), arena{}, 0
		for key, r := range full {
			h.insert(key, r.value(), r.expiry())
		}
		clear(full) // no pointer may stay to what others get next
		room.close()
	}
}
