package proxyprovider

import (
	"context"
	"sync"
)

// flightGroup lets one caller do what many want done for the same grant. The
// others wait for it, each as long as its context lasts, and share its error.
type flightGroup struct {
	mu sync.Mutex
	m  map[grantID]*flight
}

type flight struct {
	done chan struct{} // closed when err is set
	err  error
}

func (f *flightGroup) do(ctx context.Context, id grantID, fn func() error) error {
	f.mu.Lock()
	if under := f.m[id]; under != nil {
		f.mu.Unlock()
		select {
		case <-under.done:
			return under.err
		case <-ctx.Done():
			return temporarily("The identity provider has not answered in time, try again", ctx.Err())
		}
	}
	mine := &flight{done: make(chan struct{}), err: temporarily("The identity provider could not be asked, try again", nil)}
	if f.m == nil {
		f.m = make(map[grantID]*flight)
	}
	f.m[id] = mine
	f.mu.Unlock()
	defer func() { // also after a panic
		f.mu.Lock()
		delete(f.m, id)
		f.mu.Unlock()
		close(mine.done)
	}()
	mine.err = fn()
	return mine.err
}
