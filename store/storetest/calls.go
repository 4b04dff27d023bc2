package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
)

func put(t *testing.T, s store.Store, key, value string, ttl time.Duration) {
	t.Helper()
	if err := s.Put(t.Context(), key, []byte(value), ttl); err != nil {
		t.Fatalf("Put %q: %v", key, err)
	}
}

func mustUpdate(t *testing.T, s store.Store, key string, fn store.UpdateFunc) {
	t.Helper()
	if err := s.Update(t.Context(), key, fn); err != nil {
		t.Fatalf("Update %q: %v", key, err)
	}
}

func present(t *testing.T, s store.Store, key, want string) {
	t.Helper()
	if got, err := s.Get(t.Context(), key); err != nil || string(got) != want {
		t.Errorf("Get %q = %q, %v, want %q", key, got, err, want)
	}
}

func absent(t *testing.T, s store.Store, key string) {
	t.Helper()
	if got, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) || got != nil {
		t.Errorf("Get %q = %q, %v, want ErrNotFound", key, got, err)
	}
}

// scanned returns the keys under the prefix, sorted, and fails on one that
// comes twice.
func scanned(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	var keys []string
	seen := make(map[string]bool)
	if err := s.Scan(t.Context(), prefix, func(key string, _ []byte) error {
		if seen[key] {
			t.Errorf("Scan shows %q twice", key)
		}
		seen[key] = true
		keys = append(keys, key)
		return nil
	}); err != nil {
		t.Errorf("Scan %q: %v", prefix, err)
	}
	return sorted(keys)
}

// call calls every method but Close and returns the errors by name.
func call(ctx context.Context, s store.Store, key string) map[string]error {
	errs := make(map[string]error)
	_, errs["Get"] = s.Get(ctx, key)
	errs["Put"] = s.Put(ctx, key, []byte("put"), 0)
	errs["Update"] = s.Update(ctx, key, func([]byte) ([]byte, time.Duration, error) { return []byte("updated"), 0, nil })
	_, errs["Take"] = s.Take(ctx, key)
	errs["Delete"] = s.Delete(ctx, key)
	errs["Scan"] = s.Scan(ctx, key, func(string, []byte) error { return nil })
	if w, ok := s.(store.Watcher); ok {
		_, errs["GetCached"] = w.GetCached(ctx, key, time.Second)
	}
	return errs
}

// each calls fn for all keys, some at a time.
func each(keys []string, fn func(key string) error, t *testing.T) {
	t.Helper()
	var wg sync.WaitGroup
	next := make(chan string)
	for range 32 {
		wg.Go(func() {
			for key := range next {
				if err := fn(key); err != nil {
					t.Errorf("%q: %v", key, err)
				}
			}
		})
	}
	for _, key := range keys {
		next <- key
	}
	close(next)
	wg.Wait()
}
