package authclient

import (
	"context"
	"net/http"
	"net/url"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Provider says who the client is and keeps its credentials for one MCP server,
// the SDK's OAuthClientProvider. Further abilities are the optional interfaces
// below, found by type assertion.
//
// What a method returns is not changed by the package, and what a Save method
// is given may be kept. A credential that does not exist is nil without an
// error; an error ends [Auth] with that error. Methods may be called from
// several goroutines.
type Provider interface {
	// RedirectURL is where the user's browser comes back to; "" for a client
	// without a user, whose TokenRequestPreparer says how it gets tokens.
	RedirectURL() string
	// ClientMetadata is what the client says about itself when it registers.
	ClientMetadata() oauth.ClientMetadata
	// ClientInformation returns the client at the authorization server with the
	// issuer. A value whose Issuer names another one counts as absent; one
	// whose Issuer is empty counts for any, and is saved with the issuer on
	// first use.
	ClientInformation(ctx context.Context, issuer string) (*ClientInformation, error)
	// Tokens returns the tokens from the issuer; from the one saved last if
	// issuer is "", which is asked for a request to the MCP server.
	Tokens(ctx context.Context, issuer string) (*Tokens, error)
	// SaveTokens keeps the tokens, whose Issuer is set.
	SaveTokens(ctx context.Context, tokens *Tokens) error
	// RedirectToAuthorization sends the user's browser to the URL.
	RedirectToAuthorization(ctx context.Context, u *url.URL) error
	// SaveCodeVerifier keeps the PKCE verifier of the authorization request
	// that is under way; it is a secret.
	SaveCodeVerifier(ctx context.Context, verifier string) error
	// CodeVerifier returns what SaveCodeVerifier kept.
	CodeVerifier(ctx context.Context) (string, error)
}

// Registrar is a Provider that can keep a client which Auth registered. Without
// it the client is fixed, and one that is bound to another issuer is an error.
type Registrar interface {
	// SaveClientInformation keeps the client, whose Issuer is set.
	SaveClientInformation(ctx context.Context, client *ClientInformation) error
}

// ClientMetadataDocument is a Provider with a client metadata document, which
// is its client_id where the authorization server supports that
// (draft-ietf-oauth-client-id-metadata-document). Options.ClientMetadataURL
// wins over it.
type ClientMetadataDocument interface {
	// ClientMetadataURL is an https URL with a path, or "".
	ClientMetadataURL() string
}

// StateSource is a Provider that makes the state parameter itself. Otherwise
// Auth derives it from the code verifier.
type StateSource interface {
	// State returns the state for a new authorization request.
	State(ctx context.Context) (string, error)
}

// StateChecker is a StateSource that compares. If there is a StateSource that
// is none, the caller of Auth has to compare.
type StateChecker interface {
	// CheckState returns an error unless the state of a callback is that of the
	// authorization request under way.
	CheckState(ctx context.Context, state string) error
}

// ClientAuthenticator is a Provider that authenticates itself at the token
// endpoint, in place of basic, post or none.
type ClientAuthenticator interface {
	// AddClientAuthentication adds to r.Header or r.Form.
	AddClientAuthentication(ctx context.Context, r *TokenRequest) error
}

// TokenRequest is a request to a token endpoint before it is sent.
type TokenRequest struct {
	Header http.Header
	Form   url.Values
	// URL is the token endpoint.
	URL string
	// Issuer is the authorization server's.
	Issuer string
	// Metadata is nil if the authorization server publishes none.
	Metadata *oauth.Metadata
	// Client is nil for a client without client_id.
	Client *ClientInformation
}

// TokenRequestPreparer is a Provider that has a grant of its own, such as
// client_credentials or a JWT assertion.
type TokenRequestPreparer interface {
	// PrepareTokenRequest returns the form of the token request, without client
	// authentication and resource, which are added. nil stands for the
	// redemption of the code.
	PrepareTokenRequest(ctx context.Context, g Grant) (url.Values, error)
}

// Grant is what a TokenRequestPreparer may want to know.
type Grant struct {
	// Scope to ask for, space-separated; "" for none. ChallengeScope is the part
	// of it that the server's challenge asks for; "" if there was none.
	Scope, ChallengeScope string
	// Issuer is the authorization server's; AuthorizationServerURL is the URL
	// by which it was found, the same but for a slash at the end.
	Issuer, AuthorizationServerURL string
	// Resource is the identifier of the MCP server; "" if it publishes no
	// metadata.
	Resource string
	// Metadata is nil if the authorization server publishes none.
	Metadata *oauth.Metadata
	// HTTPClient follows the rules for URLs that the server named.
	HTTPClient *http.Client
}

// IssuerExpecter is a Provider whose credentials are for one authorization
// server. Options.ExpectedIssuer wins over it.
type IssuerExpecter interface {
	// ExpectedIssuer is the issuer, or "" for any.
	ExpectedIssuer() string
}

// ResourceValidator is a Provider that chooses the resource parameter itself.
type ResourceValidator interface {
	// ValidateResourceURL is given the URL of the MCP server as a resource
	// identifier and the one of the protected resource metadata, "" if there
	// is none. "" without an error leaves the resource parameter out.
	ValidateResourceURL(ctx context.Context, server, metadata string) (string, error)
}

// CredentialScope says what CredentialInvalidator is to forget.
type CredentialScope string

// The scopes of the SDK's invalidateCredentials.
const (
	CredentialsAll       CredentialScope = "all"
	CredentialsClient    CredentialScope = "client"
	CredentialsTokens    CredentialScope = "tokens"
	CredentialsVerifier  CredentialScope = "verifier"
	CredentialsDiscovery CredentialScope = "discovery"
)

// CredentialInvalidator is a Provider that can forget what a server has
// refused for good. Auth calls it on invalid_client, unauthorized_client and
// invalid_grant, and never because a server was not to be reached.
type CredentialInvalidator interface {
	// InvalidateCredentials forgets the client or tokens at the issuer, at all
	// of them if it is "".
	InvalidateCredentials(ctx context.Context, scope CredentialScope, issuer string) error
}

// DiscoveryStore is a Provider that keeps what discovery found. An
// authorization that goes over a browser is bound to the authorization server
// only with it.
type DiscoveryStore interface {
	// DiscoveryState returns what SaveDiscoveryState kept, nil if nothing.
	DiscoveryState(ctx context.Context) (*DiscoveryState, error)
	SaveDiscoveryState(ctx context.Context, state *DiscoveryState) error
}

// AuthorizationServerURLSaver is a Provider that wants to know the issuer.
type AuthorizationServerURLSaver interface {
	SaveAuthorizationServerURL(ctx context.Context, issuer string) error
}

// ResourceURLSaver is a Provider that wants to know the resource parameter.
type ResourceURLSaver interface {
	SaveResourceURL(ctx context.Context, resource string) error
}

// Locker is a Provider that one goroutine, or process, at a time may change.
// Auth holds the lock while it works and looks at the tokens again when it has
// it, so that of many callers with one expired token one refreshes it.
type Locker interface {
	// Lock waits until nobody else has the lock or ctx ends. unlock is called
	// once.
	Lock(ctx context.Context) (unlock func(), err error)
}

// CallbackWaiter is a Provider that receives the callback itself. WithOAuth and
// Login wait for it and finish the authorization.
type CallbackWaiter interface {
	// WaitForCallback returns the query parameters of the callback that belongs
	// to the last RedirectToAuthorization.
	WaitForCallback(ctx context.Context) (url.Values, error)
}
