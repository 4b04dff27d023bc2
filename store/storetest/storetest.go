// Package storetest is the suite that every store passes, and what their tests
// share: a writer that is killed, a private redis-server, benchmarks.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/store"
)

// Options says what is special about a store.
type Options struct {
	// Persistent, if not nil, returns a function that opens the same place each
	// time it is called, an empty one at first. Without it nothing is expected to
	// outlive Close.
	Persistent func(t *testing.T) (open func() store.Store)
	// Slow stores are raced by 8 instead of 64.
	Slow bool
	// MaxKey and MaxValue are the limits, store.MaxKey and store.MaxValue by default.
	MaxKey, MaxValue int
}

// Run checks that the stores which open returns, empty ones each, keep the
// contract of store.Store. The suite closes them.
func Run(t *testing.T, open func(t *testing.T) store.Store, o Options) {
	t.Helper()
	if o.MaxKey == 0 {
		o.MaxKey = store.MaxKey
	}
	if o.MaxValue == 0 {
		o.MaxValue = store.MaxValue
	}
	racers := 64
	if o.Slow {
		racers = 8
	}
	fresh := func(t *testing.T) store.Store {
		t.Helper()
		s := open(t)
		t.Cleanup(func() {
			if err := s.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
				t.Errorf("Close: %v", err)
			}
		})
		return s
	}

	t.Run("basics", func(t *testing.T) { basics(t, fresh(t)) })
	t.Run("update", func(t *testing.T) { update(t, fresh(t)) })
	t.Run("copies", func(t *testing.T) { copies(t, fresh(t)) })
	t.Run("limits", func(t *testing.T) { limits(t, fresh(t), o.MaxKey, o.MaxValue) })
	t.Run("keys", func(t *testing.T) { keys(t, fresh(t)) })
	t.Run("ttl", func(t *testing.T) { ttl(t, fresh(t)) })
	t.Run("scan", func(t *testing.T) { scan(t, fresh(t)) })
	t.Run("scan many", func(t *testing.T) { scanMany(t, fresh(t), o.Slow) })
	t.Run("contexts", func(t *testing.T) { contexts(t, fresh(t)) })
	t.Run("races", func(t *testing.T) { races(t, fresh(t), racers) })
	t.Run("close", func(t *testing.T) { closing(t, open, racers) })
	if o.Persistent != nil {
		t.Run("reopen", func(t *testing.T) { reopen(t, o.Persistent(t)) })
	}
}

