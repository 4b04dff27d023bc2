// Package mcpauth is a Caddy plugin that gives any MCP server complete OAuth.
// It turns configuration into the values of the library packages below it:
// authserver, bearer and proxyprovider, which also work without Caddy.
package mcpauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/seal"
	"github.com/caddy-mcp/mcpauth/store"
)

func init() {
	caddy.RegisterModule(new(App))
}

// App holds what the `mcp_auth` handlers of all sites share: the encryption
// keys, the store, and the running authorization servers.
//
// It needs no configuration: without any, a key is made on first use and kept
// in Caddy's storage.
type App struct {
	// StoreRaw is where grants are kept: bbolt (default), memory, redis or
	// caddy_storage. It is opened only if a site issues tokens itself.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=mcp_auth.stores inline_key=module"`

	// EncryptionKeys seal registrations and refresh tokens. Each is base64 of 32
	// bytes, or a passphrase of at least 32 characters; write placeholders such
	// as {env.MCP_AUTH_KEY}. The first seals, all open: put a new key in front
	// to rotate, drop the old one when what it sealed may end.
	EncryptionKeys []string `json:"encryption_keys,omitempty"`

	// TokenCache is about what is remembered of verified tokens.
	TokenCache *TokenCache `json:"token_cache,omitempty"`

	ctx    caddy.Context
	logger *zap.Logger
	store  *openStore

	keysMu sync.Mutex
	ring   *seal.Ring

	// issuerStores holds, by issuer, its sealed part of the store.
	issuerStores sync.Map

	sitesMu sync.Mutex
	sites   map[string]*registeredSite
	// connected are the servers that tell the guard of their connections.
	connected map[*caddyhttp.Server]bool
	// expected are issuers that a handler needs to find at start.
	expected []string
	// storeExpected tells that something besides the sites needs the store.
	storeExpected bool
	// callers tells that something behind the guard wants to know the caller.
	callers atomic.Bool
	// acquired are the keys of the pools that this instance holds a reference
	// to. Cleanup gives back exactly these: a load that fails must not close
	// what the running configuration uses.
	acquired []func()

	stop    context.CancelFunc
	running sync.WaitGroup
	// stopped tells that this configuration does not run any more.
	stopped atomic.Bool
}

// registeredSite is a running site and the configuration it was made of.
type registeredSite struct {
	*site
	config []byte
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth", New: func() caddy.Module { return new(App) }}
}

// Provision reads the keys and the store's configuration. It opens nothing.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx = ctx
	a.logger = ctx.Logger()
	a.sites = make(map[string]*registeredSite)
	a.connected = make(map[*caddyhttp.Server]bool)
	if err := a.TokenCache.check(); err != nil {
		return err
	}
	module, err := a.storeModule(ctx)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if module.Reach() == ReachNodes && len(a.EncryptionKeys) == 0 {
		return errors.New("this store can be shared by several nodes, which need the same encryption_key: make one with openssl rand -base64 32, and write encryption_key {env.MCP_AUTH_KEY}")
	}
	if err := a.acquireStore(module); err != nil {
		return err
	}
	if len(a.EncryptionKeys) == 0 {
		return nil
	}
	resolvedApp, err := resolved(&struct {
		EncryptionKeys []string `json:"encryption_keys"`
	}{a.EncryptionKeys})
	if err != nil {
		return err
	}
	keys := make([]seal.Key, 0, len(resolvedApp.EncryptionKeys))
	for i, text := range resolvedApp.EncryptionKeys {
		key, err := seal.ParseKey(text)
		if err != nil {
			return fmt.Errorf("encryption_key %d: %w; make one with: openssl rand -base64 32", i+1, err)
		}
		keys = append(keys, key)
	}
	a.ring, err = seal.NewRing(keys...)
	return err
}

