package authclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// ScopePolicy says what WithOAuth does about 403 insufficient_scope.
type ScopePolicy string

// The values of the SDK's onInsufficientScope.
const (
	// Reauthorize authorizes again with the scope that is needed and had.
	Reauthorize ScopePolicy = "reauthorize"
	// Throw returns an InsufficientScopeError.
	Throw ScopePolicy = "throw"
)

// TransportOptions are the options of WithOAuth. The zero value works.
type TransportOptions struct {
	// Next makes the requests. Default: http.DefaultTransport.
	Next http.RoundTripper
	// Auth are the options of Auth. Those that belong to one challenge
	// (ServerURL, Scope, RefusedToken, callback and the like) are set by the
	// transport.
	Auth Options
	// OnInsufficientScope is Reauthorize or Throw. Default: Reauthorize.
	OnInsufficientScope ScopePolicy
	// MaxStepUpRetries is how often a request is sent again with more scope.
	// Default: once; negative: never.
	MaxStepUpRetries int
	// ReplayLimit is how much of a request body without GetBody is remembered, in
	// bytes, so that it can be sent again. Default: 1 MiB; negative: nothing.
	ReplayLimit int64
	// NoCallbackWait returns an UnauthorizedError when the user is needed, even
	// if the provider is a CallbackWaiter.
	NoCallbackWait bool
}

// Transport is an http.RoundTripper for the requests to one MCP server, the
// SDK's withOAuth(). It is safe for concurrent use.
type Transport struct {
	p      Provider
	o      TransportOptions
	server string // base URL
	origin string
	net    *network

	flights flights
	// slot lets one Auth or Login at a time.
	slot chan struct{}

	// work is the lock of a provider that is no Locker: one Auth has it until
	// what it began has come to its end.
	work    chan struct{}
	asked   askedScope
	unsaved unsaved

	mu sync.Mutex
	// resourceMetadataURL is that of the last challenge.
	resourceMetadataURL string
}

// WithOAuth returns a transport that adds the provider's token to requests to
// the origin of baseURL, the URL of the MCP server, and leaves requests to other
// origins alone: a redirect does not take the token along.
//
// On 401 it calls Auth and sends the request once more; a second 401 is an
// UnauthorizedError. On 403 insufficient_scope it authorizes again with the
// scopes that it has and those that are asked for. If the user is needed it
// waits for a CallbackWaiter, else it returns an UnauthorizedError, after which
// FinishAuth goes on. Of many requests with one expired token one refreshes it.
//
// To be sent again a request needs a body with GetBody, or one of at most
// ReplayLimit bytes; else the error is ErrBodyNotReplayable. Response bodies are
// not touched.
func WithOAuth(p Provider, baseURL string, o TransportOptions) (*Transport, error) {
	if p == nil {
		return nil, errors.New("authclient: a Provider is needed, such as one of NewWeb or NewLoopback")
	}
	switch o.OnInsufficientScope {
	case "":
		o.OnInsufficientScope = Reauthorize
	case Reauthorize, Throw:
	default:
		return nil, fmt.Errorf("OnInsufficientScope is %q: write reauthorize or throw", o.OnInsufficientScope)
	}
	if o.Next == nil {
		o.Next = http.DefaultTransport
	}
	if o.MaxStepUpRetries == 0 {
		o.MaxStepUpRetries = 1
	}
	if o.ReplayLimit == 0 {
		o.ReplayLimit = replayLimit
	}
	o.Auth.ServerURL = baseURL
	n, err := newNetwork(&o.Auth)
	if err != nil {
		return nil, err
	}
	o.Auth.network = n
	t := &Transport{
		p: p, o: o, server: baseURL, origin: n.server, net: n,
		slot: make(chan struct{}, 1), work: make(chan struct{}, 1),
	}
	t.o.Auth.unsaved = &t.unsaved
	t.o.Auth.lock = func(ctx context.Context) (func(), error) { return acquire(ctx, t.work) }
	return t, nil
}