func basics(t *testing.T, s store.Store) {
	absent(t, s, "a")
	if _, err := s.Take(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Take of an absent key: %v", err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Errorf("Delete of an absent key: %v", err)
	}

	put(t, s, "a", "1", 0)
	put(t, s, "b", "2", time.Hour)
	present(t, s, "a", "1")
	put(t, s, "a", "other, longer", 0)
	present(t, s, "a", "other, longer")
	present(t, s, "b", "2")

	put(t, s, "empty", "", 0)
	if got, err := s.Get(t.Context(), "empty"); err != nil || len(got) != 0 {
		t.Errorf("Get of an empty value = %q, %v", got, err)
	}
	binary := string([]byte{0, 1, '\n', '\r', 0xff, 0xfe, 0})
	put(t, s, "binary", binary, 0)
	present(t, s, "binary", binary)

	if got, err := s.Take(t.Context(), "a"); err != nil || string(got) != "other, longer" {
		t.Errorf("Take = %q, %v", got, err)
	}
	absent(t, s, "a")
	if got, err := s.Take(t.Context(), "empty"); err != nil || len(got) != 0 {
		t.Errorf("Take of an empty value = %q, %v", got, err)
	}
	if err := s.Delete(t.Context(), "b"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	absent(t, s, "b")
	put(t, s, "b", "again", 0)
	present(t, s, "b", "again")
}

func update(t *testing.T, s store.Store) {
	set := func(value []byte, ttl time.Duration) store.UpdateFunc {
		return func([]byte) ([]byte, time.Duration, error) { return value, ttl, nil }
	}
	var saw []byte
	see := func(value []byte) store.UpdateFunc {
		return func(old []byte) ([]byte, time.Duration, error) { saw = old; return value, 0, nil }
	}
	mustUpdate(t, s, "a", see([]byte("1")))
	if saw != nil {
		t.Errorf("an absent value is %q, want nil", saw)
	}
	present(t, s, "a", "1")
	mustUpdate(t, s, "a", see([]byte{}))
	if string(saw) != "1" {
		t.Errorf("the old value is %q", saw)
	}
	mustUpdate(t, s, "a", see([]byte("2")))
	if saw == nil || len(saw) != 0 {
		t.Errorf("an empty value is %#v, want empty and not nil", saw)
	}
	mustUpdate(t, s, "a", see(nil))
	absent(t, s, "a")
	mustUpdate(t, s, "a", see(nil))
	absent(t, s, "a")

	put(t, s, "b", "kept", 0)
	stop := errors.New("stop")
	err := s.Update(t.Context(), "b", func(old []byte) ([]byte, time.Duration, error) { return []byte("lost"), 0, stop })
	if err != stop { //nolint:errorlint // as it is, not wrapped
		t.Errorf("the function's error came back as %v", err)
	}
	present(t, s, "b", "kept")
	mustUpdate(t, s, "b", set([]byte("gone"), -time.Second))
	absent(t, s, "b")

	// A panic in the function leaves nothing locked.
	put(t, s, "c", "1", 0)
	func() {
		defer func() { _ = recover() }()
		_ = s.Update(t.Context(), "c", func([]byte) ([]byte, time.Duration, error) { panic("in the function") })
	}()
	put(t, s, "c", "not locked", 0)
	present(t, s, "c", "not locked")
}

func copies(t *testing.T, s store.Store) {
	value := []byte("value")
	if err := s.Put(t.Context(), "a", value, 0); err != nil {
		t.Fatal(err)
	}
	copy(value, "XXXXX")
	present(t, s, "a", "value")
	got, err := s.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	copy(got, "XXXXX")
	present(t, s, "a", "value")
	if err := s.Scan(t.Context(), "a", func(_ string, value []byte) error { copy(value, "XXXXX"); return nil }); err != nil {
		t.Fatal(err)
	}
	present(t, s, "a", "value")

	// What a function does to the old value counts only if it is returned.
	stop := errors.New("stop")
	if err := s.Update(t.Context(), "a", func(old []byte) ([]byte, time.Duration, error) {
		copy(old, "XXXXX")
		return nil, 0, stop
	}); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	present(t, s, "a", "value")
	var kept []byte
	mustUpdate(t, s, "a", func(old []byte) ([]byte, time.Duration, error) {
		old[0] = 'V'
		kept = old
		return old, 0, nil
	})
	copy(kept, "XXXXX")
	present(t, s, "a", "Value")
}

func limits(t *testing.T, s store.Store, maxKey, maxValue int) {
	longest := strings.Repeat("k", maxKey)
	largest := bytes.Repeat([]byte{0xa5}, maxValue)
	if err := s.Put(t.Context(), longest, largest, time.Hour); err != nil {
		t.Fatalf("the longest key and the largest value: %v", err)
	}
	if got, err := s.Get(t.Context(), longest); err != nil || !bytes.Equal(got, largest) {
		t.Errorf("Get = %d bytes, %v", len(got), err)
	}
	mustUpdate(t, s, longest, func(old []byte) ([]byte, time.Duration, error) { old[0]++; return old, 0, nil })

	big := append(largest, 0)
	if err := s.Put(t.Context(), "a", big, 0); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("Put of a byte more: %v", err)
	}
	if err := s.Update(t.Context(), "a", func([]byte) ([]byte, time.Duration, error) { return big, 0, nil }); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("Update to a byte more: %v", err)
	}
	absent(t, s, "a")

	for _, key := range []string{"", longest + "k", "tab\t", "line\n", "nul\x00", "delete\x7f", "ümlaut", "\xff"} {
		for name, err := range call(t.Context(), s, key) {
			if name == "Scan" && (key == "" || strings.HasPrefix(key, longest)) {
				continue // an empty prefix is all of them; a longer one may be too long or not
			}
			if !errors.Is(err, store.ErrKey) {
				t.Errorf("%s with key %.20q: %v", name, key, err)
			}
		}
	}
	if err := s.Scan(t.Context(), strings.Repeat("k", store.MaxKey+1), func(string, []byte) error { return nil }); !errors.Is(err, store.ErrKey) {
		t.Errorf("Scan with a prefix that is longer than any key: %v", err)
	}
}

