package mcpauth

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// TestPatience: after a failure nobody tries again for a while, which depends on
// what failed; who has new tokens need not wait.
func TestPatience(t *testing.T) {
	t.Parallel()
	down := &authclient.EndpointError{What: "token endpoint", Reason: "down"}
	hung := &authclient.EndpointError{What: "token endpoint", Reason: "no answer", Err: context.DeadlineExceeded}
	busy := &authclient.EndpointError{What: "token endpoint", Reason: "busy", RetryAfter: 20 * time.Second}
	greedy := &authclient.EndpointError{What: "token endpoint", Reason: "busy", RetryAfter: time.Hour}
	for name, test := range map[string]struct {
		err  error
		wait time.Duration
	}{
		"trouble":        {down, patience},
		"no answer":      {hung, patience},
		"asked to wait":  {busy, 20 * time.Second},
		"asked too much": {greedy, maxPatience},
		"refused":        {oauth.ErrInvalidGrant, refusedPatience},
		"body":           {authclient.ErrBodyNotReplayable, 0},
		"scope":          {authclient.ErrInsufficientScope, 0},
		"known already":  {&rememberedError{down}, 0},
		"other node":     {errLeaseHeld, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Unix(1_000_000, 0)
			s := newPatientStore(authclient.NewMemoryStore())
			s.now = func() time.Time { return now }
			refused := func() bool {
				t.Helper()
				unlock, err := s.Lock(t.Context())
				if err == nil {
					unlock()
					return false
				}
				if !errors.Is(err, test.err) {
					t.Errorf("error is %v", err)
				}
				return true
			}
			s.failed(t.Context(), test.err)
			if test.wait == 0 {
				if refused() {
					t.Error("it is remembered")
				}
				return
			}
			now = now.Add(test.wait - time.Millisecond)
			if !refused() {
				t.Error("it is forgotten too early")
			}
			if err := s.SaveTokens(t.Context(), testTokens("new", "new")); err != nil {
				t.Fatal(err)
			}
			if refused() {
				t.Error("new tokens have to wait")
			}
			if err := s.InvalidateCredentials(t.Context(), authclient.CredentialsAll, ""); err != nil {
				t.Fatal(err)
			}
			now = now.Add(time.Millisecond)
			if refused() {
				t.Error("it is remembered too long")
			}
		})
	}
}

// TestPatienceOfCallers: that a caller left says nothing about the server.
func TestPatienceOfCallers(t *testing.T) {
	t.Parallel()
	s := newPatientStore(authclient.NewMemoryStore())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	s.failed(gone, context.Canceled)
	unlock, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// TestPatienceOfWaiters: who waited while another one failed learns it from that
// one, however long the wait was.
func TestPatienceOfWaiters(t *testing.T) {
	t.Parallel()
	s := newPatientStore(authclient.NewMemoryStore())
	unlock, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waiter := make(chan error, 1)
	begun := make(chan struct{})
	s.now = func() time.Time {
		select {
		case <-begun:
			return time.Unix(1_000_100, 0)
		default:
			close(begun)
			return time.Unix(1_000_000, 0)
		}
	}
	go func() {
		_, err := s.Lock(t.Context())
		waiter <- err
	}()
	<-begun
	s.failed(t.Context(), oauth.ErrInvalidClient)
	unlock()
	if err := <-waiter; !errors.Is(err, oauth.ErrInvalidClient) {
		t.Errorf("the waiter got %v", err)
	}
}
