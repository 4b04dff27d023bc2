package mcpauth

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/store"
)

const (
	// leaseTime is how long the hold on a grant outlives a node that dies.
	leaseTime = 15 * time.Second
	// leasePause is how often a hold that another node has is tried again.
	leasePause = 100 * time.Millisecond
	// leaseWait bounds the wait for it.
	leaseWait = 20 * time.Second
)

// grantStore keeps the credentials of one grant at a remote server in the store
// of mcp_auth, where they lie sealed, outlive a restart and are shared by the
// nodes. One caller at a time, of all nodes, changes them.
type grantStore struct {
	open func() (store.Store, error)
	key  string
	// seed is the configured refresh token, "" if there is none. It counts until
	// it has been replaced, and again when another one is configured.
	seed string
	// formerKey is where a grant of the seed may lie from before grants were kept
	// by seed; "" if there is no such place.
	formerKey string
	slot      chan struct{}
}

// remoteRecord is what is stored.
type remoteRecord struct {
	Version int `json:"v"`
	// Seed is the hash of the configured refresh token that Tokens came from.
	Seed      string                        `json:"seed,omitempty"`
	Client    *authclient.ClientInformation `json:"client,omitempty"`
	Tokens    *authclient.Tokens            `json:"tokens,omitempty"`
	Verifier  string                        `json:"verifier,omitempty"`
	Discovery *authclient.DiscoveryState    `json:"discovery,omitempty"`
}

// remoteRecordVersion is the version that this program writes.
const remoteRecordVersion = 1

var _ authclient.Store = (*grantStore)(nil)

func newGrantStore(open func() (store.Store, error), key string) *grantStore {
	return &grantStore{open: open, key: key, slot: make(chan struct{}, 1)}
}

// read returns the record, an empty one if there is none.
func (s *grantStore) read(ctx context.Context) (*remoteRecord, error) {
	opened, err := s.open()
	if err != nil {
		return nil, err
	}
	data, err := opened.Get(ctx, s.key)
	if errors.Is(err, store.ErrNotFound) {
		return s.former(ctx, opened)
	}
	if err != nil {
		return nil, err
	}
	return parseRemoteRecord(data)
}

// former returns the record of the former key if it is of the same seed, else
// an empty one.
func (s *grantStore) former(ctx context.Context, opened store.Store) (*remoteRecord, error) {
	if s.formerKey == "" {
		return new(remoteRecord), nil
	}
	data, err := opened.Get(ctx, s.formerKey)
	if errors.Is(err, store.ErrNotFound) {
		return new(remoteRecord), nil
	}
	if err != nil {
		return nil, err
	}
	r, err := parseRemoteRecord(data)
	if err == nil && r.Seed != hashSeed(s.seed) {
		r = new(remoteRecord)
	}
	return r, err
}

func parseRemoteRecord(data []byte) (*remoteRecord, error) {
	r := new(remoteRecord)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("the stored grant is damaged: %w", err)
	}
	if r.Version > remoteRecordVersion {
		return nil, fmt.Errorf("the stored grant has version %d, this program knows %d: use the program that wrote it", r.Version, remoteRecordVersion)
	}
	return r, nil
}

// change applies fn to the record and writes it.
func (s *grantStore) change(ctx context.Context, fn func(r *remoteRecord)) error {
	opened, err := s.open()
	if err != nil {
		return err
	}
	former, err := s.former(ctx, opened)
	if err != nil {
		return err
	}
	return opened.Update(ctx, s.key, func(old []byte) ([]byte, time.Duration, error) {
		r := new(remoteRecord)
		*r = *former
		if old != nil {
			if r, err = parseRemoteRecord(old); err != nil {
				return nil, 0, err
			}
		}
		fn(r)
		r.Version = remoteRecordVersion
		data, err := json.Marshal(r)
		return data, 0, err
	})
}

// forIssuer reports whether what is bound to one issuer is asked for.
func forIssuer(bound, asked string) bool {
	return asked == "" || bound == "" || strings.TrimSuffix(bound, "/") == strings.TrimSuffix(asked, "/")
}

// Tokens implements authclient.Store.
func (s *grantStore) Tokens(ctx context.Context, issuer string) (*authclient.Tokens, error) {
	r, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	if s.seed != "" && r.Seed != hashSeed(s.seed) {
		t := new(authclient.Tokens)
		t.RefreshToken = s.seed
		return t, nil
	}
	if r.Tokens == nil || !forIssuer(r.Tokens.Issuer, issuer) {
		return nil, nil
	}
	return r.Tokens, nil
}

