package authclient

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// replayLimit is how much of a body without GetBody is remembered by default.
const replayLimit = 1 << 20

// replayWait is how long the transport below has to let go of a body.
const replayWait = 5 * time.Second

// replay is the body of a request that may be sent several times. With GetBody
// it is made anew; without, what the transport reads is remembered, and the
// next attempt reads that and then the rest.
type replay struct {
	get   func() (io.ReadCloser, error)
	limit int64

	source io.ReadCloser
	next   io.ReadCloser

	mu     sync.Mutex
	read   bytes.Buffer // what has been read of source
	over   bool         // that is more than the limit
	lent   *lentBody
	closed bool
}

func newReplay(r *http.Request, limit int64) *replay {
	p := &replay{get: r.GetBody, limit: limit, source: r.Body}
	if r.Body == http.NoBody {
		p.source = nil
	}
	switch {
	case p.source == nil:
		p.next = r.Body
	case p.get != nil:
		p.next = p.source
	default:
		p.next = p.lend()
	}
	return p
}

// body is the body of the attempt that begins.
func (p *replay) body() io.ReadCloser {
	b := p.next
	if p.source != nil {
		p.next = nil // to close if no attempt has it
	}
	return b
}

// again prepares the next attempt.
func (p *replay) again(ctx context.Context) error {
	switch {
	case p.source == nil:
		return nil
	case p.get != nil:
		b, err := p.get()
		if err != nil {
			return fmt.Errorf("%w: GetBody: %w", ErrBodyNotReplayable, err)
		}
		p.next = b
		return nil
	}
	if err := p.lent.wait(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return fmt.Errorf("%w: the token was renewed, but the body is larger than %d bytes and the request has no GetBody: set it, or repeat the request", ErrBodyNotReplayable, p.limit)
	}
	p.next = p.lend()
	return nil
}

// close gives up what no attempt has taken.
func (p *replay) close() {
	if p.source == nil {
		return
	}
	if p.get != nil {
		if p.next != nil {
			_ = p.next.Close()
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.next != nil || p.lent == nil || p.lent.isClosed() {
		_ = p.source.Close()
	}
}

// lend returns a body that reads what was remembered, then the source.
func (p *replay) lend() *lentBody {
	p.lent = &lentBody{
		p: p, remembered: bytes.NewReader(p.read.Bytes()),
		reading: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	return p.lent
}

// lentBody is the body of one attempt.
type lentBody struct {
	p          *replay
	remembered *bytes.Reader
	// reading is full while the transport reads: it may close the body meanwhile.
	reading chan struct{}
	once    sync.Once
	closed  chan struct{}
}

// Read implements io.Reader.
func (b *lentBody) Read(buf []byte) (int, error) {
	b.reading <- struct{}{}
	defer func() { <-b.reading }()
	if b.isClosed() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.remembered.Len() > 0 {
		return b.remembered.Read(buf)
	}
	n, err := b.p.source.Read(buf)
	b.p.remember(buf[:n])
	return n, err
}

// Close implements io.Closer. The source stays open for the next attempt, unless
// there is none.
func (b *lentBody) Close() error {
	var err error
	b.once.Do(func() {
		b.p.mu.Lock()
		defer b.p.mu.Unlock()
		close(b.closed)
		if b.p.closed {
			err = b.p.source.Close()
		}
	})
	return err
}

func (b *lentBody) isClosed() bool {
	select {
	case <-b.closed:
		return true
	default:
		return false
	}
}

// wait waits until the transport has let go of the body.
func (b *lentBody) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, replayWait, fmt.Errorf("%w: the transport still reads it", ErrBodyNotReplayable))
	defer cancel()
	select {
	case <-b.closed:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	_, err := acquire(ctx, b.reading) // for good: this body has been used
	return err
}

// remember keeps what was read, up to the limit.
func (p *replay) remember(data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || int64(p.read.Len())+int64(len(data)) > p.limit {
		p.over = p.over || len(data) > 0
		p.read.Reset()
		return
	}
	p.read.Write(data)
}
