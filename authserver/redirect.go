package authserver

import (
	"html"
	"io"
	"net/http"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// SuccessURL returns where to send the browser with a code: the redirect URI
// with code, state and iss (RFC 6749 §4.1.2, RFC 9207 §2).
func (p AuthorizationParams) SuccessURL(code string) (string, error) {
	return p.answerURL([][2]string{{"code", code}})
}

// ErrorURL returns where to send the browser with an error: the redirect URI
// with error, error_description, state and iss (RFC 6749 §4.1.2.1). An err that
// is no *oauth.Error becomes server_error without details; logging it is up to
// the caller.
func (p AuthorizationParams) ErrorURL(err error) (string, error) {
	e := asError(err)
	answer := [][2]string{{"error", e.Code}}
	if e.Description != "" {
		answer = append(answer, [2]string{"error_description", oauth.CleanDescription(e.Description)})
	}
	if e.URI != "" {
		answer = append(answer, [2]string{"error_uri", e.URI})
	}
	return p.answerURL(answer)
}

func (p AuthorizationParams) answerURL(answer [][2]string) (string, error) {
	if p.State != "" {
		answer = append(answer, [2]string{"state", p.State})
	}
	if p.Issuer != "" {
		answer = append(answer, [2]string{"iss", p.Issuer})
	}
	return oauth.AppendRedirectParams(p.RedirectURI, answer)
}

// RedirectError sends the browser to the redirect URI with an error. A provider
// uses it for what happens after Authorize has returned, such as a refused
// consent.
func RedirectError(w http.ResponseWriter, r *http.Request, p AuthorizationParams, err error) {
	location, urlErr := p.ErrorURL(err)
	if urlErr != nil {
		writePage(w, r, oauth.ErrServerError.Describe("Internal Server Error"))
		return
	}
	Redirect(w, r, location)
}

// Redirect sends the browser to location with a 302, kept by no cache and
// without a Referer. Unlike http.Redirect it changes nothing in location, and
// refuses one that cannot be a header value.
func Redirect(w http.ResponseWriter, r *http.Request, location string) {
	h := w.Header()
	noStore(h)
	if location == "" || hasControl(location) {
		writePage(w, r, oauth.ErrServerError.Describe("Internal Server Error"))
		return
	}
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Location", location)
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusFound)
	_, _ = io.WriteString(w, `<a href="`+html.EscapeString(location)+"\">Continue</a>.\n")
}
