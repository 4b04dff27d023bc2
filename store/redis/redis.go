// Package redis is a store in Redis (6.2 or later) or Valkey, for those who
// outgrow one machine.
//
// What was acknowledged is as durable as the server's operator configured it:
// with appendonly yes and appendfsync always nothing is lost, with everysec (the
// default of appendonly) up to a second of writes when the machine fails, with
// neither whatever the last snapshot did not hold. A failover to a replica loses
// what had not reached it.
//
// The server must not evict (maxmemory-policy noeviction): an evicted grant is a
// revoked one. Its user needs, on the keys under the prefix, the commands get,
// set, del, getdel, scan, eval, evalsha and pttl, and besides client, hello,
// multi, exec and ping; for a cluster also cluster.
package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/internal/cas"
)

// Store is a store.Store and a store.Watcher. Make one with Open.
type Store struct {
	client  rueidis.Client
	prefix  string
	timeout time.Duration
	closed  atomic.Bool
	written *recent
}

// Get implements store.Store. When the connection is lost, it is tried again for
// half a second.
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, key); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	value, err := s.get(bounded, key)
	switch {
	case err != nil:
		return nil, s.fail(ctx, bounded, err)
	case value == nil:
		return nil, store.ErrNotFound
	}
	return value, nil
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	if err := store.CheckValue(value); err != nil {
		return err
	}
	if ttl < 0 {
		return s.Delete(ctx, key)
	}
	set := s.client.B().Set().Key(s.prefix + key).Value(rueidis.BinaryString(value))
	if ttl == 0 {
		return s.write(ctx, key, set.Build())
	}
	return s.write(ctx, key, set.PxMilliseconds(milliseconds(ttl)).Build())
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	return cas.Update(ctx, one{s, key}, fn)
}

// Take implements store.Store.
func (s *Store) Take(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, key); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	defer s.written.add(key)
	value, err := s.client.Do(bounded, s.client.B().Getdel().Key(s.prefix+key).Build()).AsBytes()
	if rueidis.IsRedisNil(err) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, s.fail(ctx, bounded, err)
	}
	return value, nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.begin(ctx, key); err != nil {
		return err
	}
	return s.write(ctx, key, s.client.B().Del().Key(s.prefix+key).Build())
}

// Close implements store.Store.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return store.ErrClosed
	}
	s.client.Close()
	return nil
}

// begin checks what every operation on a key checks first.
func (s *Store) begin(ctx context.Context, key string) error {
	if err := s.alive(ctx); err != nil {
		return err
	}
	return store.CheckKey(key)
}

func (s *Store) alive(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return ctx.Err()
}

// get returns the value, nil if there is none.
func (s *Store) get(ctx context.Context, key string) ([]byte, error) {
	return bytesOf(s.client.Do(ctx, s.client.B().Get().Key(s.prefix+key).Build()))
}

func bytesOf(answer rueidis.RedisResult) ([]byte, error) {
	value, err := answer.AsBytes()
	switch {
	case rueidis.IsRedisNil(err):
		return nil, nil
	case err != nil:
		return nil, err
	case value == nil:
		return []byte{}, nil
	}
	return value, nil
}

func (s *Store) write(ctx context.Context, key string, command rueidis.Completed) error {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	defer s.written.add(key)
	return s.fail(ctx, bounded, s.client.Do(bounded, command).Error())
}

// fail returns the error in the words of the contract: the caller's context's
// if that is what ended the call, and not that of ours, which is shorter and
// only says that the server is silent.
func (s *Store) fail(ctx, bounded context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case s.closed.Load() && (errors.Is(err, rueidis.ErrClosing) || errors.Is(err, context.Canceled)):
		return store.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		// The client gives up early if it would have to wait beyond the deadline.
		ours, _ := bounded.Deadline()
		if theirs, ok := ctx.Deadline(); ok && !theirs.After(ours) {
			return context.DeadlineExceeded
		}
		return fmt.Errorf("%w in %v", errSilent, s.timeout)
	}
	return err
}

var errSilent = errors.New("redis: no answer")

// milliseconds rounds up: a ttl below one is not none.
func milliseconds(ttl time.Duration) int64 {
	return int64((ttl-1)/time.Millisecond) + 1
}

// one is a cas.Record.
type one struct {
	s   *Store
	key string
}

func (o one) Read(ctx context.Context) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, o.s.timeout)
	defer cancel()
	value, err := o.s.get(bounded, o.key)
	return value, o.s.fail(ctx, bounded, err)
}

// swap compares the value itself, byte for byte, which needs no version beside
// it and is safe against any other writer.
//
// ARGV: "=" and the old value or "-" and "" for none; "=" and the new value or
// "-" and "" to delete; the ttl in milliseconds, 0 for none. The answer is 1, or
// a list of what is there, empty if nothing is.
var swap = rueidis.NewLuaScript(`
local current = redis.call('GET', KEYS[1])
if ARGV[1] == '-' then
	if current then return {current} end
elseif not current then
	return {}
elseif current ~= ARGV[2] then
	return {current}
end
if ARGV[3] == '-' then
	redis.call('DEL', KEYS[1])
elseif ARGV[5] == '0' then
	redis.call('SET', KEYS[1], ARGV[4])
else
	redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
return 1
`)

func (o one) Swap(ctx context.Context, old, value []byte, ttl time.Duration) (current []byte, swapped bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, o.s.timeout)
	defer cancel()
	defer o.s.written.add(o.key)
	var px int64
	if ttl > 0 {
		px = milliseconds(ttl)
	}
	answer := swap.Exec(bounded, o.s.client, []string{o.s.prefix + o.key}, []string{
		mark(old), rueidis.BinaryString(old), mark(value), rueidis.BinaryString(value), fmt.Sprint(px),
	})
	message, err := answer.ToMessage()
	if err != nil {
		return nil, false, o.s.fail(ctx, bounded, err)
	}
	if message.IsInt64() {
		return nil, true, nil
	}
	list, err := message.ToArray()
	if err != nil {
		return nil, false, err
	}
	if len(list) == 0 {
		return nil, false, nil
	}
	there, err := list[0].ToString()
	return []byte(there), false, err
}

func mark(value []byte) string {
	if value == nil {
		return "-"
	}
	return "="
}

// globs escapes what MATCH would take for a pattern.
var globs = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `\`, `\\`, `^`, `\^`)

// Interface guards
var (
	_ store.Store   = (*Store)(nil)
	_ store.Watcher = (*Store)(nil)
)
