// Package bolt is a store in one file of this machine, a bbolt database. It is
// the default: nothing to install, and nothing is lost.
//
// A call that writes returns when its transaction is on disk (fdatasync): what
// was acknowledged survives kill -9, and a power failure as far as the disk
// keeps what it was told to. Calls that come at the same time share one
// transaction, so that many clients cost little more than one.
//
// One process can have the file open. Another waits for it, see Open.
package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/internal/cas"
	"github.com/caddy-mcp/mcpauth/store/internal/expiry"
)

// Store is a store.Store. Make one with Open.
type Store struct {
	db     *bbolt.DB
	path   string
	now    func() time.Time
	writer *writer
	closed atomic.Bool
	stop   chan struct{}
	swept  chan struct{} // closed when the sweeper has ended
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, key); err != nil {
		return nil, err
	}
	value, err := s.read(key)
	if err == nil && value == nil {
		err = store.ErrNotFound
	}
	return value, err
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	if err := store.CheckValue(value); err != nil {
		return err
	}
	if ttl < 0 {
		return s.Delete(ctx, key)
	}
	raw := newRaw(value) // the caller may leave early, with its context
	return s.writer.do(ctx, len(raw), func(r records) (bool, error) {
		return true, r.put(key, raw, expiry.At(s.now(), ttl))
	})
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	return cas.Update(ctx, one{s, key}, fn)
}

// Take implements store.Store.
func (s *Store) Take(ctx context.Context, key string) ([]byte, error) {
	if _, err := s.Get(ctx, key); err != nil { // not worth a transaction
		return nil, err
	}
	var taken []byte
	err := s.writer.do(ctx, 0, func(r records) (bool, error) {
		if taken = r.live(key, s.now()); taken == nil {
			return false, nil
		}
		return true, r.delete(key)
	})
	if err != nil {
		return nil, err
	}
	if taken == nil {
		return nil, store.ErrNotFound
	}
	return taken, nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	_, err := s.Get(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotFound): // or expired: the sweeper's
		return nil
	case err != nil:
		return err
	}
	return s.writer.do(ctx, 0, func(r records) (bool, error) { return true, r.delete(key) })
}

// page is how many records Scan reads in one transaction: a long one would keep
// the pages that are freed meanwhile from being used again.
const page = 256

// Scan implements store.Store. It reads the keys with the prefix, no others.
func (s *Store) Scan(ctx context.Context, prefix string, fn func(key string, value []byte) error) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if err := store.CheckPrefix(prefix); err != nil {
		return err
	}
	type found struct {
		key   string
		value []byte
	}
	next, more := []byte(prefix), true
	for more {
		batch := make([]found, 0, page)
		now := s.now()
		err := s.view(func(r records) error {
			c := r.records.Cursor()
			k, raw := c.Seek(next)
			for ; k != nil && strings.HasPrefix(string(k), prefix); k, raw = c.Next() {
				if len(batch) == page {
					next = bytes.Clone(k)
					return nil
				}
				if at, value := header(raw); !expiry.Over(at, now) {
					batch = append(batch, found{string(k), append([]byte{}, value...)})
				}
			}
			more = false
			return nil
		})
		if err != nil {
			return err
		}
		for _, f := range batch {
			if err := s.alive(ctx); err != nil {
				return err
			}
			if err := fn(f.key, f.value); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// Close implements store.Store.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return store.ErrClosed
	}
	close(s.stop)
	<-s.swept
	s.writer.close()
	return s.db.Close() // waits for readers
}

// begin checks what every operation on a key checks first.
func (s *Store) begin(ctx context.Context, key string) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	return store.CheckKey(key)
}

func (s *Store) alive(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return ctx.Err()
}

// read returns a copy of the value, nil if there is none.
func (s *Store) read(key string) (value []byte, err error) {
	err = s.view(func(r records) error { value = r.live(key, s.now()); return nil })
	return value, err
}

func (s *Store) view(fn func(records) error) error {
	return s.guard(func() error { return s.db.View(func(tx *bbolt.Tx) error { return fn(in(tx)) }) })
}

// errUnchanged rolls back a transaction in which nothing was written, which
// saves the fsync.
var errUnchanged = errors.New("unchanged")

