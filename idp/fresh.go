package idp

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
)

const (
	// documentInterval is the age at which a document is loaded anew.
	documentInterval = time.Hour
	// failureMemory is how long a failed first load is remembered, so that
	// callers do not storm a server in trouble.
	failureMemory = time.Second
	// documentGap is the least time between two loads while a version is there.
	documentGap = 10 * time.Second
	// firstBackoff doubles up to lastBackoff while background loads fail.
	firstBackoff = time.Second
	lastBackoff  = time.Minute
)

// fresh is a document of the provider that is kept in memory. A version is
// served until a newer one has been loaded, however long that takes. All
// callers share one load at a time, and nobody's departure ends it: its time is
// bounded.
type fresh[T any] struct {
	load   func(context.Context) (*T, error)
	now    func() time.Time
	logger *slog.Logger

	mu      sync.Mutex
	current *T
	loaded  time.Time // when current was
	running int       // calls of run
	attempt *attempt[T]
	failure error     // of the last attempt, nil if it went well
	ended   time.Time // when that was
}

type attempt[T any] struct {
	done  chan struct{} // closed when value and err are set
	value *T
	err   error
}

// get returns the current version; the first call loads it.
func (f *fresh[T]) get(ctx context.Context) (*T, error) {
	f.mu.Lock()
	if current := f.current; current != nil {
		now := f.now()
		if f.running == 0 && now.Sub(f.loaded) >= documentInterval && now.Sub(f.ended) >= documentGap {
			f.begin(ctx) // served meanwhile: the old one
		}
		f.mu.Unlock()
		return current, nil
	}
	return f.join(ctx, failureMemory)
}

// renew loads a newer version, unless one was tried a moment ago.
func (f *fresh[T]) renew(ctx context.Context) (*T, error) {
	f.mu.Lock()
	return f.join(ctx, documentGap)
}

// join waits for the attempt under way, or begins one if the last is longer ago
// than gap. It is called with f.mu held and releases it.
func (f *fresh[T]) join(ctx context.Context, gap time.Duration) (*T, error) {
	if f.attempt == nil && !f.ended.IsZero() && f.now().Sub(f.ended) < gap {
		defer f.mu.Unlock()
		return f.current, f.failure
	}
	a := f.begin(ctx)
	f.mu.Unlock()
	return a.wait(ctx)
}

// begin returns the attempt under way, a new one if there is none. It is called
// with f.mu held.
func (f *fresh[T]) begin(ctx context.Context) *attempt[T] {
	if f.attempt != nil {
		return f.attempt
	}
	a := &attempt[T]{done: make(chan struct{})}
	f.attempt = a
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), safehttp.Timeout)
		defer cancel()
		a.value, a.err = f.load(ctx)
		f.finish(a)
	}()
	return a
}

func (f *fresh[T]) finish(a *attempt[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempt, f.failure, f.ended = nil, a.err, f.now()
	switch {
	case a.err == nil:
		f.current, f.loaded = a.value, f.ended
	case f.current != nil:
		f.logger.Warn("cannot load a newer version, the old one stays in use",
			slog.Duration("age", f.ended.Sub(f.loaded)), slog.Any("error", a.err))
	}
	close(a.done)
}

func (a *attempt[T]) wait(ctx context.Context) (*T, error) {
	select {
	case <-a.done:
		return a.value, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run loads the document at once, then every interval, and with growing pauses
// while that fails. It returns when ctx ends.
func (f *fresh[T]) run(ctx context.Context) {
	f.mu.Lock()
	f.running++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.running--
	}()
	backoff := firstBackoff
	for ctx.Err() == nil {
		f.mu.Lock()
		a := f.begin(ctx)
		f.mu.Unlock()
		pause := documentInterval
		if _, err := a.wait(ctx); err == nil {
			backoff = firstBackoff
		} else if ctx.Err() == nil {
			f.logger.Warn("cannot load, trying again", slog.Duration("in", backoff), slog.Any("error", err))
			pause, backoff = backoff, min(2*backoff, lastBackoff)
		}
		timer := time.NewTimer(pause - rand.N(pause/10+1)) //nolint:gosec // not all instances at once
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}
