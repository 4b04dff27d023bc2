package authclient

import (
	"context"
	"sync"
)

// flights lets callers that need the same share one attempt and its outcome.
// An attempt ends when its last caller has left.
type flights struct {
	mu      sync.Mutex
	current map[string]*flight
}

type flight struct {
	done    chan struct{}
	result  Result
	err     error
	callers int
	cancel  context.CancelFunc
}

// do runs fn, or waits for the one that runs under the key.
func (s *flights) do(ctx context.Context, key string, fn func(ctx context.Context) (Result, error)) (Result, error) {
	f := s.join(ctx, key, fn)
	select {
	case <-f.done:
		return f.result, f.err
	case <-ctx.Done():
		s.leave(key, f)
		return Result{}, context.Cause(ctx)
	}
}

func (s *flights) join(ctx context.Context, key string, fn func(ctx context.Context) (Result, error)) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.current[key]; f != nil {
		f.callers++
		return f
	}
	if s.current == nil {
		s.current = make(map[string]*flight)
	}
	f := &flight{done: make(chan struct{}), callers: 1}
	s.current[key] = f
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() { // ends when fn does, which the last caller to leave cancels
		defer f.cancel()
		f.result, f.err = fn(ctx)
		s.mu.Lock()
		if s.current[key] == f {
			delete(s.current, key)
		}
		s.mu.Unlock()
		close(f.done)
	}()
	return f
}

func (s *flights) leave(key string, f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.callers--; f.callers > 0 {
		return
	}
	f.cancel()
	if s.current[key] == f {
		delete(s.current, key)
	}
}
