package bolt_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/store/bolt"
)

// TestShared: who writes at the same time shares a transaction.
func TestShared(t *testing.T) {
	s := mustOpen(t, bolt.Options{Path: filepath.Join(t.TempDir(), "grants.db")})
	defer s.Close()
	const clients, each = 64, 20
	before := bolt.Commits(s)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for range each {
				if err := s.Put(t.Context(), fmt.Sprint("client/", i), []byte("x"), time.Hour); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	commits := bolt.Commits(s) - before
	t.Logf("%d writes in %d transactions", clients*each, commits)
	if commits > clients*each/8 {
		t.Errorf("%d writes took %d transactions", clients*each, commits)
	}
}
