package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	idplib "github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
	"github.com/caddy-mcp/mcpauth/store"
	"github.com/caddy-mcp/mcpauth/store/bolt"
	"github.com/caddy-mcp/mcpauth/store/memory"
)

// liveGrants prints what grants take that are not being used. Each store is in
// a process of its own, with the library and without Caddy.
func (b *bench) liveGrants(ctx context.Context, wanted func(string) bool) error {
	idle, _, err := b.startBroker(ctx, "grants-caddy", "memory")
	if err != nil {
		return err
	}
	caddyItself, err := residentOf(idle.pid())
	idle.stop()
	if err != nil {
		return err
	}
	fmt.Printf("\n%d live grants, upstream tokens of %d bytes, empty token cache (an idle Caddy alone: %.0f MiB)\n", b.grants, upstreamTokens, mebibytes(caddyItself))
	for _, kind := range []string{"memory", "bbolt"} {
		if !wanted(kind) {
			continue
		}
		file := filepath.Join(b.dir, "grants-"+kind+".db")
		p, err := b.child(ctx, "grants", kind, file, strconv.Itoa(b.grants))
		if err != nil {
			return err
		}
		var held heldGrants
		err = p.says(&held)
		p.stop()
		_ = os.Remove(file) // hundreds of megabytes; there is none for memory
		if err != nil {
			return err
		}
		fmt.Printf("%-7s %.0f bytes a grant in the heap, %.0f in the file; resident %.0f MiB (%.0f before), %.0f with free memory returned; target for 100 000 grants: 150 MiB %s\n",
			kind, float64(held.Heap)/float64(b.grants), float64(held.File)/float64(b.grants), mebibytes(held.Resident), mebibytes(held.Before),
			mebibytes(held.Returned), fits(b.grants, held.Resident))
	}
	return nil
}

