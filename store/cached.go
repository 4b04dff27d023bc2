package store

import (
	"context"
	"time"
)

// Watcher is implemented by stores that can answer from a cache of their own
// which the backend keeps up to date, as Redis does. Use it through GetCached.
type Watcher interface {
	// GetCached is Get, but the answer, ErrNotFound too, may be up to maxAge old.
	// A change by another node usually shows within milliseconds, a change through
	// this store at once. When the connection that announces changes is lost, all
	// that was cached is forgotten.
	GetCached(ctx context.Context, key string, maxAge time.Duration) ([]byte, error)
}

// GetCached reads through the store's cache if it is a Watcher, else with Get.
// Being asked for no age, it reads with Get too.
func GetCached(ctx context.Context, s Store, key string, maxAge time.Duration) ([]byte, error) {
	if w, ok := s.(Watcher); ok && maxAge > 0 {
		return w.GetCached(ctx, key, maxAge)
	}
	return s.Get(ctx, key)
}
