package authserver

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxDocumentURL bounds a client_id that is a URL, in bytes: it travels in
// cookies and tokens.
const maxDocumentURL = 512

// isDocumentID reports whether a client_id is the URL of a metadata document.
// http is for development on loopback; no other kind of id looks like that.
func isDocumentID(clientID string) bool {
	return strings.HasPrefix(clientID, "https://") || strings.HasPrefix(clientID, "http://")
}

// checkDocumentURL applies the rules for a client identifier URL
// (draft-ietf-oauth-client-id-metadata-document §3). The URL is looked at as
// it came: nothing is decoded or resolved, and what readers would repair in
// different ways is refused. It returns host, in lower case, and origin.
func checkDocumentURL(id string) (host, origin string, err error) {
	if len(id) > maxDocumentURL {
		return "", "", fmt.Errorf("it is longer than %d bytes", maxDocumentURL)
	}
	for i := range len(id) {
		if c := id[i]; c <= 0x20 || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			return "", "", errors.New("it holds a character that must be percent-encoded")
		}
	}
	u, err := url.Parse(id)
	if err != nil {
		return "", "", errors.New("it is not a URL")
	}
	origin, err = oauth.Origin(id)
	switch {
	case err != nil:
		return "", "", errors.New("its host or port is not valid")
	case u.User != nil || strings.Contains(id[:len(id)-len(afterAuthority(id))], "@"):
		return "", "", errors.New("it has a user name or password")
	case strings.Contains(id, "#"):
		return "", "", errors.New("it has a fragment")
	case u.EscapedPath() == "" || u.EscapedPath() == "/":
		return "", "", errors.New("it has no path")
	case strings.HasSuffix(u.Hostname(), "."):
		return "", "", errors.New("its host ends in a dot")
	case hasDotSegment(afterAuthority(id)):
		return "", "", errors.New("it has a dot segment in its path")
	}
	return strings.ToLower(u.Hostname()), origin, nil
}

// afterAuthority is the path of the URL and what follows.
func afterAuthority(id string) string {
	_, rest, _ := strings.Cut(id, "://")
	i := strings.IndexAny(rest, "/?#")
	if i < 0 {
		return ""
	}
	return rest[i:]
}

// hasDotSegment reports whether the path holds a segment . or .., encoded or
// not.
func hasDotSegment(pathAndQuery string) bool {
	path, _, _ := strings.Cut(pathAndQuery, "?")
	for segment := range strings.SplitSeq(path, "/") {
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case ".", "..":
			return true
		}
	}
	return false
}

// hostPattern is an entry of DocumentsConfig.Hosts.
type hostPattern struct {
	name string
	// below matches the hosts below name, not name itself.
	below bool
}

func parseHostPattern(s string) (hostPattern, error) {
	p := hostPattern{name: strings.ToLower(s)}
	p.name, p.below = strings.CutPrefix(p.name, "*.")
	u, err := url.Parse("https://" + p.name + "/")
	if err != nil || p.name == "" || u.Hostname() != p.name || strings.ContainsAny(p.name, "*/@") || strings.HasSuffix(p.name, ".") ||
		p.below && !strings.Contains(p.name, ".") {
		return p, fmt.Errorf("%q is not a host: write claude.ai, or *.example.com for the hosts below example.com", s)
	}
	return p, nil
}

func (p hostPattern) matches(host string) bool {
	if p.below {
		return strings.HasSuffix(host, "."+p.name)
	}
	return host == p.name
}
