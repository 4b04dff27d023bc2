package authclient

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// What can go wrong, for errors.Is. Refusals of an authorization server are
// *oauth.Error values besides: errors.Is(err, oauth.ErrInvalidGrant).
var (
	// ErrUnauthorized: the MCP server wants an authorization that is not there.
	ErrUnauthorized = errors.New("not authorized")
	// ErrUnavailable: a server did not answer, or not with what it should. What
	// is stored is kept; a later attempt may succeed.
	ErrUnavailable = errors.New("server unavailable")
	// ErrIncompatible: the authorization server cannot do what MCP requires.
	ErrIncompatible = errors.New("incompatible authorization server")
	// ErrIssuerMismatch: metadata or callback come from another issuer.
	ErrIssuerMismatch = errors.New("issuer mismatch")
	// ErrAuthorizationServerMismatch: a credential belongs to another
	// authorization server.
	ErrAuthorizationServerMismatch = errors.New("authorization server mismatch")
	// ErrResourceMismatch: the protected resource metadata are of another resource.
	ErrResourceMismatch = errors.New("resource mismatch")
	// ErrRefusedURL: a URL is not https, or leads to where a server must not
	// send this client.
	ErrRefusedURL = errors.New("refused URL")
	// ErrRegistrationRejected: the client could not be registered.
	ErrRegistrationRejected = errors.New("registration rejected")
	// ErrState: the state of a callback is not that of the request.
	ErrState = errors.New("wrong state")
	// ErrInsufficientScope: the token does not have the scope.
	ErrInsufficientScope = errors.New("insufficient scope")
	// ErrBodyNotReplayable: a request cannot be sent a second time.
	ErrBodyNotReplayable = errors.New("request body cannot be sent again")
	// ErrNotSaved: the provider could not save new tokens.
	ErrNotSaved = errors.New("the new tokens could not be saved")
	// ErrLoginTimeout: the user did not come back in time.
	ErrLoginTimeout = errors.New("login timed out")
)

// UnauthorizedError is the SDK's error of that name: a request needs an
// authorization that could not be had without the user, or that the server
// refuses.
type UnauthorizedError struct {
	// ServerURL is the MCP server's.
	ServerURL string
	// Reason says what to do.
	Reason string
	// Err is the cause; nil if the server just said 401.
	Err error
	// Result is that of Auth if the user was sent to the authorization server.
	Result *Result
}

