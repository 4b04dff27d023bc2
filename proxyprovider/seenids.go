package proxyprovider

import (
	"container/list"
	"crypto/sha256"
	"sync"
)

// maxSeenIDs is how many upstream client ids are remembered.
const maxSeenIDs = 1024

type digest = [sha256.Size]byte

// seenIDs remembers for which metadata the upstream gave out a client id, the
// most recent ones. It begins empty with each process: an upstream that shares
// one id shows it with the second registration, and its id, always the most
// recent, is never forgotten.
type seenIDs struct {
	limit int

	mu    sync.Mutex
	order *list.List // of seenID, the most recent first
	byID  map[digest]*list.Element
}

type seenID struct{ id, metadata digest }

func newSeenIDs(limit int) *seenIDs {
	return &seenIDs{limit: limit, order: list.New(), byID: make(map[digest]*list.Element)}
}

// add remembers that id was given for the metadata. It reports false if it was
// given for other metadata before.
func (s *seenIDs) add(id, metadata digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[id]; e != nil {
		s.order.MoveToFront(e)
		return e.Value.(seenID).metadata == metadata //nolint:forcetypeassert // we put it there
	}
	s.byID[id] = s.order.PushFront(seenID{id, metadata})
	if s.order.Len() > s.limit {
		oldest := s.order.Remove(s.order.Back()).(seenID) //nolint:forcetypeassert // we put it there
		delete(s.byID, oldest.id)
	}
	return true
}
