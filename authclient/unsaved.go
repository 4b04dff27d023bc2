package authclient

import (
	"context"
	"sync"
	"time"
)

// savePause is how long after a failure tokens are not tried to be saved again.
const savePause = time.Second

// unsaved keeps tokens that the provider could not save, for the server has
// replaced the refresh token before. They count in place of the stored ones until
// they are saved, or somebody else has saved others. nil keeps nothing.
type unsaved struct {
	mu     sync.Mutex
	tokens *Tokens
	over   string // the access token that was stored when saving failed
	next   time.Time
}

// keep keeps the tokens.
func (u *unsaved) keep(ctx context.Context, p Provider, tokens *Tokens) {
	if u == nil {
		return
	}
	stored, err := p.Tokens(ctx, tokens.Issuer)
	if err != nil {
		stored = nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tokens, u.over, u.next = tokens, accessToken(stored), time.Now().Add(savePause)
}

// load returns the tokens from the issuer, those that count.
func (u *unsaved) load(ctx context.Context, p Provider, issuer string) (*Tokens, error) {
	kept, over := u.peek()
	if kept == nil || issuer != "" && !sameIssuer(issuer, kept.Issuer) {
		return p.Tokens(ctx, issuer)
	}
	stored, err := p.Tokens(ctx, kept.Issuer)
	if err != nil || accessToken(stored) == over {
		return kept, nil // what cannot be written can often not be read either
	}
	u.drop(kept)
	return p.Tokens(ctx, issuer)
}

// save tries once more. The caller has the provider's lock.
func (u *unsaved) save(ctx context.Context, p Provider) {
	kept, over := u.peek()
	if kept == nil {
		return
	}
	stored, err := p.Tokens(ctx, kept.Issuer)
	if err != nil {
		return
	}
	if accessToken(stored) == over && p.SaveTokens(ctx, kept) != nil {
		return
	}
	u.drop(kept)
}

// due reports whether it is time to try once more, to one caller.
func (u *unsaved) due() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tokens == nil || time.Now().Before(u.next) {
		return false
	}
	u.next = time.Now().Add(savePause)
	return true
}

func (u *unsaved) peek() (tokens *Tokens, over string) {
	if u == nil {
		return nil, ""
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.tokens, u.over
}

// drop forgets the tokens unless there are newer ones; nil stands for any.
func (u *unsaved) drop(tokens *Tokens) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if tokens == nil || u.tokens == tokens {
		u.tokens = nil
	}
}

func accessToken(t *Tokens) string {
	if t == nil {
		return ""
	}
	return t.AccessToken
}
