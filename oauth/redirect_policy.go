package oauth

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// RedirectPolicy decides which redirect URIs a client may register and use. The
// zero value and a nil pointer are the default policy: https anywhere, http on
// a loopback host, and private-use schemes that are reverse DNS (RFC 8252 §7.1)
// or belong to a known MCP client. Registration and authorization apply the
// same policy.
type RedirectPolicy struct {
	// NoPrivateSchemes refuses private-use schemes.
	NoPrivateSchemes bool
	// ClientSets names known clients (ClientSetNames). With at least one of them,
	// or an https pattern, an https redirect URI must be one of theirs or match
	// a pattern.
	ClientSets []string
	// Patterns are further redirect URIs: full URIs in which a * may stand as the
	// leftmost part of an https host, for one or more labels
	// (https://*.example.com/callback), and as the last character of the path,
	// for any rest of it (https://chatgpt.com/connector/oauth/*). A pattern with
	// a private-use scheme allows that scheme for the URIs that match; "myapp:"
	// and "myapp://*" match all of them.
	Patterns []string
}

// Validate returns an error that lists what exists if a client set is unknown,
// and one that says what to write if a pattern is malformed.
func (p *RedirectPolicy) Validate() error {
	_, err := p.patterns()
	return err
}

// patterns returns the patterns of the policy, those of its client sets first.
func (p *RedirectPolicy) patterns() ([]redirectPattern, error) {
	if p == nil {
		return nil, nil
	}
	sets := clientSets()
	var all []string
	for _, name := range p.ClientSets {
		set, ok := sets[name]
		if !ok {
			return nil, fmt.Errorf("unknown client set %q: there are %s", name, strings.Join(ClientSetNames(), ", "))
		}
		all = append(all, set...)
	}
	var parsed []redirectPattern
	for i, pattern := range slices.Concat(all, p.Patterns) {
		q, err := parseRedirectPattern(pattern)
		if err != nil {
			return nil, err
		}
		if i >= len(all) && p.NoPrivateSchemes && !q.isHTTP() {
			return nil, fmt.Errorf("redirect URI pattern %q has a private-use scheme, but these are turned off: drop one of the two settings", pattern)
		}
		parsed = append(parsed, q)
	}
	return parsed, nil
}

// isDangerousScheme names the schemes that are refused whatever the policy
// says: with them a redirect runs script, or reads what only the browser may.
func isDangerousScheme(scheme string) bool {
	switch strings.ToLower(scheme) {
	case "javascript", "data", "file", "blob", "vbscript", "about", "filesystem", "view-source":
		return true
	}
	return false
}

// isPrivateScheme reports whether the default policy knows the scheme.
func isPrivateScheme(scheme string) bool {
	switch scheme = strings.ToLower(scheme); scheme {
	case "cursor", "vscode", "vscode-insiders", "claude", "windsurf", "goose", "zed":
		// Known clients: they need their scheme, though RFC 8252 §7.1 asks for
		// reverse DNS. https://github.com/makeplane/plane-mcp-server/issues/159
		return true
	}
	// RFC 8252 §7.1: a domain name under the control of the app, reversed.
	return strings.Contains(scheme, ".") && !strings.HasSuffix(scheme, ".") && !strings.Contains(scheme, "..")
}

// Check returns nil if the policy allows the redirect URI, else
// ErrInvalidRedirectURI with the reason. applicationType is the client's
// application_type, "" if it has none: web clients have no private-use scheme.
func (p *RedirectPolicy) Check(uri, applicationType string) error {
	patterns, err := p.patterns()
	if err != nil {
		return ErrInvalidRedirectURI.Describe("this server has a faulty redirect policy").Because(err)
	}
	if err := p.check(patterns, uri, applicationType); err != nil {
		return ErrInvalidRedirectURI.Describe("redirect URI refused: " + err.Error())
	}
	return nil
}

func (p *RedirectPolicy) check(patterns []redirectPattern, raw, applicationType string) error {
	u, err := splitURI(raw)
	switch {
	case err != nil:
		return err
	case isDangerousScheme(u.scheme):
		return errors.New("its scheme is never allowed; use https")
	case u.hasFragment: // RFC 6749 §3.1.2
		return errors.New("it has a fragment; drop the # and what follows")
	case u.hasUserinfo:
		return errors.New("it has a user name or password; drop the part up to the @")
	case hasDotSegment(u.path):
		return errors.New("it has a dot segment in its path; write the path that it stands for")
	case u.isHTTP():
		err = p.checkHTTPRedirect(patterns, &u)
	default:
		err = p.checkPrivateRedirect(patterns, &u, applicationType)
	}
	if err != nil {
		return err
	}
	// The authority of a private-use scheme is the app's own matter, but what
	// net/url cannot read, the handlers that redirect cannot use.
	if _, err := url.Parse(raw); err != nil {
		return errors.New("it is not a valid URI")
	}
	return nil
}

