package bolt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/bolt"
	"github.com/caddy-mcp/mcpauth/store/storetest"
)

func TestMain(m *testing.M) {
	storetest.CrashMain(openAt)
	hold()
	goleak.VerifyTestMain(m)
}

func openAt(path string) (store.Store, error) {
	return bolt.Open(context.Background(), bolt.Options{Path: path})
}

func mustOpen(t testing.TB, o bolt.Options) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	open := func(t *testing.T) store.Store {
		return mustOpen(t, bolt.Options{Path: filepath.Join(t.TempDir(), "grants.db")})
	}
	storetest.Run(t, open, storetest.Options{Persistent: func(t *testing.T) func() store.Store {
		path := filepath.Join(t.TempDir(), "grants.db")
		return func() store.Store { return mustOpen(t, bolt.Options{Path: path}) }
	}})
}

// TestKilled: what was acknowledged survives kill -9.
func TestKilled(t *testing.T) {
	storetest.Crash(t, filepath.Join(t.TempDir(), "grants.db"), openAt, nil)
}

// TestFile: nobody else on the machine may read it.
func TestFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	path := filepath.Join(dir, "grants.db")
	s := mustOpen(t, bolt.Options{Path: path})
	defer s.Close()
	for name, want := range map[string]os.FileMode{path: 0o600, dir: 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), want)
		}
	}
	if _, err := bolt.Open(t.Context(), bolt.Options{}); err == nil {
		t.Error("a store without a path opens")
	}
	if _, err := bolt.Open(t.Context(), bolt.Options{Path: dir}); err == nil || errors.Is(err, bolt.ErrDamaged) {
		t.Errorf("a folder as the file: %v", err)
	}
}

// TestHeld: a second store waits for the first, then says who holds the file.
func TestHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grants.db")
	s := mustOpen(t, bolt.Options{Path: path})
	start := time.Now()
	_, err := bolt.Open(t.Context(), bolt.Options{Path: path, OpenTimeout: 300 * time.Millisecond})
	if !errors.Is(err, bolt.ErrHeld) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "this process") {
		t.Errorf("a held file: %v", err)
	}
	if waited := time.Since(start); waited < 300*time.Millisecond || waited > 5*time.Second {
		t.Errorf("it waited %v", waited)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := bolt.Open(ctx, bolt.Options{Path: path}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a held file and a context that ends: %v", err)
	}

	opened := make(chan error)
	go func() {
		second, err := bolt.Open(context.Background(), bolt.Options{Path: path})
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	time.Sleep(50 * time.Millisecond) // so that it is most likely waiting
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("a file that is let go: %v", err)
	}
}

// holdEnv holds the file that a process which TestHolder starts is to hold.
const holdEnv = "BOLT_TEST_HOLD"

