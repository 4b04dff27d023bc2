package authserver

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	maxBody   = 64 << 10 // bytes of a request body
	maxQuery  = 16 << 10 // bytes of a query
	maxParams = 64       // parameters of a form or query
)

// params are the parameters of a request. A parameter without a value counts
// as absent (RFC 6749 §3.1).
type params struct {
	values   map[string]string
	repeated map[string]bool
}

// get returns the parameter's value, "" if it is absent. If the parameter is
// repeated it is the first value; call once before that matters.
func (p params) get(name string) string { return p.values[name] }

// once returns invalid_request if one of the named parameters, or any at all if
// none is named, is repeated: two readers of such a request may see two
// different ones (RFC 6749 §3.1).
func (p params) once(names ...string) error {
	if len(names) == 0 && len(p.repeated) > 0 {
		for _, known := range knownParams() {
			if p.repeated[known] {
				return errRepeated(known)
			}
		}
		return oauth.ErrInvalidRequest.Describe("A parameter is repeated")
	}
	for _, name := range names {
		if p.repeated[name] {
			return errRepeated(name)
		}
	}
	return nil
}

func errRepeated(name string) error {
	return oauth.ErrInvalidRequest.Describe("The parameter " + name + " is repeated")
}

// knownParams are the names that may appear in an error; others are the
// caller's text and are not repeated to it.
func knownParams() []string {
	return []string{
		"client_id", "client_secret", "redirect_uri", "response_type", "response_mode", "state", "scope", "resource",
		"code_challenge", "code_challenge_method", "grant_type", "code", "code_verifier", "refresh_token", "token",
		"token_type_hint", "client_assertion", "client_assertion_type", "prompt", "nonce", "login_hint", "max_age", "ui_locales", "acr_values",
	}
}

// required returns the parameter's value, invalid_request if it is absent.
func (p params) required(name string) (string, error) {
	if v := p.get(name); v != "" {
		return v, nil
	}
	return "", oauth.ErrInvalidRequest.Describe("The parameter " + name + " is required")
}

// parseParams parses application/x-www-form-urlencoded data (WHATWG URL §5.1),
// which a query is too. Ill-formed escapes, invalid UTF-8 and control
// characters are invalid_request.
func parseParams(encoded string) (params, error) {
	p := params{values: make(map[string]string), repeated: make(map[string]bool)}
	seen := make(map[string]bool)
	count := 0
	for pair := range strings.SplitSeq(encoded, "&") {
		if pair == "" {
			continue
		}
		if count++; count > maxParams {
			return params{}, oauth.ErrInvalidRequest.Describe(fmt.Sprintf("There are more than %d parameters", maxParams))
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, errName := url.QueryUnescape(rawName)
		value, errValue := url.QueryUnescape(rawValue)
		if errName != nil || errValue != nil {
			return params{}, oauth.ErrInvalidRequest.Describe("The parameters hold an invalid percent escape")
		}
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return params{}, oauth.ErrInvalidRequest.Describe("The parameters are not valid UTF-8")
		}
		if hasControl(name) || hasControl(value) {
			return params{}, oauth.ErrInvalidRequest.Describe("The parameters hold a control character")
		}
		if seen[name] {
			p.repeated[name] = true
			continue
		}
		seen[name] = true
		if value != "" {
			p.values[name] = value
		}
	}
	return p, nil
}

// hasControl reports whether s holds a control character, NUL, CR and LF among
// them.
func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

// readForm reads the form in the request's body.
func (s *Server) readForm(w http.ResponseWriter, r *http.Request) (params, error) {
	body, err := s.readBody(w, r, "application/x-www-form-urlencoded")
	if err != nil {
		return params{}, err
	}
	return parseParams(string(body))
}

// readBody reads a body of the given media type, bounded in size and time.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, mediaType string) ([]byte, error) {
	got, mediaParams, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || got != mediaType {
		return nil, oauth.ErrInvalidRequest.Describe("The Content-Type must be " + mediaType)
	}
	if charset, ok := mediaParams["charset"]; ok && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "us-ascii") {
		return nil, oauth.ErrInvalidRequest.Describe("The charset of the body must be UTF-8")
	}
	s.boundReading(w, r)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, bodyError(err)
	}
	return body, nil
}

func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	var netErr net.Error
	switch {
	case errors.As(err, &tooLarge):
		return oauth.ErrInvalidRequest.Describe(fmt.Sprintf("The body is larger than %d bytes", maxBody)).
			WithStatus(http.StatusRequestEntityTooLarge)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return oauth.ErrInvalidRequest.Describe("The body did not arrive in time").WithStatus(http.StatusRequestTimeout)
	default:
		return oauth.ErrInvalidRequest.Describe("The body could not be read").Because(err)
	}
}
