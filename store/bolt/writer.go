package bolt

import (
	"context"
	"runtime"
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
	maxGather = 5 * time.Millisecond
	// lull is how long the wire is listened to before nobody else is thought to
	// come.
	lull = 50 * time.Microsecond
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
	alone := true
	for {
		w.gather(alone)
		batch, closed := w.take()
		if len(batch) == 0 {
			if closed {
				return
			}
			<-w.wake
			alone = true // it was idle: whoever comes is alone, as far as we know
			continue
		}
		w.commit(batch)
		alone = len(batch) == 1
	}
}

// gather waits while more and more come. All that can run go first: on a busy
// machine they need the processor more than this transaction does, and soon have
// something to write too. Where nobody else can run that takes no time. Unless
// the last one was alone it also waits for a lull, in which the runtime looks
// for requests that arrive.
func (w *writer) gather(alone bool) {
	paused := alone
	for start, before := time.Now(), 0; time.Since(start) < maxGather; {
		// Twice, because those who wake meanwhile are behind this goroutine.
		runtime.Gosched()
		runtime.Gosched()
		now, closed := w.waiting()
		switch {
		case now == 0 || now >= maxBatch || closed:
			return
		case now > before:
			before, paused = now, alone
		case paused:
			return
		default:
			time.Sleep(lull)
			paused = true
		}
	}
}

func (w *writer) waiting() (n int, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue), w.closed
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
