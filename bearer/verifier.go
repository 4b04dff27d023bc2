package bearer

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Verifier decides whether an access token is genuine and still good, the
// SDK's OAuthTokenVerifier. It does not decide whether the token is meant for
// the resource at hand or has the scopes for it: that is the Guard's part.
//
// Errors: oauth.ErrInvalidToken if the token is refused, whatever the reason;
// oauth.ErrTemporarilyUnavailable if it cannot be judged now, which is 503 and
// never a reason to sign in again. Any other error is 500.
//
// The returned value may be shared between requests and must not be changed.
// Implementations are safe for concurrent use.
type Verifier interface {
	VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error)
}

// CacheableVerifier is a Verifier whose answers may be remembered, in a
// TokenCache. All verifiers of this package are; others are asked at every
// request unless they implement it.
type CacheableVerifier interface {
	Verifier
	// Verdict is VerifyAccessToken and tells besides how long the answer holds.
	// With an error, only Verdict.Until counts.
	Verdict(ctx context.Context, token string) (Verdict, error)
}

// Verdict is the answer of a CacheableVerifier.
type Verdict struct {
	// Info is what VerifyAccessToken returns.
	Info *oauth.TokenInfo
	// Until is how long the answer, a refusal included, may be given without
	// asking again; the zero time means not at all. Beyond Info.ExpiresAt a token
	// is never remembered, beyond 10 s no refusal, and trouble not at all.
	Until time.Time
	// Recheck, if not nil, is called whenever the answer is given again. It is to
	// be quick. Its error ends the answer: ErrVerifyAnew asks the verifier again,
	// oauth.ErrInvalidToken says that the token was revoked meanwhile, and any
	// other refuses this one request.
	Recheck func(ctx context.Context) error
}

// ErrVerifyAnew is returned by Verdict.Recheck when what the answer was based on
// has changed.
var ErrVerifyAnew = errors.New("the token must be verified anew")

// VerifierFunc is a function as a Verifier. It is asked at every request.
type VerifierFunc func(ctx context.Context, token string) (*oauth.TokenInfo, error)

// VerifyAccessToken calls f.
func (f VerifierFunc) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	return f(ctx, token)
}

// VerifierChoice returns the Verifier that is to decide, at every request anew.
// It must be quick.
type VerifierChoice func() Verifier

// VerifyAccessToken lets the chosen verifier decide.
func (f VerifierChoice) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	return f().VerifyAccessToken(ctx, token)
}

// chosen is the verifier that is to decide now.
func chosen(v Verifier) Verifier {
	if choose, ok := v.(VerifierChoice); ok {
		return choose()
	}
	return v
}

// verifyToken asks the verifier. What is remembered of the token is nil if that is
// nothing. key may be zero. Errors that are not OAuth's become 500.
func verifyToken(ctx context.Context, verifier Verifier, token string, key cacheKey) (*oauth.TokenInfo, *verified, *oauth.Error) {
	verifier = chosen(verifier)
	if v, ok := verifier.(*CachedVerifier); ok {
		if key.verifier != v.id {
			key = v.key(token)
		}
		t, err := v.verify(ctx, token, key)
		if err != nil {
			return nil, nil, refusalOf(err)
		}
		return t.info, t, nil
	}
	info, err := verifier.VerifyAccessToken(ctx, token)
	if err == nil && info == nil {
		err = errNoVerdict
	}
	if err != nil {
		return nil, nil, refusalOf(err)
	}
	return info, nil, nil
}

// refusalOf is what becomes of a verifier's error.
func refusalOf(err error) *oauth.Error {
	e := oauth.AsError(err)
	if status := e.HTTPStatus(); status < 400 || status > 599 {
		e = oauth.ErrServerError.Describe("Internal Server Error").Because(err)
	}
	if e.Code == oauth.ErrInvalidToken.Code && e.Description == "" {
		e = oauth.ErrInvalidToken.Describe("The access token is not valid").Because(err)
	}
	return e
}
