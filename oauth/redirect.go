package oauth

import (
	"errors"
	"net/url"
	"slices"
	"strings"
)

// MatchRedirectURI reports whether the requested redirect URI is one of the
// registered: byte for byte, or both on the same spelling of a loopback host
// with http and different only in the port (RFC 8252 §7.3).
func MatchRedirectURI(registered []string, requested string) bool {
	if requested == "" {
		return false
	}
	if slices.Contains(registered, requested) {
		return true
	}
	wanted, ok := cutLoopback(requested)
	if !ok {
		return false
	}
	return slices.ContainsFunc(registered, func(r string) bool {
		u, ok := cutLoopback(r)
		return ok && u == wanted
	})
}

// IsLoopbackRedirect reports whether uri is an http URI on a loopback host,
// without userinfo and fragment.
func IsLoopbackRedirect(uri string) bool {
	_, ok := cutLoopback(uri)
	return ok
}

// cutLoopback returns a loopback redirect URI without its port, every other
// byte kept.
func cutLoopback(raw string) (string, bool) {
	u, err := splitURI(raw)
	if err != nil || !u.schemeIs("http") || u.hasUserinfo || u.hasFragment ||
		u.checkHTTP() != nil || !IsLoopbackHost(u.hostname()) {
		return "", false
	}
	host := len(u.scheme) + len("://") + len(u.host)
	port := host
	if u.hasPort {
		port += 1 + len(u.port)
	}
	return raw[:host] + raw[port:], true
}

// DefaultRedirectURI returns the redirect URI that a request without one means:
// the only registered one, unless it is a loopback URI, whose port is not known.
func DefaultRedirectURI(registered []string) (string, bool) {
	if len(registered) != 1 || IsLoopbackRedirect(registered[0]) {
		return "", false
	}
	return registered[0], true
}

// AppendRedirectParams returns the redirect URI with the parameters, each a name
// and a value, added to its query in their order. What the URI has already is
// kept byte for byte (RFC 6749 §3.1.2). A parameter with an empty value is left
// out. A URI with a fragment is an error, as is one that no header can carry.
func AppendRedirectParams(redirectURI string, params [][2]string) (string, error) {
	u, err := splitURI(redirectURI)
	if err == nil && u.hasFragment {
		err = errors.New("it has a fragment")
	}
	if err != nil {
		return "", ErrInvalidRedirectURI.Describe("redirect URI refused: " + err.Error())
	}
	var b strings.Builder
	b.WriteString(redirectURI)
	separator := "?"
	switch {
	case u.hasQuery && (u.query == "" || strings.HasSuffix(u.query, "&")):
		separator = ""
	case u.hasQuery:
		separator = "&"
	}
	for _, param := range params {
		if param[1] == "" {
			continue
		}
		b.WriteString(separator + url.QueryEscape(param[0]) + "=" + url.QueryEscape(param[1]))
		separator = "&"
	}
	return b.String(), nil
}
