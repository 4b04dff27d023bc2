package mcpauth

import (
	"context"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-mcp/mcpauth/seal"
)

func init() {
	caddy.RegisterModule(MemoryStore{})
}

// MemoryStore keeps everything in memory: it outlives a reload, not a restart.
// Clients have to register and sign in again after one. It is for tests and
// for trying things out.
type MemoryStore struct {
	logger *zap.Logger
	held   *memory
}

// memory is what all MemoryStores of a process share.
type memory struct {
	mu  sync.Mutex
	key *seal.Key
}

// Destruct forgets everything.
func (*memory) Destruct() error { return nil }

// memories holds the process's one memory as long as a configuration uses it.
var memories = caddy.NewUsagePool()

// CaddyModule returns the Caddy module information.
func (MemoryStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.stores.memory", New: func() caddy.Module { return new(MemoryStore) }}
}

// Provision takes hold of the process's memory.
func (s *MemoryStore) Provision(ctx caddy.Context) error {
	s.logger = ctx.Logger()
	held, _, err := memories.LoadOrNew("memory", func() (caddy.Destructor, error) { return new(memory), nil })
	if err != nil {
		return err
	}
	s.held = held.(*memory)
	return nil
}

// Cleanup lets go of the memory if this instance holds it.
func (s *MemoryStore) Cleanup() error {
	if s.held == nil {
		return nil
	}
	s.held = nil
	_, err := memories.Delete("memory")
	return err
}

// SealingKey returns the process's key.
func (s *MemoryStore) SealingKey(context.Context) (seal.Key, error) {
	s.held.mu.Lock()
	defer s.held.mu.Unlock()
	if s.held.key == nil {
		key := seal.GenerateKey()
		s.held.key = &key
		s.logger.Warn("the encryption key is kept in memory only: clients must register and sign in again after a restart; set encryption_key, or drop `store memory`")
	}
	return *s.held.key, nil
}

// Interface guards
var (
	_ caddy.Provisioner  = (*MemoryStore)(nil)
	_ caddy.CleanerUpper = (*MemoryStore)(nil)
	_ Store              = (*MemoryStore)(nil)
)
