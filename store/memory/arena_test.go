package memory_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/memory"
)

// TestArena writes, changes and deletes at random, with values of all lengths,
// and compares with a map: no record may lie in another's slot. Room that is
// free is used again.
func TestArena(t *testing.T) {
	s := memory.New(memory.Options{})
	defer s.Close()
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that repeats itself
	want := map[string][]byte{}
	var written uint64
	for i := range 60_000 {
		name := fmt.Sprint("key/", random.IntN(500))
		value := bytes.Repeat([]byte{byte(i)}, length(random))
		var err error
		switch random.IntN(4) {
		case 0:
			err = s.Delete(t.Context(), name)
			delete(want, name)
		case 1:
			_, err = s.Take(t.Context(), name)
			if _, there := want[name]; !there && errors.Is(err, store.ErrNotFound) {
				err = nil
			}
			delete(want, name)
		case 2:
			err = s.Update(t.Context(), name, func([]byte) ([]byte, time.Duration, error) { return value, 0, nil })
			want[name] = value
		default:
			err = s.Put(t.Context(), name, value, time.Hour)
			want[name] = value
		}
		if err != nil {
			t.Fatal(err)
		}
		written += uint64(len(value))
	}
	got := map[string][]byte{}
	if err := s.Scan(t.Context(), "", func(key string, value []byte) error { got[key] = value; return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if taken := memory.OutsideHeap(s); taken > written/4 {
		t.Errorf("%d bytes are taken after %d were written: free ones are not used again", taken, written)
	}
}

// length is mostly of few kinds, as records are, and seldom the longest.
func length(random *rand.Rand) int {
	if random.IntN(2000) == 0 {
		return store.MaxValue
	}
	return random.IntN(40) * random.IntN(40)
}