// oddKeys are valid keys that some backend could take for something else.
var oddKeys = []string{
	" ", "~", "a b", "a/b", "a/", "/a", "//", ".", "..", "../x", "a/../b", "*", "?", "[a]", "[^a]", `\`, `\*`, "a*", "a?", "{a}", "}{",
	"%00", "%2e", "$1", "'", `"`, "KEY", "key", "a:b", "con", "x.lock", "locks", "-", "--", "0", "nil", "<>|&;", "a,b",
}

func keys(t *testing.T, s store.Store) {
	for _, key := range oddKeys {
		put(t, s, key, "value of "+key, 0)
	}
	for _, key := range oddKeys {
		present(t, s, key, "value of "+key)
	}
	if diff := cmp.Diff(sorted(oddKeys), scanned(t, s, "")); diff != "" {
		t.Errorf("Scan (-want +got):\n%s", diff)
	}
	for i, key := range oddKeys {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		absent(t, s, key)
		for _, other := range oddKeys[i+1:] {
			if _, err := s.Get(t.Context(), other); err != nil {
				t.Fatalf("deleting %q took %q along: %v", key, other, err)
			}
		}
	}
}

func ttl(t *testing.T, s store.Store) {
	const short = 300 * time.Millisecond
	start := time.Now()
	put(t, s, "short", "x", short)
	put(t, s, "long", "x", time.Hour)
	put(t, s, "longest", "x", 1<<63-1)
	put(t, s, "none", "x", 0)
	put(t, s, "shortened", "x", time.Hour)
	put(t, s, "shortened", "x", short)
	put(t, s, "lengthened", "x", short)
	put(t, s, "lengthened", "x", time.Hour)
	put(t, s, "updated", "x", short)
	mustUpdate(t, s, "updated", func(old []byte) ([]byte, time.Duration, error) { return old, time.Hour, nil })
	put(t, s, "freed", "x", short)
	put(t, s, "freed", "x", 0)
	put(t, s, "negative", "x", 0)
	put(t, s, "negative", "y", -time.Second)
	absent(t, s, "negative")
	put(t, s, "tiny", "x", 1)
	if time.Since(start) < short {
		if _, err := s.Get(t.Context(), "short"); err != nil && time.Since(start) < short {
			t.Errorf("gone before its time: %v", err)
		}
	}

	time.Sleep(time.Until(start.Add(2 * short)))
	for deadline := time.Now().Add(1200 * time.Millisecond); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := s.Get(t.Context(), "short"); errors.Is(err, store.ErrNotFound) {
			break
		}
	}
	absent(t, s, "short")
	absent(t, s, "shortened")
	absent(t, s, "tiny")
	if _, err := s.Take(t.Context(), "short"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Take of an expired record: %v", err)
	}
	want := []string{"freed", "lengthened", "long", "longest", "none", "updated"}
	if diff := cmp.Diff(want, scanned(t, s, "")); diff != "" {
		t.Errorf("Scan (-want +got):\n%s", diff)
	}
	mustUpdate(t, s, "shortened", func(old []byte) ([]byte, time.Duration, error) {
		if old != nil {
			t.Errorf("Update sees the expired value %q", old)
		}
		return []byte("new"), 0, nil
	})
	put(t, s, "short", "new", 0)
	present(t, s, "shortened", "new")
	present(t, s, "short", "new")
}