// Error implements error.
func (e *UnauthorizedError) Error() string {
	s := fmt.Sprintf("not authorized at %s: %s", bareURL(e.ServerURL), e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports whether target is ErrUnauthorized.
func (e *UnauthorizedError) Is(target error) bool { return target == ErrUnauthorized }

// Unwrap returns the cause.
func (e *UnauthorizedError) Unwrap() error { return e.Err }

// IssuerMismatchError is the SDK's error of that name.
type IssuerMismatchError struct {
	// Kind is "metadata" (RFC 8414 §3.3) or "authorization_response"
	// (RFC 9207 §2.4).
	Kind string
	// Received is "" if there was none. It may come from an attacker.
	Expected, Received string
}

// The kinds of IssuerMismatchError.
const (
	mismatchMetadata = "metadata"
	mismatchResponse = "authorization_response"
)

// Error implements error. The values are quoted, so that they cannot forge
// lines of a log.
func (e *IssuerMismatchError) Error() string {
	if e.Kind == mismatchMetadata {
		return fmt.Sprintf("the authorization server at %q names %q as its issuer in its metadata; the two must be equal (RFC 8414 section 3.3): correct authorization_servers in the metadata of the MCP server, or the issuer", e.Expected, e.Received)
	}
	if e.Received == "" {
		return fmt.Sprintf("the callback has no iss although the authorization server %q promises one (RFC 9207): begin the login again", e.Expected)
	}
	return fmt.Sprintf("the callback names the issuer %q, the login was begun at %q (RFC 9207): begin it again", e.Received, e.Expected)
}

// Is reports whether target is ErrIssuerMismatch.
func (e *IssuerMismatchError) Is(target error) bool { return target == ErrIssuerMismatch }

// AuthorizationServerMismatchError is the SDK's error of that name: what
// belongs to one authorization server would have gone to another.
type AuthorizationServerMismatchError struct {
	// Recorded is the issuer that the credential belongs to, "" if it is not
	// known any more; Current is the one found now.
	Recorded, Current string
	// What is the credential, in words.
	What string
}

// Error implements error.
func (e *AuthorizationServerMismatchError) Error() string {
	if e.Recorded == "" {
		return fmt.Sprintf("%s cannot be sent to %q, because it is not known any more for which authorization server it is: keep the discovery state with the code verifier", e.What, e.Current)
	}
	return fmt.Sprintf("%s is for the authorization server %q and is not sent to %q, which the MCP server names now: check with its operator, then sign in again", e.What, e.Recorded, e.Current)
}

// Is reports whether target is ErrAuthorizationServerMismatch.
func (e *AuthorizationServerMismatchError) Is(target error) bool {
	return target == ErrAuthorizationServerMismatch
}

// RegistrationRejectedError is the SDK's error of that name.
type RegistrationRejectedError struct {
	// Status is the HTTP status.
	Status int
	// Body is the beginning of the answer.
	Body string
	// Submitted is what was sent.
	Submitted oauth.ClientMetadata
	// Err is the *oauth.Error of the answer; nil if it is none.
	Err error
}

// Error implements error.
func (e *RegistrationRejectedError) Error() string {
	why := fmt.Sprintf("%q", e.Body)
	if e.Err != nil {
		why = e.Err.Error()
	}
	return fmt.Sprintf("the authorization server refuses to register this client (HTTP %d: %s): change the client metadata, or register the client with its operator and give the client_id", e.Status, why)
}

// Is reports whether target is ErrRegistrationRejected.
func (e *RegistrationRejectedError) Is(target error) bool { return target == ErrRegistrationRejected }

// Unwrap returns the OAuth error.
func (e *RegistrationRejectedError) Unwrap() error { return e.Err }

// RefusedURLError says which URL is not used, and why. The SDK's
// InsecureTokenEndpointError is one with Insecure.
type RefusedURLError struct {
	// What is the URL's part in the flow, in words; URL has no query.
	What, URL string
	// Insecure: the URL is neither https nor loopback.
	Insecure bool
	// Reason says what to do.
	Reason string
	Err    error
}

// Error implements error.
func (e *RefusedURLError) Error() string {
	return fmt.Sprintf("%s %q is not used: %s", e.What, e.URL, e.Reason)
}

// Is reports whether target is ErrRefusedURL.
func (e *RefusedURLError) Is(target error) bool { return target == ErrRefusedURL }

// Unwrap returns the cause.
func (e *RefusedURLError) Unwrap() error { return e.Err }

// EndpointError says that an endpoint did not answer as it should: no answer,
// a 5xx, or one that is not the JSON that the standard asks for. It says nothing
// about the credentials, which are kept.
type EndpointError struct {
	// What is the endpoint, in words; URL has no query.
	What, URL string
	// Status is 0 if there was no answer.
	Status int
	// RetryAfter is what the answer asked for; 0 if it did not.
	RetryAfter time.Duration
	// Reason says what happened and what to do.
	Reason string
	// Err is the cause.
	Err error

	// place tells what this says about a metadata document.
	place placeTrouble
}

// Error implements error.
func (e *EndpointError) Error() string {
	s := fmt.Sprintf("%s %s: %s", e.What, e.URL, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports whether target is ErrUnavailable.
func (e *EndpointError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap returns the cause.
func (e *EndpointError) Unwrap() error { return e.Err }

// InsufficientScopeError is the SDK's error of that name: the MCP server wants
// more scope than the token has, and the client was told not to ask for it, or
// has asked and did not get it.
type InsufficientScopeError struct {
	// RequiredScope, ResourceMetadataURL and ErrorDescription are those of the
	// challenge, "" if it has none.
	RequiredScope, ResourceMetadataURL, ErrorDescription string
	// StepUps is how often a wider scope was asked for.
	StepUps int
}

// Error implements error.
func (e *InsufficientScopeError) Error() string {
	if e.StepUps > 0 {
		return fmt.Sprintf("the MCP server still wants the scope %q after %d new authorizations: the user may not have it", e.RequiredScope, e.StepUps)
	}
	return fmt.Sprintf("the MCP server wants the scope %q: authorize again with it", e.RequiredScope)
}

// Is reports whether target is ErrInsufficientScope, or the *oauth.Error of
// that code.
func (e *InsufficientScopeError) Is(target error) bool {
	return target == ErrInsufficientScope || oauth.ErrInsufficientScope.Is(target)
}
