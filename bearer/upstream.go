package bearer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// upstreamTimeout bounds one load of a document or one introspection, all
// attempts and redirects of URLs together.
const upstreamTimeout = safehttp.Timeout

// statusError is an answer whose status is not 200.
type statusError struct {
	url    string
	status int
}

func (e *statusError) Error() string {
	if e.status >= 300 && e.status < 400 {
		return fmt.Sprintf("%s answered %d; redirects are not followed", e.url, e.status)
	}
	return fmt.Sprintf("%s answered %d", e.url, e.status)
}

// answered reports whether err says that a server answered with the status.
func answered(err error, status int) bool {
	var s *statusError
	return errors.As(err, &s) && s.status == status
}

// upstreamClient is c, or the client of safehttp if c is nil, in a form that
// follows no redirect.
func upstreamClient(c *http.Client) *http.Client {
	if c == nil {
		return safehttp.NewClient()
	}
	own := *c
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own
}

// get fetches a JSON document: 200 or an error, at most safehttp.MaxBody bytes.
func get(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("the URL is not valid")
	}
	req.Header.Set("Accept", "application/json")
	answer, err := safehttp.Do(client, req, 0)
	if err != nil {
		return nil, err
	}
	if answer.Status != http.StatusOK {
		return nil, &statusError{url: address, status: answer.Status}
	}
	return answer.Body, nil
}

// checkURL says what is wrong with a URL that the operator configured.
func checkURL(name, address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return fmt.Errorf("%s is not a valid URL", name)
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Hostname() == "":
		return fmt.Errorf("%s must be an absolute https or http URL", name)
	case u.User != nil:
		return fmt.Errorf("%s must not hold a user name or password", name)
	case u.Fragment != "" || strings.Contains(address, "#"):
		return fmt.Errorf("%s must not hold a fragment", name)
	}
	return nil
}

// checkEndpoint is checkURL for a URL that the metadata of an issuer names. An
// https issuer must not send us to http, where anybody on the path could put
// in keys of their own, loopback excepted.
func checkEndpoint(name, address, issuer string) error {
	if address == "" {
		return fmt.Errorf("the metadata of %s has no %s", issuer, name)
	}
	if err := checkURL(name, address); err != nil {
		return fmt.Errorf("the metadata of %s: %w", issuer, err)
	}
	u, _ := url.Parse(address)
	if u.Scheme == "http" && strings.HasPrefix(strings.ToLower(issuer), "https:") && !oauth.IsLoopbackHost(u.Hostname()) {
		return fmt.Errorf("the metadata of %s names an http URL as %s", issuer, name)
	}
	return nil
}

// since is how long ago t was; a zero t is longer ago than anything.
func since(now, t time.Time) time.Duration {
	if t.IsZero() {
		return 1<<63 - 1
	}
	return now.Sub(t)
}

// The defaults of the options that all verifiers share.

func clockOr(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now
	}
	return now
}

func loggerOr(logger *slog.Logger) *slog.Logger {
	if logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return logger
}

// durationOr is d, or the default if d is not above 0.
func durationOr(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// skewOr is how far two clocks may differ: 60 s unless configured, none if d is
// below 0.
func skewOr(d time.Duration) time.Duration {
	if d == 0 {
		return time.Minute
	}
	return max(d, 0)
}
