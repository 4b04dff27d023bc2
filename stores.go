package mcpauth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/seal"
	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/bolt"
	"github.com/caddy-mcp/mcpauth/store/caddystorage"
	"github.com/caddy-mcp/mcpauth/store/memory"
	"github.com/caddy-mcp/mcpauth/store/redis"
)

func init() {
	caddy.RegisterModule(MemoryStore{})
	caddy.RegisterModule(BboltStore{})
	caddy.RegisterModule(RedisStore{})
	caddy.RegisterModule(CaddyStorageStore{})
}

// StoreModule is a module in the namespace mcp_auth.stores.
type StoreModule interface {
	// StoreIdentity names what is stored where: type and address. Two
	// configurations of one identity share one open store, so that a reload
	// keeps it open whatever else changes.
	StoreIdentity() string
	// OpenStore opens the store. It is called when the configuration starts or
	// the store is first needed, never while it is being checked.
	OpenStore(ctx context.Context) (store.Store, error)
	// Reach tells who else can see the store.
	Reach() StoreReach
}

// StoreReach tells how far a store's records go.
type StoreReach int

// The reaches of a store.
const (
	// ReachProcess is a store that ends with the process.
	ReachProcess StoreReach = iota
	// ReachMachine is a store that outlives the process, on this machine.
	ReachMachine
	// ReachNodes is a store that several machines can share. They need the same
	// encryption key.
	ReachNodes
)

// MemoryStore keeps everything in memory: it outlives a reload, not a restart,
// after which clients have to register and people to sign in again. It is for
// tests and for trying things out.
type MemoryStore struct{}

// CaddyModule returns the Caddy module information.
func (MemoryStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.stores.memory", New: func() caddy.Module { return new(MemoryStore) }}
}

// StoreIdentity implements StoreModule.
func (*MemoryStore) StoreIdentity() string { return "memory" }

// OpenStore implements StoreModule.
func (*MemoryStore) OpenStore(context.Context) (store.Store, error) {
	return memory.New(memory.Options{}), nil
}

// Reach implements StoreModule.
func (*MemoryStore) Reach() StoreReach { return ReachProcess }

// BboltStore keeps everything in one file of this machine, for one Caddy
// process. It is the default.
type BboltStore struct {
	// Path is the file. Default: mcp_auth/grants.db in Caddy's data directory.
	Path string `json:"path,omitempty"`

	path string
}

// CaddyModule returns the Caddy module information.
func (BboltStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.stores.bbolt", New: func() caddy.Module { return new(BboltStore) }}
}

// Provision resolves the path.
func (s *BboltStore) Provision(caddy.Context) error {
	r, err := resolved(s)
	if err != nil {
		return err
	}
	s.path = r.Path
	if s.path == "" {
		s.path = filepath.Join(caddy.AppDataDir(), "mcp_auth", "grants.db")
	}
	s.path, err = filepath.Abs(s.path)
	return err
}

// StoreIdentity implements StoreModule.
func (s *BboltStore) StoreIdentity() string { return "bbolt:" + s.path }

// OpenStore implements StoreModule.
func (s *BboltStore) OpenStore(ctx context.Context) (store.Store, error) {
	return bolt.Open(ctx, bolt.Options{Path: s.path})
}

// Reach implements StoreModule.
func (*BboltStore) Reach() StoreReach { return ReachMachine }

