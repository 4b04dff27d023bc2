package bolt_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-mcp/mcpauth/store/bolt"
	"github.com/caddy-mcp/mcpauth/store/storetest"
)

// BenchmarkStore measures the store, and beside it how often this disk syncs.
func BenchmarkStore(b *testing.B) {
	b.Run("fsync", func(b *testing.B) {
		file, err := os.Create(filepath.Join(b.TempDir(), "file"))
		if err != nil {
			b.Fatal(err)
		}
		defer file.Close()
		// As a commit does: pages, sync, header, sync.
		pages := make([]byte, 16<<10)
		for b.Loop() {
			if _, err := file.WriteAt(pages, 0); err != nil {
				b.Fatal(err)
			}
			if err := file.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "fsyncs/s")
	})
	s := mustOpen(b, bolt.Options{Path: filepath.Join(b.TempDir(), "grants.db")})
	defer s.Close()
	storetest.Benchmark(b, s)
}
