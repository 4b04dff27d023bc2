package authserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Seconds that a client is told to wait when nothing better is known.
const (
	retryAfterTrouble = 5
	retryAfterLimit   = 30
)

// writeJSON writes v as the whole answer.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	if err := encodeJSON(&body, v); err != nil {
		// Only a provider's Extra members can be ill-formed.
		status = http.StatusInternalServerError
		body.Reset()
		body.WriteString(`{"error":"server_error","error_description":"Internal Server Error"}` + "\n")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

// encodeJSON writes v and a line break.
func encodeJSON(body *bytes.Buffer, v any) error {
	if m, ok := v.(json.Marshaler); ok {
		// An encoder would read and write again what the types of package oauth
		// have written.
		encoded, err := m.MarshalJSON()
		body.Write(encoded)
		body.WriteByte('\n')
		return err
	}
	enc := json.NewEncoder(body)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// writeError writes e as the whole answer. It is the only writer of errors
// beside the page and the redirect of the authorization endpoint.
func writeError(w http.ResponseWriter, e *oauth.Error) {
	setRetryAfter(w.Header(), e)
	writeJSON(w, e.HTTPStatus(), e)
}

func setRetryAfter(h http.Header, e *oauth.Error) {
	if h.Get("Retry-After") != "" {
		return
	}
	switch e.HTTPStatus() {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.Itoa(retryAfterTrouble))
	case http.StatusTooManyRequests:
		h.Set("Retry-After", strconv.Itoa(retryAfterLimit))
	}
}

// asError is oauth.AsError, except that an exhausted time budget is passing
// trouble and no defect.
func asError(err error) *oauth.Error {
	var e *oauth.Error
	if !errors.As(err, &e) && errors.Is(err, context.DeadlineExceeded) {
		return oauth.ErrTemporarilyUnavailable.Describe("The request took too long, try again").Because(err)
	}
	return oauth.AsError(err)
}

// fail answers a back-channel request with err.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, endpoint, clientID string, err error) {
	e := asError(err)
	s.logError(r, endpoint, clientID, e)
	challenge(w.Header(), r, e, s.config.Issuer)
	writeError(w, e)
}

// challenge sets WWW-Authenticate on a 401, if the client tried HTTP
// authentication (RFC 6749 §5.2) and always at the registration endpoint
// (RFC 6750 §3).
func challenge(h http.Header, r *http.Request, e *oauth.Error, issuer string) {
	if e.HTTPStatus() != http.StatusUnauthorized {
		return
	}
	switch {
	case errors.Is(e, oauth.ErrInvalidToken):
		var code string
		if r.Header.Get("Authorization") != "" {
			code = e.Code
		}
		h.Set("Www-Authenticate", oauth.FormatChallenge("Bearer", [2]string{"realm", issuer}, [2]string{"error", code}))
	case usesBasic(r):
		h.Set("Www-Authenticate", oauth.FormatChallenge("Basic", [2]string{"realm", issuer}, [2]string{"charset", "UTF-8"}))
	}
}

// logError logs a refusal with what the operator can act on. Client ids appear
// as a short hash: a sealed one is long, and one that is unknown may be
// anything.
func (s *Server) logError(r *http.Request, endpoint, clientID string, e *oauth.Error) {
	level := slog.LevelInfo
	switch {
	case errors.Is(e, oauth.ErrServerError):
		level = slog.LevelError
	case e.HTTPStatus() >= http.StatusInternalServerError:
		level = slog.LevelWarn
	case errors.Is(e, oauth.ErrTooManyRequests):
		level = slog.LevelDebug // a flood must not flood the log too
	}
	if !s.config.Logger.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("endpoint", endpoint),
		slog.String("error", e.Code),
		slog.String("description", e.Description),
		slog.String("remote_ip", s.config.ClientIP(r)),
	}
	if clientID != "" {
		attrs = append(attrs, slog.String("client_hash", shortHash(clientID)))
	}
	if cause := e.Unwrap(); cause != nil {
		attrs = append(attrs, slog.String("cause", cause.Error()))
	}
	s.config.Logger.LogAttrs(r.Context(), level, "request refused", attrs...)
}

// shortHash names an id in a log.
func shortHash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:6])
}
