package bolt

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/caddy-mcp/mcpauth/store/internal/expiry"
)

// sweepBatch is how many index entries one transaction handles, few enough not
// to delay those who wait for theirs.
const sweepBatch = 128

func (s *Store) sweepEvery(interval time.Duration) {
	defer close(s.swept)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
			for s.sweep(ctx) {
				select {
				case <-s.stop:
					return
				default:
				}
			}
		}
	}
}

// sweep deletes some of what is expired and reports whether there is more. An
// error, of a full disk say, is met by whoever writes next; here it ends the
// round.
func (s *Store) sweep(ctx context.Context) (more bool) {
	due := 0
	if err := s.view(func(r records) error { due = len(r.due(s.now())); return nil }); err != nil || due == 0 {
		return false
	}
	err := s.writer.do(ctx, 0, func(r records) (bool, error) {
		now := s.now()
		keys := r.due(now)
		for _, entry := range keys {
			if err := r.sweep(entry, now); err != nil {
				return false, err
			}
		}
		return len(keys) > 0, nil
	})
	return err == nil && due == sweepBatch
}

// due returns copies of the first index entries whose time has come.
func (r records) due(now time.Time) (entries [][]byte) {
	c := r.index().Cursor()
	for k, _ := c.First(); k != nil && len(entries) < sweepBatch; k, _ = c.Next() {
		if len(k) < 8 {
			panic("an index entry is too short")
		}
		if !expiry.Over(int64(binary.BigEndian.Uint64(k)), now) { //nolint:gosec // milliseconds
			break
		}
		entries = append(entries, append([]byte{}, k...))
	}
	return entries
}

// sweep deletes the record of an index entry, or moves the entry to where the
// record's expiry is by now.
func (r records) sweep(entry []byte, now time.Time) error {
	if err := r.index().Delete(entry); err != nil {
		return err
	}
	key := string(entry[8:])
	raw := r.records.Get([]byte(key))
	if raw == nil {
		return nil
	}
	at, value := header(raw)
	if expiry.Over(at, now) {
		return r.records.Delete([]byte(key))
	}
	if at != 0 {
		if err := r.index().Put(indexKey(at, key), nil); err != nil {
			return err
		}
	}
	return r.write(key, newRaw(value), at, at)
}
