package redis

import (
	"context"
	"strings"

	"github.com/redis/rueidis"

	"github.com/caddy-mcp/mcpauth/store"
)

// scanCount is how many keys the server looks at for one SCAN, which blocks it.
const scanCount = 500

// Scan implements store.Store. The server looks at every key that it holds, of
// whomever.
func (s *Store) Scan(ctx context.Context, prefix string, fn func(key string, value []byte) error) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	if err := store.CheckPrefix(prefix); err != nil {
		return err
	}
	seen := make(map[string]struct{}) // SCAN may show a key more than once
	for _, node := range s.client.Nodes() {
		if err := s.scanNode(ctx, node, prefix, seen, fn); err != nil {
			return err
		}
	}
	return s.alive(ctx)
}

func (s *Store) scanNode(ctx context.Context, node rueidis.Client, prefix string, seen map[string]struct{}, fn func(key string, value []byte) error) error {
	pattern := globs.Replace(s.prefix+prefix) + "*"
	for cursor := uint64(0); ; {
		page, err := s.scanPage(ctx, node, cursor, pattern)
		if err != nil {
			return err
		}
		var fresh []string
		for _, full := range page.Elements {
			key, ours := strings.CutPrefix(full, s.prefix)
			if _, twice := seen[key]; !ours || twice || !strings.HasPrefix(key, prefix) || store.CheckKey(key) != nil {
				continue
			}
			seen[key] = struct{}{}
			fresh = append(fresh, key)
		}
		values, err := s.getAll(ctx, fresh)
		if err != nil {
			return err
		}
		for i, key := range fresh {
			if err := s.alive(ctx); err != nil {
				return err
			}
			if values[i] == nil { // expired or deleted meanwhile
				continue
			}
			if err := fn(key, values[i]); err != nil {
				return err
			}
		}
		if cursor = page.Cursor; cursor == 0 {
			return nil
		}
	}
}

func (s *Store) scanPage(ctx context.Context, node rueidis.Client, cursor uint64, pattern string) (rueidis.ScanEntry, error) {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	page, err := node.Do(bounded, node.B().Scan().Cursor(cursor).Match(pattern).Count(scanCount).Build()).AsScanEntry()
	return page, s.fail(ctx, bounded, err)
}

// getAll returns the values of the keys, nil for those that are gone.
func (s *Store) getAll(ctx context.Context, keys []string) ([][]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	commands := make(rueidis.Commands, len(keys))
	for i, key := range keys {
		commands[i] = s.client.B().Get().Key(s.prefix + key).Build()
	}
	values := make([][]byte, len(keys))
	for i, answer := range s.client.DoMulti(bounded, commands...) {
		value, err := bytesOf(answer)
		if err != nil {
			return nil, s.fail(ctx, bounded, err)
		}
		values[i] = value
	}
	return values, nil
}
