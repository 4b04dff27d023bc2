package oauth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ResourceURLFromServerURL returns the resource identifier of an MCP server
// that a client knows by its URL, the SDK's resourceUrlFromServerUrl: the URL
// without fragment, written as browsers write it (scheme and host in lower
// case, no default port, dot segments resolved, an empty path as "/",
// characters that a URL cannot hold percent-encoded). It must be an absolute
// http or https URL with an ASCII host.
func ResourceURLFromServerURL(serverURL string) (string, error) {
	u, err := normalizeHTTP(serverURL)
	if err != nil {
		return "", fmt.Errorf("the server URL is no resource identifier: %w", err)
	}
	s := u.origin()
	if u.hasUserinfo {
		scheme, host, _ := strings.Cut(s, "://")
		s = scheme + "://" + u.userinfo + "@" + host
	}
	s += u.path
	if u.hasQuery {
		s += "?" + u.query
	}
	return s, nil
}

// normalizeHTTP reads an http or https URL and writes its path and query as
// the WHATWG URL standard does, apart from characters that it repairs and
// other readers do not: control characters and backslashes are refused.
func normalizeHTTP(raw string) (uri, error) {
	if len(raw) > maxURI {
		return uri{}, errURITooLong
	}
	for i := range len(raw) {
		if raw[i] < 0x20 || raw[i] == 0x7f || raw[i] == '\\' {
			return uri{}, errURICharacter
		}
	}
	u, err := cutURI(raw)
	if err != nil {
		return uri{}, err
	}
	if !u.isHTTP() {
		return uri{}, errors.New("it is not an http or https URL")
	}
	if err := u.checkHTTP(); err != nil {
		return uri{}, err
	}
	u.path = percentEncode(removeDotSegments(u.path), " \"<>^`{}")
	u.query = percentEncode(u.query, " \"'<>")
	u.userinfo = percentEncode(u.userinfo, " \"<>^`{}|;=[]@")
	return u, nil
}

// removeDotSegments resolves the dot segments of an absolute path. An empty
// path becomes "/".
func removeDotSegments(path string) string {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	kept := segments[:0]
	for i, segment := range segments {
		last := i == len(segments)-1
		switch dots(segment) {
		case 0:
			kept = append(kept, segment)
			continue
		case 2:
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		}
		if last {
			kept = append(kept, "")
		}
	}
	return "/" + strings.Join(kept, "/")
}