// hold holds the file until standard input ends, in that process.
func hold() {
	path := os.Getenv(holdEnv)
	if path == "" {
		return
	}
	if _, err := openAt(path); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// TestHolder: the process that holds the file is named.
func TestHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grants.db")
	child := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test again
	child.Env = append(os.Environ(), holdEnv+"="+path)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	want := "a second Caddy"
	if runtime.GOOS == "linux" {
		want = fmt.Sprintf("process %d (bolt.test)", child.Process.Pid)
	}
	_, err = bolt.Open(t.Context(), bolt.Options{Path: path, OpenTimeout: time.Millisecond})
	if !errors.Is(err, bolt.ErrHeld) || !strings.Contains(err.Error(), want) {
		t.Errorf("Open: %v, want it to say %q", err, want)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	s := mustOpen(t, bolt.Options{Path: path})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestDamaged: a file that is no database is an error that says so, never a
// panic, and is left as it is.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "good.db")
	s := mustOpen(t, bolt.Options{Path: path})
	for i := range 500 {
		if i%100 != 0 {
			continue
		}
		if err := s.Put(t.Context(), fmt.Sprint("key/", i), make([]byte, 20<<10), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pageSize, used := os.Getpagesize(), 0
	change(t, path, func(tx *bbolt.Tx) error { used = int(tx.Size()); return nil })
	rows := map[string][]byte{
		"text":                      []byte(strings.Repeat("this is not a database\n", 1000)),
		"a few bytes":               []byte("x"),
		"cut off after the headers": good[:2*pageSize],
		"cut off in the middle":     good[:6*pageSize],
		"cut off before its end":    good[:used-pageSize],
		"both headers gone":         append(make([]byte, 2*pageSize), good[2*pageSize:]...),
		"all else gone":             append(append([]byte{}, good[:2*pageSize]...), make([]byte, len(good)-2*pageSize)...),
	}
	for name, content := range rows {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "_"))
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time shows that the lock was let go
				_, err := bolt.Open(t.Context(), bolt.Options{Path: path, OpenTimeout: time.Second})
				if !errors.Is(err, bolt.ErrDamaged) || !strings.Contains(err.Error(), path) {
					t.Fatalf("Open: %v", err)
				}
			}
			if left, err := os.ReadFile(path); err != nil || string(left) != string(content) {
				t.Error("the file was changed")
			}
		})
	}

	t.Run("of another program", func(t *testing.T) {
		path := filepath.Join(dir, "other.db")
		change(t, path, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
		if _, err := bolt.Open(t.Context(), bolt.Options{Path: path}); !errors.Is(err, bolt.ErrDamaged) {
			t.Errorf("Open: %v", err)
		}
	})
	t.Run("of a newer version", func(t *testing.T) {
		path := filepath.Join(dir, "newer.db")
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		change(t, path, func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte{0, 0, 0, 2})
		})
		if _, err := bolt.Open(t.Context(), bolt.Options{Path: path}); err == nil || !strings.Contains(err.Error(), "newer version") {
			t.Errorf("Open: %v", err)
		}
	})
}

// TestSweep: records that are over leave the file, also those whose time was
// changed, and no others.
func TestSweep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grants.db")
	now := time.Now()
	clock := make(chan time.Time, 1)
	clock <- now
	set := func(to time.Time) { <-clock; clock <- to }
	s := mustOpen(t, bolt.Options{Path: path, SweepInterval: 5 * time.Millisecond, Now: func() time.Time {
		now := <-clock
		clock <- now
		return now
	}})
	put := func(key string, ttl time.Duration) {
		t.Helper()
		if err := s.Put(t.Context(), key, []byte("x"), ttl); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 300 { // more than a batch
		put(fmt.Sprint("short/", i), time.Minute)
	}
	put("lengthened", time.Minute)
	put("lengthened", 3*time.Minute)
	put("shortened", time.Hour)
	put("shortened", time.Minute)
	put("kept", time.Minute)
	put("kept", 0)
	put("none", 0)
	put("deleted", time.Minute)
	if err := s.Delete(t.Context(), "deleted"); err != nil {
		t.Fatal(err)
	}

	wait := func(at time.Time, left int) {
		t.Helper()
		set(at)
		deadline := time.Now().Add(10 * time.Second)
		for bolt.Count(s) != left {
			if time.Now().After(deadline) {
				t.Fatalf("%d records and index entries are left, want %d", bolt.Count(s), left)
			}
			time.Sleep(time.Millisecond)
		}
	}
	wait(now.Add(2*time.Minute), 3+1) // lengthened with its entry, kept, none
	wait(now.Add(4*time.Minute), 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCancelled: who stops waiting leaves nothing half done.
func TestCancelled(t *testing.T) {
	s := mustOpen(t, bolt.Options{Path: filepath.Join(t.TempDir(), "grants.db")})
	defer s.Close()
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
		value := []byte("whole")
		err := s.Put(ctx, "a", value, 0)
		copy(value, "XXXXX")
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), "a"); err == nil && string(got) != "whole" {
			t.Fatalf("the value is %q", got)
		}
	}
}

func change(t *testing.T, path string, fn func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
}
