package bearer

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// failureMemory is how long a failed load is remembered, so that callers
	// do not storm a server in trouble.
	failureMemory = time.Second
	// staleGap is the least time between two attempts to replace a stale
	// version when nobody runs the background loop.
	staleGap = 10 * time.Second
	// firstBackoff doubles up to lastBackoff while background loads fail.
	firstBackoff = time.Second
	lastBackoff  = time.Minute
)

// fresh is a document of another server that is kept in memory and replaced by
// a newer version now and then. A version is served until a newer one has been
// loaded, however long that takes. All callers share one load at a time, and
// nobody's departure ends it: its time is bounded by upstreamTimeout.
//
// All errors are oauth.ErrTemporarilyUnavailable.
type fresh[T any] struct {
	load func(context.Context) (*T, error)
	// interval is the age at which a version is to be replaced.
	interval time.Duration
	// gap is the least time between two loads that renew asked for.
	gap time.Duration
	// trouble describes a failed load to the client's developer.
	trouble string
	now     func() time.Time
	logger  *slog.Logger

	current atomic.Pointer[version[T]]
	running atomic.Int32 // calls of run

	mu      sync.Mutex
	attempt *attempt[T] // nil while none is under way
	failure error       // of the last attempt that ended, nil if it went well
	ended   time.Time   // when that was
	renewed time.Time   // when renew last began an attempt
}

// version is what was loaded, and when that began and ended.
type version[T any] struct {
	value         *T
	began, loaded time.Time
}

type attempt[T any] struct {
	began time.Time
	done  chan struct{} // closed when value and err are set
	value *T
	err   error
}

// get returns the current version; the first call loads it.
func (f *fresh[T]) get(ctx context.Context) (*T, error) {
	if v := f.current.Load(); v != nil {
		if f.running.Load() == 0 && f.now().Sub(v.loaded) >= f.interval {
			_, _ = f.join(ctx, func(now time.Time) bool { return since(now, f.ended) >= staleGap })
		}
		return v.value, nil
	}
	a, failure := f.join(ctx, func(now time.Time) bool {
		return f.current.Load() == nil && f.recovered(now)
	})
	if a == nil {
		return f.settle(failure)
	}
	return f.wait(ctx, a)
}

// renew loads a newer version now, unless it did so less than gap ago: then it
// returns what the last attempt ended with, and asked is false.
func (f *fresh[T]) renew(ctx context.Context) (v version[T], asked bool, err error) {
	a, failure := f.join(ctx, func(now time.Time) bool {
		if since(now, f.renewed) < f.gap || !f.recovered(now) {
			return false
		}
		f.renewed = now
		return true
	})
	if a == nil {
		if failure != nil {
			return v, false, f.unavailable(failure)
		}
		return *f.current.Load(), false, nil
	}
	v.value, err = f.wait(ctx, a)
	v.began = a.began
	return v, true, err
}

// recovered reports, with f.mu held, whether the last failure may be forgotten.
func (f *fresh[T]) recovered(now time.Time) bool {
	return f.failure == nil || since(now, f.ended) >= failureMemory
}

// settle is the answer to a caller for whom it is too early to load.
func (f *fresh[T]) settle(failure error) (*T, error) {
	if failure != nil {
		return nil, f.unavailable(failure)
	}
	return f.current.Load().value, nil
}

// join returns the attempt under way, or begins one if due says so. Otherwise
// it returns nil and how the last attempt ended.
func (f *fresh[T]) join(ctx context.Context, due func(now time.Time) bool) (*attempt[T], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.attempt != nil {
		return f.attempt, nil
	}
	now := f.now()
	if !due(now) {
		return nil, f.failure
	}
	a := &attempt[T]{began: now, done: make(chan struct{})}
	f.attempt = a
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), upstreamTimeout)
		defer cancel()
		a.value, a.err = f.load(ctx)
		f.finish(a)
	}()
	return a, nil
}

func (f *fresh[T]) finish(a *attempt[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempt, f.failure, f.ended = nil, a.err, f.now()
	if a.err == nil {
		f.current.Store(&version[T]{value: a.value, began: a.began, loaded: f.ended})
	} else if v := f.current.Load(); v != nil {
		f.logger.Warn("cannot load a newer version, the old one stays in use",
			slog.Duration("age", f.ended.Sub(v.loaded)), slog.Any("error", a.err))
	}
	close(a.done)
}

func (f *fresh[T]) wait(ctx context.Context, a *attempt[T]) (*T, error) {
	select {
	case <-a.done:
	case <-ctx.Done():
		return nil, f.unavailable(ctx.Err())
	}
	if a.err != nil {
		return nil, f.unavailable(a.err)
	}
	return a.value, nil
}

func (f *fresh[T]) unavailable(cause error) error {
	return oauth.ErrTemporarilyUnavailable.Describe(f.trouble).Because(cause)
}

// run loads the document at once, then every interval, and with growing pauses
// while that fails. It returns when ctx ends.
func (f *fresh[T]) run(ctx context.Context) {
	f.running.Add(1)
	defer f.running.Add(-1)
	backoff := firstBackoff
	for ctx.Err() == nil {
		pause := f.interval
		a, _ := f.join(ctx, func(time.Time) bool { return true })
		switch _, err := f.wait(ctx, a); {
		case ctx.Err() != nil:
			return
		case err == nil:
			if backoff > firstBackoff {
				f.logger.Info("loaded after earlier failures")
			}
			backoff = firstBackoff
		default:
			if f.current.Load() == nil {
				f.logger.Warn("cannot load, trying again", slog.Duration("in", backoff), slog.Any("error", a.err))
			}
			pause, backoff = backoff, min(2*backoff, lastBackoff)
		}
		timer := time.NewTimer(jitter(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// jitter takes up to a tenth off d, so that many instances do not ask at once.
func jitter(d time.Duration) time.Duration {
	return d - rand.N(d/10+1) //nolint:gosec // spreads load, no secret
}
