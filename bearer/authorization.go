package bearer

import (
	"net/http"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxToken bounds an access token, in bytes.
const maxToken = 16 << 10

// accessToken returns the token of the Authorization header, the only place
// where one is accepted: RFC 6750 §2.1 without the form and query methods, which
// MCP forbids. "" without an error means that none was sent.
func accessToken(h http.Header) (string, *oauth.Error) {
	values := h["Authorization"]
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return "", nil
	}
	if len(values) > 1 {
		return "", oauth.ErrInvalidRequest.Describe("Send one Authorization header only")
	}
	if len(values[0]) > maxToken+len("Bearer ") {
		return "", oauth.ErrInvalidToken.Describe("The Authorization header is longer than 16 KiB")
	}
	return parseAuthorization(values[0])
}

// plainBearer returns what stands behind "Bearer " in the only Authorization
// header, "" if that is not so: a token that was found good before, in which case
// nothing else of the header needs to be looked at, or anything else.
func plainBearer(h http.Header) string {
	values := h["Authorization"]
	if len(values) != 1 {
		return ""
	}
	token, ok := strings.CutPrefix(values[0], "Bearer ")
	if !ok || len(token) > maxToken {
		return ""
	}
	return token
}

// parseAuthorization reads "Bearer" 1*SP b64token (RFC 6750 §2.1), with exactly
// one space as the SDK does and the scheme in any case (RFC 9110 §11.1).
func parseAuthorization(value string) (string, *oauth.Error) {
	scheme, token, _ := strings.Cut(value, " ")
	isBearer := strings.EqualFold(scheme, "Bearer")
	if isBearer && strings.Contains(token, ",") || hasJoinedBearer(value) {
		// Some proxies join two headers into one (RFC 9110 §5.3). Which of the
		// two the server behind would take is not ours to guess.
		return "", oauth.ErrInvalidRequest.Describe("Send one access token only")
	}
	if !isBearer || !isB64Token(token) {
		return "", oauth.ErrInvalidToken.Describe(malformedAuthorization)
	}
	return token, nil
}

// hasJoinedBearer reports whether a comma in value is followed by a second
// header's Bearer credentials.
func hasJoinedBearer(value string) bool {
	for {
		_, rest, found := strings.Cut(value, ",")
		if !found {
			return false
		}
		value = rest
		rest = strings.TrimLeft(rest, " \t")
		if len(rest) >= 7 && strings.EqualFold(rest[:7], "Bearer ") {
			return true
		}
	}
}

// isB64Token is the b64token of RFC 6750 §2.1.
func isB64Token(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '.', c == '_', c == '~', c == '+', c == '/':
		default:
			return false
		}
	}
	return s != ""
}
