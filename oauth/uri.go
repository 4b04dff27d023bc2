package oauth

import (
	"errors"
	"net/netip"
	"strings"
)

// maxURI bounds every URI that this package reads from outside, in bytes.
const maxURI = 2048

// uri is a URI cut into its parts at the delimiters of RFC 3986 §3 and nowhere
// else: every part keeps its bytes. net/url decodes, which is what comparing
// identifiers must not do.
type uri struct {
	scheme       string // as spelled
	hasAuthority bool
	userinfo     string
	hasUserinfo  bool
	host         string // as spelled, with the brackets of an IPv6 address
	port         string
	hasPort      bool
	path         string
	query        string
	hasQuery     bool
	hasFragment  bool
}

var (
	errURITooLong   = errors.New("it is longer than 2048 bytes")
	errURIRelative  = errors.New("it is not an absolute URI, which starts with a scheme such as https://")
	errURICharacter = errors.New("it holds a space, a control character, a backslash, a non-ASCII or another character that RFC 3986 does not allow; percent-encode it")
	errURIEscape    = errors.New("it holds a percent sign that two hexadecimal digits do not follow")
	errURIHost      = errors.New("its host is not a DNS name or IP address")
	errURIPort      = errors.New("its port is not a number from 1 to 65535")
)

// splitURI reads an absolute URI. Errors are phrases that follow "…: ".
func splitURI(raw string) (uri, error) {
	if len(raw) > maxURI {
		return uri{}, errURITooLong
	}
	if err := checkURIBytes(raw); err != nil {
		return uri{}, err
	}
	return cutURI(raw)
}

// cutURI is splitURI without its check of the single characters.
func cutURI(raw string) (u uri, err error) {
	scheme, rest, found := strings.Cut(raw, ":")
	if !found || !validScheme(scheme) {
		return uri{}, errURIRelative
	}
	u.scheme = scheme
	rest, _, u.hasFragment = strings.Cut(rest, "#")
	rest, u.query, u.hasQuery = strings.Cut(rest, "?")
	if !strings.HasPrefix(rest, "//") {
		u.path = rest
		return u, nil
	}
	u.hasAuthority = true
	authority := rest[2:]
	if i := strings.IndexByte(authority, '/'); i >= 0 {
		authority, u.path = authority[:i], authority[i:]
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		u.userinfo, u.hasUserinfo, authority = authority[:i], true, authority[i+1:]
	}
	// The colons inside the brackets of an IPv6 address are not the port's.
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		u.port, u.hasPort, authority = authority[i+1:], true, authority[:i]
	}
	u.host = authority
	return u, nil
}

// checkHTTP is what http and https URIs need: a host, and a valid port if any.
func (u *uri) checkHTTP() error {
	if !u.hasAuthority || !validHost(u.host) {
		return errURIHost
	}
	if u.hasPort && !validPort(u.port) {
		return errURIPort
	}
	return nil
}

// isHTTP reports whether the scheme is http or https.
func (u *uri) isHTTP() bool { return u.schemeIs("https") || u.schemeIs("http") }

func (u *uri) schemeIs(scheme string) bool { return strings.EqualFold(u.scheme, scheme) }

// hostname is the host without brackets.
func (u *uri) hostname() string {
	return strings.TrimSuffix(strings.TrimPrefix(u.host, "["), "]")
}

// origin is scheme://host[:port] in lower case without the default port.
func (u *uri) origin() string {
	scheme := strings.ToLower(u.scheme)
	origin := scheme + "://" + strings.ToLower(u.host)
	if port := strings.TrimLeft(u.port, "0"); port != "" && port != defaultPort(scheme) {
		origin += ":" + port
	}
	return origin
}

func defaultPort(scheme string) string {
	switch scheme {
	case "https":
		return "443"
	case "http":
		return "80"
	}
	return ""
}

// checkURIBytes refuses what RFC 3986 §2 allows in no part of a URI. Browsers
// repair such URIs each in its way, so that what was checked is not where they go.
func checkURIBytes(raw string) error {
	for i := range len(raw) {
		c := raw[i]
		if c <= 0x20 || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			return errURICharacter
		}
		if c == '%' && (i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2])) {
			return errURIEscape
		}
	}
	return nil
}

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlpha(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// validScheme is the grammar of RFC 3986 §3.1.
func validScheme(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isAlpha(c) && (i == 0 || !isDigit(c) && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

// validHost accepts DNS names (with underscores, which private networks use)
// and IP literals.
func validHost(host string) bool {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return ok && err == nil && addr.Is6() && addr.Zone() == ""
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isAlpha(c) && !isDigit(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return len(host) <= 254
}

func validPort(port string) bool {
	n := 0
	for i := range len(port) {
		if n > 65535 || !isDigit(port[i]) {
			return false
		}
		n = n*10 + int(port[i]-'0')
	}
	return n >= 1 && n <= 65535
}

// hasDotSegment reports whether a segment of the path is "." or "..", in any
// spelling that a browser resolves (WHATWG URL, "single-dot URL path segment").
func hasDotSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if dots(segment) != 0 {
			return true
		}
	}
	return false
}

// dots is 1 for a single-dot segment, 2 for a double-dot one, else 0.
func dots(segment string) int {
	n := 0
	for segment != "" {
		switch {
		case segment[0] == '.':
			segment = segment[1:]
		case len(segment) >= 3 && strings.EqualFold(segment[:3], "%2e"):
			segment = segment[3:]
		default:
			return 0
		}
		if n++; n > 2 {
			return 0
		}
	}
	return n
}
