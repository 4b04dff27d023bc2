package oauth

import (
	"errors"
	"fmt"
	"strings"
)

// redirectPattern is one entry of RedirectPolicy.Patterns, understood.
type redirectPattern struct {
	uri
	// anySubdomain: the host was "*." and host, which then is the rest.
	anySubdomain bool
	// prefix: the path ended with "*"; path is what comes before.
	prefix bool
	// wholeScheme: nothing but a private-use scheme, as in "myapp:" or "myapp://*".
	wholeScheme bool
}

func parseRedirectPattern(pattern string) (redirectPattern, error) {
	p, err := readRedirectPattern(pattern)
	if err != nil {
		return p, fmt.Errorf("redirect URI pattern %q: %w", pattern, err)
	}
	return p, nil
}

func readRedirectPattern(pattern string) (p redirectPattern, err error) {
	if p.uri, err = splitURI(pattern); err != nil {
		return p, err
	}
	scheme := strings.ToLower(p.scheme)
	switch {
	case isDangerousScheme(scheme):
		return p, fmt.Errorf("the scheme %s is never allowed, because a browser runs or reads what such a URI holds", scheme)
	case p.hasFragment:
		return p, errors.New("a redirect URI has no fragment; drop the # and what follows")
	case p.hasUserinfo:
		return p, errors.New("a redirect URI has no user name or password; drop the part up to the @")
	case strings.Contains(p.query, "*"):
		return p, errors.New("* cannot stand in the query")
	case hasDotSegment(p.path):
		return p, errors.New("it has a dot segment in its path; write the path that it stands for")
	}
	if p.isHTTP() {
		if p.host, p.anySubdomain = strings.CutPrefix(p.host, "*."); p.anySubdomain && !strings.Contains(p.host, ".") {
			return p, errors.New("after *. at least two labels must follow, as in https://*.example.com/callback")
		}
		if strings.Contains(p.host, "*") {
			return p, errors.New("* in a host stands for whole labels at the left, as in https://*.example.com/callback")
		}
		if err := p.checkHTTP(); err != nil {
			return p, err
		}
		if p.schemeIs("http") && !IsLoopbackHost(p.hostname()) {
			return p, errors.New("http is for loopback hosts only, which need no pattern; write https")
		}
	} else {
		rest := p.path
		if p.hasAuthority {
			rest = p.host + p.path
			if p.hasPort {
				rest = p.host + ":" + p.port + p.path
			}
		}
		if p.wholeScheme = (rest == "" || rest == "*" || rest == "/*") && !p.hasQuery; p.wholeScheme {
			return p, nil
		}
		if strings.Contains(p.host, "*") {
			return p, fmt.Errorf("* cannot stand in the host of a private-use scheme; %s://* allows all of it", scheme)
		}
	}
	if p.path, p.prefix = strings.CutSuffix(p.path, "*"); strings.Contains(p.path, "*") {
		return p, errors.New("* in a path can only be its last character, where it stands for any rest")
	}
	return p, nil
}

// matches reports whether a URI that has passed the general rules, dot segments
// among them, fits the pattern.
func (p *redirectPattern) matches(u *uri) bool {
	if !strings.EqualFold(p.scheme, u.scheme) {
		return false
	}
	if p.wholeScheme {
		return true
	}
	if p.hasAuthority != u.hasAuthority || p.hasQuery != u.hasQuery || p.query != u.query {
		return false
	}
	if !p.matchesHost(u) {
		return false
	}
	if !p.prefix {
		return p.path == u.path
	}
	rest, ok := strings.CutPrefix(u.path, p.path)
	// An encoded slash is a segment boundary to some servers, and then ..%2f
	// climbs out of the prefix.
	rest = strings.ToLower(rest)
	return ok && !strings.Contains(rest, "%2f") && !strings.Contains(rest, "%5c")
}

func (p *redirectPattern) matchesHost(u *uri) bool {
	host := u.host
	if p.anySubdomain {
		labels := len(host) - len(p.host) - 1
		if labels < 1 || host[labels] != '.' {
			return false
		}
		host = host[labels+1:]
	}
	if !strings.EqualFold(p.host, host) {
		return false
	}
	return effectivePort(&p.uri) == effectivePort(u)
}

func effectivePort(u *uri) string {
	if !u.hasPort {
		return defaultPort(strings.ToLower(u.scheme))
	}
	return strings.TrimLeft(u.port, "0")
}
