package storetest

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
)

// race lets n goroutines go at once.
func race(n int, fn func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() { <-start; fn(i) })
	}
	close(start)
	wg.Wait()
}

func increment(old []byte) ([]byte, time.Duration, error) {
	n, _ := strconv.Atoi(string(old))
	return strconv.AppendInt(nil, int64(n)+1, 10), 0, nil
}

func races(t *testing.T, s store.Store, racers int) {
	rounds := 5
	if racers < 64 {
		rounds = 2
	}
	for round := range rounds {
		key := func(name string) string { return fmt.Sprint(name, "/", round) }

		// Take: exactly one gets it.
		put(t, s, key("take"), "prize", time.Hour)
		var winners, losers atomic.Int64
		race(racers, func(int) {
			switch got, err := s.Take(t.Context(), key("take")); {
			case err == nil && string(got) == "prize":
				winners.Add(1)
			case errors.Is(err, store.ErrNotFound):
				losers.Add(1)
			default:
				t.Errorf("Take = %q, %v", got, err)
			}
		})
		if winners.Load() != 1 || losers.Load() != int64(racers)-1 {
			t.Errorf("Take: %d got it, %d did not", winners.Load(), losers.Load())
		}

		// Create if absent: exactly one creates.
		taken := errors.New("there already")
		var created atomic.Int64
		var winner atomic.Value
		race(racers, func(i int) {
			mine := strconv.Itoa(i)
			err := s.Update(t.Context(), key("create"), func(old []byte) ([]byte, time.Duration, error) {
				if old != nil {
					return nil, 0, taken
				}
				return []byte(mine), time.Hour, nil
			})
			switch {
			case err == nil:
				created.Add(1)
				winner.Store(mine)
			case err != taken: //nolint:errorlint // as it is
				t.Errorf("create if absent: %v", err)
			}
		})
		if created.Load() != 1 {
			t.Fatalf("%d created the record", created.Load())
		}
		present(t, s, key("create"), winner.Load().(string))

		// Count: no increment is lost, none counts twice.
		race(racers, func(int) {
			if err := s.Update(t.Context(), key("count"), increment); err != nil {
				t.Errorf("increment: %v", err)
			}
		})
		present(t, s, key("count"), strconv.Itoa(racers))

		// A change of what exists: exactly one turns it from unused to used.
		put(t, s, key("redeem"), "unused", time.Hour)
		var redeemed atomic.Int64
		race(racers, func(int) {
			err := s.Update(t.Context(), key("redeem"), func(old []byte) ([]byte, time.Duration, error) {
				if string(old) != "unused" {
					return nil, 0, taken
				}
				return []byte("used"), time.Hour, nil
			})
			if err == nil {
				redeemed.Add(1)
			}
		})
		if redeemed.Load() != 1 {
			t.Errorf("%d redeemed it", redeemed.Load())
		}

		// Everything against everything: increments that are not lost to a Put are
		// all there, and what Take got is gone from the record.
		var added, got atomic.Int64
		race(racers, func(i int) {
			if i%4 == 0 {
				if value, err := s.Take(t.Context(), key("mixed")); err == nil {
					n, _ := strconv.ParseInt(string(value), 10, 64)
					got.Add(n)
				}
				return
			}
			if err := s.Update(t.Context(), key("mixed"), increment); err != nil {
				t.Errorf("increment beside Take: %v", err)
				return
			}
			added.Add(1)
		})
		if value, err := s.Get(t.Context(), key("mixed")); err == nil {
			n, _ := strconv.ParseInt(string(value), 10, 64)
			got.Add(n)
		}
		if added.Load() != got.Load() {
			t.Errorf("%d increments, of which %d were found", added.Load(), got.Load())
		}

		// Put against Update: an Update that was computed from an older value must
		// not overwrite what Put has stored.
		put(t, s, key("put"), "0", 0)
		race(racers, func(i int) {
			if i == racers/2 {
				if err := s.Put(t.Context(), key("put"), []byte("1000"), 0); err != nil {
					t.Errorf("Put beside increments: %v", err)
				}
				return
			}
			if err := s.Update(t.Context(), key("put"), increment); err != nil {
				t.Errorf("increment beside Put: %v", err)
			}
		})
		value, err := s.Get(t.Context(), key("put"))
		if n, _ := strconv.Atoi(string(value)); err != nil || n < 1000 || n > 1000+racers {
			t.Errorf("the value that was put is lost: %q, %v", value, err)
		}
	}
}

func closing(t *testing.T, open func(t *testing.T) store.Store, racers int) {
	s := open(t)
	put(t, s, "a", "1", 0)
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	for name, err := range call(t.Context(), s, "a") {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if err := s.Close(); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Close after Close: %v", err)
	}

	// Close in the middle of work, by two at once.
	s = open(t)
	var closed atomic.Int64
	begun := make(chan struct{})
	var once sync.Once
	race(racers, func(i int) {
		if i < 2 {
			<-begun
			switch err := s.Close(); {
			case err == nil:
				closed.Add(1)
			case !errors.Is(err, store.ErrClosed):
				t.Errorf("Close: %v", err)
			}
			return
		}
		key := fmt.Sprint("key ", i%5)
		for n := 0; ; n++ {
			over := true
			for name, err := range call(t.Context(), s, key) {
				switch {
				case err == nil, errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrConflict):
					over = false
				case !errors.Is(err, store.ErrClosed):
					t.Errorf("%s beside Close: %v", name, err)
				}
			}
			if n == 2 {
				once.Do(func() { close(begun) })
			}
			if over {
				return
			}
		}
	})
	if closed.Load() != 1 {
		t.Errorf("%d calls of Close succeeded", closed.Load())
	}
}