// storeModule loads the configured store, the bbolt file by default.
func (a *App) storeModule(ctx caddy.Context) (StoreModule, error) {
	if a.StoreRaw == nil {
		module := new(BboltStore)
		return module, module.Provision(ctx)
	}
	loaded, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return nil, err
	}
	module, ok := loaded.(StoreModule)
	if !ok {
		return nil, fmt.Errorf("module %T cannot be used as a store", loaded)
	}
	return module, nil
}

// Start opens the key and begins to load what identity providers publish.
func (a *App) Start() error {
	a.sitesMu.Lock()
	defer a.sitesMu.Unlock()
	for _, issuer := range a.expected {
		if s, ok := a.sites[issuer]; !ok || s.server == nil {
			return fmt.Errorf("mcp_auth_metadata %s: no mcp_auth of this configuration is the authorization server of that issuer", issuer)
		}
	}
	for _, s := range a.sites {
		if s.needsKeys {
			if _, err := a.keys(); err != nil {
				return err
			}
		}
		if s.needsStore {
			if err := a.openStore(); err != nil {
				return err
			}
		}
	}
	if a.storeExpected {
		if err := a.openStore(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	for _, s := range a.sites {
		for _, start := range s.start {
			start()
		}
		for _, run := range s.run {
			a.running.Go(func() { run(ctx) })
		}
	}
	a.running.Go(func() { a.probe(ctx) })
	return nil
}

// Stop ends what runs in the background for this configuration alone. What is
// kept over reloads ends with its last user, in Cleanup.
func (a *App) Stop() error {
	a.stopped.Store(true)
	if a.stop != nil {
		a.stop()
		a.running.Wait()
	}
	return nil
}

// Cleanup gives back what this instance acquired.
func (a *App) Cleanup() error {
	a.sitesMu.Lock()
	defer a.sitesMu.Unlock()
	for _, release := range a.acquired {
		release()
	}
	a.acquired = nil
	return nil
}

// keys returns the key ring. Without configured keys the store's generated one
// is opened on first use; a failure is not remembered.
func (a *App) keys() (*seal.Ring, error) {
	a.keysMu.Lock()
	defer a.keysMu.Unlock()
	if a.ring != nil {
		return a.ring, nil
	}
	key, err := a.generatedKey()
	if err != nil {
		return nil, fmt.Errorf("the encryption key could not be opened: %w", err)
	}
	ring, err := seal.NewRing(key)
	if err != nil {
		return nil, err
	}
	a.ring = ring
	return ring, nil
}

// generatedKey returns the key that was made for want of a configured one. It
// lives as long as what it seals: in memory beside a store in memory, else in
// Caddy's storage.
func (a *App) generatedKey() (seal.Key, error) {
	if a.store.module.Reach() != ReachProcess {
		return (&storedKey{storage: a.ctx.Storage()}).open(a.ctx)
	}
	key, made := a.store.processKey()
	if made {
		a.logger.Warn("the encryption key is kept in memory only: clients must register and people sign in again after a restart; set encryption_key, or drop `store memory`")
	}
	return key, nil
}

// openStore opens the store and makes sure that its nodes share a key.
func (a *App) openStore() error {
	if _, err := a.store.open(a.ctx); err != nil {
		return fmt.Errorf("the store could not be opened: %w", err)
	}
	if a.store.module.Reach() != ReachNodes {
		return nil
	}
	return a.checkFingerprint(a.ctx)
}

// issuerStore returns the part of the store that belongs to an issuer, sealed.
func (a *App) issuerStore(issuer string) (store.Store, error) {
	if sealed, ok := a.issuerStores.Load(issuer); ok {
		return sealed.(store.Store), nil
	}
	ring, err := a.keys()
	if err != nil {
		return nil, err
	}
	opened, err := a.store.open(a.ctx)
	if err != nil {
		return nil, err
	}
	sealed, err := store.Sealed(opened, store.SealedOptions{Ring: ring, Issuer: issuer})
	if err != nil {
		return nil, err
	}
	a.issuerStores.Store(issuer, sealed)
	return sealed, nil
}

// registerSite returns the site named name, built by build unless it is there
// already: a site that listens on http and https has its handler twice. The
// same name with another configuration is an error.
func (a *App) registerSite(name string, config any, build func() (*site, error)) (*site, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	a.sitesMu.Lock()
	defer a.sitesMu.Unlock()
	if existing, ok := a.sites[name]; ok {
		if !bytes.Equal(existing.config, data) {
			return nil, fmt.Errorf("%s is configured twice with different settings; give every site an issuer of its own, or serve both hosts from one site block", name)
		}
		return existing.site, nil
	}
	s, err := build()
	if err != nil {
		return nil, err
	}
	s.app, s.name = a, name
	a.sites[name] = &registeredSite{site: s, config: data}
	a.noteShared(s)
	return s, nil
}

// expectIssuer makes Start fail unless a site serves the issuer.
func (a *App) expectIssuer(issuer string) {
	a.sitesMu.Lock()
	defer a.sitesMu.Unlock()
	a.expected = append(a.expected, issuer)
}

// expectStore makes Start open the store, also without a site that needs it.
func (a *App) expectStore() {
	a.sitesMu.Lock()
	defer a.sitesMu.Unlock()
	a.storeExpected = true
}

// siteOf returns the running site of an issuer, nil if there is none.
func (a *App) siteOf(issuer string) *site {
	a.sitesMu.Lock()
	defer a.sitesMu.Unlock()
	if s, ok := a.sites[issuer]; ok {
		return s.site
	}
	return nil
}

// storedKey is the generated key in Caddy's storage: in its data directory, or
// wherever the `storage` option says, so that all nodes that share it share the
// key.
type storedKey struct{ storage certmagic.Storage }

const sealingKeyPath = "mcp_auth/sealing_key"

// open loads the key, or makes one under the storage's lock.
func (s *storedKey) open(ctx context.Context) (seal.Key, error) {
	if key, err := s.load(ctx); !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := s.storage.Lock(ctx, sealingKeyPath); err != nil {
		return seal.Key{}, fmt.Errorf("locking %s in Caddy's storage: %w", sealingKeyPath, err)
	}
	defer func() { _ = s.storage.Unlock(context.WithoutCancel(ctx), sealingKeyPath) }()
	if key, err := s.load(ctx); !errors.Is(err, fs.ErrNotExist) {
		return key, err // another node was faster
	}
	key := seal.GenerateKey()
	if err := s.storage.Store(ctx, sealingKeyPath, []byte(key.Encode()+"\n")); err != nil {
		return seal.Key{}, fmt.Errorf("storing %s in Caddy's storage: %w; give Caddy a writable data directory, or set encryption_key", sealingKeyPath, err)
	}
	return key, nil
}

func (s *storedKey) load(ctx context.Context) (seal.Key, error) {
	data, err := s.storage.Load(ctx, sealingKeyPath)
	if err != nil {
		return seal.Key{}, err
	}
	key, err := seal.ParseKey(string(bytes.TrimSpace(data)))
	if err != nil {
		return seal.Key{}, fmt.Errorf("%s in Caddy's storage is damaged: %w; remove it to make a new one, clients then register again", sealingKeyPath, err)
	}
	return key, nil
}

// appendConnContext makes a server that is being provisioned tell the guard of its
// connections, once.
func (a *App) appendConnContext(server *caddyhttp.Server) {
	if server == nil {
		return // in tests of the handler alone
	}
	a.sitesMu.Lock()
	defer a.sitesMu.Unlock()
	if !a.connected[server] {
		a.connected[server] = true
		server.RegisterConnContext(bearer.ConnContext)
	}
}

// appOf returns the app of the configuration that is being provisioned.
func appOf(ctx caddy.Context) (*App, error) {
	module, err := ctx.App("mcp_auth")
	if err != nil {
		return nil, err
	}
	return module.(*App), nil
}

// httpApp returns the HTTP app of the running configuration, nil if there is none.
func (a *App) httpApp() *caddyhttp.App {
	module, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return nil
	}
	return module.(*caddyhttp.App)
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
