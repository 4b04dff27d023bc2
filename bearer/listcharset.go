package bearer

import (
	"bytes"
	"mime"
	"net/http"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// saysText reports whether an answer calls itself JSON or an event stream, which
// both are UTF-8 (RFC 8259 §8.1; HTML standard, "Server-sent events").
func saysText(h http.Header) bool {
	t := answerType(h)
	return t == "text/event-stream" || strings.HasSuffix(t, "json")
}

// namesOtherCharset reports whether the Content-Type names a charset in which
// lists could hide from us: some clients heed it.
func namesOtherCharset(h http.Header) bool {
	for _, value := range h["Content-Type"] {
		_, params, err := mime.ParseMediaType(value)
		if err != nil && strings.Contains(strings.ToLower(value), "charset") {
			return true
		}
		switch strings.ToLower(params["charset"]) {
		case "", "utf-8", "utf8", "us-ascii":
		default:
			return true
		}
	}
	return false
}

// isWide reports whether b holds bytes that UTF-16 and UTF-32 have, and UTF-8 or
// JSON never.
func isWide(b []byte) bool {
	return bytes.IndexByte(b, 0) >= 0 || bytes.IndexByte(b, 0xfe) >= 0 || bytes.IndexByte(b, 0xff) >= 0
}

func notUTF8() *oauth.Error { return unreadableAnswer("it is not UTF-8") }
