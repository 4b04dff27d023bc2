package authclient

import (
	"context"
	"sync"
)

// MemoryStore keeps credentials as long as the program runs.
type MemoryStore struct {
	mu     sync.Mutex
	record record
	slot   chan struct{}
}

var _ Store = (*MemoryStore)(nil)

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore { return &MemoryStore{slot: make(chan struct{}, 1)} }

// Lock implements Locker.
func (s *MemoryStore) Lock(ctx context.Context) (unlock func(), err error) {
	return acquire(ctx, s.slot)
}

// acquire waits for the one place in the slot.
func acquire(ctx context.Context, slot chan struct{}) (release func(), err error) {
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// with gives fn the record.
func (s *MemoryStore) with(fn func(r *record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.record)
	return nil
}

// ClientInformation implements Provider.
func (s *MemoryStore) ClientInformation(_ context.Context, issuer string) (c *ClientInformation, err error) {
	err = s.with(func(r *record) { c = r.client(issuer) })
	return c, err
}

// SaveClientInformation implements Registrar.
func (s *MemoryStore) SaveClientInformation(_ context.Context, client *ClientInformation) error {
	return s.with(func(r *record) { r.saveClient(client) })
}

// Tokens implements Provider.
func (s *MemoryStore) Tokens(_ context.Context, issuer string) (t *Tokens, err error) {
	err = s.with(func(r *record) { t = r.tokens(issuer) })
	return t, err
}

// SaveTokens implements Provider.
func (s *MemoryStore) SaveTokens(_ context.Context, tokens *Tokens) error {
	return s.with(func(r *record) { r.saveTokens(tokens) })
}

// CodeVerifier implements Provider.
func (s *MemoryStore) CodeVerifier(context.Context) (verifier string, err error) {
	err = s.with(func(r *record) { verifier = r.CodeVerifier })
	return verifier, err
}

// SaveCodeVerifier implements Provider.
func (s *MemoryStore) SaveCodeVerifier(_ context.Context, verifier string) error {
	return s.with(func(r *record) { r.saveVerifier(verifier) })
}

// codeVerifiers implements loginKeeper.
func (s *MemoryStore) codeVerifiers(context.Context) (all []string, err error) {
	err = s.with(func(r *record) { all = r.verifiers() })
	return all, err
}

// forgetCodeVerifier implements loginKeeper.
func (s *MemoryStore) forgetCodeVerifier(_ context.Context, verifier string) error {
	return s.with(func(r *record) { r.forgetVerifier(verifier) })
}

// DiscoveryState implements DiscoveryStore.
func (s *MemoryStore) DiscoveryState(context.Context) (d *DiscoveryState, err error) {
	err = s.with(func(r *record) { d = r.Discovery })
	return d, err
}

// SaveDiscoveryState implements DiscoveryStore.
func (s *MemoryStore) SaveDiscoveryState(_ context.Context, state *DiscoveryState) error {
	return s.with(func(r *record) { r.Discovery = state })
}

// InvalidateCredentials implements CredentialInvalidator.
func (s *MemoryStore) InvalidateCredentials(_ context.Context, scope CredentialScope, issuer string) error {
	return s.with(func(r *record) { r.invalidate(scope, issuer) })
}
