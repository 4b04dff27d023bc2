package bearer

import (
	"context"
	"errors"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Recognizer is a Verifier that can tell from the outside whether a token may
// be one of its own. It verifies nothing and does no I/O.
type Recognizer interface {
	Recognizes(token string) bool
}

// Chain returns a Verifier that hands each token to the first of the verifiers
// that recognises it and leaves the decision to that one: a token that it
// refuses is not tried elsewhere. A verifier that is no Recognizer recognises
// every token, so it belongs at the end.
func Chain(verifiers ...Verifier) Verifier { return chain(verifiers) }

type chain []Verifier

func (c chain) find(token string) Verifier {
	for _, v := range c {
		if r, ok := v.(Recognizer); !ok || r.Recognizes(token) {
			return v
		}
	}
	return nil
}

// Recognizes reports whether one of the verifiers recognises the token.
func (c chain) Recognizes(token string) bool { return c.find(token) != nil }

// VerifyAccessToken lets the verifier that recognises the token decide.
func (c chain) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	if v := c.find(token); v != nil {
		return v.VerifyAccessToken(ctx, token)
	}
	return nil, refuse("Token was not issued by an authorization server that is accepted here",
		errors.New("no verifier recognises it"))
}