// percentEncode encodes the bytes of set and those outside ASCII.
func percentEncode(s, set string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= 0x80 || strings.IndexByte(set, c) >= 0 {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// SameResource reports whether a and b name the same resource: scheme and host
// compared without case, a default port dropped, an empty path the same as "/",
// one trailing slash of the path ignored, everything else byte for byte. What
// is relative, has a fragment or userinfo, or is longer than 2048 bytes is the
// same as nothing.
func SameResource(a, b string) bool {
	ka, _, errA := resourceKey(a)
	kb, _, errB := resourceKey(b)
	return errA == nil && errB == nil && ka == kb
}

// resourceKey returns the form of a resource identifier in which those that
// are the same are equal.
func resourceKey(resource string) (string, uri, error) {
	u, err := splitURI(resource)
	switch {
	case err != nil:
		return "", uri{}, err
	case u.hasFragment:
		return "", uri{}, errors.New("it has a fragment; drop the # and what follows")
	case u.hasUserinfo:
		return "", uri{}, errors.New("it has a user name or password; drop it")
	}
	if !u.hasAuthority { // a URN: nothing to fold but the scheme
		return strings.ToLower(u.scheme) + resource[len(u.scheme):], u, nil
	}
	if err := u.checkHTTP(); err != nil {
		return "", uri{}, err
	}
	key := u.origin() + strings.TrimSuffix(u.path, "/")
	if u.hasQuery {
		key += "?" + u.query
	}
	return key, u, nil
}

// ResourceSet is the resources that an authorization server issues tokens for
// (RFC 8707). It is made by NewResourceSet and safe for concurrent use.
type ResourceSet struct {
	identifiers  []string
	byKey        map[string]string
	defaultIndex int
	// only is the one identifier, if there is just one.
	only *uri
}

// NewResourceSet returns the set of the identifiers: absolute http or https
// URLs without fragment, userinfo and dot segments, no two of them the same by
// SameResource. defaultIndex is the one that a request without resource
// parameter means; with -1 there is none unless the set has only one.
func NewResourceSet(identifiers []string, defaultIndex int) (*ResourceSet, error) {
	if len(identifiers) == 0 {
		return nil, errors.New("at least one resource identifier is needed, such as https://mcp.example.com/mcp")
	}
	if defaultIndex < -1 || defaultIndex >= len(identifiers) {
		return nil, fmt.Errorf("the default resource has index %d, but there are %d resources", defaultIndex, len(identifiers))
	}
	s := &ResourceSet{
		identifiers:  slices.Clone(identifiers),
		byKey:        make(map[string]string, len(identifiers)),
		defaultIndex: defaultIndex,
	}
	for _, identifier := range identifiers {
		key, u, err := resourceKey(identifier)
		switch {
		case err != nil:
			return nil, fmt.Errorf("resource identifier %q: %w", identifier, err)
		case !u.isHTTP() || !u.hasAuthority:
			return nil, fmt.Errorf("resource identifier %q is not an http or https URL: write one such as https://mcp.example.com/mcp", identifier)
		case hasDotSegment(u.path):
			return nil, fmt.Errorf("resource identifier %q has a dot segment in its path: write the path that it stands for", identifier)
		}
		if other, twice := s.byKey[key]; twice {
			return nil, fmt.Errorf("resource identifiers %q and %q mean the same resource: drop one", other, identifier)
		}
		s.byKey[key] = identifier
		s.only = &u
	}
	if len(identifiers) > 1 {
		s.only = nil
	} else {
		s.defaultIndex = 0
	}
	return s, nil
}

// All returns the identifiers as configured, in their order.
func (s *ResourceSet) All() []string { return slices.Clone(s.identifiers) }

// Resolve returns the identifier, as configured, that a resource parameter
// means (RFC 8707 §2). Absent ("") it is the only or the default one. What is
// relative, has a fragment, or is unknown is invalid_target.
func (s *ResourceSet) Resolve(resource string) (string, error) {
	if resource == "" {
		if s.defaultIndex < 0 {
			return "", ErrInvalidTarget.Describe("resource is required because this server has several; send the one of the protected resource metadata")
		}
		return s.identifiers[s.defaultIndex], nil
	}
	if _, _, err := resourceKey(resource); err != nil {
		return "", ErrInvalidTarget.Describe("resource: " + err.Error())
	}
	canonical, ok := s.Canonical(resource)
	if !ok {
		return "", ErrInvalidTarget.Describe("resource is unknown to this server; send the one of the protected resource metadata")
	}
	return canonical, nil
}

// Canonical returns the identifier, as configured, that a resource or audience
// means: one that is the same by SameResource and, if the set has just one, its
// bare origin (some clients send that) and the URLs below it.
func (s *ResourceSet) Canonical(resource string) (string, bool) {
	key, u, err := resourceKey(resource)
	if err != nil {
		return "", false
	}
	if identifier, ok := s.byKey[key]; ok {
		return identifier, true
	}
	if s.only == nil || !u.hasAuthority || u.origin() != s.only.origin() {
		return "", false
	}
	if u.path == "" || u.path == "/" {
		return s.identifiers[0], !u.hasQuery
	}
	below := !s.only.hasQuery && !hasDotSegment(u.path) &&
		strings.HasPrefix(u.path, strings.TrimSuffix(s.only.path, "/")+"/")
	return s.identifiers[0], below
}