func scan(t *testing.T, s store.Store) {
	all := []string{"a", "a*", "a*b", "a?", "aXb", "a[b]", "ab", `a\`, "b", "g/1", "g/10", "g/2", "g2", "G/1"}
	for _, key := range all {
		put(t, s, key, key, 0)
	}
	for _, prefix := range []string{"", "a", "a*", "a?", "a[", "a[b]", `a\`, "g", "g/", "g/1", "g/10", "g/100", "G", "z", "*", "?", "[", "^", " "} {
		var want []string
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		if diff := cmp.Diff(sorted(want), scanned(t, s, prefix)); diff != "" {
			t.Errorf("prefix %q (-want +got):\n%s", prefix, diff)
		}
	}

	stop := errors.New("stop")
	calls := 0
	err := s.Scan(t.Context(), "", func(string, []byte) error { calls++; return stop })
	if err != stop || calls != 1 { //nolint:errorlint // as it is, not wrapped
		t.Errorf("a function that returns an error: %v after %d calls", err, calls)
	}

	// The function may use the store.
	if err := s.Scan(t.Context(), "a", func(key string, value []byte) error {
		if string(value) != key {
			t.Errorf("%q has the value %q", key, value)
		}
		return s.Delete(t.Context(), key)
	}); err != nil {
		t.Error(err)
	}
	if left := scanned(t, s, "a"); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func scanMany(t *testing.T, s store.Store, slow bool) {
	count := 3000
	if slow {
		count = 100
	}
	want := make([]string, count)
	for i := range want {
		want[i] = fmt.Sprintf("many/%d", i)
	}
	each(want, func(key string) error { return s.Put(t.Context(), key, []byte(key), time.Hour) }, t)
	put(t, s, "other", "x", 0)
	if diff := cmp.Diff(sorted(want), scanned(t, s, "many/")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func contexts(t *testing.T, s store.Store) {
	put(t, s, "a", "1", 0)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range call(cancelled, s, "a") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that is over: %v", name, err)
		}
	}
	present(t, s, "a", "1")
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for name, err := range call(expired, s, "a") {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s with a deadline that is over: %v", name, err)
		}
	}
	midway, cancel := context.WithCancel(t.Context())
	defer cancel()
	put(t, s, "b", "1", 0)
	if err := s.Scan(midway, "", func(string, []byte) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Scan, cancelled in the middle: %v", err)
	}
}

func reopen(t *testing.T, open func() store.Store) {
	s := open()
	put(t, s, "stays", "1", 0)
	put(t, s, "stays a while", "2", time.Hour)
	put(t, s, "short", "3", time.Millisecond)
	put(t, s, "deleted", "4", 0)
	put(t, s, "taken", "5", 0)
	put(t, s, "updated", "6", 0)
	if err := s.Delete(t.Context(), "deleted"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Take(t.Context(), "taken"); err != nil {
		t.Fatal(err)
	}
	mustUpdate(t, s, "updated", func(old []byte) ([]byte, time.Duration, error) { return append(old, '+'), 0, nil })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := s.Get(t.Context(), "short"); errors.Is(err, store.ErrNotFound) {
			break
		}
	}
	present(t, s, "stays", "1")
	present(t, s, "stays a while", "2")
	present(t, s, "updated", "6+")
	want := []string{"stays", "stays a while", "updated"}
	if diff := cmp.Diff(want, scanned(t, s, "")); diff != "" {
		t.Errorf("after opening it again (-want +got):\n%s", diff)
	}
}

func sorted(keys []string) []string {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	return keys
}
