package caddystorage

import (
	"context"
	"sync"
	"time"
)

// unlockTimeout bounds letting go of a lock when the caller is gone.
const unlockTimeout = 10 * time.Second

// locks queues those of this process who want the same key, so that at most one
// asks for the storage's lock: others would look again only after a second.
type locks struct {
	mu   sync.Mutex
	keys map[string]*queue
}

type queue struct {
	turn chan struct{} // holds one while the key is locked
	many int           // who hold or want it
}

// locked runs fn with the storage's lock on the file.
func (s *Store) locked(ctx context.Context, file string, fn func() error) (err error) {
	if err := s.locks.lock(ctx, file); err != nil {
		return err
	}
	defer s.locks.unlock(file)
	if err := s.storage.Lock(ctx, file); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
		defer cancel()
		if e := s.storage.Unlock(ctx, file); err == nil {
			err = e
		}
	}()
	if err := s.alive(ctx); err != nil { // it may have been a long wait
		return err
	}
	return fn()
}

func (l *locks) lock(ctx context.Context, file string) error {
	l.mu.Lock()
	q := l.keys[file]
	if q == nil {
		if l.keys == nil {
			l.keys = make(map[string]*queue)
		}
		q = &queue{turn: make(chan struct{}, 1)}
		l.keys[file] = q
	}
	q.many++
	l.mu.Unlock()
	select {
	case q.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		l.leave(file, q)
		return ctx.Err()
	}
}

func (l *locks) unlock(file string) {
	l.mu.Lock()
	q := l.keys[file]
	l.mu.Unlock()
	<-q.turn
	l.leave(file, q)
}

func (l *locks) leave(file string, q *queue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q.many--; q.many == 0 {
		delete(l.keys, file)
	}
}