// update runs fn in a transaction that writes. An errUnchanged of fn is no
// error.
func (s *Store) update(fn func(*bbolt.Tx) error) error {
	err := s.guard(func() error { return s.db.Update(fn) })
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// guard turns what bbolt says of a closed or damaged file into our errors. A
// damaged page makes it panic; the transaction is rolled back all the same.
func (s *Store) guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = damaged(s.path, fmt.Errorf("%v", p))
		}
	}()
	err = fn()
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return store.ErrClosed
	}
	return err
}

// one is a cas.Record.
type one struct {
	s   *Store
	key string
}

func (o one) Read(context.Context) ([]byte, error) { return o.s.read(o.key) }

func (o one) Swap(ctx context.Context, old, value []byte, ttl time.Duration) ([]byte, bool, error) {
	// Not results: the write may go on when the caller has left.
	var current []byte
	var swapped bool
	raw := newRaw(value) // see Put
	err := o.s.writer.do(ctx, len(raw), func(r records) (bool, error) {
		now := o.s.now()
		found := r.peek(o.key, now)
		switch swapped = (found == nil) == (old == nil) && bytes.Equal(found, old); {
		case !swapped:
			current = bytes.Clone(found)
			return false, nil
		case value == nil:
			return true, r.delete(o.key)
		}
		return true, r.put(o.key, raw, expiry.At(now, ttl))
	})
	if err != nil {
		return nil, false, err
	}
	return current, swapped, nil
}

var (
	recordsBucket = []byte("records")
	expiryBucket  = []byte("expiry")
	metaBucket    = []byte("meta")
)

// records is the file within one transaction.
//
// A record is its expiry (8 bytes, big endian, see package expiry), the expiry
// under which the index holds it (8 bytes, 0 if it does not) and the value. The
// index has expiry ‖ key as keys. A record that lives longer than the index says
// is moved there when the index comes to it, so that a lease or an idle time
// that is extended all the time costs one page a write and not three.
type records struct {
	records *bbolt.Bucket
	tx      *bbolt.Tx
}

const headerSize = 16

func in(tx *bbolt.Tx) records {
	return records{tx.Bucket(recordsBucket), tx}
}

// index is opened when it is needed: to read a record it is not.
func (r records) index() *bbolt.Bucket { return r.tx.Bucket(expiryBucket) }

// header splits what is stored. The value must not outlive the transaction.
func header(raw []byte) (at int64, value []byte) {
	if len(raw) < headerSize {
		panic("a record is too short")
	}
	return int64(binary.BigEndian.Uint64(raw)), raw[headerSize:] //nolint:gosec // milliseconds
}

func indexed(raw []byte) int64 {
	if raw == nil {
		return 0
	}
	return int64(binary.BigEndian.Uint64(raw[8:])) //nolint:gosec // milliseconds
}

func indexKey(at int64, key string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(at)), key...) //nolint:gosec // not negative
}

// live returns a copy of the value, not nil, or nil if there is none.
func (r records) live(key string, now time.Time) []byte { return bytes.Clone(r.peek(key, now)) }

// peek is live without the copy: it must not outlive the transaction.
func (r records) peek(key string, now time.Time) []byte {
	raw := r.records.Get([]byte(key))
	if raw == nil {
		return nil
	}
	at, value := header(raw)
	if expiry.Over(at, now) {
		return nil
	}
	return value
}

// newRaw copies a value to where its header is put before it.
func newRaw(value []byte) []byte {
	return append(make([]byte, headerSize, headerSize+len(value)), value...)
}

// put takes what newRaw returned, and keeps it until the transaction ends.
func (r records) put(key string, raw []byte, at int64) error {
	listed := indexed(r.records.Get([]byte(key)))
	if at != 0 && (listed == 0 || at < listed) {
		if listed != 0 {
			if err := r.index().Delete(indexKey(listed, key)); err != nil {
				return err
			}
		}
		if err := r.index().Put(indexKey(at, key), nil); err != nil {
			return err
		}
		listed = at
	}
	return r.write(key, raw, at, listed)
}

func (r records) write(key string, raw []byte, at, listed int64) error {
	binary.BigEndian.PutUint64(raw, uint64(at))         //nolint:gosec // not negative
	binary.BigEndian.PutUint64(raw[8:], uint64(listed)) //nolint:gosec // not negative
	return r.records.Put([]byte(key), raw)
}

func (r records) delete(key string) error {
	if listed := indexed(r.records.Get([]byte(key))); listed != 0 {
		if err := r.index().Delete(indexKey(listed, key)); err != nil {
			return err
		}
	}
	return r.records.Delete([]byte(key))
}

var _ store.Store = (*Store)(nil)
