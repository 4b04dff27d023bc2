package bolt

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-mcp/mcpauth/store"
)

const (
	// maxBatch and maxBatchBytes bound what one transaction holds.
	maxBatch      = 1000
	maxBatchBytes = 8 << 20
	// maxGather is the longest wait for others to join a transaction.
	maxGather = 2 * time.Millisecond
)

// writer puts everything that waits into one transaction, one after the other,
// so that a commit's fsync serves all who came during the one before.
//
// bbolt's own Batch does the same with a timer: a lone client waits for it in
// vain at each write. Here nobody waits who is alone.
type writer struct {
	s    *Store
	done chan struct{} // closed when run has ended

	mu     sync.Mutex
	queue  []*write
	closed bool
	wake   chan struct{} // holds one if the queue or closed has changed
}

// write is one change. apply may run more than once, and reports whether it
// changed anything.
type write struct {
	apply func(records) (changed bool, err error)
	size  int
	ctx   context.Context
	ended chan struct{}
	err   error // valid when ended is closed
}

func newWriter(s *Store) *writer {
	w := &writer{s: s, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go w.run()
	return w
}

// do returns when the change is on disk, has failed or the context is over. In
// that last case it may still happen, if its transaction has begun, so apply
// must hold nothing that the caller uses later.
func (w *writer) do(ctx context.Context, size int, apply func(records) (changed bool, err error)) error {
	one := &write{apply: apply, size: size, ctx: ctx, ended: make(chan struct{})}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return store.ErrClosed
	}
	w.queue = append(w.queue, one)
	w.mu.Unlock()
	w.signal()
	select {
	case <-one.ended:
		return one.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// close lets what waits be written and ends run.
func (w *writer) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	<-w.done
}

func (w *writer) run() {
	defer close(w.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	expected, took := 1, time.Duration(0)
	for {
		w.gather(timer, expected, min(took/2, maxGather))
		batch, closed := w.take()
		if len(batch) == 0 {
			if closed {
				return
			}
			<-w.wake
			expected = 1 // it was idle: whoever comes is alone, as far as we know
			continue
		}
		start := time.Now()
		w.commit(batch)
		expected, took = len(batch), time.Since(start)
	}
}

// gather waits until as many are there as the last transaction served, who are
// likely to come back at once, but not much longer than their sharing a
// transaction saves.
func (w *writer) gather(timer *time.Timer, expected int, longest time.Duration) {
	if expected == 1 || longest == 0 {
		return
	}
	timer.Reset(longest)
	for {
		w.mu.Lock()
		enough := len(w.queue) >= expected || w.closed
		w.mu.Unlock()
		if enough {
			return
		}
		select {
		case <-w.wake:
		case <-timer.C:
			return
		}
	}
}

// take returns the next batch.
func (w *writer) take() (batch []*write, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, size := 0, 0
	for n < len(w.queue) && n < maxBatch && (n == 0 || size+w.queue[n].size <= maxBatchBytes) {
		size += w.queue[n].size
		n++
	}
	batch = append(batch, w.queue[:n]...)
	rest := copy(w.queue, w.queue[n:])
	clear(w.queue[rest:])
	w.queue = w.queue[:rest]
	return batch, w.closed
}

// commit writes a batch and tells everyone in it how that went.
func (w *writer) commit(batch []*write) {
	live := batch[:0]
	for _, one := range batch {
		if err := one.ctx.Err(); err != nil {
			one.err = err
			close(one.ended)
			continue
		}
		live = append(live, one)
	}
	var applying bool
	err := w.transaction(live, &applying)
	if err != nil && applying && len(live) > 1 {
		// One of them met a damaged page, say. The others are not to suffer.
		for _, one := range live {
			w.commit([]*write{one})
		}
		return
	}
	for _, one := range live {
		one.err = err
		close(one.ended)
	}
}

// transaction leaves applying true if it failed before it came to the commit.
func (w *writer) transaction(batch []*write, applying *bool) error {
	if len(batch) == 0 {
		return nil
	}
	return w.s.update(func(tx *bbolt.Tx) error {
		*applying = true
		r, changed := in(tx), false
		for _, one := range batch {
			did, err := one.apply(r)
			if err != nil {
				return err
			}
			changed = changed || did
		}
		*applying = false
		if !changed {
			return errUnchanged
		}
		return nil
	})
}
