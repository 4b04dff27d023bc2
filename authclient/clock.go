package authclient

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// ErrClock: the clocks of this machine and of the server differ, and what was
// signed with a time was refused.
var ErrClock = errors.New("wrong clock")

// clockTolerance is what servers usually allow for, and more than the age that
// a Date header may have.
const clockTolerance = time.Minute

// ClockError says by how much the clocks differ. It wraps the refusal.
type ClockError struct {
	// Ahead is by how much the clock of this machine is ahead of the server's,
	// negative if it is behind.
	Ahead time.Duration
	Err   error
}

// Error implements error.
func (e *ClockError) Error() string {
	ahead, word := e.Ahead, "ahead of"
	if ahead < 0 {
		ahead, word = -ahead, "behind"
	}
	return fmt.Sprintf("the clock of this machine is %s %s that of the server, which refused what was signed with its time: set the clock: %s", ahead.Round(time.Second), word, e.Err)
}

// Is reports whether target is ErrClock.
func (e *ClockError) Is(target error) bool { return target == ErrClock }

// Unwrap returns the refusal.
func (e *ClockError) Unwrap() error { return e.Err }

// blameClock wraps a refusal of what bears a time, an assertion or a proof, in
// a ClockError if the clocks differ.
func (s *AuthorizationServer) blameClock(err error, r *TokenRequest, req *http.Request, answer *safehttp.Answer) error {
	var refusal *oauth.Error
	signed := r.Form.Has("client_assertion") || r.Form.Has("assertion") || req.Header.Get("DPoP") != ""
	if !signed || !errors.As(err, &refusal) || errors.Is(err, ErrUnavailable) || refusal.Code == "use_dpop_nonce" {
		return err
	}
	if ahead, ok := clockAhead(answer.Header, s.Options.now()); ok {
		return &ClockError{Ahead: ahead, Err: err}
	}
	return err
}

// clockAhead compares the clock with the Date of an answer. ok is true if they
// differ by more than servers allow for.
func clockAhead(h http.Header, now time.Time) (ahead time.Duration, ok bool) {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0, false
	}
	ahead = now.Sub(date)
	return ahead, ahead.Abs() > clockTolerance
}
