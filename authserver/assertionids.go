package authserver

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// Bounds of the memory for used assertions.
const (
	maxAssertionIDs       = 32 << 10
	maxAssertionIDsClient = 2 << 10
)

// assertionIDs remembers the jti of assertions until they expire, so that none
// is accepted twice (RFC 7523 §3). Only assertions with a valid signature get
// here. When it is full the oldest is forgotten; one client alone cannot fill it.
type assertionIDs struct {
	mu      sync.Mutex
	entries map[[32]byte]*list.Element // values are assertionID
	order   list.List                  // front: added last
	clients map[[32]byte]int
}

type assertionID struct {
	key, client [32]byte
	until       time.Time
}

func newAssertionIDs() *assertionIDs {
	return &assertionIDs{entries: make(map[[32]byte]*list.Element), clients: make(map[[32]byte]int)}
}

// add reports whether the assertion is new. full tells that the client has too
// many that have not expired.
func (s *assertionIDs) add(clientID, jti string, until, now time.Time) (fresh, full bool) {
	id := assertionID{client: sha256.Sum256([]byte(clientID)), until: until}
	own := sha256.Sum256([]byte(jti))
	id.key = sha256.Sum256(append(id.client[:], own[:]...))
	s.mu.Lock()
	defer s.mu.Unlock()
	// They are valid for at most minutes, so the oldest expire about first.
	for e := s.order.Back(); e != nil && !now.Before(e.Value.(assertionID).until); e = s.order.Back() {
		s.drop(e)
	}
	if e, ok := s.entries[id.key]; ok {
		if now.Before(e.Value.(assertionID).until) {
			return false, false
		}
		s.drop(e)
	}
	if s.clients[id.client] >= maxAssertionIDsClient {
		return false, true
	}
	if s.order.Len() >= maxAssertionIDs {
		s.drop(s.order.Back())
	}
	s.entries[id.key] = s.order.PushFront(id)
	s.clients[id.client]++
	return true, false
}

// drop forgets an entry; s.mu is held.
func (s *assertionIDs) drop(e *list.Element) {
	id := s.order.Remove(e).(assertionID)
	delete(s.entries, id.key)
	if s.clients[id.client]--; s.clients[id.client] == 0 {
		delete(s.clients, id.client)
	}
}