func (p *RedirectPolicy) checkHTTPRedirect(patterns []redirectPattern, u *uri) error {
	if err := u.checkHTTP(); err != nil {
		return err
	}
	// Also for application_type web, which OpenID Connect Registration §2 would
	// confine to https: browser clients that run on the developer's machine, as
	// MCP Inspector does, rightly call themselves web.
	if IsLoopbackHost(u.hostname()) {
		return nil
	}
	if u.schemeIs("http") {
		return errors.New("http is for loopback hosts only (localhost, 127.0.0.1, [::1]); use https")
	}
	if !p.confinesHTTPS(patterns) {
		return nil
	}
	for _, pattern := range patterns {
		if pattern.matches(u) {
			return nil
		}
	}
	return errors.New("it is not among those that this server allows; ask its operator to add it to the client sets or redirect URIs")
}

// confinesHTTPS reports whether https URIs must match a pattern.
func (p *RedirectPolicy) confinesHTTPS(patterns []redirectPattern) bool {
	return p != nil && len(p.ClientSets) > 0 ||
		slices.ContainsFunc(patterns, func(q redirectPattern) bool { return q.schemeIs("https") })
}

func (p *RedirectPolicy) checkPrivateRedirect(patterns []redirectPattern, u *uri, applicationType string) error {
	switch {
	case p != nil && p.NoPrivateSchemes:
		return errors.New("this server allows no private-use schemes; use https, or http on a loopback host")
	case applicationType == ApplicationTypeWeb:
		return errors.New("its scheme is for native applications; register as application_type native, or use https")
	case u.host == "" && strings.Trim(u.path, "/") == "" && u.path != "/":
		return errors.New("nothing follows its scheme; add a path")
	case isPrivateScheme(u.scheme):
		return nil
	}
	for _, pattern := range patterns {
		if pattern.matches(u) {
			return nil
		}
	}
	return errors.New("its scheme is not allowed; use https, http on a loopback host, or a scheme that is a reversed domain name such as com.example.app")
}

// Filter applies Check to each URI that a client registers. kept are the
// allowed ones, without repetitions, in their order; refused says why the
// others are not. Clients send several of which one is unusable here, and work
// with the rest, so there is an error, ErrInvalidRedirectURI, only if none is
// left.
func (p *RedirectPolicy) Filter(uris []string, applicationType string) (kept []string, refused map[string]error, err error) {
	patterns, err := p.patterns()
	if err != nil {
		return nil, nil, ErrInvalidRedirectURI.Describe("this server has a faulty redirect policy").Because(err)
	}
	if len(uris) == 0 {
		return nil, nil, ErrInvalidRedirectURI.Describe("redirect_uris is required and must not be empty")
	}
	refused = make(map[string]error)
	seen := make(map[string]bool, len(uris))
	var firstRefusal error
	for _, uri := range uris {
		if seen[uri] {
			continue
		}
		seen[uri] = true
		if err := p.check(patterns, uri, applicationType); err != nil {
			refused[uri] = ErrInvalidRedirectURI.Describe("redirect URI refused: " + err.Error())
			if firstRefusal == nil {
				firstRefusal = refused[uri]
			}
			continue
		}
		kept = append(kept, uri)
	}
	if len(kept) == 0 {
		return nil, refused, firstRefusal
	}
	return kept, refused, nil
}

// CheckSafeScheme returns an error if the redirect URI could not carry an
// answer, or if its scheme is one that browsers run or read (javascript, data,
// file and the like). It is the least that holds for the redirect URIs of
// clients that an operator registers, whatever the policy says.
func CheckSafeScheme(uri string) error {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" {
		return errors.New("the redirect URI is not an absolute URI")
	}
	if isDangerousScheme(u.Scheme) {
		return errors.New("the scheme of the redirect URI can run code")
	}
	// What cannot carry an answer is found out here, not after the login.
	_, err = AppendRedirectParams(uri, nil)
	return err
}
