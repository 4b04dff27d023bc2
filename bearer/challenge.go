package bearer

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// The descriptions of the SDK's requireBearerAuth, which clients show.
const (
	missingAuthorization   = "Missing Authorization header"
	malformedAuthorization = "Invalid Authorization header format, expected 'Bearer TOKEN'"
	notForThisResource     = "Token was not issued for this resource"
	noExpiry               = "Token has no expiration time"
	expired                = "Token has expired"
	insufficientScope      = "Insufficient scope"
)

// retryAfter is how many seconds a client should wait when a token cannot be
// judged now.
const retryAfter = "5"

// refusal is an answer to a request that must not go on.
type refusal struct {
	err *oauth.Error
	// noCredentials says that no token was sent: the challenge then names no
	// error (RFC 6750 §3.1).
	noCredentials bool
	// scopes and metadataURL are for the challenge, if there is one.
	scopes      []string
	metadataURL string
	// last, if not nil, remembers how the last refusal of the same metadataURL looks.
	last *atomic.Pointer[renderedRefusal]
}

// renderedRefusal is a refusal as it is sent. It is shared and never changed.
type renderedRefusal struct {
	code, description, uri string
	status                 int
	noCredentials          bool
	scopes                 []string

	challenge, length string
	body              []byte
}

func (f *refusal) looksLike(r *renderedRefusal) bool {
	return r != nil && r.code == f.err.Code && r.description == f.err.Description && r.uri == f.err.URI && r.status == f.err.HTTPStatus() &&
		r.noCredentials == f.noCredentials && slices.Equal(r.scopes, f.scopes)
}

func (f *refusal) render() *renderedRefusal {
	if f.last != nil {
		if last := f.last.Load(); f.looksLike(last) {
			return last
		}
	}
	body := errorBody(f.err)
	r := &renderedRefusal{
		code: f.err.Code, description: f.err.Description, uri: f.err.URI, status: f.err.HTTPStatus(),
		noCredentials: f.noCredentials, scopes: f.scopes, challenge: f.challenge(), body: body, length: strconv.Itoa(len(body)),
	}
	if f.last != nil {
		f.last.Store(r)
	}
	return r
}

// challenge returns the value of WWW-Authenticate; "" if the answer has none.
// Every 401 has one, and every 403 for missing scopes. Another 403 has none, so
// that clients do not ask for more scopes in a loop (SECURITY §7).
func (f *refusal) challenge() string {
	if f.err.HTTPStatus() != http.StatusUnauthorized && f.err.Code != oauth.ErrInsufficientScope.Code {
		return ""
	}
	params := make([][2]string, 0, 4)
	if !f.noCredentials {
		params = append(params, [2]string{"error", f.err.Code})
		if description := oauth.CleanDescription(f.err.Description); description != "" {
			params = append(params, [2]string{"error_description", description})
		}
	}
	if len(f.scopes) > 0 {
		params = append(params, [2]string{"scope", oauth.JoinScope(f.scopes)})
	}
	if f.metadataURL != "" {
		params = append(params, [2]string{"resource_metadata", f.metadataURL})
	}
	if len(params) == 0 {
		return "Bearer"
	}
	return oauth.FormatChallenge("Bearer", params...)
}

// write sends the refusal. It is the only place of the module that writes 401
// or 403 for a guarded request.
func (f *refusal) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	rendered := f.render()
	// The slices are this answer's own, since handlers in front may write into them.
	values := []string{rendered.challenge, "no-store", jsonType, rendered.length}
	if rendered.challenge != "" {
		h["Www-Authenticate"] = values[0:1:1]
	}
	switch f.err.HTTPStatus() {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if h.Get("Retry-After") == "" {
			h.Set("Retry-After", retryAfter)
		}
	}
	if errors.Is(f.err, errHeaderMismatch) {
		writeHeaderMismatch(w, r, f.err)
		return
	}
	h["Cache-Control"], h["Content-Type"], h["Content-Length"] = values[1:2:2], values[2:3:3], values[3:4:4]
	writeBody(w, r, rendered.status, rendered.body)
}

const jsonType = "application/json"

// writeError sends err as {"error", "error_description"}, never stored.
func writeError(w http.ResponseWriter, r *http.Request, err *oauth.Error) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, r, err.HTTPStatus(), errorBody(err))
}

func errorBody(err *oauth.Error) []byte {
	body, marshalErr := err.MarshalJSON()
	if marshalErr != nil { // an Error is two or three strings
		body = []byte(`{"error":"server_error","error_description":"Internal Server Error"}`)
	}
	return body
}

// writeJSON sends a JSON document, to a HEAD request its header only.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	writeBody(w, r, status, body)
}

func writeBody(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	safehttp.BoundReading(w, r, safehttp.RefusalTime)
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client is gone: nothing to do about it
	}
}

// addVary adds name to the Vary header unless it is there.
func addVary(h http.Header, name string) {
	for _, value := range h["Vary"] {
		for field := range strings.SplitSeq(value, ",") {
			if field = strings.TrimSpace(field); field == "*" || strings.EqualFold(field, name) {
				return
			}
		}
	}
	h.Add("Vary", name)
}
