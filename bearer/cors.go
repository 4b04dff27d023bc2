package bearer

import (
	"io"
	"net/http"
	"strings"
)

// maxRequestedHeaders bounds the header list that a preflight answer repeats,
// in bytes.
const maxRequestedHeaders = 1024

// isPreflight reports whether r is a CORS preflight (Fetch standard,
// "CORS-preflight request"); its Origin is checked before.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Access-Control-Request-Method"]) == 1
}

// writePreflight admits a page of the origin.
func writePreflight(w http.ResponseWriter, r *http.Request, origin string) {
	h := w.Header()
	setCORS(h, origin)
	addVary(h, "Access-Control-Request-Method")
	h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS")
	h.Set("Access-Control-Max-Age", "600")
	reflectRequestedHeaders(h, r)
	w.WriteHeader(http.StatusNoContent)
}

// reflectRequestedHeaders allows the header names that the preflight asks for,
// unless the list is too long or holds what no list of names does.
func reflectRequestedHeaders(h http.Header, r *http.Request) {
	addVary(h, "Access-Control-Request-Headers")
	requested := r.Header["Access-Control-Request-Headers"]
	if len(requested) == 1 && isHeaderList(requested[0]) {
		h.Set("Access-Control-Allow-Headers", requested[0])
	}
}

// isHeaderList reports whether s is a list of field names (RFC 9110 §5.1).
func isHeaderList(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~, ", c) >= 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxRequestedHeaders
}

// setCORS lets a page of the origin read the answer, and what an MCP client
// needs of its headers.
func setCORS(h http.Header, origin string) {
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version")
	addVary(h, "Origin")
}

// CORSWriter returns a writer for the answer of a server behind the guard to a
// page of origin. When the header is written it replaces every Access-Control-*
// header that the server behind has set itself: doubled ones are refused by
// browsers. It works with http.ResponseController.
func CORSWriter(w http.ResponseWriter, origin string) http.ResponseWriter {
	setCORS(w.Header(), origin) // for handlers that write nothing at all
	return &corsWriter{ResponseWriter: w, origin: origin}
}

type corsWriter struct {
	http.ResponseWriter
	origin string
	done   bool
}

// Unwrap is for http.ResponseController.
func (w *corsWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *corsWriter) WriteHeader(status int) {
	// Interim answers (RFC 9110 §15.2) are not the last; 101 is.
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		w.setHeaders()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *corsWriter) Write(b []byte) (int, error) {
	w.setHeaders()
	return w.ResponseWriter.Write(b)
}

// ReadFrom keeps the fast path of the writer below, if it has one.
func (w *corsWriter) ReadFrom(r io.Reader) (int64, error) {
	w.setHeaders()
	return io.Copy(w.ResponseWriter, r)
}

// FlushError is for http.ResponseController: a flush writes the header.
func (w *corsWriter) FlushError() error {
	w.setHeaders()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is for handlers that look for an http.Flusher.
func (w *corsWriter) Flush() { _ = w.FlushError() }

func (w *corsWriter) setHeaders() {
	if w.done {
		return
	}
	w.done = true
	h := w.Header()
	for name := range h {
		if len(name) >= len("Access-Control-") && strings.EqualFold(name[:len("Access-Control-")], "Access-Control-") {
			delete(h, name)
		}
	}
	setCORS(h, w.origin)
}

// Interface guards
var (
	_ http.Flusher  = (*corsWriter)(nil)
	_ io.ReaderFrom = (*corsWriter)(nil)
)
