package proxyprovider

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
)

// lease is a hold on something that one node at a time may do.
type lease struct {
	g      *Grants
	key    string
	holder string
}

// takeLease takes the lease of that name for ttl, nil if somebody else has it.
// The store ends it by its own clock, so those of the nodes need not agree. Who
// may still write after that keeps a fencing number where it writes.
func (g *Grants) takeLease(ctx context.Context, name string, ttl time.Duration) (*lease, error) {
	backend, err := g.open()
	if err != nil {
		return nil, err
	}
	var holder [12]byte
	if err := g.random(holder[:]); err != nil {
		return nil, err
	}
	l := &lease{g: g, key: leasePrefix + name, holder: hex.EncodeToString(holder[:])}
	err = backend.store.Update(ctx, l.key, func(old []byte) ([]byte, time.Duration, error) {
		if old != nil {
			return nil, 0, errChanged
		}
		return []byte(l.holder), ttl, nil
	})
	switch {
	case errors.Is(err, errChanged):
		return nil, nil
	case err != nil:
		return nil, storeTrouble(err)
	}
	return l, nil
}

// release gives the lease back if it is still held.
func (l *lease) release() {
	backend, err := l.g.open()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	err = backend.store.Update(ctx, l.key, func(old []byte) ([]byte, time.Duration, error) {
		if string(old) != l.holder {
			return nil, 0, errChanged
		}
		return nil, 0, nil
	})
	if err != nil && !errors.Is(err, errChanged) && !errors.Is(err, store.ErrClosed) {
		l.g.cfg.Logger.Warn("a lease is left to expire", "error", err)
	}
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
