package proxyprovider

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
)

const (
	// statusFresh and statusShared add up to the 5 s within which a revocation on
	// another node is seen here: the age up to which a status is believed, and the
	// age that it may have had in the store's own cache (store.Watcher).
	statusFresh  = 2 * time.Second
	statusShared = 3 * time.Second
	// statusStale is how old a status may be while the store does not answer.
	statusStale = 30 * time.Second

	maxStatuses = 1 << 16
)

// grantStatus is what the verifier knows of a grant.
type grantStatus struct {
	// revoked never changes back.
	revoked bool
	// accessRevoked only grows.
	accessRevoked uint32
	lastUsed      stamp
	// read is when the store was asked.
	read time.Time
}

// status returns the live status of a grant (SECURITY §6).
func (g *Grants) status(ctx context.Context, id grantID) (grantStatus, error) {
	now := g.cfg.Now()
	known, ok := g.statuses.get(id)
	if ok && (known.revoked || now.Sub(known.read) < statusFresh) {
		return known, nil
	}
	fresh, err := g.readStatus(ctx, id, now)
	if err == nil {
		return g.statuses.merge(id, fresh), nil
	}
	// A revocation may have been noted meanwhile.
	if known, ok = g.statuses.get(id); ok && (known.revoked || now.Sub(known.read) < statusStale) {
		return known, nil
	}
	return grantStatus{}, err
}

func (g *Grants) readStatus(ctx context.Context, id grantID, now time.Time) (grantStatus, error) {
	backend, err := g.open()
	if err != nil {
		return grantStatus{}, err
	}
	raw, err := store.GetCached(ctx, backend.store, id.key(), statusShared)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrUnreadable):
		return grantStatus{revoked: true, read: now}, nil
	case err != nil:
		return grantStatus{}, storeTrouble(err)
	}
	r, err := decodeGrant(raw)
	if err != nil {
		return grantStatus{}, storeTrouble(err)
	}
	return statusOf(r, now), nil
}

func statusOf(r *grantRecord, now time.Time) grantStatus {
	return grantStatus{revoked: r.revoked, accessRevoked: r.accessRevoked, lastUsed: r.lastUsed, read: now}
}

// statusCache is a bounded map of statuses.
type statusCache struct {
	m *boundedMap[grantID, grantStatus]
}

func newStatusCache(size int) *statusCache {
	return &statusCache{newBoundedMap[grantID, grantStatus](size)}
}

func (c *statusCache) get(id grantID) (grantStatus, bool) { return c.m.get(id) }

// merge stores the status and returns what is stored: a reader that was slow
// does not undo what became known meanwhile.
func (c *statusCache) merge(id grantID, s grantStatus) grantStatus {
	return c.m.update(id, func(old grantStatus, ok bool) grantStatus {
		if ok {
			s.revoked = s.revoked || old.revoked
			s.accessRevoked = max(s.accessRevoked, old.accessRevoked)
			s.lastUsed = max(s.lastUsed, old.lastUsed)
			if old.read.After(s.read) {
				s.read = old.read
			}
		}
		return s
	})
}

// refresh is merge for a grant whose status is asked for at times, and nothing
// for others: most grants rest.
func (c *statusCache) refresh(id grantID, s grantStatus) {
	if _, ok := c.get(id); ok || s.accessRevoked > 0 {
		c.merge(id, s)
	}
}

// revoke notes that the grant is over, at once.
func (c *statusCache) revoke(id grantID, now time.Time) {
	c.merge(id, grantStatus{revoked: true, read: now})
}

// boundedMap is a map with an upper bound on its entries. A full part of it
// drops an arbitrary entry for a new one, which costs a read of the store and
// nothing else.
type boundedMap[K comparable, V any] struct {
	seed  maphash.Seed
	parts [32]boundedPart[K, V]
	most  int
}

type boundedPart[K comparable, V any] struct {
	mu sync.RWMutex
	m  map[K]V
}

func newBoundedMap[K comparable, V any](size int) *boundedMap[K, V] {
	m := &boundedMap[K, V]{seed: maphash.MakeSeed()}
	m.most = max(1, size/len(m.parts))
	return m
}

func (m *boundedMap[K, V]) part(key K) *boundedPart[K, V] {
	return &m.parts[maphash.Comparable(m.seed, key)%uint64(len(m.parts))]
}

func (m *boundedMap[K, V]) get(key K) (V, bool) {
	p := m.part(key)
	p.mu.RLock()
	defer p.mu.RUnlock()
	value, ok := p.m[key]
	return value, ok
}

// update stores what fn makes of the value, and returns it.
func (m *boundedMap[K, V]) update(key K, fn func(old V, ok bool) V) V {
	p := m.part(key)
	p.mu.Lock()
	defer p.mu.Unlock()
	old, ok := p.m[key]
	if !ok && len(p.m) >= m.most {
		for other := range p.m {
			delete(p.m, other)
			break
		}
	}
	if p.m == nil {
		p.m = make(map[K]V)
	}
	value := fn(old, ok)
	p.m[key] = value
	return value
}
