package mcpauth

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/authclient"
)

const (
	// patience is how long nobody tries again after a server had trouble, unless
	// it says how long itself.
	patience = 2 * time.Second
	// maxPatience bounds what a server may ask for.
	maxPatience = 30 * time.Second
	// refusedPatience is the same after a refusal, which a person has to mend.
	refusedPatience = 10 * time.Second
)

// patientStore is a store whose lock remembers the last failure. Of a hundred
// requests that wait for one token, the first finds out that the authorization
// server is down; the others learn it from here, and do not ask one after the
// other.
type patientStore struct {
	authclient.Store
	now func() time.Time

	mu      sync.Mutex
	failure *failure
}

// failure is why the last attempt to get a token failed.
type failure struct {
	err error
	// at is when, and until when nobody tries again.
	at, until time.Time
	// tokens were stored then: who signs in meanwhile need not wait.
	tokens string
}

// rememberedError is a failure that somebody else has seen.
type rememberedError struct{ err error }

func (e *rememberedError) Error() string { return "just now: " + e.err.Error() }
func (e *rememberedError) Unwrap() error { return e.err }

func newPatientStore(s authclient.Store) *patientStore {
	return &patientStore{Store: s, now: time.Now}
}

// Lock implements authclient.Locker. It fails with what failed while the caller
// waited, or short before.
func (s *patientStore) Lock(ctx context.Context) (unlock func(), err error) {
	begun := s.now()
	unlock, err = s.Store.Lock(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.remembered(ctx, begun); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

func (s *patientStore) remembered(ctx context.Context, begun time.Time) error {
	s.mu.Lock()
	last := s.failure
	s.mu.Unlock()
	if last == nil || last.at.Before(begun) && !s.now().Before(last.until) || s.fingerprint(ctx) != last.tokens {
		return nil
	}
	return &rememberedError{last.err}
}

// failed remembers err if it is about getting a token, and not about the caller,
// whose context ctx is.
func (s *patientStore) failed(ctx context.Context, err error) {
	var known *rememberedError
	if ctx.Err() != nil || errors.As(err, &known) || errors.Is(err, errLeaseHeld) ||
		errors.Is(err, authclient.ErrBodyNotReplayable) || errors.Is(err, authclient.ErrInsufficientScope) {
		return
	}
	now := s.now()
	f := &failure{err: err, at: now, until: now.Add(refusedPatience), tokens: s.fingerprint(ctx)}
	var endpoint *authclient.EndpointError
	if errors.Is(err, authclient.ErrUnavailable) {
		f.until = now.Add(patience)
		if errors.As(err, &endpoint) && endpoint.RetryAfter > patience {
			f.until = now.Add(min(endpoint.RetryAfter, maxPatience))
		}
	}
	s.mu.Lock()
	s.failure = f
	s.mu.Unlock()
}

// fingerprint tells one state of the store from another.
func (s *patientStore) fingerprint(ctx context.Context) string {
	tokens, err := s.Store.Tokens(context.WithoutCancel(ctx), "")
	if err != nil || tokens == nil {
		return ""
	}
	return tokens.AccessToken + " " + tokens.RefreshToken
}
