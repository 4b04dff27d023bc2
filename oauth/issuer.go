package oauth

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// CheckIssuer returns an error that says what to write instead unless issuer is
// fit for an authorization server's identifier (RFC 8414 §2): an https URL with
// a host and no query, fragment or userinfo. http is accepted on a loopback
// host, and anywhere if insecure is true. What two readers could read in two
// ways is refused as well, since clients compare issuers byte for byte: an
// empty query or fragment, dot segments, doubled slashes, backslashes, and
// characters that need percent-encoding. The URL of a metadata document, which is
// often taken for the issuer, is refused too.
func CheckIssuer(issuer string, insecure bool) error {
	if issuer == "" {
		return errors.New("the issuer is empty: write a URL such as https://mcp.example.com")
	}
	if len(issuer) > maxURI {
		return fmt.Errorf("the issuer is longer than %d bytes: write a URL such as https://mcp.example.com", maxURI)
	}
	// Cut first: what is said about a part helps more than "invalid character".
	u, err := cutURI(issuer)
	if err != nil || !u.isHTTP() {
		return fmt.Errorf("issuer %q is not an https URL: write one such as https://mcp.example.com", issuer)
	}
	if u.hasUserinfo { // not repeated: it may hold a password
		return errors.New("the issuer holds a user name or password: write it without the part up to the @")
	}
	before, _, _ := strings.Cut(issuer, "#")
	before, _, _ = strings.Cut(before, "?")
	switch {
	case u.hasFragment:
		return fmt.Errorf("issuer %q must not have a fragment: write %q", issuer, before)
	case u.hasQuery:
		return fmt.Errorf("issuer %q must not have a query string: write %q", issuer, before)
	case checkURIBytes(issuer) != nil || strings.ContainsAny(u.path, "%[]"):
		return fmt.Errorf("issuer %q holds a backslash, a space or another character that needs percent-encoding: write letters, digits, hyphens, dots and slashes", issuer)
	case u.checkHTTP() != nil:
		return fmt.Errorf("issuer %q: %w: write one such as https://mcp.example.com", issuer, u.checkHTTP())
	case strings.Contains(u.path, "/.well-known/"):
		base, _, _ := strings.Cut(issuer, "/.well-known/")
		return fmt.Errorf("issuer %q is the URL of a document, not the issuer that it names: write what the document has as issuer, usually %q", issuer, base)
	case hasDotSegment(u.path):
		return fmt.Errorf("issuer %q has a dot segment in its path: write the path that it stands for", issuer)
	case strings.Contains(u.path, "//"):
		return fmt.Errorf("issuer %q has a doubled slash in its path: write one", issuer)
	case u.schemeIs("http") && !insecure && !IsLoopbackHost(u.hostname()):
		return fmt.Errorf("issuer %q must be https: write %q (http is for loopback hosts such as localhost)", issuer, "https"+issuer[len(u.scheme):])
	}
	return nil
}

// IsLoopbackHost reports whether host, without port and brackets, is a loopback
// host: localhost in any case, an address of 127.0.0.0/8 in its usual notation,
// or ::1. Nothing else is, whatever it may resolve to: other notations (0x7f.1,
// ::ffff:127.0.0.1) and subdomains of localhost are read differently by
// different programs.
func IsLoopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") || host == "::1" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Is4() && addr.IsLoopback()
}

// JoinURL returns base, an issuer or base URL with or without a path and one
// trailing slash, followed by path, which starts with a slash.
func JoinURL(base, path string) string {
	return strings.TrimSuffix(base, "/") + "/" + strings.TrimPrefix(path, "/")
}

// Origin returns scheme://host[:port] of an absolute URL with a host, in lower
// case and without the default port of http and https.
func Origin(rawURL string) (string, error) {
	u, err := splitURI(rawURL)
	if err == nil {
		err = u.checkHTTP()
	}
	if err != nil {
		return "", fmt.Errorf("the URL has no origin: %w", err)
	}
	return u.origin(), nil
}