// CloseIdleConnections closes connections that are not in use.
func (t *Transport) CloseIdleConnections() {
	t.net.close(&t.o.Auth)
	if c, ok := t.o.Next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// FinishAuth ends a login that a request has begun, with the query parameters
// of the callback, the SDK's finishAuth.
func (t *Transport) FinishAuth(ctx context.Context, callback url.Values) error {
	o := t.o.Auth
	o.Callback = callback
	if callback == nil {
		o.Callback = url.Values{}
	}
	result, err := t.auth(ctx, o)
	t.asked.refused(err, "")
	if err == nil && result.Status != Authorized {
		err = &UnauthorizedError{ServerURL: t.server, Reason: "the login is not finished: begin it again"}
	}
	return err
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if originOf(r.URL) != t.origin {
		return t.o.Next.RoundTrip(r)
	}
	body := newReplay(r, t.o.ReplayLimit)
	defer body.close()
	var (
		reauthorized bool
		stepUps      int
	)
	for {
		tokens, err := t.tokens(r.Context())
		if err != nil {
			return nil, err
		}
		resp, err := t.send(r, body, tokens)
		if err != nil {
			return nil, err
		}
		challenge := challengeOf(resp.Header)
		switch {
		case resp.StatusCode == http.StatusUnauthorized && reauthorized:
			drain(resp)
			return nil, t.refusedAgain(resp)
		case resp.StatusCode == http.StatusUnauthorized:
			err = t.onUnauthorized(r.Context(), challenge, tokens)
			reauthorized = true
		case resp.StatusCode == http.StatusForbidden && challenge.Error == oauth.ErrInsufficientScope.Code:
			err = t.stepUp(r.Context(), challenge, tokens, stepUps)
			stepUps++
		default:
			return resp, nil
		}
		drain(resp)
		if err == nil {
			err = body.again(r.Context())
		}
		if err != nil {
			return nil, err
		}
	}
}

// Tokens returns the tokens that the next request would bear: the provider's, or
// newer ones that it could not save; nil if there are none.
func (t *Transport) Tokens(ctx context.Context) (*Tokens, error) {
	if t.unsaved.due() {
		t.saveAgain(ctx)
	}
	return t.unsaved.load(ctx, t.p, "")
}

// saveAgain tries once more to save what could not be saved.
func (t *Transport) saveAgain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, savePause)
	defer cancel()
	lock := t.o.Auth.lock
	if locker, ok := t.p.(Locker); ok {
		lock = locker.Lock
	}
	unlock, err := lock(ctx)
	if err != nil {
		return // somebody works there, who does it too
	}
	defer unlock()
	t.unsaved.save(ctx, t.p)
}

// tokens returns the tokens to send; nil if there are none. Those that have
// expired by our clock are replaced first; if that fails for the moment they
// are sent as they are. Those that a Prover does not accept, from before it was
// one, are replaced.
func (t *Transport) tokens(ctx context.Context) (*Tokens, error) {
	tokens, err := t.Tokens(ctx)
	if err != nil || tokens == nil || tokens.AccessToken == "" {
		return nil, err
	}
	prover, proves := t.p.(Prover)
	unproven := proves && prover.AcceptTokens(ctx, tokens) != nil
	if !unproven && !tokens.Expired(t.o.Auth.now()) {
		return tokens, nil
	}
	o := t.o.Auth
	o.RefusedToken = tokens.AccessToken
	renewed, err := t.authorize(ctx, o)
	switch {
	case err == nil:
		return renewed, nil
	case errors.Is(err, ErrUnavailable) && !unproven:
		return tokens, nil
	}
	return nil, err
}

// send makes the request with the token, once more if a proof needs a nonce.
func (t *Transport) send(r *http.Request, body *replay, tokens *Tokens) (*http.Response, error) {
	for again := false; ; again = true {
		req, err := t.request(r, body, tokens)
		if err != nil {
			return nil, err
		}
		resp, err := t.o.Next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		prover, ok := t.p.(Prover)
		if !ok || tokens == nil {
			return resp, nil
		}
		challenge := challengeOf(resp.Header)
		wanted := prover.ProofAnswered(r.Context(), ProofAnswer{URL: req.URL, Status: resp.StatusCode, Header: resp.Header, Code: challenge.Error})
		if !wanted || again || resp.StatusCode != http.StatusUnauthorized {
			return resp, nil
		}
		drain(resp)
		if err := body.again(r.Context()); err != nil {
			return nil, err
		}
	}
}

// request is the request with token and body.
func (t *Transport) request(r *http.Request, body *replay, tokens *Tokens) (*http.Request, error) {
	req := r.Clone(r.Context())
	req.Body = body.body()
	req.Header.Del("Authorization")
	if tokens == nil {
		return req, nil
	}
	prover, proves := t.p.(Prover)
	if proves {
		if err := prover.ProveResourceRequest(r.Context(), req, tokens); err != nil {
			return nil, err
		}
	}
	if req.Header.Get("Authorization") != "" {
		return req, nil
	}
	if strings.EqualFold(tokens.TokenType, "DPoP") {
		return nil, &UnauthorizedError{ServerURL: t.server, Reason: "the token is bound to a key (DPoP), of which this provider has no proof: use a provider that is a Prover"}
	}
	req.Header.Set("Authorization", "Bearer "+tokens.AccessToken)
	return req, nil
}

