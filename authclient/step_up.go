package authclient

import (
	"errors"
	"sync"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// askedScope is the scope that was asked for since the token of now was issued:
// one step-up must not take away what another is about to get. What a newer
// token does not have has been refused and is not asked for again, unless the
// server wants it again.
type askedScope struct {
	mu    sync.Mutex
	token string // access token that it is about
	scope string
}

// add returns the scope to ask for when a challenge to the tokens wants scope.
func (a *askedScope) add(tokens *Tokens, scope string) (union, has string) {
	token := ""
	if tokens != nil {
		token, has = tokens.AccessToken, tokens.Scope
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token != token && has != "" {
		a.scope = ""
	}
	a.token = token
	union = ComputeScopeUnion(a.scope, has, scope)
	if len(union) > maxChallengeScope {
		union = ComputeScopeUnion(has, scope)
	}
	a.scope = missing(union, has)
	if len(a.scope) > maxChallengeScope {
		a.scope = ""
	}
	return union, has
}

// refused forgets the scope if the error says that it cannot be had; "" stands
// for all.
func (a *askedScope) refused(err error, scope string) {
	if !errors.Is(err, oauth.ErrInvalidScope) && !errors.Is(err, oauth.ErrAccessDenied) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.scope = missing(a.scope, scope); scope == "" {
		a.scope = ""
	}
}
