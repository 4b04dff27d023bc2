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
var identityPrefixes = [...]string{"x-mcp-user", "x-mcp-client", "x-mcp-scope", "x-mcp-identity"}

// isIdentityName reports whether a header is one of those that only the guard
// may set, X-MCP-User, X-MCP-Client, X-MCP-Scope, X-MCP-Identity, or begins like
// one. Every character that is no letter and no digit counts as a hyphen,
// because CGI and what follows it turn them all into one (SECURITY §7).
func isIdentityName(name string) bool {
	if name == "" || name[0]|0x20 != 'x' {
		return false // nearly all
	}
	for _, prefix := range identityPrefixes {
		if hasFoldedPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// IdentityHeaders returns the headers of h that StripIdentity would remove, nil if
// there are none.
func IdentityHeaders(h http.Header) http.Header {
	var found http.Header
	for name, values := range h {
		if isIdentityName(name) {
			if found == nil {
				found = http.Header{}
			}
			found[name] = values
		}
	}
	return found
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
// sets. It belongs on every request, guarded or not; Guard.Check calls it.
//
// From the trailer and its list it also removes Authorization, Mcp-Session-Id,
// Mcp-Method, Mcp-Name and Mcp-Protocol-Version, which belong into the header,
// where they are checked.
//
// The body of a chunked HTTP/1 request is wrapped, because its trailer is only
// known at its end.
func StripIdentity(r *http.Request) { strip(r) }

// strip is StripIdentity. It reports whether the header has the name
// Mcp-Session-Id in another spelling, since it looks at all names anyway.
func strip(r *http.Request) (oddSession bool) {
	for name := range r.Header {
		switch {
		case isIdentityName(name):
			delete(r.Header, name)
		case name != sessionHeader && isSessionName(name):
			oddSession = true
		}
	}
	stripListed(r.Header, "Connection", isIdentityName)
	stripListed(r.Header, "Trailer", isHeaderOnly)
	stripTrailer(r.Trailer)
	// HTTP/2 and 3 take announced trailers only, so that the line above is all.
	if r.ProtoMajor == 1 && r.ContentLength < 0 && r.Body != nil {
		r.Body = &trailerStripper{r.Body, r}
	}
	return oddSession
}

// stripTrailer also removes what a lenient server would take for a token or for
// something else that is checked in the header: only that counts.
func stripTrailer(trailer http.Header) {
	for name := range trailer {
		if isHeaderOnly(name) {
			delete(trailer, name)
		}
	}
}

// stripListed removes the names that are forbidden from a header that lists
// header names.
func stripListed(h http.Header, header string, forbidden func(name string) bool) {
	values := h[header]
	if !slices.ContainsFunc(values, func(value string) bool { return lists(value, forbidden) }) {
		return
	}
	var kept []string
	for _, value := range values {
		for field := range strings.SplitSeq(value, ",") {
			if field = textproto.TrimString(field); field != "" && !forbidden(field) {
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

func lists(value string, forbidden func(name string) bool) bool {
	for field := range strings.SplitSeq(value, ",") {
		if forbidden(textproto.TrimString(field)) {
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
	return NewIdentity(info).SetHeaders(h, fields)
}

// identityHeaders are the names of the headers in the order of Identity.values,
// as net/http spells them.
var identityHeaders = [...]string{
	"X-Mcp-User", "X-Mcp-Client", "X-Mcp-Scope", "X-Mcp-User-Email", "X-Mcp-User-Name", "X-Mcp-User-Groups",
}

// Identity holds the values of the identity headers, made once for many
// requests with a token.
type Identity struct {
	values [len(identityHeaders)]string
}

// NewIdentity makes the values that SetIdentity would send.
func NewIdentity(info *oauth.TokenInfo) *Identity {
	i := new(Identity)
	i.fill(info)
	return i
}

func (i *Identity) fill(info *oauth.TokenInfo) {
	i.values = [...]string{
		encodeIdentity(info.UserID),
		encodeIdentity(info.ClientID),
		joinIdentity(info.Scopes, " "),
		encodeIdentity(emailClaim(info.Extra)),
		encodeIdentity(nameClaim(info.Extra)),
		joinIdentity(groupsClaim(info.Extra), ","),
	}
}

// size is the length of all values.
func (i *Identity) size() int {
	size := 0
	for _, value := range i.values {
		size += len(value)
	}
	return size
}

// SetHeaders is SetIdentity.
func (i *Identity) SetHeaders(h http.Header, fields IdentityFields) error {
	wanted := [...]bool{true, true, true, fields.Email, fields.Name, fields.Groups}
	size, count := 0, 0
	for n, value := range i.values {
		if wanted[n] && value != "" {
			size, count = size+len(value), count+1
		}
	}
	if size > maxIdentity {
		return ErrIdentityTooLarge
	}
	// The slices are this request's own, since handlers behind may write into
	// them, as Caddy's request_header does when it replaces.
	values := make([]string, 0, count)
	for n, value := range i.values {
		if !wanted[n] || value == "" {
			delete(h, identityHeaders[n])
			continue
		}
		values = append(values, value)
		h[identityHeaders[n]] = values[len(values)-1 : len(values) : len(values)]
	}
	return nil
}

// SetIdentity is the function of that name for the token of the request; for a
// preflight, which has none, it does nothing.
func (d *Decision) SetIdentity(h http.Header, fields IdentityFields) error {
	switch {
	case d.Info == nil:
		return nil
	case d.Identity == nil:
		return SetIdentity(h, d.Info, fields)
	default:
		return d.Identity.SetHeaders(h, fields)
	}
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
	switch len(values) {
	case 0:
		return ""
	case 1:
		return encodeIdentity(values[0])
	}
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
	plain := 0
	for plain < len(s) && !needsEncoding(s[plain]) {
		plain++
	}
	if plain == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:plain])
	for i := plain; i < len(s); i++ {
		if c := s[i]; needsEncoding(c) {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func needsEncoding(c byte) bool { return c < 0x21 || c > 0x7e || c == '%' || c == ',' }
