package authclient

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Auth gets tokens for the MCP server, the SDK's auth(): stored ones that are
// still good, else by a refresh, by the provider's own grant, or by sending the
// user to the authorization server. Then the status is Redirect, and Auth is
// called once more with Options.Callback when the user has come back.
//
// A refusal for good is recovered from once: on invalid_client and
// unauthorized_client the client and its tokens are forgotten and the client
// registers again; on invalid_grant the tokens are. The redemption of a code is
// never repeated. If a server is not to be reached or answers nonsense, the
// error is ErrUnavailable, nothing is forgotten, and the user is not sent away.
//
// Tokens that could not be saved are in the Result, with ErrNotSaved: the server
// may have replaced the refresh token, so the caller had better save them later.
//
// If ctx ends while a refresh is under way, Auth returns but the refresh is
// finished and saved, for the server may have replaced the refresh token.
func Auth(ctx context.Context, p Provider, o Options) (Result, error) {
	f, err := newFlow(p, o)
	if err != nil {
		return Result{}, err
	}
	if err := f.lock(ctx); err != nil {
		f.end()
		return Result{}, err
	}
	defer f.end()
	result, err := f.run(ctx)
	if err == nil {
		return result, nil
	}
	again, recoverErr := f.recover(ctx, err)
	if recoverErr != nil {
		return Result{}, errors.Join(err, recoverErr)
	}
	if again {
		return f.run(ctx)
	}
	return result, err
}

// flow is one call of Auth.
type flow struct {
	p   Provider
	o   Options
	net *network
	log *slog.Logger

	// before is the access token that was there before the lock was had.
	before  string
	locked  bool
	release func()
	// running counts what goes on after the flow has returned, if it was
	// abandoned.
	running   sync.WaitGroup
	abandoned bool

	// skipClient and skipRefresh: what was stored has been refused.
	skipClient, skipRefresh bool

	// verifier is that of the login that the callback belongs to; "" for the last
	// one.
	verifier string
	// newPending: the client of the login under way is not what is recorded.
	newPending bool

	found  *DiscoveryState
	server AuthorizationServer
	result Result
}

func newFlow(p Provider, o Options) (*flow, error) {
	if p == nil {
		return nil, errors.New("authclient: a Provider is needed, such as one of NewWeb or NewLoopback")
	}
	if e, ok := p.(IssuerExpecter); ok && o.ExpectedIssuer == "" {
		o.ExpectedIssuer = e.ExpectedIssuer()
	}
	n, done, err := o.connected(o.ServerURL)
	if err != nil {
		return nil, err
	}
	o.network = n
	return &flow{p: p, o: o, net: n, log: o.logger(), release: done}, nil
}

// lock has the provider to itself if there is a lock.
func (f *flow) lock(ctx context.Context) error {
	lock := f.o.lock
	if locker, ok := f.p.(Locker); ok {
		lock = locker.Lock
	}
	if lock == nil {
		return nil
	}
	before, err := f.tokens(ctx, "")
	if err != nil {
		return err
	}
	if before != nil {
		f.before = before.AccessToken
	}
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	done := f.release
	f.release, f.locked = func() { unlock(); done() }, true
	f.o.unsaved.save(ctx, f.p)
	return nil
}

// tokens are those from the issuer, those that could not be saved included.
func (f *flow) tokens(ctx context.Context, issuer string) (*Tokens, error) {
	return f.o.unsaved.load(ctx, f.p, issuer)
}

// end gives back lock and connections when everything has come to its end.
func (f *flow) end() {
	if !f.abandoned {
		f.release()
		return
	}
	go func() { // at most for finishTime
		f.running.Wait()
		f.release()
	}()
}

// finishTime bounds what goes on after the caller has left.
const finishTime = 20 * time.Second

// finish runs fn to its end even if ctx ends before, and returns when either
// has happened.
func (f *flow) finish(ctx context.Context, fn func(ctx context.Context) error) error {
	done := make(chan error, 1)
	f.running.Go(func() {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
		defer cancel()
		done <- fn(detached)
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		f.abandoned = true
		return context.Cause(ctx)
	}
}

// recover forgets what the server has refused for good. again is true if the
// flow has a chance without it.
func (f *flow) recover(ctx context.Context, err error) (again bool, _ error) {
	var refusal *oauth.Error
	if !errors.As(err, &refusal) || errors.Is(err, ErrClock) || errors.Is(err, ErrUnavailable) || f.server.URL == "" {
		return false, nil
	}
	switch {
	case errors.Is(refusal, oauth.ErrInvalidClient), errors.Is(refusal, oauth.ErrUnauthorizedClient):
		if !f.registers() || errors.Is(err, ErrRegistrationRejected) {
			return false, nil // the client is fixed
		}
		if f.isCallback() && f.found.Client != nil { // the stored one is another
			f.found.Client = nil
			return false, f.saveDiscovery(ctx)
		}
		f.skipClient, f.skipRefresh = true, true
		f.warn("the authorization server does not know this client any more; registering it again", refusal)
		err := errors.Join(f.invalidate(ctx, CredentialsClient), f.invalidate(ctx, CredentialsTokens))
		return !f.isCallback(), err
	case errors.Is(refusal, oauth.ErrInvalidGrant):
		if f.isCallback() || f.p.RedirectURL() == "" {
			return false, nil // this is about the code, or the provider's own grant
		}
		f.skipRefresh = true
		f.warn("the authorization server does not accept the stored tokens any more; authorizing again", refusal)
		return true, f.invalidate(ctx, CredentialsTokens)
	}
	return false, nil
}

func (f *flow) invalidate(ctx context.Context, scope CredentialScope) error {
	if scope == CredentialsTokens {
		f.o.unsaved.drop(nil)
	}
	if i, ok := f.p.(CredentialInvalidator); ok {
		return i.InvalidateCredentials(ctx, scope, f.server.Issuer())
	}
	return nil
}

// warn logs with the values quoted: what a server sends cannot forge lines.
func (f *flow) warn(message string, cause error) {
	f.log.Warn(message, slog.String("server", bareURL(f.o.ServerURL)), slog.String("issuer", f.server.Issuer()), slog.String("error", cause.Error()))
}

func (f *flow) isCallback() bool { return f.o.Callback != nil || f.o.AuthorizationCode != "" }