// fits judges resident memory, if it is of as many grants as the target is for.
func fits(grants int, resident int64) string {
	if grants != 100_000 {
		return ""
	}
	return mark(mebibytes(resident) <= 150)
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// heldGrants is what the child says. All are bytes.
type heldGrants struct {
	// Heap is what the grants added to the live heap, File the size of the store's
	// file.
	Heap, File int64
	// Before is resident memory before the first grant, Resident that with all of
	// them, Returned that after the runtime has returned what it can.
	Before, Resident, Returned int64
}

// holdGrants is the child: arguments are the store, its file, and how many.
func holdGrants(args []string) error {
	if len(args) != 3 {
		return errors.New("grants needs a store, a file and a number")
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var inner store.Store = memory.New(memory.Options{})
	if args[0] == "bbolt" {
		if err := os.Remove(args[1]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if inner, err = bolt.Open(ctx, bolt.Options{Path: args[1]}); err != nil {
			return err
		}
	}
	defer inner.Close()
	l, err := newLibrary(inner)
	if err != nil {
		return err
	}
	if _, err := l.signIn(ctx, 0); err != nil { // makes the signing key
		return err
	}
	var held heldGrants
	heapBefore := liveHeap()
	if held.Before, err = residentOf(os.Getpid()); err != nil {
		return err
	}
	if err := l.signInMany(ctx, n); err != nil {
		return err
	}
	held.Heap = liveHeap() - heapBefore
	if held.Resident, err = residentOf(os.Getpid()); err != nil {
		return err
	}
	debug.FreeOSMemory()
	if held.Returned, err = residentOf(os.Getpid()); err != nil {
		return err
	}
	if info, err := os.Stat(args[1]); args[0] == "bbolt" && err == nil {
		held.File = info.Size()
	}
	runtime.KeepAlive(l)
	return json.NewEncoder(os.Stdout).Encode(held)
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // far below
}

// library is the broker's grants without Caddy.
type library struct {
	grants *proxyprovider.Grants
	client *oauth.Client
	writes atomic.Int64
}

const (
	libraryIssuer   = "https://mcp.example.com"
	libraryResource = libraryIssuer + "/mcp"
)

func newLibrary(inner store.Store) (*library, error) {
	ring, err := seal.NewRing(seal.GenerateKey())
	if err != nil {
		return nil, err
	}
	l := &library{client: &oauth.Client{
		// As long as ids are that hold a sealed registration.
		ClientInformation: oauth.ClientInformation{ClientID: padded("mcp_", 180)},
		ClientMetadata: oauth.ClientMetadata{
			ClientName: "Benchmark", RedirectURIs: []string{redirectURI}, TokenEndpointAuthMethod: oauth.AuthMethodNone,
		},
	}}
	sealed, err := store.Sealed(&countingStore{inner, &l.writes}, store.SealedOptions{Ring: ring, Issuer: libraryIssuer})
	if err != nil {
		return nil, err
	}
	const idpURL = "https://idp.example.com"
	upstream, err := idplib.NewOAuth2(idplib.OAuth2Options{
		Common:           idplib.Common{ClientID: "bench", ClientSecret: "secret", Logger: slog.New(slog.DiscardHandler)},
		AuthorizationURL: idpURL + "/authorize", TokenURL: idpURL + "/token", UserInfoURL: idpURL + "/userinfo",
	})
	if err != nil {
		return nil, err
	}
	l.grants, err = proxyprovider.NewGrants(proxyprovider.GrantsConfig{
		Issuer: libraryIssuer, Upstream: upstream, Logger: slog.New(slog.DiscardHandler),
		Keys:  func() (*seal.Ring, error) { return ring, nil },
		Store: func() (store.Store, error) { return sealed, nil },
	})
	return l, err
}

// signIn makes a grant with tokens and returns the refresh token.
func (l *library) signIn(ctx context.Context, user int) (string, error) {
	code, err := l.code(ctx, user)
	if err != nil {
		return "", err
	}
	t, err := l.redeem(ctx, code)
	if err != nil {
		return "", err
	}
	return t.RefreshToken, nil
}

func (l *library) code(ctx context.Context, user int) (string, error) {
	name := "user-" + strconv.Itoa(user)
	n := proxyprovider.NewGrant{
		Client: l.client, RedirectURI: redirectURI, CodeChallenge: challenge, Scopes: []string{"mcp:read"}, Resource: libraryResource,
		Identity: &idplib.Identity{
			Issuer: "https://idp.example.com", Subject: name, Email: name + "@example.com", EmailVerified: true, Name: "User " + name,
		},
		Upstream: &idplib.Tokens{
			AccessToken: padded("a."+name+".", upstreamTokens/2), RefreshToken: padded("r."+name+".", upstreamTokens/2), Expiry: time.Now().Add(2 * time.Hour),
		},
	}
	binary.BigEndian.PutUint64(n.ID[:], uint64(user)+1) //nolint:gosec // positive
	return l.grants.Create(ctx, n)
}

func (l *library) redeem(ctx context.Context, code string) (*oauth.Tokens, error) {
	return l.grants.ExchangeCode(ctx, l.client, authserver.CodeExchange{Code: code, Verifier: verifier, RedirectURI: redirectURI, Resource: libraryResource})
}

func (l *library) signInMany(ctx context.Context, n int) error {
	const atOnce = 64
	errs := make([]error, atOnce)
	var all sync.WaitGroup
	for w := range atOnce {
		all.Go(func() {
			for i := w; i < n && errs[w] == nil; i += atOnce {
				_, errs[w] = l.signIn(ctx, i+1)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// writesPerRequest counts what the token endpoint writes for a code, once the
// user's index is there, and for a refresh token.
func writesPerRequest(ctx context.Context) (code, refresh float64, err error) {
	inner := memory.New(memory.Options{})
	defer inner.Close()
	l, err := newLibrary(inner)
	if err != nil {
		return 0, 0, err
	}
	if _, err := l.signIn(ctx, 0); err != nil {
		return 0, 0, err
	}
	const n = 100
	codes := make([]string, n)
	for i := range codes {
		if codes[i], err = l.code(ctx, i+1); err != nil {
			return 0, 0, err
		}
	}
	var last *oauth.Tokens
	before := l.writes.Load()
	for _, c := range codes {
		if last, err = l.redeem(ctx, c); err != nil {
			return 0, 0, err
		}
	}
	between := l.writes.Load()
	for range n {
		if last, err = l.grants.ExchangeRefreshToken(ctx, l.client, authserver.RefreshExchange{RefreshToken: last.RefreshToken}); err != nil {
			return 0, 0, err
		}
	}
	return float64(between-before) / n, float64(l.writes.Load()-between) / n, nil
}

// countingStore counts calls that write.
type countingStore struct {
	store.Store
	writes *atomic.Int64
}

// Put implements store.Store.
func (s *countingStore) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	s.writes.Add(1)
	return s.Store.Put(ctx, key, value, ttl)
}

// Update implements store.Store.
func (s *countingStore) Update(ctx context.Context, key string, fn store.UpdateFunc) error {
	s.writes.Add(1)
	return s.Store.Update(ctx, key, fn)
}
