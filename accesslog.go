package mcpauth

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// serveEndpoint answers an endpoint. URLs and redirects of those that browsers
// visit hold state and codes, and a confused client may send a secret in the
// query of any. Caddy's access log would keep them, so it is told to skip the
// request and a line without them is written instead (SECURITY §12).
func (h *served) serveEndpoint(w http.ResponseWriter, r *http.Request, endpoint http.Handler) {
	original := originalURL(r)
	if original.RawQuery == "" && r.URL.RawQuery == "" &&
		!h.site.secretive[strings.TrimSuffix(original.Path, "/")] && !h.site.secretive[strings.TrimSuffix(r.URL.Path, "/")] {
		endpoint.ServeHTTP(w, r)
		return
	}
	client := r.URL.Query().Get("client_id")
	_ = h.redacted(w, r, client, func(w http.ResponseWriter) error {
		endpoint.ServeHTTP(w, r)
		return nil
	})
}

// serveRedacted passes on a request whose query holds a token, which is not
// looked at (RFC 9700 §4.3.2), and not written into the access log either.
func (h *served) serveRedacted(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter) error) error {
	return h.redacted(w, r, "", serve)
}

// queryHoldsToken reports whether somebody has put a token into the URL.
func queryHoldsToken(u *url.URL) bool {
	return strings.Contains(u.RawQuery, "access_token") || strings.Contains(u.RawQuery, "%") && u.Query().Has("access_token")
}

// redacted serves a request that Caddy's access log skips.
func (h *served) redacted(w http.ResponseWriter, r *http.Request, client string, serve func(http.ResponseWriter) error) error {
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	level := zapcore.DebugLevel
	if server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.Logs != nil {
		level = zapcore.InfoLevel // this site has an access log
	}
	start := time.Now()
	path := originalURL(r).Path
	recorder := caddyhttp.NewResponseRecorder(w, nil, nil)
	err := serve(recorder)
	if c := h.logger.Named("access").Check(level, "handled request, its URL redacted"); c != nil {
		c.Write(
			zap.String("client_ip", clientIP(r)),
			zap.String("method", r.Method),
			zap.String("host", r.Host),
			zap.String("path", path),
			zap.String("client", shortHash(client)),
			zap.Int("status", recorder.Status()),
			zap.Duration("duration", time.Since(start)),
		)
	}
	return err
}

// shortHash names an identifier in logs: enough to find lines of the same one.
func shortHash(id string) string {
	if id == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:4])
}
