package idp

import (
	"context"
	"net/url"
	"time"
)

// Upstream is an identity provider. All methods are safe for concurrent use;
// errors are ErrDead, ErrDenied or ErrTrouble.
type Upstream interface {
	// Name is for people: "Google", or the host of the issuer.
	Name() string
	// Issuer is the issuer as configured, for OAuth 2.0 without OpenID Connect
	// a fixed URL. It is fit to name the provider; the namespace of a user's
	// subject is Identity.Issuer, which a provider of many tenants sets by
	// tenant.
	Issuer() string
	// AuthorizationURL is where the user's browser is sent. It always carries
	// the S256 challenge of the request's verifier.
	AuthorizationURL(ctx context.Context, r AuthRequest) (string, error)
	// Exchange ends a sign-in: it checks the callback's parameters, redeems the
	// code and finds out who the user is. That state belongs to this browser
	// and was not used before is the caller's to check. ErrDead means that the
	// code is not good, any more or at all: the user has to begin again.
	Exchange(ctx context.Context, c Callback) (*Identity, *Tokens, error)
	// Refresh uses the refresh token, and asks nothing else than what tells who
	// the user is. The identity is nil if the answer tells nothing about it.
	// The tokens are not nil, even beside an error, once the provider has given
	// new ones: the caller stores them before anything else, for the old ones
	// may be worthless. That the identity is still the same user is for the
	// caller to check. ErrDead is definite: the provider does not let this user
	// go on.
	Refresh(ctx context.Context, t Tokens) (*Identity, *Tokens, error)
	// UserInfo asks the provider who the owner of the access token is now. The
	// answer stands for itself: groups it does not name are none. ErrDead is
	// definite: the token is not good although its time has not run out, or it
	// has and only a new sign-in gives another one. With a refresh token at
	// hand, refresh an expired access token first.
	UserInfo(ctx context.Context, t Tokens) (*Identity, error)
	// Revoke ends the tokens at the provider, as far as it offers that without
	// ending the user's other grants. It is nil where there is no such endpoint.
	Revoke(ctx context.Context, t Tokens) error
	// Capabilities says what may be asked. Whether a user's tokens include a
	// refresh token shows only in the tokens.
	Capabilities() Capabilities
	// Run keeps discovered documents fresh until ctx ends. Without it they are
	// loaded on demand.
	Run(ctx context.Context)
}

// Capabilities is what an Upstream can do, for configuration that depends on
// it. Refresh and Revoke may still lack what they need in a given case.
type Capabilities struct {
	Refresh, UserInfo, Revoke bool
}

// AuthRequest is one sign-in, or one renewed consent.
type AuthRequest struct {
	// RedirectURI is our callback.
	RedirectURI string
	// State comes back in the callback. It is not a secret of the browser's.
	State string
	// Nonce comes back in the id_token; required by OpenID Connect upstreams.
	Nonce string
	// CodeVerifier is the PKCE secret (RFC 7636 §4.1); only its S256 challenge
	// is sent.
	CodeVerifier string
	// Prompt is OpenID Connect's: login, consent, select_account, none. Presets
	// drop what their provider does not know.
	Prompt string
	// LoginHint is the user's address or name, if known.
	LoginHint string
	// MinimalScope asks for what identifies the user and nothing else, in
	// particular for no refresh token.
	MinimalScope bool
}

// Callback is what came back, with what was kept since the AuthRequest.
type Callback struct {
	Query                            url.Values
	RedirectURI, Nonce, CodeVerifier string
}

// Tokens are what the provider gave for a user. They are secrets of the server
// and stored sealed.
type Tokens struct {
	AccessToken, RefreshToken string
	// Expiry is when the access token ends; zero if the provider did not say.
	Expiry time.Time
	// Scope is what was granted, separated by spaces; empty if the provider did
	// not say.
	Scope string
}

// Expired reports whether the access token's time is known to have run out.
func (t Tokens) Expired(now time.Time) bool {
	return !t.Expiry.IsZero() && !now.Before(t.Expiry)
}
