package idp

import (
	"errors"
	"fmt"
	"time"
)

// The three ways in which an upstream fails. Compare with errors.Is.
//
// The texts of errors are for the operator's log. They may repeat, shortened
// and cleaned, what the provider said, so they never go to a peer or a page.
// They hold no token, code, state or secret.
var (
	// ErrDead is a definite no: the token is revoked or expired, the account
	// disabled. Nothing but a new sign-in helps.
	ErrDead = errors.New("the identity provider no longer accepts this sign-in")
	// ErrDenied is a sign-in that the user or the provider refused. Code of the
	// *Error is what to tell the client.
	ErrDenied = errors.New("the identity provider refused the sign-in")
	// ErrTrouble is everything that may pass: no connection, 5xx, 429, answers
	// that make no sense, and what only the operator can set right, such as a
	// wrong client secret. It says nothing about the user.
	ErrTrouble = errors.New("the identity provider does not answer as it should")
)

// Error is what all methods of an Upstream return.
type Error struct {
	// Code is the OAuth error code to pass on, of RFC 6749 §4.1.2.1 or OpenID
	// Connect Core §3.1.2.6. It is set with ErrDenied, and with ErrDead if the
	// provider gave one of them as the reason.
	Code string

	kind  error
	text  string
	cause error
}

// Error is for the operator's log.
func (e *Error) Error() string {
	s := e.kind.Error() + ": " + e.text
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap makes errors.Is work for the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

func dead(code, format string, args ...any) error {
	return &Error{kind: ErrDead, Code: code, text: fmt.Sprintf(format, args...)}
}

func denied(code, format string, args ...any) error {
	return &Error{kind: ErrDenied, Code: code, text: fmt.Sprintf(format, args...)}
}

func trouble(cause error, format string, args ...any) error {
	return &Error{kind: ErrTrouble, text: fmt.Sprintf(format, args...), cause: cause}
}

// The ways in which a local sign-in fails. Compare with errors.Is.
var (
	// ErrWrongPassword: no such account, a wrong password or a disabled account;
	// the caller does not learn which.
	ErrWrongPassword = errors.New("the user name or the password is wrong")
	// ErrThrottled: too many failures from this address for this account. The
	// error is a *ThrottledError.
	ErrThrottled = errors.New("too many failed sign-ins")
	// ErrBusy: too many sign-ins at once, answered by 503 and Retry-After.
	ErrBusy = errors.New("too many sign-ins at the same time")
)

// ThrottledError is ErrThrottled with the time after which to try again.
type ThrottledError struct{ RetryAfter time.Duration }

// Error names the time.
func (e *ThrottledError) Error() string {
	return fmt.Sprintf("%s: try again in %s", ErrThrottled, e.RetryAfter.Round(time.Second))
}

// Is reports whether target is ErrThrottled.
func (e *ThrottledError) Is(target error) bool { return target == ErrThrottled }
