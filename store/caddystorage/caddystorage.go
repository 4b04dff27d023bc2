// Package caddystorage is a store in Caddy's storage: the place where Caddy
// keeps certificates, on disk or, by a plugin, in a database that several Caddys
// share. It needs no other server, and it is slow.
//
// It is as good as the storage. Every change takes the storage's lock on its
// key, so Update and Take are exact as long as that lock is: certmagic says that
// a storage's locks may fail when a node is cut off or stands still for long,
// and asks not to use them where there is much contention. With the default, the
// file system, a change takes some file operations; one that another process has
// locked is tried again each second; and the lock of a process that was killed
// is honoured for ten seconds. What was acknowledged survives kill -9 if the
// storage writes files as a whole, as the file system does; it does not
// necessarily sync them, so a power failure may cost the last seconds.
package caddystorage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/internal/expiry"
)

// Options configures New. Only Storage is required.
type Options struct {
	// Storage holds the records. It stays its owner's: Close leaves it alone.
	Storage certmagic.Storage
	// Folder is the storage key under which the records lie; "mcp_auth" by default.
	Folder string
	// SweepInterval is how often expired records are deleted, for which all are
	// read; an hour by default.
	SweepInterval time.Duration
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// Store is a store.Store. Make one with New.
type Store struct {
	storage certmagic.Storage
	folder  string
	now     func() time.Time
	locks   locks
	closed  atomic.Bool
	cancel  context.CancelFunc
	swept   chan struct{} // closed when the sweeper has ended
}

// New returns a store. It does not touch the storage yet, and owns a goroutine
// until it is closed.
func New(o Options) (*Store, error) {
	if o.Storage == nil {
		return nil, errors.New("caddystorage: a storage is required")
	}
	if o.Folder == "" {
		o.Folder = "mcp_auth"
	}
	if o.SweepInterval <= 0 {
		o.SweepInterval = time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{storage: o.Storage, folder: o.Folder, now: o.Now, cancel: cancel, swept: make(chan struct{})}
	go s.sweepEvery(ctx, o.SweepInterval)
	return s, nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, key); err != nil {
		return nil, err
	}
	value, err := s.read(ctx, key)
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
	// Locked, because an Update that has read the old value would overwrite this.
	return s.locked(ctx, s.file(key), func() error { return s.write(ctx, key, value, ttl) })
}

// Update implements store.Store. It never returns ErrConflict.
func (s *Store) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	return s.locked(ctx, s.file(key), func() error {
		old, err := s.read(ctx, key)
		if err != nil {
			return err
		}
		value, ttl, err := fn(bytes.Clone(old))
		if err != nil {
			return err
		}
		if err := store.CheckValue(value); err != nil {
			return err
		}
		switch {
		case value != nil && ttl >= 0:
			return s.write(ctx, key, value, ttl)
		case old != nil:
			return s.storage.Delete(ctx, s.file(key))
		}
		return nil
	})
}

// Take implements store.Store.
func (s *Store) Take(ctx context.Context, key string) (value []byte, err error) {
	if err := s.begin(ctx, key); err != nil {
		return nil, err
	}
	err = s.locked(ctx, s.file(key), func() error {
		if value, err = s.read(ctx, key); err != nil {
			return err
		}
		if value == nil {
			return store.ErrNotFound
		}
		return s.storage.Delete(ctx, s.file(key))
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	return s.locked(ctx, s.file(key), func() error { return s.storage.Delete(ctx, s.file(key)) })
}

// Close implements store.Store.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return store.ErrClosed
	}
	s.cancel()
	<-s.swept
	return nil
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

// file returns where the record lies. A hash, because a storage's keys are paths,
// and some do not tell upper case from lower; in 256 folders, because all in one
// is slow in many file systems.
func (s *Store) file(key string) string {
	sum := sha256.Sum256([]byte(key))
	name := hex.EncodeToString(sum[:])
	return s.folder + "/" + name[:2] + "/" + name
}

// A file is a version (1 byte), the expiry (8 bytes, big endian, see package
// expiry), the length of the key (2 bytes), the key and the value.
const (
	format     = 1
	headerSize = 1 + 8 + 2
)

func (s *Store) write(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	raw := make([]byte, 0, headerSize+len(key)+len(value))
	raw = append(raw, format)
	raw = binary.BigEndian.AppendUint64(raw, uint64(expiry.At(s.now(), ttl))) //nolint:gosec // not negative
	raw = binary.BigEndian.AppendUint16(raw, uint16(len(key)))                //nolint:gosec // at most MaxKey
	raw = append(raw, key...)
	return s.storage.Store(ctx, s.file(key), append(raw, value...))
}

// read returns the value, nil if there is none.
func (s *Store) read(ctx context.Context, key string) ([]byte, error) {
	found, value, over, err := s.load(ctx, s.file(key))
	switch {
	case err != nil:
		return nil, err
	case found == "" || over:
		return nil, nil
	case found != key:
		return nil, fmt.Errorf("caddystorage: %s does not hold the record that its name says", s.file(key))
	}
	return value, nil
}

// load reads a file. The key is empty if there is none; the value is not nil
// otherwise.
func (s *Store) load(ctx context.Context, file string) (key string, value []byte, over bool, err error) {
	raw, err := s.storage.Load(ctx, file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil, false, nil
	case err != nil:
		return "", nil, false, err
	case len(raw) > 0 && raw[0] > format:
		return "", nil, false, fmt.Errorf("caddystorage: %s was written by a newer version of this program (format %d, this version knows %d): update this node", file, raw[0], format)
	case len(raw) < headerSize || raw[0] != format:
		return "", nil, false, fmt.Errorf("caddystorage: %s is damaged", file)
	}
	at := int64(binary.BigEndian.Uint64(raw[1:])) //nolint:gosec // milliseconds
	size := int(binary.BigEndian.Uint16(raw[9:]))
	rest := raw[headerSize:]
	if size == 0 || size > len(rest) {
		return "", nil, false, fmt.Errorf("caddystorage: %s is damaged", file)
	}
	value = append([]byte{}, rest[size:]...)
	return string(rest[:size]), value, expiry.Over(at, s.now()), nil
}

var _ store.Store = (*Store)(nil)