// RedisStore keeps everything in Redis (6.2 or later) or Valkey, for several
// Caddys. The server must keep what it is given: appendonly yes, and
// maxmemory-policy noeviction. encryption_key is required.
type RedisStore struct {
	// Addresses are host:port, several for the nodes of one cluster, or a URL:
	// redis://, rediss:// for TLS, unix:// for a socket.
	Addresses []string `json:"addresses"`

	// Username and Password sign in.
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`

	// TLS encrypts the connection and checks the server's certificate.
	TLS bool `json:"tls,omitempty"`

	// Prefix begins every key. Default: mcpauth.
	Prefix string `json:"prefix,omitempty"`

	// Database is the number of the database. Default: 0.
	Database int `json:"database,omitempty"`

	resolved *RedisStore
}

// CaddyModule returns the Caddy module information.
func (RedisStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.stores.redis", New: func() caddy.Module { return new(RedisStore) }}
}

// Provision resolves placeholders.
func (s *RedisStore) Provision(caddy.Context) (err error) {
	if s.resolved, err = resolved(s); err != nil {
		return err
	}
	if len(s.resolved.Addresses) == 0 {
		return errors.New("store redis: write the address, for example localhost:6379")
	}
	return nil
}

// StoreIdentity implements StoreModule.
func (s *RedisStore) StoreIdentity() string {
	addresses := slices.Sorted(slices.Values(s.resolved.Addresses))
	return fmt.Sprintf("redis:%s/%d/%s", strings.Join(addresses, ","), s.resolved.Database, s.resolved.Prefix)
}

// OpenStore implements StoreModule.
func (s *RedisStore) OpenStore(ctx context.Context) (store.Store, error) {
	o := redis.Options{
		Addresses: s.resolved.Addresses,
		Username:  s.resolved.Username,
		Password:  s.resolved.Password,
		Database:  s.resolved.Database,
		Prefix:    s.resolved.Prefix,
	}
	if s.resolved.TLS {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return redis.Open(ctx, o)
}

// Reach implements StoreModule.
func (*RedisStore) Reach() StoreReach { return ReachNodes }

// CaddyStorageStore keeps everything in Caddy's own storage, wherever the
// `storage` option puts that. It needs nothing else and is slow; it is as exact
// as the storage's locks are. encryption_key is required.
type CaddyStorageStore struct {
	storage certmagic.Storage
}

// CaddyModule returns the Caddy module information.
func (CaddyStorageStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.stores.caddy_storage", New: func() caddy.Module { return new(CaddyStorageStore) }}
}

// Provision takes hold of the configuration's storage.
func (s *CaddyStorageStore) Provision(ctx caddy.Context) error {
	s.storage = ctx.Storage()
	ctx.Logger().Warn("store caddy_storage: one-time codes and refresh tokens are as safe from double use as the locks of Caddy's storage are; some storages have weak ones. Prefer redis for several nodes, bbolt for one")
	return nil
}

// StoreIdentity implements StoreModule.
func (s *CaddyStorageStore) StoreIdentity() string { return fmt.Sprintf("caddy_storage:%v", s.storage) }

// OpenStore implements StoreModule.
func (s *CaddyStorageStore) OpenStore(context.Context) (store.Store, error) {
	return caddystorage.New(caddystorage.Options{Storage: s.storage})
}

// Reach implements StoreModule.
func (*CaddyStorageStore) Reach() StoreReach { return ReachNodes }

// openStore is a store of this process, opened when it is first needed.
type openStore struct {
	module StoreModule
	mu     sync.Mutex
	store  store.Store
	closed bool
	// key is the generated key of a store that ends with the process.
	key *seal.Key
}

// processKey returns the key that lives as long as this store does.
func (o *openStore) processKey() (key seal.Key, made bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.key == nil {
		key := seal.GenerateKey()
		o.key = &key
		made = true
	}
	return *o.key, made
}

// open returns the open store; a failure is not remembered.
func (o *openStore) open(ctx context.Context) (store.Store, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, store.ErrClosed
	}
	if o.store == nil {
		opened, err := o.module.OpenStore(ctx)
		if err != nil {
			return nil, err
		}
		o.store = opened
	}
	return o.store, nil
}

// Destruct closes the store when its last configuration is gone.
func (o *openStore) Destruct() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.store == nil {
		return nil
	}
	return o.store.Close()
}

// storePool holds the stores of this process by identity.
var storePool = caddy.NewUsagePool()

// acquireStore takes hold of the module's store without opening it, and lets
// Cleanup let go of it.
func (a *App) acquireStore(module StoreModule) error {
	identity := module.StoreIdentity()
	value, _, err := storePool.LoadOrNew(identity, func() (caddy.Destructor, error) {
		return &openStore{module: module}, nil
	})
	if err != nil {
		return err
	}
	a.store = value.(*openStore)
	a.acquired = append(a.acquired, func() { _, _ = storePool.Delete(identity) })
	return nil
}

// fingerprintKey is where nodes that share a store leave their key's
// fingerprint. It is not a secret.
const fingerprintKey = "key_fingerprint"

// checkFingerprint makes sure that this node has the key of those that share
// its store: with another one it would read nothing and revoke everything.
func (a *App) checkFingerprint(ctx context.Context) error {
	ring, err := a.keys()
	if err != nil {
		return err
	}
	shared, err := a.store.open(ctx)
	if err != nil {
		return err
	}
	return shared.Update(ctx, fingerprintKey, func(old []byte) ([]byte, time.Duration, error) {
		if old == nil || ring.Knows(string(old)) {
			return []byte(ring.Fingerprint()), 0, nil
		}
		return nil, 0, errors.New("the store was written with another encryption_key: give every node that shares it the same keys, new ones second at first and in front when all have them; to start anew, empty the store")
	})
}

// Interface guards
var (
	_ StoreModule       = (*MemoryStore)(nil)
	_ StoreModule       = (*BboltStore)(nil)
	_ StoreModule       = (*RedisStore)(nil)
	_ StoreModule       = (*CaddyStorageStore)(nil)
	_ caddy.Provisioner = (*BboltStore)(nil)
	_ caddy.Provisioner = (*RedisStore)(nil)
	_ caddy.Provisioner = (*CaddyStorageStore)(nil)
	_ caddy.Destructor  = (*openStore)(nil)
)
