package authserver

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// maxStale is how long after the last good fetch a document may still be
	// used while its host is in trouble.
	maxStale = 24 * time.Hour
	// staleRetry is how long a host in trouble is left alone.
	staleRetry = 30 * time.Second
)

// remote is a bounded cache of documents of one kind. An entry is fetched by
// one caller at a time. Errors are not kept.
type remote[T any] struct {
	fetcher *fetcher
	what    string // for errors
	limit   int64  // bytes of a document
	// parse reads an answer. An error means that the document is not usable.
	parse func(address string, body []byte) (T, error)
	// How long a document is fresh.
	least, most, usual time.Duration
	// Bounds of the cache.
	maxEntries int
	maxBytes   int64

	mu      sync.Mutex
	entries map[string]*list.Element // values are *remoteEntry[T]
	recent  list.List                // front: used last
	bytes   int64
	flights map[string]*remoteFlight[T]
}

type remoteEntry[T any] struct {
	address string
	value   T
	size    int64
	fetched time.Time
	fresh   time.Time // until then
	retry   time.Time // not fetched again before
}

func (r *remote[T]) init() {
	r.entries = make(map[string]*list.Element)
	r.flights = make(map[string]*remoteFlight[T])
}

// remoteFlight is a fetch that others wait for.
type remoteFlight[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// get returns the document, from the cache while it is fresh.
func (r *remote[T]) get(ctx context.Context, address string) (T, error) {
	return r.getIf(ctx, address, func(e *remoteEntry[T], now time.Time) bool {
		return now.Before(e.fresh) || now.Before(e.retry) && now.Sub(e.fetched) <= maxStale
	})
}

// renew is get for somebody who knows that the document at hand will not do;
// gap is the least time between two fetches for that.
func (r *remote[T]) renew(ctx context.Context, address string, gap time.Duration) (T, error) {
	return r.getIf(ctx, address, func(e *remoteEntry[T], now time.Time) bool {
		return now.Before(e.fetched.Add(gap)) || now.Before(e.retry) && now.Sub(e.fetched) <= maxStale
	})
}

// getIf returns the entry at hand if it will do, else a new one.
func (r *remote[T]) getIf(ctx context.Context, address string, willDo func(*remoteEntry[T], time.Time) bool) (value T, err error) {
	for {
		r.mu.Lock()
		if element, ok := r.entries[address]; ok {
			if e := element.Value.(*remoteEntry[T]); willDo(e, r.fetcher.now()) {
				r.recent.MoveToFront(element)
				r.mu.Unlock()
				return e.value, nil
			}
		}
		flight, waiting := r.flights[address]
		if !waiting {
			flight = &remoteFlight[T]{done: make(chan struct{}), err: errors.New("the fetch was aborted")}
			r.flights[address] = flight
		}
		r.mu.Unlock()
		if !waiting {
			r.fly(ctx, address, flight)
			return flight.value, flight.err
		}
		select {
		case <-flight.done:
			// What the other caller has used up is not this one's.
			if !errors.Is(flight.err, oauth.ErrTooManyRequests) {
				return flight.value, flight.err
			}
		case <-ctx.Done():
			return value, ctx.Err()
		}
	}
}

// fly fetches the document for all who wait for it.
func (r *remote[T]) fly(ctx context.Context, address string, flight *remoteFlight[T]) {
	defer func() {
		r.mu.Lock()
		delete(r.flights, address)
		r.mu.Unlock()
		close(flight.done)
	}()
	r.mu.Lock()
	_, known := r.entries[address]
	r.mu.Unlock()
	var value T
	var size int64
	var life time.Duration
	err := r.fetcher.fetch(ctx, address, r.limit, known, func(a *safehttp.Answer) (err error) {
		size = int64(len(a.Body))
		life = freshness(a.Header, r.least, r.most, r.usual)
		value, err = r.parse(address, a.Body)
		return err
	})
	now := r.fetcher.now()
	switch {
	case err == nil:
		r.put(&remoteEntry[T]{address: address, value: value, size: 2*size + 1<<10, fetched: now, fresh: now.Add(life)})
		flight.value, flight.err = value, nil
	case errors.Is(err, errUnusable):
		r.remove(address)
		flight.err = oauth.ErrInvalidClient.Describe(r.what + " cannot be used: " + clientText(err)).Because(err)
	default:
		var stale bool
		if flight.value, stale = r.stale(address, now); stale {
			r.fetcher.logger.WarnContext(ctx, "old document used, because a new one cannot be fetched", "url", address, "cause", err.Error())
			flight.err = nil
			return
		}
		flight.err = err
		if !errors.Is(err, oauth.ErrTooManyRequests) {
			flight.err = oauth.ErrTemporarilyUnavailable.Describe(r.what + " could not be fetched, try again").
				Because(fmt.Errorf("%.200s: %w", address, err))
		}
	}
}

// stale returns the entry that can stand in for a new one.
func (r *remote[T]) stale(address string, now time.Time) (value T, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	element, ok := r.entries[address]
	if !ok {
		return value, false
	}
	e := element.Value.(*remoteEntry[T])
	if now.Sub(e.fetched) > maxStale {
		r.drop(element)
		return value, false
	}
	e.retry = now.Add(staleRetry)
	return e.value, true
}

func (r *remote[T]) put(e *remoteEntry[T]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.entries[e.address]; ok {
		r.drop(old)
	}
	r.entries[e.address] = r.recent.PushFront(e)
	r.bytes += e.size
	for r.recent.Len() > r.maxEntries || r.bytes > r.maxBytes && r.recent.Len() > 1 {
		r.drop(r.recent.Back())
	}
}

func (r *remote[T]) remove(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if element, ok := r.entries[address]; ok {
		r.drop(element)
	}
}

// drop forgets an entry; r.mu is held.
func (r *remote[T]) drop(element *list.Element) {
	e := r.recent.Remove(element).(*remoteEntry[T])
	delete(r.entries, e.address)
	r.bytes -= e.size
}

// clientText is what the client's developer may know of an unusable document:
// our own words, never what stands in the document or in the network's errors.
func clientText(err error) string {
	var known *documentError
	switch {
	case errors.As(err, &known):
		return known.text
	case errors.Is(err, safehttp.ErrRefused):
		return "its URL may not be fetched by this server"
	case errors.Is(err, safehttp.ErrTooLarge):
		return "it is too large"
	default:
		return "it is not served as a JSON document with status 200"
	}
}

// documentError says what is wrong with a document.
type documentError struct{ text string }

func (e *documentError) Error() string { return e.text }
