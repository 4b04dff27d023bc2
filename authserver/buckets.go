package authserver

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// bucketKey names a counter. It has a fixed size whatever the caller sends.
type bucketKey struct {
	endpoint string // one of the path constants
	network  netip.Addr
	client   [32]byte // SHA-256 of the client id
	// perClient tells the counter of the empty client id from that of the
	// whole address.
	perClient bool
}

// bucketSet is a bounded set of token buckets. When it is full, the one that
// was used least recently is forgotten.
type bucketSet struct {
	capacity int

	mu      sync.Mutex
	entries map[bucketKey]*list.Element // values are *bucket
	recent  list.List                   // front: used last
}

type bucket struct {
	key     bucketKey
	limiter *rate.Limiter
}

func newBucketSet(capacity int) *bucketSet {
	return &bucketSet{capacity: capacity, entries: make(map[bucketKey]*list.Element)}
}

// get returns the bucket for the key, a full one if it is new.
func (s *bucketSet) get(key bucketKey, limit RateLimit) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if element, ok := s.entries[key]; ok {
		s.recent.MoveToFront(element)
		return element.Value.(*bucket).limiter
	}
	if s.recent.Len() >= s.capacity {
		oldest := s.recent.Back()
		delete(s.entries, s.recent.Remove(oldest).(*bucket).key)
	}
	perSecond := rate.Limit(float64(limit.Count) / limit.Window.Seconds())
	b := &bucket{key: key, limiter: rate.NewLimiter(perSecond, limit.Count)}
	s.entries[key] = s.recent.PushFront(b)
	return b.limiter
}

// take takes one token out of the bucket for the key.
func (s *bucketSet) take(key bucketKey, limit RateLimit, now time.Time) quota {
	b := s.get(key, limit)
	ok := b.AllowN(now, 1)
	q := quotaOf(b, limit, now)
	q.exceeded = !ok
	return q
}
