package bearer

import (
	"net/http"
	"strings"
)

// headerOnly are the names, in lower case, that a trailer may not have: they are
// checked in the header, and servers that merge the two would take those of the
// trailer unchecked (RFC 9110 §6.5.1).
var headerOnly = [...]string{"authorization", "mcp-session-id", "mcp-method", "mcp-name", "mcp-protocol-version"}

// isHeaderOnly reports whether a trailer may not have the name, in any spelling.
func isHeaderOnly(name string) bool {
	if isIdentityName(name) {
		return true
	}
	for _, only := range headerOnly {
		if len(name) == len(only) && hasFoldedPrefix(name, only) {
			return true
		}
	}
	return false
}

func isSessionName(name string) bool {
	return len(name) == len(sessionHeader) && hasFoldedPrefix(name, "mcp-session-id")
}

// stripAnnounced removes session ids from the announced trailer of an answer, and
// stripAnswerTrailer from one that was not announced: there they would go out
// without their MAC.
func stripAnnounced(h http.Header) { stripListed(h, "Trailer", isSessionName) }

func stripAnswerTrailer(h http.Header) {
	for name := range h {
		if trailer, ok := strings.CutPrefix(name, http.TrailerPrefix); ok && isSessionName(trailer) {
			delete(h, name)
		}
	}
}
