package authclient

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// run takes the steps of the flow, in the order of the MCP specification.
func (f *flow) run(ctx context.Context) (Result, error) {
	f.result = Result{}
	stored, err := f.storedTokens(ctx)
	if err != nil || stored != nil {
		return f.authorized(stored), err
	}
	for _, step := range []func(context.Context) error{
		f.discover,
		f.selectResource,
		f.selectScope,
		f.selectClient,
	} {
		if err := step(ctx); err != nil {
			return Result{}, err
		}
	}
	if f.isCallback() || f.p.RedirectURL() == "" {
		return f.fetch(ctx)
	}
	tokens, err := f.refresh(ctx)
	if err != nil || tokens != nil {
		return f.authorized(tokens), err
	}
	if err := f.forgetDead(ctx); err != nil {
		return Result{}, err
	}
	if err := f.renewClient(ctx); err != nil {
		return Result{}, err
	}
	return f.redirect(ctx)
}

// authorized is the result with the tokens; without tokens it is none.
func (f *flow) authorized(tokens *Tokens) Result {
	if tokens == nil {
		return Result{}
	}
	f.result.Status, f.result.Tokens, f.result.Issuer = Authorized, tokens, tokens.Issuer
	return f.result
}

// storedTokens returns the stored tokens if they are good enough, else nil.
func (f *flow) storedTokens(ctx context.Context) (*Tokens, error) {
	if f.isCallback() || f.skipRefresh {
		return nil, nil
	}
	tokens, err := f.tokens(ctx, "")
	if err != nil || tokens == nil || !f.good(tokens) {
		return nil, err
	}
	return tokens, nil
}

func (f *flow) good(tokens *Tokens) bool {
	// Somebody else got these: while this call waited, or since the request
	// that the server refused.
	renewed := f.locked && tokens.AccessToken != f.before ||
		f.o.RefusedToken != "" && tokens.AccessToken != f.o.RefusedToken
	switch {
	case tokens.AccessToken == "" || tokens.AccessToken == f.o.RefusedToken || tokens.Expired(f.o.now()):
		return false
	case f.o.ExpectedIssuer != "" && !sameIssuer(tokens.Issuer, f.o.ExpectedIssuer):
		return false
	case f.o.ForceReauthorization:
		return renewed && f.o.Scope != "" && !IsStrictScopeSuperset(f.o.Scope, tokens.Scope)
	case f.o.ForceRefresh:
		return renewed
	}
	return renewed || !tokens.ExpiresAt.IsZero()
}

// selectResource decides the resource parameter (RFC 8707).
func (f *flow) selectResource(ctx context.Context) error {
	resource, err := SelectResourceURL(ctx, f.p, f.o.ServerURL, f.found.ProtectedResource)
	if err != nil {
		return err
	}
	f.result.Resource = resource
	if s, ok := f.p.(ResourceURLSaver); ok && resource != "" {
		return s.SaveResourceURL(ctx, resource)
	}
	return nil
}

// selectScope decides the scope parameter.
func (f *flow) selectScope(context.Context) error {
	metadata := f.p.ClientMetadata()
	if f.registers() {
		// What it says when it registers. A client that was registered beforehand
		// may not refresh unless its metadata say so themselves.
		metadata = ResolveClientMetadata(f.p)
	}
	f.result.Scope = SelectScope(f.o.Scope, f.found.ProtectedResource, f.server.Metadata, metadata)
	if f.isCallback() && f.found.Scope != "" {
		f.result.Scope = f.found.Scope
	}
	return nil
}

// fetch gets tokens without the user: for the code of a callback, or with the
// grant of a provider without a user.
func (f *flow) fetch(ctx context.Context) (Result, error) {
	r := FetchRequest{
		Client: f.result.Client, Code: f.o.AuthorizationCode, Iss: f.o.Iss,
		Resource: f.result.Resource, Scope: f.result.Scope,
	}
	if f.o.Callback != nil {
		code, iss, err := f.readCallback(ctx)
		if err != nil {
			return Result{}, err
		}
		r.Code, r.Iss, r.verifier = code, iss, f.verifier
	}
	var tokens *Tokens
	err := f.finish(ctx, func(ctx context.Context) (err error) {
		if tokens, err = FetchToken(ctx, f.p, f.server, r); err != nil {
			return err
		}
		if r.Code == "" {
			return f.save(ctx, tokens)
		}
		if err := f.keepClient(ctx); err != nil {
			return err
		}
		return errors.Join(f.save(ctx, tokens), f.forgetLogin(ctx))
	})
	if err != nil && !errors.Is(err, ErrNotSaved) {
		return Result{}, err
	}
	return f.authorized(tokens), err
}

func (f *flow) save(ctx context.Context, tokens *Tokens) error {
	if err := f.p.SaveTokens(ctx, tokens); err != nil {
		f.o.unsaved.keep(ctx, f.p, tokens)
		return fmt.Errorf("%w: %w", ErrNotSaved, err)
	}
	f.o.unsaved.drop(nil)
	return nil
}

