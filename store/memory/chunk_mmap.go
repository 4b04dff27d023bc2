//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package memory

import "syscall"

// newChunk asks the system for zeroed memory, and the heap if there is none.
func newChunk(size int) []byte {
	chunk, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, size)
	}
	return chunk
}

// freeChunk gives back a chunk. One of the heap is unknown to Munmap, which then
// does nothing.
func freeChunk(chunk []byte) { _ = syscall.Munmap(chunk) }
