// Package store defines what the broker needs of a database, and seals what it
// puts there. The backends are in memory, bolt, redis and caddystorage; the
// suite that all of them pass is in storetest.
package store

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrNotFound says that there is no record under the key, or none any more.
	ErrNotFound = errors.New("store: no such record")
	// ErrConflict says that others changed the record each time Update tried.
	ErrConflict = errors.New("store: the record keeps being changed by others")
	// ErrClosed says that the store is closed.
	ErrClosed = errors.New("store: closed")
)

// Store keeps values under keys. It is the contract between the broker and its
// backends; storetest.Run checks it.
//
// All methods may be called at the same time from any number of goroutines.
// Operations on one key are linearizable: there is an order of all of them, in
// agreement with the time at which they were called and returned, in which each
// sees what the ones before it did. That holds among all processes that share
// the backend. Nothing is promised across keys.
//
// Keys and values obey CheckKey and CheckValue. Values are copied on the way in
// and out, so callers may change the slices that they passed or got. A value may
// be empty, which is not the same as absent.
//
// A ttl of 0 means that the record stays until it is deleted; a negative one
// that its time is over, so that writing it deletes the record. Otherwise it is
// absent for every reader as soon as the ttl has passed, at a resolution of a
// second or better. Its memory or disk space is freed later.
//
// When a context ends, the call returns its error soon. An error that is none of
// the ones named here, and the context's, leave open whether a write happened:
// read to find out. What a call reported as done is durable as far as the
// backend can make it so; each says how far that is.
type Store interface {
	// Get returns the value, or ErrNotFound.
	Get(ctx context.Context, key string) ([]byte, error)

	// Put stores the value in place of any other, and its ttl in place of the
	// other's.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) error

	// Update replaces a value by what fn makes of it, provided that nobody changed
	// it in between; otherwise it tries again. Against every other operation on the
	// key it is one step.
	//
	// fn gets nil if there is no record, and a non-nil slice, its own copy, if there
	// is one, were its value empty. It returns the new value and its ttl, or nil to
	// delete the record. If it returns an error, nothing changes and Update returns
	// that error as it is; this is also the way to leave a record alone.
	//
	// fn may run many times and must be pure: no side effects but on variables that
	// each run sets anew, no call of the store, no waiting. No lock of the backend
	// that other keys need is held while it runs.
	//
	// ErrConflict is returned after many tries, and then nothing was changed.
	Update(ctx context.Context, key string, fn UpdateFunc) error

	// Take returns the value and deletes the record, or returns ErrNotFound. Of any
	// number of concurrent calls, one gets the value.
	Take(ctx context.Context, key string) ([]byte, error)

	// Delete deletes the record. An absent one is no error.
	Delete(ctx context.Context, key string) error

	// Scan calls fn for every record whose key begins with prefix, which may be
	// empty, in no particular order and at most once for each key. Records that are
	// there all the while are seen; of those written or deleted meanwhile some are.
	// It is for rare work on few records, not for the path of a request: some
	// backends look at every key. An error of fn ends it and is returned as it is.
	// fn may call the store.
	Scan(ctx context.Context, prefix string, fn func(key string, value []byte) error) error

	// Close frees what the store holds and stops its goroutines. Calls that are
	// running end, with their result or with ErrClosed. Later calls of any method,
	// Close too, return ErrClosed.
	Close() error
}

// UpdateFunc is what Store.Update applies; see there.
type UpdateFunc = func(old []byte) (new []byte, ttl time.Duration, err error)
