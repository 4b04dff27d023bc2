package bearer

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxIdentity bounds the values of all identity headers together, in bytes.
const maxIdentity = 8 << 10

// ErrIdentityTooLarge is returned by SetIdentity when the identity does not fit
// into headers. The request is then to be refused with 500.
var ErrIdentityTooLarge = errors.New("the identity headers would be larger than 8 KiB; forward fewer fields")

// identityPrefixes are how the names of identity headers begin, in lower case.
var identityPrefixes = [...]string{"x-mcp-user", "x-mcp-client", "x-mcp-scope"}

// isIdentityName reports whether a header is one of those that only the guard
// may set, X-MCP-User, X-MCP-Client, X-MCP-Scope, or begins like one. Every
// character that is no letter and no digit counts as a hyphen, because CGI and
// what follows it turn them all into one (SECURITY §7).
func isIdentityName(name string) bool {
	for _, prefix := range identityPrefixes {
		if hasFoldedPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func hasFoldedPrefix(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		default:
			c = '-'
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}

// StripIdentity removes every identity header that the client sent: from the
// header, from the trailer, announced or not, and from the Connection and
// Trailer lists, where naming one would make a proxy drop what SetIdentity
// sets. It belongs on every request, guarded or not.
//
// The body of a chunked HTTP/1 request is wrapped, because its trailer is only
// known at its end.
func StripIdentity(r *http.Request) {
	stripNames(r.Header)
	stripListed(r.Header, "Connection")
	stripListed(r.Header, "Trailer")
	stripTrailer(r.Trailer)
	// HTTP/2 and 3 take announced trailers only, so that the line above is all.
	if r.ProtoMajor == 1 && r.ContentLength < 0 && r.Body != nil {
		r.Body = &trailerStripper{r.Body, r}
	}
}

func stripNames(h http.Header) {
	for name := range h {
		if isIdentityName(name) {
			delete(h, name)
		}
	}
}

// stripTrailer also removes what a lenient server would take for a token: the
// one that counts is in the header.
func stripTrailer(trailer http.Header) {
	stripNames(trailer)
	delete(trailer, "Authorization")
}

// stripListed removes identity names from a header that lists header names.
func stripListed(h http.Header, header string) {
	values := h[header]
	if !slices.ContainsFunc(values, listsIdentity) {
		return
	}
	var kept []string
	for _, value := range values {
		for field := range strings.SplitSeq(value, ",") {
			if field = textproto.TrimString(field); field != "" && !isIdentityName(field) {
				kept = append(kept, field)
			}
		}
	}
	if len(kept) == 0 {
		delete(h, header)
		return
	}
	h[header] = []string{strings.Join(kept, ", ")}
}

func listsIdentity(value string) bool {
	for field := range strings.SplitSeq(value, ",") {
		if isIdentityName(textproto.TrimString(field)) {
			return true
		}
	}
	return false
}

// trailerStripper removes identity headers from the trailer, which net/http
// fills in when the body ends, with what was announced and what was not.
type trailerStripper struct {
	io.ReadCloser
	request *http.Request
}

func (t *trailerStripper) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil {
		stripTrailer(t.request.Trailer)
	}
	return n, err
}

// IdentityFields are what SetIdentity sends besides user, client and scopes.
type IdentityFields struct {
	// Email is the claim email, left out if email_verified is there and not true.
	Email bool
	// Name is the claim name, or else preferred_username.
	Name bool
	// Groups is the claim groups.
	Groups bool
}

// SetIdentity tells the server behind who is asking: X-MCP-User (the subject),
// X-MCP-Client and X-MCP-Scope (separated by spaces), and with fields
// X-MCP-User-Email, X-MCP-User-Name and X-MCP-User-Groups (separated by
// commas). What is unknown has no header.
//
// In each value, scope or group, bytes outside of 0x21–0x7E and "%" and "," are
// percent-encoded. Over 8 KiB in all it is ErrIdentityTooLarge, and h is
// unchanged.
func SetIdentity(h http.Header, info *oauth.TokenInfo, fields IdentityFields) error {
	headers := [...]struct{ name, value string }{
		{"X-Mcp-User", encodeIdentity(info.UserID)},
		{"X-Mcp-Client", encodeIdentity(info.ClientID)},
		{"X-Mcp-Scope", joinIdentity(info.Scopes, " ")},
		{"X-Mcp-User-Email", ""},
		{"X-Mcp-User-Name", ""},
		{"X-Mcp-User-Groups", ""},
	}
	if fields.Email {
		headers[3].value = encodeIdentity(emailClaim(info.Extra))
	}
	if fields.Name {
		headers[4].value = encodeIdentity(nameClaim(info.Extra))
	}
	if fields.Groups {
		headers[5].value = joinIdentity(groupsClaim(info.Extra), ",")
	}
	size := 0
	for _, header := range headers {
		size += len(header.value)
	}
	if size > maxIdentity {
		return ErrIdentityTooLarge
	}
	for _, header := range headers {
		if header.value == "" {
			delete(h, header.name)
			continue
		}
		h[header.name] = []string{header.value}
	}
	return nil
}

// RemoveAuthorization removes the access token, which is for the guard and not
// for the server behind (MCP "Token Passthrough").
func RemoveAuthorization(r *http.Request) { delete(r.Header, "Authorization") }

func emailClaim(claims map[string]any) string {
	// Keycloak and Google send a boolean, Cognito a string.
	if verified, said := claims["email_verified"]; said && verified != true && verified != "true" {
		return ""
	}
	email, _ := claims["email"].(string)
	return email
}

func nameClaim(claims map[string]any) string {
	if name, _ := claims["name"].(string); name != "" {
		return name
	}
	name, _ := claims["preferred_username"].(string)
	return name
}

func groupsClaim(claims map[string]any) []string {
	switch groups := claims["groups"].(type) {
	case []string:
		return groups
	case string:
		return []string{groups}
	case []any:
		names := make([]string, 0, len(groups))
		for _, group := range groups {
			if name, ok := group.(string); ok {
				names = append(names, name)
			}
		}
		return names
	default:
		return nil
	}
}

func joinIdentity(values []string, separator string) string {
	encoded := make([]string, 0, len(values))
	for _, value := range values {
		if value != "" {
			encoded = append(encoded, encodeIdentity(value))
		}
	}
	return strings.Join(encoded, separator)
}

// encodeIdentity percent-encodes one value so that it can neither end the
// header nor be taken for two.
func encodeIdentity(s string) string {
	const digits = "0123456789ABCDEF"
	if strings.IndexFunc(s, needsEncoding) < 0 {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; needsEncoding(rune(c)) {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func needsEncoding(r rune) bool { return r < 0x21 || r > 0x7e || r == '%' || r == ',' }