// forgetDead forgets tokens that the server has refused, or whose time is over,
// and that cannot be refreshed.
func (f *flow) forgetDead(ctx context.Context) error {
	tokens, err := f.tokens(ctx, f.server.Issuer())
	if err != nil || tokens == nil || tokens.RefreshToken != "" {
		return err
	}
	refused := tokens.AccessToken == f.o.RefusedToken && !f.o.forbidden
	if tokens.AccessToken == "" || !refused && !tokens.Expired(f.o.now()) {
		return nil
	}
	return f.invalidate(ctx, CredentialsTokens)
}

// readCallback checks state and issuer, and returns the code.
func (f *flow) readCallback(ctx context.Context) (code, iss string, err error) {
	code, state, iss, err := single(f.o.Callback)
	if err != nil {
		return "", "", err
	}
	if err := f.checkState(ctx, state); err != nil {
		return "", "", err
	}
	// RFC 9207 §2.4: before the error is believed.
	if err := f.server.checkIss(iss); err != nil {
		return "", "", err
	}
	if code == "" {
		return "", "", callbackError(f.o.Callback)
	}
	return code, iss, nil
}

// checkState compares the state of a callback with that of the request.
func (f *flow) checkState(ctx context.Context, state string) error {
	if c, ok := f.p.(StateChecker); ok {
		return c.CheckState(ctx, state)
	}
	if _, ok := f.p.(StateSource); ok {
		return nil // the caller compares
	}
	var err error
	if f.verifier, err = f.verifierOf(ctx, state); err != nil || f.verifier != "" {
		return err
	}
	verifier, err := f.p.CodeVerifier(ctx)
	if err != nil {
		return err
	}
	if verifier == "" {
		return errNoLogin()
	}
	if !sameState(state, stateOf(verifier)) {
		return fmt.Errorf("%w: the callback belongs to another login: begin it again", ErrState)
	}
	return nil
}

// refresh refreshes the stored tokens; nil without an error if there are none
// that can be.
func (f *flow) refresh(ctx context.Context) (*Tokens, error) {
	old, err := f.tokens(ctx, f.server.Issuer())
	if err != nil || old == nil || old.Issuer != "" && !sameIssuer(old.Issuer, f.server.Issuer()) {
		return nil, err
	}
	if old.Issuer == "" { // from before credentials were bound
		bound := *old
		bound.Issuer = f.server.Issuer()
		old = &bound
		if err := f.save(ctx, old); err != nil {
			return nil, err
		}
	}
	if old.RefreshToken == "" || f.o.ForceReauthorization || f.skipRefresh || f.result.Client == nil {
		return nil, nil
	}
	var tokens *Tokens
	err = f.finish(ctx, func(ctx context.Context) (err error) {
		tokens, err = RefreshAuthorization(ctx, f.server, RefreshRequest{
			Client: f.result.Client, Tokens: old, Resource: f.result.Resource, Provider: f.p,
		})
		if err != nil {
			return err
		}
		return f.save(ctx, tokens)
	})
	if err == nil || errors.Is(err, ErrNotSaved) {
		return tokens, err
	}
	if asksUser(err) {
		f.warn("the refresh was refused; authorizing again", err)
		return nil, nil
	}
	return nil, err
}

// asksUser reports whether a refresh was refused in a way that is neither one
// of those that Auth recovers from nor a passing trouble: by a code that no
// standard knows, or by invalid_request, which some servers send for a dead
// refresh token.
func asksUser(err error) bool {
	var refusal *oauth.Error
	if !errors.As(err, &refusal) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrClock) {
		return false
	}
	return errors.Is(refusal, oauth.ErrInvalidRequest) || !isStandardCode(refusal.Code)
}

// isStandardCode reports whether a token endpoint may answer with the code
// (RFC 6749 §5.2, RFC 8707 §2, RFC 9449 §5).
func isStandardCode(code string) bool {
	switch code {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
		"invalid_scope", "invalid_target", "invalid_dpop_proof", "use_dpop_nonce", "access_denied":
		return true
	}
	return false
}

// redirect sends the user to the authorization server.
func (f *flow) redirect(ctx context.Context) (Result, error) {
	verifier := newVerifier()
	state := stateOf(verifier)
	if s, ok := f.p.(StateSource); ok {
		made, err := s.State(ctx)
		if err != nil {
			return Result{}, err
		}
		state = made
	}
	codeKey := ""
	if b, ok := f.p.(CodeBinder); ok {
		codeKey = b.CodeKey(f.server.Metadata)
	}
	u, verifier, err := StartAuthorization(f.server, AuthorizationRequest{
		Client: f.result.Client, RedirectURL: f.p.RedirectURL(), CodeVerifier: verifier, CodeKey: codeKey,
		Scope: f.result.Scope, State: state, Resource: f.result.Resource,
	})
	if err != nil {
		return Result{}, err
	}
	if f.found.Scope != f.result.Scope || f.newPending {
		f.found.Scope = f.result.Scope
		if err := f.saveDiscovery(ctx); err != nil {
			return Result{}, err
		}
	}
	if err := f.p.SaveCodeVerifier(ctx, verifier); err != nil {
		return Result{}, fmt.Errorf("the code verifier could not be saved: %w", err)
	}
	if err := f.p.RedirectToAuthorization(ctx, u); err != nil {
		return Result{}, fmt.Errorf("the user could not be sent to the authorization server: %w", err)
	}
	f.result.Status, f.result.AuthorizationURL = Redirect, u
	return f.result, nil
}
