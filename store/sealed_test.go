package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/seal"
	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/memory"
	"github.com/caddy-mcp/mcpauth/store/storetest"
)

const issuer = "https://mcp.example.com"

func ringOf(t testing.TB, keys ...seal.Key) *seal.Ring {
	t.Helper()
	ring, err := seal.NewRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func sealed(t testing.TB, inner store.Store, issuer string, keys ...seal.Key) *store.SealedStore {
	t.Helper()
	s, err := store.Sealed(inner, store.SealedOptions{Ring: ringOf(t, keys...), Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func backend(t testing.TB) *memory.Store {
	t.Helper()
	s := memory.New(memory.Options{})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t *testing.T, s store.Store, key, value string) {
	t.Helper()
	if err := s.Put(t.Context(), key, []byte(value), time.Hour); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s store.Store, key string) []byte {
	t.Helper()
	value, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestSealedStore(t *testing.T) {
	open := func(t *testing.T) store.Store { return sealed(t, backend(t), issuer, seal.GenerateKey()) }
	storetest.Run(t, open, storetest.Options{
		MaxKey: store.SealedMaxKey, MaxValue: store.SealedMaxValue,
		Persistent: func(t *testing.T) func() store.Store {
			inner, key := backend(t), seal.GenerateKey()
			return func() store.Store { return sealed(t, inner, issuer, key) }
		},
	})
}

// TestSealedForm: what the backend sees tells neither the issuer nor the value,
// and is different each time.
func TestSealedForm(t *testing.T) {
	inner := backend(t)
	s := sealed(t, inner, issuer, seal.GenerateKey())
	sum := sha256.Sum256([]byte(issuer))
	full := hex.EncodeToString(sum[:])[:16] + "/grant/1"
	var seen [][]byte
	for range 2 {
		put(t, s, "grant/1", "a secret token")
		raw := get(t, inner, full)
		if bytes.Contains(raw, []byte("secret")) || bytes.Contains(raw, []byte("example")) {
			t.Errorf("the backend sees %q", raw)
		}
		if raw[0] != 1 {
			t.Errorf("the format is %d, want 1", raw[0])
		}
		seen = append(seen, raw)
	}
	if bytes.Equal(seen[0], seen[1]) {
		t.Error("sealed twice, the value looks the same")
	}
}

// TestSealedApart: issuers over one backend do not see each other, whatever they
// do.
func TestSealedApart(t *testing.T) {
	inner, key := backend(t), seal.GenerateKey()
	a, b := sealed(t, inner, issuer, key), sealed(t, inner, issuer+"/other", key)
	put(t, a, "x", "of a")
	if _, err := b.Get(t.Context(), "x"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the other issuer's Get: %v", err)
	}
	put(t, b, "x", "of b")
	if err := b.Scan(t.Context(), "", func(key string, value []byte) error {
		if key != "x" || string(value) != "of b" {
			t.Errorf("the other issuer sees %q = %q", key, value)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := b.Delete(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, a, "x"); string(got) != "of a" {
		t.Errorf("after the other issuer's Delete and Close: %q", got)
	}
}

// raw returns the only record of the backend.
func raw(t *testing.T, inner store.Store) (key string, value []byte) {
	t.Helper()
	if err := inner.Scan(t.Context(), "", func(k string, v []byte) error { key, value = k, v; return nil }); err != nil {
		t.Fatal(err)
	}
	return key, value
}

// TestUnreadable: a value that does not open is never taken for an absent one,
// and nothing that reads it destroys it.
func TestUnreadable(t *testing.T) {
	oldKey, newKey := seal.GenerateKey(), seal.GenerateKey()
	rows := []struct {
		name string
		// change returns what lies under the key instead of value.
		change func(t *testing.T, value []byte) []byte
		want   error
		says   string
	}{
		{"the key is missing", func(t *testing.T, _ []byte) []byte {
			inner := backend(t)
			put(t, sealed(t, inner, issuer, oldKey), "a", "x")
			_, value := raw(t, inner)
			return value
		}, store.ErrUnreadable, "encryption_key"},
		{"from another record", func(t *testing.T, _ []byte) []byte {
			inner := backend(t)
			put(t, sealed(t, inner, issuer, newKey), "b", "x")
			_, value := raw(t, inner)
			return value
		}, store.ErrUnreadable, "encryption_key"},
		{"from another issuer", func(t *testing.T, _ []byte) []byte {
			inner := backend(t)
			put(t, sealed(t, inner, "https://other.example.com", newKey), "a", "x")
			_, value := raw(t, inner)
			return value
		}, store.ErrUnreadable, "altered"},
		{"a bit flipped", func(_ *testing.T, value []byte) []byte { value[len(value)-1] ^= 1; return value }, store.ErrUnreadable, "altered"},
		{"cut off", func(_ *testing.T, value []byte) []byte { return value[:len(value)-1] }, store.ErrUnreadable, "altered"},
		{"empty", func(*testing.T, []byte) []byte { return []byte{} }, store.ErrUnreadable, "altered"},
		{"not sealed", func(*testing.T, []byte) []byte { return []byte("\x01plain") }, store.ErrUnreadable, "altered"},
		{"a newer version", func(_ *testing.T, value []byte) []byte { value[0] = 2; return value }, store.ErrNewer, "update this node"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			inner := backend(t)
			s := sealed(t, inner, issuer, newKey)
			put(t, s, "a", "value")
			full, value := raw(t, inner)
			changed := row.change(t, value)
			put(t, inner, full, string(changed))
			put(t, s, "good", "good")

			ran := false
			_, errGet := s.Get(t.Context(), "a")
			_, errCached := s.GetCached(t.Context(), "a", time.Second)
			_, errTake := s.Take(t.Context(), "a")
			errUpdate := s.Update(t.Context(), "a", func([]byte) ([]byte, time.Duration, error) { ran = true; return nil, 0, nil })
			var seen []string
			errScan := s.Scan(t.Context(), "", func(key string, _ []byte) error { seen = append(seen, key); return nil })
			for name, err := range map[string]error{"Get": errGet, "GetCached": errCached, "Take": errTake, "Update": errUpdate, "Scan": errScan} {
				if !errors.Is(err, row.want) || errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), row.says) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if ran {
				t.Error("Update ran its function")
			}
			if len(seen) != 1 || seen[0] != "good" {
				t.Errorf("Scan shows %q, want the readable one", seen)
			}
			if got := get(t, inner, full); !bytes.Equal(got, changed) {
				t.Error("the value was changed")
			}
			put(t, s, "a", "new")
			if got := get(t, s, "a"); string(got) != "new" {
				t.Errorf("after Put: %q", got)
			}
			put(t, inner, full, string(changed))
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Errorf("Delete: %v", err)
			}
		})
	}
}

// TestSealedRotation: an old key opens, the first one seals.
func TestSealedRotation(t *testing.T) {
	oldKey, newKey := seal.GenerateKey(), seal.GenerateKey()
	inner := backend(t)
	put(t, sealed(t, inner, issuer, oldKey), "a", "value")
	during, after := sealed(t, inner, issuer, newKey, oldKey), sealed(t, inner, issuer, newKey)
	if got := get(t, during, "a"); string(got) != "value" {
		t.Errorf("with both keys: %q", got)
	}
	if _, err := after.Get(t.Context(), "a"); !errors.Is(err, store.ErrUnreadable) {
		t.Errorf("reading has sealed it anew: %v", err)
	}
	if err := during.Update(t.Context(), "a", func(old []byte) ([]byte, time.Duration, error) { return old, time.Hour, nil }); err != nil {
		t.Fatal(err)
	}
	if got := get(t, after, "a"); string(got) != "value" {
		t.Errorf("after a write, with the new key alone: %q", got)
	}
}

// TestSealedExpiry: somebody who can write to the backend cannot bring an old
// record back for long, and a clock that is a little ahead ends nothing early.
func TestSealedExpiry(t *testing.T) {
	inner := backend(t)
	now := time.Unix(2_000_000_000, 0)
	s, err := store.Sealed(inner, store.SealedOptions{
		Ring: ringOf(t, seal.GenerateKey()), Issuer: issuer, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a", []byte("x"), time.Minute); err != nil {
		t.Fatal(err)
	}
	full, value := raw(t, inner)
	if err := inner.Put(t.Context(), full, value, 0); err != nil {
		t.Fatal(err)
	}
	now = now.Add(30 * time.Minute)
	if _, err := s.Get(t.Context(), "a"); err != nil {
		t.Errorf("half an hour ahead: %v", err)
	}
	now = now.Add(2 * time.Hour)
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("hours later: %v", err)
	}
	if err := s.Scan(t.Context(), "", func(string, []byte) error { t.Error("Scan shows it"); return nil }); err != nil {
		t.Error(err)
	}
	if err := s.Update(t.Context(), "a", func(old []byte) ([]byte, time.Duration, error) {
		if old != nil {
			t.Errorf("Update sees %q", old)
		}
		return []byte("new"), time.Minute, nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, "a"); string(got) != "new" {
		t.Errorf("after Update: %q", got)
	}
}

func TestSealedOptions(t *testing.T) {
	ring := ringOf(t, seal.GenerateKey())
	if _, err := store.Sealed(nil, store.SealedOptions{Ring: ring, Issuer: issuer}); err == nil {
		t.Error("no store is accepted")
	}
	if _, err := store.Sealed(backend(t), store.SealedOptions{Issuer: issuer}); err == nil {
		t.Error("no ring is accepted")
	}
	if _, err := store.Sealed(backend(t), store.SealedOptions{Ring: ring}); err == nil {
		t.Error("no issuer is accepted")
	}
}

// watched is a backend with a cache that is always stale.
type watched struct{ store.Store }

func (watched) GetCached(context.Context, string, time.Duration) ([]byte, error) {
	return nil, store.ErrNotFound
}

func TestGetCached(t *testing.T) {
	inner := backend(t)
	put(t, inner, "a", "fresh")
	if got, err := store.GetCached(t.Context(), inner, "a", time.Second); err != nil || string(got) != "fresh" {
		t.Errorf("of a store without a cache = %q, %v", got, err)
	}
	if _, err := store.GetCached(t.Context(), watched{inner}, "a", time.Second); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of a store with a cache: %v", err)
	}
	if got, err := store.GetCached(t.Context(), watched{inner}, "a", 0); err != nil || string(got) != "fresh" {
		t.Errorf("with no age allowed = %q, %v", got, err)
	}
	s := sealed(t, watched{inner}, issuer, seal.GenerateKey())
	put(t, s, "a", "fresh")
	if _, err := store.GetCached(t.Context(), s, "a", time.Second); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of a sealed store over one with a cache: %v", err)
	}
}

func BenchmarkSealed(b *testing.B) {
	storetest.Benchmark(b, sealed(b, backend(b), issuer, seal.GenerateKey()))
}
