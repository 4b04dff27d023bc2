package caddystorage

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
)

// listTries is how often a folder is listed that changes while it is listed,
// which the file system's List takes for an error.
const listTries = 50

// Scan implements store.Store. It reads every record.
func (s *Store) Scan(ctx context.Context, prefix string, fn func(key string, value []byte) error) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if err := store.CheckPrefix(prefix); err != nil {
		return err
	}
	return s.walk(ctx, func(file string) error {
		key, value, over, err := s.load(ctx, file)
		if err != nil || key == "" || over || !strings.HasPrefix(key, prefix) {
			return err
		}
		return fn(key, value)
	})
}

// walk calls fn for each record's file.
func (s *Store) walk(ctx context.Context, fn func(file string) error) error {
	folders, err := s.list(ctx, s.folder, 2)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		files, err := s.list(ctx, folder, 64)
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := s.alive(ctx); err != nil {
				return err
			}
			if err := fn(file); err != nil {
				return err
			}
		}
	}
	return s.alive(ctx)
}

// list returns what lies directly in the folder and has a name of so many hex
// digits: a storage may keep files of its own there, half written ones for example.
func (s *Store) list(ctx context.Context, folder string, digits int) ([]string, error) {
	var names []string
	var err error
	for range listTries {
		names, err = s.storage.List(ctx, folder, false)
		if !errors.Is(err, fs.ErrNotExist) || !s.storage.Exists(ctx, folder) {
			break
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, fs.ErrNotExist) && !s.storage.Exists(ctx, folder):
		return nil, nil
	case err != nil:
		return nil, err
	}
	kept := names[:0]
	for _, name := range names {
		if base := path.Base(name); len(base) == digits && strings.Trim(base, "0123456789abcdef") == "" {
			kept = append(kept, name)
		}
	}
	return kept, nil
}

func (s *Store) sweepEvery(ctx context.Context, interval time.Duration) {
	defer close(s.swept)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			// Trouble with the storage is met by whoever uses the store next.
			_ = s.walk(ctx, func(file string) error { return s.sweep(ctx, file) })
		}
	}
}

// sweep deletes the file if its record is over.
func (s *Store) sweep(ctx context.Context, file string) error {
	if _, _, over, err := s.load(ctx, file); err != nil || !over {
		return nil // one that cannot be read must not keep the others
	}
	return s.locked(ctx, file, func() error {
		if _, _, over, err := s.load(ctx, file); err != nil || !over {
			return nil
		}
		return s.storage.Delete(ctx, file)
	})
}
