package redis

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
)

// GetCached implements store.Watcher by the server's client-side caching (CLIENT
// TRACKING): the server announces when a key that was read changes. Each
// connection has a cache of its own, which ends with it. Without CLIENT TRACKING
// it is Get.
func (s *Store) GetCached(ctx context.Context, key string, maxAge time.Duration) ([]byte, error) {
	if err := s.begin(ctx, key); err != nil {
		return nil, err
	}
	// Below a millisecond nothing can be cached; and what was just written here may
	// be announced to us only now.
	if maxAge < time.Millisecond || s.written.has(key) {
		return s.Get(ctx, key)
	}
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	value, err := bytesOf(s.client.DoCache(bounded, s.client.B().Get().Key(s.prefix+key).Cache(), maxAge))
	switch {
	case err != nil:
		return nil, s.fail(ctx, bounded, err)
	case value == nil:
		return nil, store.ErrNotFound
	}
	return value, nil
}

// forget is for how long recent remembers at least.
const forget = time.Second

// recent remembers the keys that were written within a second or two.
type recent struct {
	now func() time.Time

	mu       sync.Mutex
	cur, old map[string]struct{}
	turned   time.Time
}

func newRecent(now func() time.Time) *recent { return &recent{now: now} }

func (r *recent) add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	if r.cur == nil {
		r.cur = make(map[string]struct{})
	}
	r.cur[key] = struct{}{}
}

func (r *recent) has(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	if _, ok := r.cur[key]; ok {
		return true
	}
	_, ok := r.old[key]
	return ok
}

// turn drops what is too old, with the lock.
func (r *recent) turn() {
	now := r.now()
	switch age := now.Sub(r.turned); {
	case age >= 2*forget || age < 0:
		r.cur, r.old, r.turned = nil, nil, now
	case age >= forget:
		r.cur, r.old, r.turned = nil, r.cur, now
	}
}
