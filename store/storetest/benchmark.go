package storetest

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/store"
)

// Benchmark measures Get, Put, Update and Take of records of 1 KiB, by one
// client and by 64.
func Benchmark(b *testing.B, s store.Store) {
	value := make([]byte, 1<<10)
	var serial atomic.Int64
	key := func(n int64) string { return fmt.Sprintf("0123456789abcdef/grant/%032d", n%1000) }
	for n := range int64(1000) {
		if err := s.Put(b.Context(), key(n), value, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	operations := []struct {
		name string
		run  func(n int64) error
	}{
		{"Get", func(n int64) error { _, err := s.Get(b.Context(), key(n)); return err }},
		{"Put", func(n int64) error { return s.Put(b.Context(), key(n), value, time.Hour) }},
		{"Update", func(n int64) error {
			return s.Update(b.Context(), key(n), func(old []byte) ([]byte, time.Duration, error) {
				if len(old) > 0 {
					old[0]++
				}
				return old, time.Hour, nil
			})
		}},
		{"Put and Take", func(n int64) error {
			once := fmt.Sprint("once/", n)
			if err := s.Put(b.Context(), once, value, time.Minute); err != nil {
				return err
			}
			_, err := s.Take(b.Context(), once)
			return err
		}},
	}
	for _, op := range operations {
		b.Run(op.name+"/1", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := op.run(serial.Add(1)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(op.name+"/64", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := op.run(serial.Add(1)); err != nil && !errors.Is(err, store.ErrConflict) {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
