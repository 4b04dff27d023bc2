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
		if recognizes(v, token) {
			return v
		}
	}
	return nil
}

// Recognizes reports whether one of the verifiers recognises the token.
func (c chain) Recognizes(token string) bool { return c.find(token) != nil }

// VerifyAccessToken lets the verifier that recognises the token decide.
func (c chain) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	verdict, err := c.Verdict(ctx, token)
	return verdict.Info, err
}

// Verdict is the verdict of the verifier that recognises the token, not to be
// remembered if that one has none.
func (c chain) Verdict(ctx context.Context, token string) (Verdict, error) {
	v := c.find(token)
	if v == nil {
		return Verdict{}, refuse("Token was not issued by an authorization server that is accepted here",
			errors.New("no verifier recognises it"))
	}
	return verdictOf(ctx, v, token)
}

func verdictOf(ctx context.Context, v Verifier, token string) (Verdict, error) {
	if cacheable, ok := v.(CacheableVerifier); ok {
		return cacheable.Verdict(ctx, token)
	}
	info, err := v.VerifyAccessToken(ctx, token)
	return Verdict{Info: info}, err
}

// OfIssuer returns v as a Recognizer of the JWTs whose iss is the issuer, and of
// nothing else: in front of a Chain it keeps tokens of this server from the
// verifiers of others, who would learn them.
func OfIssuer(issuer string, v Verifier) Verifier { return ofIssuer{v, issuer} }

type ofIssuer struct {
	Verifier
	issuer string
}

func (o ofIssuer) Recognizes(token string) bool {
	issuer, ok := claimedIssuer(token)
	return ok && issuer == o.issuer
}

func (o ofIssuer) Verdict(ctx context.Context, token string) (Verdict, error) {
	return verdictOf(ctx, o.Verifier, token)
}

// IssuedFor returns a Verifier whose tokens are those of v with the audience
// replaced. It is for tokens that name only the client that they were issued to,
// after v has checked that client.
func IssuedFor(v Verifier, audience ...string) Verifier { return issuedForVerifier{v, audience} }

type issuedForVerifier struct {
	Verifier
	audience []string
}

func (i issuedForVerifier) Recognizes(token string) bool { return recognizes(i.Verifier, token) }

func (i issuedForVerifier) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	verdict, err := i.Verdict(ctx, token)
	return verdict.Info, err
}

func (i issuedForVerifier) Verdict(ctx context.Context, token string) (Verdict, error) {
	verdict, err := verdictOf(ctx, i.Verifier, token)
	if err == nil && verdict.Info != nil {
		info := *verdict.Info // may be shared
		info.Resource, info.Audience = "", i.audience
		verdict.Info = &info
	}
	return verdict, err
}

func recognizes(v Verifier, token string) bool {
	r, ok := v.(Recognizer)
	return !ok || r.Recognizes(token)
}

// RequireExpiry returns a Verifier that refuses those tokens of v that do not
// tell when they expire, where a Guard with AllowNoExpiry stands behind it.
func RequireExpiry(v Verifier) Verifier { return expiring{v} }

type expiring struct{ Verifier }

func (e expiring) Recognizes(token string) bool { return recognizes(e.Verifier, token) }

func (e expiring) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	verdict, err := e.Verdict(ctx, token)
	return verdict.Info, err
}

func (e expiring) Verdict(ctx context.Context, token string) (Verdict, error) {
	verdict, err := verdictOf(ctx, e.Verifier, token)
	if err == nil && verdict.Info != nil && verdict.Info.ExpiresAt.IsZero() {
		return Verdict{Until: verdict.Until}, oauth.ErrInvalidToken.Describe(noExpiry)
	}
	return verdict, err
}
