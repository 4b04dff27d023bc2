package oauth

import (
	"encoding/json"
	"errors"
	"net/http"
)

// Error is an OAuth error: what is sent to the peer, and with Because what the
// operator may read besides.
//
// Compare by code with errors.Is and one of the Err values of this package:
//
//	if errors.Is(err, oauth.ErrInvalidGrant) { … }
type Error struct {
	// Code is the value of the error parameter, for example "invalid_grant".
	Code string
	// Description is one line of printable ASCII without quotes or backslashes
	// (RFC 6749 §5.2) that tells the client's developer what to change. It
	// never holds a secret.
	Description string
	// URI is the optional error_uri, a page about the error.
	URI string
	// Status is the HTTP status of a direct answer; 0 means 400.
	Status int

	cause error
}

// The errors of RFC 6749, 6750, 7009, 7591, 8707 and of the MCP TypeScript SDK
// (method_not_allowed, too_many_requests), each with the status of a direct
// answer.
var (
	ErrInvalidRequest          = &Error{Code: "invalid_request", Status: http.StatusBadRequest}
	ErrInvalidClient           = &Error{Code: "invalid_client", Status: http.StatusUnauthorized}
	ErrInvalidGrant            = &Error{Code: "invalid_grant", Status: http.StatusBadRequest}
	ErrUnauthorizedClient      = &Error{Code: "unauthorized_client", Status: http.StatusBadRequest}
	ErrUnsupportedGrantType    = &Error{Code: "unsupported_grant_type", Status: http.StatusBadRequest}
	ErrInvalidScope            = &Error{Code: "invalid_scope", Status: http.StatusBadRequest}
	ErrAccessDenied            = &Error{Code: "access_denied", Status: http.StatusForbidden}
	ErrServerError             = &Error{Code: "server_error", Status: http.StatusInternalServerError}
	ErrTemporarilyUnavailable  = &Error{Code: "temporarily_unavailable", Status: http.StatusServiceUnavailable}
	ErrUnsupportedResponseType = &Error{Code: "unsupported_response_type", Status: http.StatusBadRequest}
	ErrUnsupportedTokenType    = &Error{Code: "unsupported_token_type", Status: http.StatusBadRequest}
	ErrInvalidToken            = &Error{Code: "invalid_token", Status: http.StatusUnauthorized}
	ErrMethodNotAllowed        = &Error{Code: "method_not_allowed", Status: http.StatusMethodNotAllowed}
	ErrTooManyRequests         = &Error{Code: "too_many_requests", Status: http.StatusTooManyRequests}
	ErrInvalidClientMetadata   = &Error{Code: "invalid_client_metadata", Status: http.StatusBadRequest}
	ErrInsufficientScope       = &Error{Code: "insufficient_scope", Status: http.StatusForbidden}
	ErrInvalidTarget           = &Error{Code: "invalid_target", Status: http.StatusBadRequest}
	ErrInvalidRedirectURI      = &Error{Code: "invalid_redirect_uri", Status: http.StatusBadRequest}
)

// standardErrors are the errors above, by code.
func standardErrors() []*Error {
	return []*Error{
		ErrInvalidRequest, ErrInvalidClient, ErrInvalidGrant, ErrUnauthorizedClient, ErrUnsupportedGrantType,
		ErrInvalidScope, ErrAccessDenied, ErrServerError, ErrTemporarilyUnavailable, ErrUnsupportedResponseType,
		ErrUnsupportedTokenType, ErrInvalidToken, ErrMethodNotAllowed, ErrTooManyRequests, ErrInvalidClientMetadata,
		ErrInsufficientScope, ErrInvalidTarget, ErrInvalidRedirectURI,
	}
}

// NewError returns an error with the given code, as the SDK's CustomOAuthError
// does. A code of this package gets its usual status, any other one 400.
func NewError(code, description string) *Error {
	for _, known := range standardErrors() {
		if known.Code == code {
			return known.Describe(description)
		}
	}
	return (&Error{Code: code, Status: http.StatusBadRequest}).Describe(description)
}

// Describe returns a copy of e with the description, cleaned of what RFC 6749
// §5.2 does not allow in one.
func (e *Error) Describe(description string) *Error {
	c := *e
	c.Description = CleanDescription(description)
	return &c
}

// WithURI returns a copy of e with the error_uri.
func (e *Error) WithURI(uri string) *Error {
	c := *e
	c.URI = uri
	return &c
}

// WithStatus returns a copy of e that answers with another HTTP status, for
// example 413 for an invalid_request whose body was too large.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.Status = status
	return &c
}

// Because returns a copy of e that wraps cause. The cause is for the log and
// for errors.Is and errors.As; it is never sent to the peer.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// Error returns the code and description, and the cause if there is one. The
// text is for the operator; what the peer sees is MarshalJSON.
func (e *Error) Error() string {
	s := e.Code
	if e.Description != "" {
		s += ": " + e.Description
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap returns the cause given with Because.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// HTTPStatus returns the status of a direct answer.
func (e *Error) HTTPStatus() int {
	if e.Status == 0 {
		return http.StatusBadRequest
	}
	return e.Status
}

// MarshalJSON writes {"error", "error_description"[, "error_uri"]}, the SDK's
// toResponseObject. The description is present even when it is empty.
func (e *Error) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
		URI         string `json:"error_uri,omitempty"`
	}{e.Code, CleanDescription(e.Description), e.URI})
}

// AsError returns err as an *Error. What is not one becomes server_error with
// the text "Internal Server Error" and err as its cause, so that no detail of
// an unforeseen error reaches the peer.
func AsError(err error) *Error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // quicker for most; the others follow
		return e
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return ErrServerError.Describe("Internal Server Error").Because(err)
}

// maxDescription bounds an error_description, in bytes.
const maxDescription = 300

// CleanDescription makes s fit for an error_description, in JSON, in a redirect
// and in a quoted challenge value: printable ASCII without quote and backslash
// (RFC 6749 §5.2), one line, at most 300 bytes. Every other character becomes
// a space, quotes become apostrophes.
func CleanDescription(s string) string {
	b := make([]byte, 0, min(len(s), maxDescription))
	for _, r := range s {
		if len(b) == maxDescription {
			break
		}
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\'')
		case r >= 0x20 && r <= 0x7e:
			b = append(b, byte(r))
		default:
			b = append(b, ' ')
		}
	}
	return string(b)
}
