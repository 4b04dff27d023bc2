package authserver

import (
	"context"
	"net/http"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Provider does what an authorization server decides for itself; the Server
// around it speaks the protocol. It is the Go form of the SDK's
// OAuthServerProvider.
//
// Methods are called concurrently, with a context that ends after the
// request's time budget. An *oauth.Error goes to the client as it is; any
// other error becomes server_error and is logged.
//
// More is found by type assertion: Revoker, PKCESkipper, IssParameter,
// ClientIssParameter, MetadataExtender and MetadataReviser on the provider, Registrar, PreregisteredStore,
// TokenClientStore, SecretChecker, AssertionVerifier and DocumentStore on its
// ClientStore. An endpoint exists, and is advertised, only if its interface does.
type Provider interface {
	// Clients returns the store of registered clients.
	Clients() ClientStore
	// Authorize starts the authorization: it shows a page or redirects. The
	// client, its redirect URI, PKCE, scope and resource have been checked. It
	// has answered when it returns nil, and has written nothing when it returns
	// an error, which then goes to the redirect URI.
	Authorize(w http.ResponseWriter, r *http.Request, c *oauth.Client, p AuthorizationParams) error
	// ChallengeForCode returns the PKCE challenge (S256) that the code was
	// issued for, oauth.ErrInvalidGrant if the code is not this client's.
	ChallengeForCode(ctx context.Context, c *oauth.Client, code string) (string, error)
	// ExchangeCode redeems an authorization code. It must hold the code to its
	// client, redirect URI and resource, and let it be used once.
	ExchangeCode(ctx context.Context, c *oauth.Client, x CodeExchange) (*oauth.Tokens, error)
	// ExchangeRefreshToken answers with new tokens. A dead refresh token is
	// oauth.ErrInvalidGrant, passing trouble is oauth.ErrTemporarilyUnavailable.
	ExchangeRefreshToken(ctx context.Context, c *oauth.Client, x RefreshExchange) (*oauth.Tokens, error)
	bearer.Verifier
}

// ClientStore finds registered clients.
type ClientStore interface {
	// GetClient returns the client with this id, oauth.ErrInvalidClient if there
	// is none. The returned value is not changed by the caller.
	GetClient(ctx context.Context, clientID string) (*oauth.Client, error)
}

// TokenClientStore is a ClientStore that needs to know less of a client at the
// token and revocation endpoints, where its grant tells the rest.
type TokenClientStore interface {
	// GetTokenClient is GetClient for a client that sends no assertion.
	GetTokenClient(ctx context.Context, clientID string) (*oauth.Client, error)
}

// SecretChecker is a ClientStore whose clients may have more than one valid
// secret. Without this interface the secret is oauth.Client.ClientSecret.
type SecretChecker interface {
	// CheckSecret reports, in constant time, whether the secret is the client's.
	// It is called only for clients that have one.
	CheckSecret(c *oauth.Client, secret string) bool
}

// AssertionVerifier is a ClientStore with clients that authenticate by
// private_key_jwt (RFC 7523 §2.2).
type AssertionVerifier interface {
	// AssertionAlgorithms are the signature algorithms that are accepted. With
	// none the method is neither accepted nor advertised.
	AssertionAlgorithms() []string
	// VerifyAssertion returns the client that made the assertion for one of the
	// audiences, oauth.ErrInvalidClient if it is not valid or was used before.
	// clientID is the client_id of the request, "" if it has none.
	VerifyAssertion(ctx context.Context, clientID, assertion string, audiences []string) (*oauth.Client, error)
}

// DocumentStore is a ClientStore that may accept client ID metadata documents.
type DocumentStore interface {
	// SupportsDocuments reports whether it does, for the metadata.
	SupportsDocuments() bool
}

// Registrar is a ClientStore that takes dynamic registrations (RFC 7591).
type Registrar interface {
	// RegisterClient registers c, whose metadata has been checked and which
	// carries a fresh id (unless Config.NoClientIDGeneration is set) and a secret
	// if its method needs one. It returns what the client is to be
	// told; a store that chooses its own credentials replaces those given.
	RegisterClient(ctx context.Context, c *oauth.Client) (*oauth.Client, error)
}

// Revoker is a Provider that revokes tokens (RFC 7009).
type Revoker interface {
	// RevokeToken revokes the token if it belongs to the client. One that is
	// unknown, dead or another client's is no error; a provider may return
	// oauth.ErrInvalidToken for it, which counts as a failure for the rate limit
	// and is answered with 200 all the same.
	RevokeToken(ctx context.Context, c *oauth.Client, x Revocation) error
}

// PKCESkipper is a Provider whose upstream checks the code verifier, the SDK's
// skipLocalPkceValidation. If SkipPKCE returns true, ChallengeForCode is not
// called.
type PKCESkipper interface{ SkipPKCE() bool }

// IssParameter is a Provider that says whether the authorization response
// carries the iss parameter of RFC 9207. Without this interface it does.
type IssParameter interface{ SupportsIssParameter() bool }

// ClientIssParameter is a Provider whose clients differ in that, or that learns
// it only at run time. It goes before IssParameter for authorization responses;
// what the metadata says is up to IssParameter and MetadataReviser.
type ClientIssParameter interface {
	SendsIss(ctx context.Context, c *oauth.Client) bool
}

// AuthorizationParams is a checked authorization request.
type AuthorizationParams struct {
	// State is the client's opaque value, "" if it sent none.
	State string
	// Scopes are the requested scopes without repetition; nil if none was named.
	Scopes []string
	// RedirectURI is where the answer goes, byte for byte as requested, or the
	// client's only registered one if the request named none.
	RedirectURI string
	// RedirectURIOmitted tells that the request named no redirect_uri.
	RedirectURIOmitted bool
	// CodeChallenge is the S256 challenge, 43 characters of base64url.
	CodeChallenge string
	// Resource is the canonical identifier of the resource asked for
	// (RFC 8707), "" if the request named none.
	Resource string
	// Issuer is this server's issuer, for the iss parameter; "" if the answer
	// carries none.
	Issuer string
	// Prompt, Nonce, LoginHint, MaxAge, UILocales and ACRValues are the
	// parameters of OpenID Connect Core §3.1.2.1, "" if absent.
	Prompt, Nonce, LoginHint, MaxAge, UILocales, ACRValues string
}

// CodeExchange is a token request with grant_type=authorization_code.
type CodeExchange struct {
	Code string
	// Verifier is the PKCE verifier. It has been checked against the challenge
	// unless the provider is a PKCESkipper.
	Verifier string
	// RedirectURI is "" if the request named none.
	RedirectURI string
	// Resource is the canonical identifier, "" if the request named none.
	Resource string
}

// RefreshExchange is a token request with grant_type=refresh_token.
type RefreshExchange struct {
	RefreshToken string
	// Scopes are nil if the request named none.
	Scopes []string
	// Resource is the canonical identifier, "" if the request named none.
	Resource string
}

// Revocation is a revocation request (RFC 7009 §2.1).
type Revocation struct {
	Token string
	// TokenTypeHint is "access_token", "refresh_token", some other hint, or "".
	TokenTypeHint string
}
