package memory

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// arena keeps records outside of the Go heap, where the platform has a way to.
// The garbage collector lets as much garbage come together as there is live data
// in the heap, so that what lies there for weeks takes twice its size. GOMEMLIMIT
// does not count what is outside.
//
// The zero value is empty. Who has a shard's lock has its arena.
type arena struct {
	chunks [][]byte
	rest   []byte          // of the last chunk of chunkSize, not given out yet
	free   map[int][]*byte // slots that were dropped, by size
}

const (
	// chunkSize is what is asked of the system at a time. What is not written to
	// yet takes no memory.
	chunkSize = 256 << 10
	// largeSlot is from what size on a slot has a chunk of its own.
	largeSlot = chunkSize / 4
)

// slot is a record in an arena: expiry (8 bytes, see package expiry), length of
// the key (4), length of the value (4), key, value. It is one word, since there
// is a map full of them.
type slot struct{ at *byte }

const slotHeader = 16

// sizeOf is the size of the slot: one of a few, up to an eighth more than what
// is needed, so that others fit in when it is free.
func sizeOf(key, value int) int {
	need := slotHeader + key + value
	unit := max(16, 1<<(bits.Len(uint(need))-4)) //nolint:gosec // positive
	return (need + unit - 1) / unit * unit
}

// put makes a slot.
func (a *arena) put(key string, value []byte, expiry int64) slot {
	size := sizeOf(len(key), len(value))
	s := slot{a.take(size)}
	b := s.bytes(size)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(key))) //nolint:gosec // bounded by store.CheckKey
	copy(b[slotHeader:], key)
	s.set(value, expiry)
	return s
}

func (a *arena) take(size int) *byte {
	if n := len(a.free[size]); n > 0 {
		at := a.free[size][n-1]
		a.free[size] = a.free[size][:n-1]
		return at
	}
	if size >= largeSlot {
		a.chunks = append(a.chunks, newChunk(size))
		return &a.chunks[len(a.chunks)-1][0]
	}
	if len(a.rest) < size {
		a.rest = newChunk(chunkSize)
		a.chunks = append(a.chunks, a.rest)
	}
	at := &a.rest[0]
	a.rest = a.rest[size:]
	return at
}

// drop frees a slot: nobody may use it, or strings that it gave, after that.
func (a *arena) drop(s slot) {
	if a.free == nil {
		a.free = make(map[int][]*byte)
	}
	size := s.size()
	a.free[size] = append(a.free[size], s.at)
}

// close gives all memory back.
func (a *arena) close() {
	for _, chunk := range a.chunks {
		freeChunk(chunk)
	}
	*a = arena{}
}

func (s slot) bytes(n int) []byte { return unsafe.Slice(s.at, n) } //nolint:gosec // as long as the slot was made

func (s slot) header() (expiry int64, key, value int) {
	b := s.bytes(slotHeader)
	return int64(binary.LittleEndian.Uint64(b)), int(binary.LittleEndian.Uint32(b[8:])), int(binary.LittleEndian.Uint32(b[12:])) //nolint:gosec // milliseconds
}

func (s slot) expiry() int64 {
	at, _, _ := s.header()
	return at
}

func (s slot) size() int {
	_, key, value := s.header()
	return sizeOf(key, value)
}

// key lies in the slot.
func (s slot) key() string {
	_, key, _ := s.header()
	return unsafe.String(&s.bytes(slotHeader + key)[slotHeader], key) //nolint:gosec // it is used while the slot is
}

// value lies in the slot.
func (s slot) value() []byte {
	_, key, value := s.header()
	return s.bytes(slotHeader + key + value)[slotHeader+key:]
}

// set replaces the value by one for which there is room.
func (s slot) set(value []byte, expiry int64) {
	_, key, _ := s.header()
	b := s.bytes(slotHeader + key + len(value))
	binary.LittleEndian.PutUint64(b, uint64(expiry))          //nolint:gosec // not negative
	binary.LittleEndian.PutUint32(b[12:], uint32(len(value))) //nolint:gosec // bounded by store.CheckValue
	copy(b[slotHeader+key:], value)
}
