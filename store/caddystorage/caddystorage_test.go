package caddystorage_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"

	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/caddystorage"
	"github.com/caddy-mcp/mcpauth/store/storetest"
)

func TestMain(m *testing.M) {
	storetest.CrashMain(openAt)
	// certmagic's file lock leaves a goroutine behind that ends within five seconds
	// of the lock's release.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

func openAt(dir string) (store.Store, error) {
	return caddystorage.New(caddystorage.Options{Storage: &certmagic.FileStorage{Path: dir}})
}

func mustOpen(t testing.TB, o caddystorage.Options) *caddystorage.Store {
	t.Helper()
	s, err := caddystorage.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	at := func(dir string) store.Store {
		return mustOpen(t, caddystorage.Options{Storage: &certmagic.FileStorage{Path: dir}})
	}
	storetest.Run(t, func(t *testing.T) store.Store { return at(t.TempDir()) }, storetest.Options{
		Slow: true,
		Persistent: func(t *testing.T) func() store.Store {
			dir := t.TempDir()
			return func() store.Store { return at(dir) }
		},
	})
}

// TestTwoProcesses: two stores over one storage, as two Caddys have, exclude
// each other by the storage's lock.
func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	stores := []store.Store{
		mustOpen(t, caddystorage.Options{Storage: &certmagic.FileStorage{Path: dir}}),
		mustOpen(t, caddystorage.Options{Storage: &certmagic.FileStorage{Path: dir}}),
	}
	done := make(chan error)
	for _, s := range stores {
		go func() {
			var err error
			for range 20 {
				if err == nil {
					err = s.Update(context.Background(), "count", func(old []byte) ([]byte, time.Duration, error) { return append(old, '.'), 0, nil })
				}
			}
			done <- err
		}()
	}
	for range stores {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got, err := stores[0].Get(t.Context(), "count"); err != nil || len(got) != 40 {
		t.Errorf("40 updates left %d, %v", len(got), err)
	}
	for _, s := range stores {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestWaits: who waits for a lock stops when the context ends, and leaves
// nothing locked.
func TestWaits(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	s := mustOpen(t, caddystorage.Options{Storage: storage})
	defer s.Close()
	for name, fn := range map[string]func(context.Context) error{
		"the storage's": func(ctx context.Context) error {
			// The name of the lock is the hash of "a", as the record's file.
			const lock = "mcp_auth/ca/ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
			if err := storage.Lock(t.Context(), lock); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = storage.Unlock(t.Context(), lock) }()
			return s.Put(ctx, "a", nil, 0)
		},
		"our own": func(ctx context.Context) (err error) {
			// What no caller may do, calling the store from the function, holds the lock here.
			e := s.Update(t.Context(), "a", func([]byte) ([]byte, time.Duration, error) {
				err = s.Put(ctx, "a", nil, 0)
				return nil, 0, nil
			})
			return errors.Join(err, e)
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := fn(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s lock: %v", name, err)
		}
		cancel()
		if err := s.Put(t.Context(), "a", []byte("1"), 0); err != nil {
			t.Errorf("%s lock, later: %v", name, err)
		}
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, caddystorage.Options{Storage: &certmagic.FileStorage{Path: dir}, SweepInterval: 10 * time.Millisecond})
	for key, ttl := range map[string]time.Duration{"short 1": time.Millisecond, "short 2": 50 * time.Millisecond, "long": time.Hour, "none": 0} {
		if err := s.Put(t.Context(), key, []byte("x"), ttl); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); len(files(t, dir)) != 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left: %q", files(t, dir))
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFiles: foreign, damaged and newer files are told apart.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, caddystorage.Options{Storage: &certmagic.FileStorage{Path: dir}})
	defer s.Close()
	if err := s.Put(t.Context(), "a", []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, files(t, dir)[0])
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), ".half-written"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Scan(t.Context(), "", func(string, []byte) error { return nil }); err != nil {
		t.Errorf("Scan beside a file of another kind: %v", err)
	}
	for _, row := range []struct{ name, content, says string }{
		{"one byte", "\x01", "is damaged"},
		{"empty", "", "is damaged"},
		{"cut off in its key", string(good[:11]), "is damaged"},
		{"a newer version", "\x02" + string(good[1:]), "newer version"},
		{"under another's name", strings.Replace(string(good), "\x00\x01a", "\x00\x01b", 1), "does not hold the record"},
	} {
		if err := os.WriteFile(file, []byte(row.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	if _, err := caddystorage.New(caddystorage.Options{}); err == nil {
		t.Error("a store without a storage opens")
	}
}

// TestKilled: what was acknowledged survives kill -9. The writer's locks stay
// behind; the next writer removes them when they are stale.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	// The lock files of a killed process hold for ten seconds; the test does not wait.
	open := func(dir string) (store.Store, error) {
		if err := os.RemoveAll(filepath.Join(dir, "locks")); err != nil {
			return nil, err
		}
		return openAt(dir)
	}
	storetest.Crash(t, dir, open, nil)
}

func BenchmarkStore(b *testing.B) {
	s := mustOpen(b, caddystorage.Options{Storage: &certmagic.FileStorage{Path: b.TempDir()}})
	defer s.Close()
	storetest.Benchmark(b, s)
}

// files returns the records' files below dir.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), "mcp_auth", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
