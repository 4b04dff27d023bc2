// Package cas makes Store.Update out of a read and a compare-and-swap.
package cas

import (
	"bytes"
	"context"
	"math/rand/v2"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
)

const (
	// tries is enough for the last of 64 that race for one key, with room.
	tries = 256
	// patient is after how many lost tries the next one waits a little.
	patient = 8
	// longest is the longest of these waits.
	longest = 8 * time.Millisecond
)

// Record is one key of a backend.
type Record interface {
	// Read returns the value, nil if there is none.
	Read(ctx context.Context) ([]byte, error)
	// Swap replaces old, nil for none, by value, nil to delete it, if old is what is
	// there. Otherwise it returns what is there and false.
	Swap(ctx context.Context, old, value []byte, ttl time.Duration) (current []byte, swapped bool, err error)
}

// Update implements store.Store.Update.
func Update(ctx context.Context, r Record, fn store.UpdateFunc) error {
	old, err := r.Read(ctx)
	if err != nil {
		return err
	}
	for try := range tries {
		if try >= patient {
			if err := pause(ctx, try); err != nil {
				return err
			}
		}
		// A copy, because fn may change it in place.
		value, ttl, err := fn(bytes.Clone(old))
		if err != nil {
			return err
		}
		if ttl < 0 {
			value = nil
		}
		if err := store.CheckValue(value); err != nil {
			return err
		}
		if old == nil && value == nil {
			return nil
		}
		current, swapped, err := r.Swap(ctx, old, value, ttl)
		if err != nil || swapped {
			return err
		}
		old = current
	}
	return store.ErrConflict
}

func pause(ctx context.Context, try int) error {
	most := min(longest, 50*time.Microsecond<<min(try-patient, 20))
	timer := time.NewTimer(rand.N(most)) //nolint:gosec // spreads load, keeps no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
