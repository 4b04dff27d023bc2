package mcpauth

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// serveEndpoint answers an endpoint. URLs and redirects of those that browsers
// visit hold state and codes, which Caddy's access log would keep, so it is told
// to skip the request and a line without them is written instead (SECURITY §12).
func (h *served) serveEndpoint(w http.ResponseWriter, r *http.Request, endpoint http.Handler) {
	if !h.site.secretive[strings.TrimSuffix(originalURL(r).Path, "/")] && !h.site.secretive[strings.TrimSuffix(r.URL.Path, "/")] {
		endpoint.ServeHTTP(w, r)
		return
	}
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	level := zapcore.DebugLevel
	if server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.Logs != nil {
		level = zapcore.InfoLevel // this site has an access log
	}
	start := time.Now()
	recorder := caddyhttp.NewResponseRecorder(w, nil, nil)
	endpoint.ServeHTTP(recorder, r)
	if c := h.logger.Named("access").Check(level, "handled authorization request"); c != nil {
		c.Write(
			zap.String("client_ip", clientIP(r)),
			zap.String("method", r.Method),
			zap.String("host", r.Host),
			zap.String("path", r.URL.Path),
			zap.String("client", shortHash(r.URL.Query().Get("client_id"))),
			zap.Int("status", recorder.Status()),
			zap.Duration("duration", time.Since(start)),
		)
	}
}

// shortHash names an identifier in logs: enough to find lines of the same one.
func shortHash(id string) string {
	if id == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:4])
}
