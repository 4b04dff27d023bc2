package bearer

import (
	"mime"
	"net/http"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// checkMediaType refuses bodies that are not plain JSON in UTF-8, and those that
// the server behind might take for something else.
func checkMediaType(h http.Header) *oauth.Error {
	for _, encoding := range h["Content-Encoding"] {
		if !strings.EqualFold(encoding, "identity") {
			return unsupported("Send the body without Content-Encoding")
		}
	}
	types := h["Content-Type"]
	if len(types) == 1 && isPlainJSON(types[0]) {
		return nil
	}
	return unsupported("Send the body with the Content-Type application/json, in UTF-8")
}

func unsupported(description string) *oauth.Error {
	return badCall(description).WithStatus(http.StatusUnsupportedMediaType)
}

func isPlainJSON(contentType string) bool {
	if contentType == "application/json" {
		return true // as nearly all write it
	}
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil || mediaType != "application/json" {
		return false
	}
	charset, given := params["charset"]
	return !given || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8")
}
