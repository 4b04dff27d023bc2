package authclient

import "context"

// loginKeeper is a store that keeps the code verifiers of several logins, so that
// two programs with one store can both finish theirs. The state of a callback says
// which it is.
type loginKeeper interface {
	codeVerifiers(ctx context.Context) ([]string, error)
	forgetCodeVerifier(ctx context.Context, verifier string) error
}

var (
	_ loginKeeper = (*MemoryStore)(nil)
	_ loginKeeper = (*FileStore)(nil)
	_ loginKeeper = (*identity)(nil)
)

// codeVerifiers implements loginKeeper as far as the store does.
func (id *identity) codeVerifiers(ctx context.Context) ([]string, error) {
	if k, ok := id.Store.(loginKeeper); ok {
		return k.codeVerifiers(ctx)
	}
	return nil, nil
}

// forgetCodeVerifier implements loginKeeper.
func (id *identity) forgetCodeVerifier(ctx context.Context, verifier string) error {
	if k, ok := id.Store.(loginKeeper); ok {
		return k.forgetCodeVerifier(ctx, verifier)
	}
	return id.InvalidateCredentials(ctx, CredentialsVerifier, "")
}

// verifierOf returns the verifier of the login with the state, "" if there is
// none, or the provider keeps one login only.
func (f *flow) verifierOf(ctx context.Context, state string) (string, error) {
	k, ok := f.p.(loginKeeper)
	if !ok {
		return "", nil
	}
	all, err := k.codeVerifiers(ctx)
	if err != nil {
		return "", err
	}
	for _, verifier := range all {
		if sameState(state, stateOf(verifier)) {
			return verifier, nil
		}
	}
	return "", nil
}

// forgetLogin forgets the verifier of the login that is finished.
func (f *flow) forgetLogin(ctx context.Context) error {
	if k, ok := f.p.(loginKeeper); ok && f.verifier != "" {
		return k.forgetCodeVerifier(ctx, f.verifier)
	}
	return f.invalidate(ctx, CredentialsVerifier)
}
