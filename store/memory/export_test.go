package memory

import "runtime"

// OutsideHeap returns how many bytes of the arenas' chunks have been given out.
func OutsideHeap(s *Store) (n uint64) {
	if runtime.GOOS == "windows" { // where chunks are in the heap
		return 0
	}
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.RLock()
		for _, chunk := range h.arena.chunks {
			n += uint64(len(chunk))
		}
		n -= uint64(len(h.arena.rest))
		h.mu.RUnlock()
	}
	return n
}
