package memory_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/memory"
	"github.com/caddy-mcp/mcpauth/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(*testing.T) store.Store { return memory.New(memory.Options{}) }

func TestStore(t *testing.T) { storetest.Run(t, open, storetest.Options{}) }

func BenchmarkStore(b *testing.B) {
	s := memory.New(memory.Options{})
	defer s.Close()
	storetest.Benchmark(b, s)
}

// TestMemory holds how much a record costs: what 100 000 grants take is part of
// what the documentation promises.
func TestMemory(t *testing.T) {
	const count, size, most = 100_000, 1 << 10, 300
	s := memory.New(memory.Options{})
	defer s.Close()
	before := held(s)
	value := make([]byte, size)
	for i := range count {
		if err := s.Put(t.Context(), key(i), value, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	overhead := (int64(held(s))-int64(before))/count - size
	t.Logf("%d bytes a record besides its value, %d of them its key", overhead, len(key(0)))
	if overhead > most {
		t.Errorf("%d bytes a record besides its value, want at most %d", overhead, most)
	}
	runtime.KeepAlive(s)
}

// TestSweep shows that expired records are freed though nobody asks for them,
// and the map's room with them.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Options{SweepInterval: time.Minute})
		before := held(s)
		for i := range 20_000 {
			if err := s.Put(t.Context(), key(i), make([]byte, 100), time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Put(t.Context(), "stays", []byte("x"), 2*time.Hour); err != nil {
			t.Fatal(err)
		}
		full := held(s) - before
		time.Sleep(time.Hour + time.Minute)
		synctest.Wait()
		if left := int64(held(s)) - int64(before); left > int64(full)/20 {
			t.Errorf("%d of %d bytes are still held", left, full)
		}
		if _, err := s.Get(t.Context(), "stays"); err != nil {
			t.Errorf("a record that is not over: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestClock shows the exact moment at which a record is over.
func TestClock(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	s := memory.New(memory.Options{Now: func() time.Time { return now }})
	defer s.Close()
	if err := s.Put(t.Context(), "a", []byte("x"), time.Minute); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute - time.Millisecond)
	if _, err := s.Get(t.Context(), "a"); err != nil {
		t.Errorf("a millisecond early: %v", err)
	}
	now = now.Add(time.Millisecond)
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("at its end: %v", err)
	}
}

func key(i int) string { return fmt.Sprintf("0123456789abcdef/grant/%032d", i) }

// held is what is in the heap and in the arenas.
func held(s *memory.Store) uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + memory.OutsideHeap(s)
}