// onUnauthorized gets new tokens after a 401.
func (t *Transport) onUnauthorized(ctx context.Context, c oauth.ChallengeParams, tokens *Tokens) error {
	o := t.o.Auth
	t.mu.Lock()
	if c.ResourceMetadataURL != "" {
		t.resourceMetadataURL = c.ResourceMetadataURL
	}
	o.ResourceMetadataURL = t.resourceMetadataURL
	t.mu.Unlock()
	o.Scope = c.Scope
	if tokens != nil {
		o.RefusedToken = tokens.AccessToken
	}
	_, err := t.authorize(ctx, o)
	return err
}

// stepUp gets tokens with more scope after a 403 (MCP authorization, "Step-Up
// Authorization Flow").
func (t *Transport) stepUp(ctx context.Context, c oauth.ChallengeParams, tokens *Tokens, before int) error {
	if t.o.OnInsufficientScope == Throw || before >= t.o.MaxStepUpRetries {
		return &InsufficientScopeError{
			RequiredScope: c.Scope, ResourceMetadataURL: c.ResourceMetadataURL,
			ErrorDescription: oauth.CleanDescription(c.ErrorDescription), StepUps: before,
		}
	}
	o := t.o.Auth
	if tokens != nil {
		o.RefusedToken, o.forbidden = tokens.AccessToken, true
	}
	t.mu.Lock()
	if c.ResourceMetadataURL != "" {
		t.resourceMetadataURL = c.ResourceMetadataURL
	}
	o.ResourceMetadataURL = t.resourceMetadataURL
	t.mu.Unlock()
	var has string
	o.Scope, has = t.asked.add(tokens, c.Scope)
	// A refresh cannot widen the scope.
	o.ForceReauthorization = IsStrictScopeSuperset(o.Scope, has)
	_, err := t.authorize(ctx, o)
	t.asked.refused(err, c.Scope)
	return err
}

// refusedAgain is the error for a 401 after a new token.
func (t *Transport) refusedAgain(resp *http.Response) error {
	e := &UnauthorizedError{ServerURL: t.server, Reason: "the MCP server refuses a token that was issued for it just now: its operator has to check which issuer and audience it accepts"}
	if ahead, ok := clockAhead(resp.Header, t.o.Auth.now()); ok {
		e.Err = &ClockError{Ahead: ahead, Err: errors.New("HTTP 401")}
	}
	return e
}

// authorize calls Auth for all requests that need the same, and waits for the
// user if the provider can.
func (t *Transport) authorize(ctx context.Context, o Options) (*Tokens, error) {
	key := strings.Join([]string{o.RefusedToken, o.Scope, o.ResourceMetadataURL, fmt.Sprint(o.ForceReauthorization, o.forbidden)}, "\x00")
	result, err := t.flights.do(ctx, key, func(ctx context.Context) (Result, error) { return t.auth(ctx, o) })
	if errors.Is(err, ErrNotSaved) && result.Tokens != nil {
		// They are good, and kept until they can be saved.
		t.o.Auth.logger().Warn("the new tokens could not be saved; trying again", "server", bareURL(t.server), "error", err.Error())
		err = nil
	}
	if err != nil {
		return nil, t.unauthorized(ctx, err)
	}
	if result.Status != Authorized {
		return nil, &UnauthorizedError{
			ServerURL: t.server, Result: &result,
			Reason: "the user has to sign in; the login has been begun, finish it with FinishAuth and repeat the request",
		}
	}
	return result.Tokens, nil
}

// auth is Auth, one at a time, with the wait for the user.
func (t *Transport) auth(ctx context.Context, o Options) (Result, error) {
	release, err := acquire(ctx, t.slot)
	if err != nil {
		return Result{}, err
	}
	defer release()
	if _, waits := t.p.(CallbackWaiter); waits && !t.o.NoCallbackWait && o.Callback == nil {
		return Login(ctx, t.p, o)
	}
	return Auth(ctx, t.p, o)
}

// unauthorized wraps what Auth could not do. The end of the context and passing
// trouble stay what they are.
func (t *Transport) unauthorized(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnauthorized) {
		return err
	}
	return &UnauthorizedError{ServerURL: t.server, Reason: "no new authorization", Err: err}
}
