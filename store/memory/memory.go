// Package memory is a store in the memory of this process: it outlives nothing.
// It is for tests, for trying things out, and for those who accept that everyone
// signs in again after a restart.
package memory

import (
	"bytes"
	"context"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/internal/cas"
	"github.com/caddy-mcp/mcpauth/store/internal/expiry"
)

// shards is the number of independent maps; a power of two.
const shards = 64

// Options configures New; the zero value works.
type Options struct {
	// SweepInterval is how often the memory of expired records is freed; a minute
	// by default.
	SweepInterval time.Duration
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// Store is a store.Store. Make one with New.
type Store struct {
	now    func() time.Time
	seed   maphash.Seed
	shards [shards]shard
	stop   chan struct{}
	swept  chan struct{} // closed when the sweeper has ended
}

// shard holds some of the records. All that its arena gives is used under mu,
// the keys of m too.
type shard struct {
	mu    sync.RWMutex
	m     map[string]slot // nil when the store is closed
	peak  int             // the most records since m was made
	arena arena
}

// New returns an empty store. It owns a goroutine until it is closed.
func New(o Options) *Store {
	if o.SweepInterval <= 0 {
		o.SweepInterval = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{now: o.Now, seed: maphash.MakeSeed(), stop: make(chan struct{}), swept: make(chan struct{})}
	for i := range s.shards {
		s.shards[i].m = make(map[string]slot)
	}
	go s.sweepEvery(o.SweepInterval)
	return s
}

func (s *Store) shard(key string) *shard {
	return &s.shards[maphash.String(s.seed, key)%shards]
}

// begin checks what every operation on a key checks first.
func (s *Store) begin(ctx context.Context, key string) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	return store.CheckKey(key)
}

func (s *Store) alive(ctx context.Context) error {
	select {
	case <-s.stop:
		return store.ErrClosed
	default:
		return ctx.Err()
	}
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, key); err != nil {
		return nil, err
	}
	value, ok, err := s.shard(key).get(key, s.now())
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, store.ErrNotFound
	}
	return value, nil
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	if err := store.CheckValue(value); err != nil {
		return err
	}
	if ttl < 0 {
		return s.Delete(ctx, key)
	}
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.put(key, value, expiry.At(s.now(), ttl))
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	return cas.Update(ctx, one{s, key}, fn)
}

// Take implements store.Store.
func (s *Store) Take(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, key); err != nil {
		return nil, err
	}
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		return nil, store.ErrClosed
	}
	r, ok := h.m[key]
	if !ok || expiry.Over(r.expiry(), s.now()) {
		return nil, store.ErrNotFound
	}
	value := append([]byte{}, r.value()...)
	h.delete(key, r)
	return value, nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		return store.ErrClosed
	}
	if r, ok := h.m[key]; ok {
		h.delete(key, r)
	}
	return nil
}

// Scan implements store.Store. It looks at every key.
func (s *Store) Scan(ctx context.Context, prefix string, fn func(key string, value []byte) error) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if err := store.CheckPrefix(prefix); err != nil {
		return err
	}
	for i := range s.shards {
		h := &s.shards[i]
		for _, key := range h.keys(prefix) {
			if err := ctx.Err(); err != nil {
				return err
			}
			value, ok, err := h.get(key, s.now())
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if err := fn(key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close implements store.Store. Everything is forgotten.
func (s *Store) Close() error {
	// The first shard's lock decides between two calls.
	h := &s.shards[0]
	h.mu.Lock()
	if h.m == nil {
		h.mu.Unlock()
		return store.ErrClosed
	}
	h.close()
	close(s.stop)
	h.mu.Unlock()
	<-s.swept
	for i := range s.shards {
		s.shards[i].mu.Lock()
		s.shards[i].close()
		s.shards[i].mu.Unlock()
	}
	return nil
}

// get returns a copy of the value, which is not nil if there is one.
func (h *shard) get(key string, now time.Time) (value []byte, ok bool, err error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.m == nil {
		return nil, false, store.ErrClosed
	}
	r, ok := h.m[key]
	if !ok || expiry.Over(r.expiry(), now) {
		return nil, false, nil
	}
	return append([]byte{}, r.value()...), true, nil
}

// put needs the lock, as do those below unless they take it.
func (h *shard) put(key string, value []byte, expiry int64) error {
	if h.m == nil {
		return store.ErrClosed
	}
	if old, ok := h.m[key]; ok {
		if old.size() == sizeOf(len(key), len(value)) {
			old.set(value, expiry)
			return nil
		}
		h.delete(key, old)
	}
	h.insert(key, value, expiry)
	return nil
}

func (h *shard) insert(key string, value []byte, expiry int64) {
	r := h.arena.put(key, value, expiry)
	h.m[r.key()] = r
	h.peak = max(h.peak, len(h.m))
}

// delete forgets a record. The slot goes last: the map's key lies in it.
func (h *shard) delete(key string, r slot) {
	delete(h.m, key)
	h.arena.drop(r)
}

func (h *shard) close() {
	clear(h.m) // no pointer may stay to what others get next
	h.m = nil
	h.arena.close()
}

// keys takes the lock and returns copies.
func (h *shard) keys(prefix string) []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var keys []string
	for key := range h.m {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, strings.Clone(key))
		}
	}
	return keys
}

// one is a cas.Record.
type one struct {
	s   *Store
	key string
}

func (o one) Read(context.Context) ([]byte, error) {
	value, ok, err := o.s.shard(o.key).get(o.key, o.s.now())
	if err != nil || !ok {
		return nil, err
	}
	return value, nil
}

func (o one) Swap(ctx context.Context, old, value []byte, ttl time.Duration) ([]byte, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	h := o.s.shard(o.key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		return nil, false, store.ErrClosed
	}
	now := o.s.now()
	r, there := h.m[o.key]
	live := there && !expiry.Over(r.expiry(), now)
	switch {
	case live != (old != nil) || live && !bytes.Equal(r.value(), old):
		if !live {
			return nil, false, nil
		}
		return append([]byte{}, r.value()...), false, nil
	case value == nil:
		if there {
			h.delete(o.key, r)
		}
		return nil, true, nil
	}
	return nil, true, h.put(o.key, value, expiry.At(now, ttl))
}

var _ store.Store = (*Store)(nil)
