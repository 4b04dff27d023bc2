package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// conversation is what one connection says. next appends the next request to
// buf, and returns nil when there is none left. got takes the answer.
type conversation struct {
	next func(buf []byte) []byte
	got  func(status int, body []byte) error
}

// load is many conversations with one server.
type load struct {
	connections   []*connection
	conversations []conversation
}

// newLoad starts with closed connections; each opens at its first request.
func newLoad(addr string, connections int, talk func(i int) conversation) *load {
	l := new(load)
	for i := range connections {
		l.connections = append(l.connections, &connection{addr: addr})
		l.conversations = append(l.conversations, talk(i))
	}
	return l
}

func (l *load) close() {
	for _, c := range l.connections {
		c.close()
	}
}

// run talks for a time, or until nothing is left to say, and returns how many
// answers came and how long it took.
func (l *load) run(ctx context.Context, life time.Duration) (requests int, took time.Duration, err error) {
	var total atomic.Int64
	errs := make([]error, len(l.connections))
	start := time.Now()
	end := start.Add(life)
	var all sync.WaitGroup
	for i, c := range l.connections {
		all.Go(func() {
			n, err := c.talk(ctx, l.conversations[i], end)
			total.Add(int64(n))
			errs[i] = err
		})
	}
	all.Wait()
	return int(total.Load()), time.Since(start), errors.Join(errs...)
}

func (c *connection) talk(ctx context.Context, with conversation, end time.Time) (n int, err error) {
	for time.Now().Before(end) && ctx.Err() == nil {
		request := with.next(c.request[:0])
		if request == nil {
			break
		}
		c.request = request
		status, body, err := c.do(request)
		if err == nil {
			err = with.got(status, body)
		}
		if err != nil {
			c.close()
			return n, err
		}
		n++
	}
	return n, ctx.Err()
}

// wantStatus accepts answers with one status only.
func wantStatus(want int) func(int, []byte) error {
	return func(status int, body []byte) error {
		if status != want {
			return fmt.Errorf("status %d, want %d: %.200s", status, want, body)
		}
		return nil
	}
}

// repeat sends the same requests over and over, each connection beginning at
// another one.
func repeat(addr string, connections, status int, requests ...[]byte) *load {
	return newLoad(addr, connections, func(i int) conversation {
		at := i * len(requests) / connections
		return conversation{
			next: func([]byte) []byte {
				request := requests[at]
				if at++; at == len(requests) {
					at = 0
				}
				return request
			},
			got: wantStatus(status),
		}
	})
}