// SaveTokens implements authclient.Store.
func (s *grantStore) SaveTokens(ctx context.Context, tokens *authclient.Tokens) error {
	return s.change(ctx, func(r *remoteRecord) {
		r.Tokens = tokens
		if s.seed != "" {
			r.Seed = hashSeed(s.seed)
		}
	})
}

// ClientInformation implements authclient.Store.
func (s *grantStore) ClientInformation(ctx context.Context, issuer string) (*authclient.ClientInformation, error) {
	r, err := s.read(ctx)
	if err != nil || r.Client == nil || !forIssuer(r.Client.Issuer, issuer) {
		return nil, err
	}
	return r.Client, nil
}

// SaveClientInformation implements authclient.Store.
func (s *grantStore) SaveClientInformation(ctx context.Context, client *authclient.ClientInformation) error {
	return s.change(ctx, func(r *remoteRecord) { r.Client = client })
}

// CodeVerifier implements authclient.Store.
func (s *grantStore) CodeVerifier(ctx context.Context) (string, error) {
	r, err := s.read(ctx)
	if err != nil {
		return "", err
	}
	return r.Verifier, nil
}

// SaveCodeVerifier implements authclient.Store.
func (s *grantStore) SaveCodeVerifier(ctx context.Context, verifier string) error {
	return s.change(ctx, func(r *remoteRecord) { r.Verifier = verifier })
}

// DiscoveryState implements authclient.Store.
func (s *grantStore) DiscoveryState(ctx context.Context) (*authclient.DiscoveryState, error) {
	r, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	return r.Discovery, nil
}

// SaveDiscoveryState implements authclient.Store.
func (s *grantStore) SaveDiscoveryState(ctx context.Context, state *authclient.DiscoveryState) error {
	return s.change(ctx, func(r *remoteRecord) { r.Discovery = state })
}

// InvalidateCredentials implements authclient.Store.
func (s *grantStore) InvalidateCredentials(ctx context.Context, scope authclient.CredentialScope, issuer string) error {
	all := scope == authclient.CredentialsAll
	return s.change(ctx, func(r *remoteRecord) {
		if (all || scope == authclient.CredentialsClient) && r.Client != nil && forIssuer(r.Client.Issuer, issuer) {
			r.Client = nil
		}
		if (all || scope == authclient.CredentialsTokens) && r.Tokens != nil && forIssuer(r.Tokens.Issuer, issuer) {
			r.Tokens = nil
		}
		if all || scope == authclient.CredentialsVerifier {
			r.Verifier = ""
		}
		if all || scope == authclient.CredentialsDiscovery {
			r.Discovery = nil
		}
	})
}

var errLeaseHeld = errors.New("another node is getting a token for the MCP server")

// Lock implements authclient.Locker, among the callers of this process and the
// nodes that share the store.
func (s *grantStore) Lock(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, leaseWait, errLeaseHeld)
	defer cancel()
	select {
	case s.slot <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	opened, err := s.open()
	if err != nil {
		<-s.slot
		return nil, err
	}
	l := &grantLease{store: opened, key: "lease/" + s.key, holder: rand.Text()}
	if err := l.take(ctx); err != nil {
		<-s.slot
		return nil, err
	}
	return sync.OnceFunc(func() { l.release(); <-s.slot }), nil
}

// grantLease is a hold of this node, renewed until it is released.
type grantLease struct {
	store       store.Store
	key, holder string
	cancel      context.CancelFunc
	renewing    sync.WaitGroup
}

// take waits until nobody else has the lease.
func (l *grantLease) take(ctx context.Context) error {
	for {
		err := l.store.Update(ctx, l.key, func(old []byte) ([]byte, time.Duration, error) {
			if old != nil {
				return nil, 0, errLeaseHeld
			}
			return []byte(l.holder), leaseTime, nil
		})
		if err == nil {
			break
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, errLeaseHeld):
			return err
		}
		select {
		case <-time.After(leasePause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	renew, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	l.renewing.Go(func() { l.renew(renew) })
	return nil
}

// renew prolongs the lease while it is in use.
func (l *grantLease) renew(ctx context.Context) {
	ticker := time.NewTicker(leaseTime / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = l.store.Update(ctx, l.key, func(old []byte) ([]byte, time.Duration, error) {
				if string(old) != l.holder {
					return nil, 0, errLeaseHeld
				}
				return old, leaseTime, nil
			})
		}
	}
}

// release gives the lease back if it is still held; else it expires.
func (l *grantLease) release() {
	l.cancel()
	l.renewing.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), leaseTime)
	defer cancel()
	_ = l.store.Update(ctx, l.key, func(old []byte) ([]byte, time.Duration, error) {
		if string(old) != l.holder {
			return nil, 0, errLeaseHeld
		}
		return nil, 0, nil
	})
}
