//go:build unix

package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/redis"
	"github.com/caddy-mcp/mcpauth/store/storetest"
)

func TestMain(m *testing.M) {
	storetest.CrashMain(openAt)
	// A client that could not connect leaves a goroutine behind that ends within a
	// second.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

func openAt(address string) (store.Store, error) {
	return redis.Open(context.Background(), redis.Options{Addresses: []string{address}})
}

func mustOpen(t testing.TB, o redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	server := storetest.StartRedis(t)
	var count atomic.Int64
	// An odd prefix, so that a pattern that is not escaped finds the wrong keys.
	fresh := func() redis.Options {
		return redis.Options{Addresses: []string{server.Address}, Prefix: fmt.Sprintf(`p[%d]*?\`, count.Add(1))}
	}
	open := func(t *testing.T) store.Store { return mustOpen(t, fresh()) }
	storetest.Run(t, open, storetest.Options{Persistent: func(t *testing.T) func() store.Store {
		o := fresh()
		return func() store.Store { return mustOpen(t, o) }
	}})
}

// TestKilled: what was acknowledged survives kill -9 of the writer and of a
// server that syncs each write.
func TestKilled(t *testing.T) {
	server := storetest.StartRedis(t)
	storetest.Crash(t, server.Address, func(address string) (store.Store, error) {
		server.Start()
		return openAt(address)
	}, server.Kill)
}

// TestSeparate: databases and prefixes do not see each other.
func TestSeparate(t *testing.T) {
	server := storetest.StartRedis(t)
	stores := map[string]*redis.Store{
		"":            mustOpen(t, redis.Options{Addresses: []string{server.Address}}),
		"other":       mustOpen(t, redis.Options{Addresses: []string{server.Address}, Prefix: "other"}),
		"database":    mustOpen(t, redis.Options{Addresses: []string{server.Address}, Database: 1}),
		"by URL":      mustOpen(t, redis.Options{Addresses: []string{"redis://" + server.Address + "/2"}}),
		"URL, prefix": mustOpen(t, redis.Options{Addresses: []string{"redis://" + server.Address}, Prefix: "third"}),
	}
	for name, s := range stores {
		if err := s.Put(t.Context(), "a", []byte(name), 0); err != nil {
			t.Fatal(err)
		}
	}
	for name, s := range stores {
		if got, err := s.Get(t.Context(), "a"); err != nil || string(got) != name {
			t.Errorf("%q reads %q, %v", name, got, err)
		}
	}
}

func TestSignIn(t *testing.T) {
	server := storetest.StartRedis(t, "--requirepass", "for-the-default-user",
		"--user", "mcp", "on", ">secret", "~mcpauth:*", "resetchannels", "-@all",
		"+get", "+set", "+del", "+getdel", "+scan", "+eval", "+evalsha", "+pttl", "+client", "+hello", "+multi", "+exec", "+ping")
	address := []string{server.Address}
	rows := []struct {
		name string
		o    redis.Options
		ok   bool
	}{
		{"the user", redis.Options{Addresses: address, Username: "mcp", Password: "secret"}, true},
		{"the user, in a URL", redis.Options{Addresses: []string{"redis://mcp:secret@" + server.Address}}, true},
		{"the default user", redis.Options{Addresses: address, Password: "for-the-default-user"}, true},
		{"nobody", redis.Options{Addresses: address}, false},
		{"a wrong password", redis.Options{Addresses: address, Username: "mcp", Password: "wrong-secret"}, false},
		{"a prefix that is not the user's", redis.Options{Addresses: address, Username: "mcp", Password: "secret", Prefix: "theirs"}, false},
		{"TLS with a server that has none", redis.Options{Addresses: []string{"rediss://mcp:secret@" + server.Address}}, false},
		{"no address", redis.Options{}, false},
		{"a broken URL", redis.Options{Addresses: []string{"redis://mcp:secret@host:port:port"}}, false},
		{"another scheme", redis.Options{Addresses: []string{"http://mcp:secret@" + server.Address}}, false},
		{"a URL among others", redis.Options{Addresses: []string{"redis://" + server.Address, "localhost"}}, false},
		{"a name with a path", redis.Options{Addresses: []string{"localhost/0"}}, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s, err := redis.Open(t.Context(), row.o)
			if (err == nil) != row.ok {
				t.Fatalf("Open: %v", err)
			}
			if err != nil {
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("the error tells the password: %v", err)
				}
				return
			}
			defer s.Close()
			// All that the package comment says such a user needs is enough.
			if err := s.Put(t.Context(), "a", []byte("1"), time.Hour); err != nil {
				t.Error(err)
			}
			if err := s.Update(t.Context(), "a", func(old []byte) ([]byte, time.Duration, error) { return append(old, '2'), time.Hour, nil }); err != nil {
				t.Error(err)
			}
			if err := s.Scan(t.Context(), "", func(string, []byte) error { return nil }); err != nil {
				t.Error(err)
			}
			if got, err := s.GetCached(t.Context(), "a", time.Second); err != nil || string(got) != "12" {
				t.Errorf("GetCached = %q, %v", got, err)
			}
			if _, err := s.Take(t.Context(), "a"); err != nil {
				t.Error(err)
			}
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRestart: while the server is gone, operations fail soon; when it is back,
// they work without further ado.
func TestRestart(t *testing.T) {
	server := storetest.StartRedis(t)
	s := mustOpen(t, redis.Options{Addresses: []string{server.Address}})
	if err := s.Put(t.Context(), "a", []byte("1"), time.Hour); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	start := time.Now()
	if _, err := s.Get(t.Context(), "a"); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get without a server: %v", err)
	}
	if err := s.Put(t.Context(), "a", []byte("2"), time.Hour); err == nil {
		t.Error("Put without a server succeeds")
	}
	if err := s.Update(t.Context(), "a", func([]byte) ([]byte, time.Duration, error) { return nil, 0, nil }); err == nil {
		t.Error("Update without a server succeeds")
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v to fail three times", took)
	}
	server.Start()
	if got, err := s.Get(t.Context(), "a"); err != nil || string(got) != "1" {
		t.Errorf("Get after the restart = %q, %v", got, err)
	}
	if err := s.Put(t.Context(), "a", []byte("3"), time.Hour); err != nil {
		t.Errorf("Put after the restart: %v", err)
	}
}

// TestGetCached: answers come from the cache until the server announces a
// change, and a lost connection empties the cache.
func TestGetCached(t *testing.T) {
	const age = 5 * time.Minute
	server := storetest.StartRedis(t)
	here := mustOpen(t, redis.Options{Addresses: []string{server.Address}})
	there := mustOpen(t, redis.Options{Addresses: []string{server.Address}})
	read := func(want string) {
		t.Helper()
		got, err := here.GetCached(t.Context(), "a", age)
		if want == "" && !errors.Is(err, store.ErrNotFound) || want != "" && err != nil || string(got) != want {
			t.Fatalf("GetCached = %q, %v, want %q", got, err, want)
		}
	}
	within := func(limit time.Duration, want string) {
		t.Helper()
		for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if got, err := here.GetCached(t.Context(), "a", age); string(got) == want && (err == nil || want == "") {
				return
			}
		}
		read(want)
	}
	change := func(s store.Store, to string) {
		t.Helper()
		if err := s.Put(t.Context(), "a", []byte(to), time.Hour); err != nil {
			t.Fatal(err)
		}
	}

	read("")
	change(there, "1")
	within(2*time.Second, "1")
	for i := range 200 { // our own changes show at once
		change(here, fmt.Sprint("own ", i))
		read(fmt.Sprint("own ", i))
	}
	if err := here.Update(t.Context(), "a", func([]byte) ([]byte, time.Duration, error) { return []byte("updated"), time.Hour, nil }); err != nil {
		t.Fatal(err)
	}
	read("updated")
	if _, err := here.Take(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	read("")

	// That it is a cache: the server is stopped, the answer comes all the same.
	change(there, "2")
	within(2*time.Second, "2")
	time.Sleep(2100 * time.Millisecond) // until our own writes are forgotten
	read("2")
	server.Pause()
	read("2")
	server.Resume()
	if err := there.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	within(2*time.Second, "")

	// The connection is lost: what is cached is not used any more.
	change(there, "3")
	within(2*time.Second, "3")
	server.Kill()
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := here.GetCached(t.Context(), "a", age); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the cache answers without a server")
		}
	}
	server.Start()
	change(there, "4")
	read("4")
}

// TestSilent: a server that accepts and never answers does not hang anybody.
func TestSilent(t *testing.T) {
	server := storetest.StartRedis(t)
	s := mustOpen(t, redis.Options{Addresses: []string{server.Address}, Timeout: 300 * time.Millisecond})
	server.Pause()
	defer server.Resume()
	start := time.Now()
	if err := s.Put(t.Context(), "a", []byte("1"), 0); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Put: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get with a context of its own: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func BenchmarkStore(b *testing.B) {
	server := storetest.StartRedis(b, "--appendfsync", "everysec")
	storetest.Benchmark(b, mustOpen(b, redis.Options{Addresses: []string{server.Address}}))
}
