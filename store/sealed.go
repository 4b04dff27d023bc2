package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-mcp/mcpauth/seal"
)

const (
	// SealedMaxKey is MaxKey less what a sealed store puts before a key.
	SealedMaxKey = MaxKey - issuerPrefix
	// SealedMaxValue is MaxValue less what sealing adds to a value.
	SealedMaxValue = MaxValue - seal.Overhead - 1

	issuerPrefix = 16 + 1 // hex digits and a slash

	// valueFormat is the first byte of every sealed value.
	valueFormat = 1

	// sealSlack is how much longer a value opens than its ttl lasts. The backend's
	// clock decides when a record is over; the seal's own expiry only bounds how
	// long somebody who writes to the backend can bring an old record back, and must
	// not end a lease early on a node whose clock is ahead.
	sealSlack = time.Hour
)

var (
	// ErrUnreadable is returned for a value that is there and does not open.
	ErrUnreadable = errors.New("store: a stored value does not open: the key that sealed it may be missing from encryption_key, or the value was altered")
	// ErrNewer is returned for a value in a format of a later version.
	ErrNewer = errors.New("store: a stored value was written by a newer version of this program: update this node")
)

// SealedOptions configures Sealed.
type SealedOptions struct {
	// Ring seals the values. Required.
	Ring *seal.Ring
	// Issuer separates the records of one authorization server from those of
	// others in the same store. Required.
	Issuer string
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// SealedStore is a Store in which a backend's operator can read and forge
// nothing, and which holds the records of one issuer. See Sealed.
type SealedStore struct {
	inner  Store
	sealer *seal.Sealer
	prefix string
	now    func() time.Time
	closed atomic.Bool
}

// Sealed returns a view of inner in which keys begin with a hash of the issuer,
// the first 16 hex digits of its SHA-256 and a slash, and values are sealed for
// exactly the key that they lie under. A value that was sealed with an old key
// of the ring is sealed with the first one when it is next written.
//
// A value that does not open is an ErrUnreadable and one from a later version an
// ErrNewer, never an ErrNotFound: Get, Update and Take then return that error
// and change nothing; Put and Delete work. Scan goes on to the others and
// returns the error at its end.
//
// Keys and values are limited to SealedMaxKey and SealedMaxValue. Close closes
// the view only: inner belongs to who opened it.
func Sealed(inner Store, o SealedOptions) (*SealedStore, error) {
	if inner == nil {
		return nil, errors.New("store: a sealed store needs a store")
	}
	if o.Ring == nil {
		return nil, errors.New("store: a sealed store needs a key ring")
	}
	if o.Issuer == "" {
		return nil, errors.New("store: a sealed store needs an issuer")
	}
	s := &SealedStore{
		inner:  inner,
		sealer: o.Ring.Sealer(seal.PurposeStoreValue, o.Issuer),
		prefix: prefixOf(o.Issuer),
		now:    o.Now,
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s, nil
}

func prefixOf(issuer string) string {
	sum := sha256.Sum256([]byte(issuer))
	return hex.EncodeToString(sum[:8]) + "/"
}

// Get implements Store.
func (s *SealedStore) Get(ctx context.Context, key string) ([]byte, error) {
	inner, err := s.check(key)
	if err != nil {
		return nil, err
	}
	sealed, err := s.inner.Get(ctx, inner)
	if err != nil {
		return nil, err
	}
	return s.open(inner, sealed)
}

// GetCached implements Watcher, with Get if inner is none.
func (s *SealedStore) GetCached(ctx context.Context, key string, maxAge time.Duration) ([]byte, error) {
	inner, err := s.check(key)
	if err != nil {
		return nil, err
	}
	sealed, err := GetCached(ctx, s.inner, inner, maxAge)
	if err != nil {
		return nil, err
	}
	return s.open(inner, sealed)
}

// Put implements Store.
func (s *SealedStore) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	inner, err := s.check(key)
	if err != nil {
		return err
	}
	sealed, err := s.seal(inner, value, ttl)
	if err != nil {
		return err
	}
	return s.inner.Put(ctx, inner, sealed, ttl)
}

// Update implements Store.
func (s *SealedStore) Update(ctx context.Context, key string, fn UpdateFunc) error {
	inner, err := s.check(key)
	if err != nil {
		return err
	}
	return s.inner.Update(ctx, inner, func(sealed []byte) ([]byte, time.Duration, error) {
		var old []byte
		if sealed != nil {
			var err error
			if old, err = s.open(inner, sealed); err != nil && !errors.Is(err, ErrNotFound) {
				return nil, 0, err
			}
		}
		value, ttl, err := fn(old)
		if err != nil || value == nil {
			return nil, 0, err
		}
		sealed, err = s.seal(inner, value, ttl)
		return sealed, ttl, err
	})
}

// Take implements Store. It is an Update, so that a value which this node
// cannot open stays for one that can.
func (s *SealedStore) Take(ctx context.Context, key string) ([]byte, error) {
	var taken []byte
	err := s.Update(ctx, key, func(old []byte) ([]byte, time.Duration, error) {
		if taken = old; old == nil {
			return nil, 0, ErrNotFound
		}
		return nil, 0, nil
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}

// Delete implements Store.
func (s *SealedStore) Delete(ctx context.Context, key string) error {
	inner, err := s.check(key)
	if err != nil {
		return err
	}
	return s.inner.Delete(ctx, inner)
}

// Scan implements Store.
func (s *SealedStore) Scan(ctx context.Context, prefix string, fn func(key string, value []byte) error) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if len(prefix) > SealedMaxKey {
		return fmt.Errorf("%w: %d bytes are more than %d", ErrKey, len(prefix), SealedMaxKey)
	}
	var unreadable error
	err := s.inner.Scan(ctx, s.prefix+prefix, func(inner string, sealed []byte) error {
		if s.closed.Load() {
			return ErrClosed
		}
		value, err := s.open(inner, sealed)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil
		case err != nil:
			unreadable = err
			return nil
		}
		return fn(strings.TrimPrefix(inner, s.prefix), value)
	})
	if err != nil {
		return err
	}
	return unreadable
}

// Close ends this view and leaves the inner store open.
func (s *SealedStore) Close() error {
	if s.closed.Swap(true) {
		return ErrClosed
	}
	return nil
}

// check returns the key in the inner store.
func (s *SealedStore) check(key string) (string, error) {
	if s.closed.Load() {
		return "", ErrClosed
	}
	if err := CheckKey(key); err != nil {
		return "", err
	}
	if len(key) > SealedMaxKey {
		return "", fmt.Errorf("%w: %d bytes are more than %d", ErrKey, len(key), SealedMaxKey)
	}
	return s.prefix + key, nil
}

func (s *SealedStore) seal(inner string, value []byte, ttl time.Duration) ([]byte, error) {
	if len(value) > SealedMaxValue {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrTooLarge, len(value), SealedMaxValue)
	}
	var expiry time.Time
	if ttl != 0 {
		expiry = s.now().Add(ttl).Add(sealSlack)
	}
	sealed, err := s.sealer.SealBytes(value, expiry, string(rune(valueFormat)), inner)
	if err != nil {
		return nil, err
	}
	return append([]byte{valueFormat}, sealed...), nil
}

// open returns the value, ErrNotFound if it outlived its time, ErrNewer or
// ErrUnreadable.
func (s *SealedStore) open(inner string, sealed []byte) ([]byte, error) {
	if len(sealed) > 0 && sealed[0] > valueFormat {
		return nil, fmt.Errorf("%w (format %d, this version knows %d)", ErrNewer, sealed[0], valueFormat)
	}
	if len(sealed) == 0 || sealed[0] != valueFormat {
		return nil, ErrUnreadable
	}
	value, err := s.sealer.OpenBytes(sealed[1:], s.now(), string(rune(valueFormat)), inner)
	switch {
	case errors.Is(err, seal.ErrExpired):
		return nil, ErrNotFound
	case err != nil:
		return nil, ErrUnreadable
	case value == nil: // an empty one, which is not absent
		return []byte{}, nil
	}
	return value, nil
}

// Interface guards
var (
	_ Store   = (*SealedStore)(nil)
	_ Watcher = (*SealedStore)(nil)
)
