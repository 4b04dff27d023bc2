package authclient

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxRedirects is how many redirects of a metadata document are followed.
const maxRedirects = 5

// network makes the requests of discovery, registration and tokens. What the
// caller named (the MCP server and allowed origins) may lie anywhere; what a
// server named must be https with a public address, or on a loopback host if
// the MCP server is on one.
type network struct {
	server   string // origin of the MCP server
	loopback bool   // that is on a loopback host
	allowed  map[string]bool

	trusted, guarded http.RoundTripper
	client           *http.Client
}

// newNetwork checks the URLs that the caller named.
func newNetwork(o *Options) (*network, error) {
	n := &network{allowed: make(map[string]bool, len(o.AllowOrigins))}
	for _, raw := range o.AllowOrigins {
		origin, err := oauth.Origin(raw)
		if err != nil {
			return nil, fmt.Errorf("AllowOrigins: %q is not an origin: write one such as https://idp.internal.example: %w", raw, err)
		}
		n.allowed[origin] = true
	}
	u, err := parseURL("the MCP server's URL", o.ServerURL)
	if err != nil {
		return nil, err
	}
	n.server, n.loopback = originOf(u), oauth.IsLoopbackHost(u.Hostname())
	if u.Scheme != "https" && !n.loopback && !n.allowed[n.server] {
		return nil, insecure("the MCP server's URL", u)
	}
	if err := n.connect(o); err != nil {
		return nil, err
	}
	return n, nil
}

// connect makes the HTTP clients.
func (n *network) connect(o *Options) error {
	n.client = &http.Client{Timeout: safehttp.Timeout, Transport: n, CheckRedirect: stayAtOrigin}
	if injected := o.HTTPClient; injected != nil {
		n.trusted = injected.Transport
		if n.trusted == nil {
			n.trusted = http.DefaultTransport
		}
		n.guarded = n.trusted
		n.client.Jar = injected.Jar
		if injected.Timeout > 0 && injected.Timeout < safehttp.Timeout {
			n.client.Timeout = injected.Timeout
		}
		return nil
	}
	guarded, err := safehttp.NewGuardedClient(safehttp.GuardOptions{
		AnyPort: true,
		Methods: []string{http.MethodPost},
	})
	if err != nil {
		return err
	}
	n.trusted, n.guarded = safehttp.NewClient().Transport, guarded.Transport
	return nil
}

// close gives connections back. Those of a client of the caller are its own.
func (n *network) close(o *Options) {
	if o.HTTPClient != nil {
		return
	}
	for _, t := range []http.RoundTripper{n.trusted, n.guarded} {
		if t, ok := t.(interface{ CloseIdleConnections() }); ok {
			t.CloseIdleConnections()
		}
	}
}

// RoundTrip implements http.RoundTripper.
func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	named, err := n.check("the URL", r.URL)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	if named {
		return n.trusted.RoundTrip(r)
	}
	return n.guarded.RoundTrip(r)
}

// check applies the rules to a URL. named is true if its address needs no check.
func (n *network) check(what string, u *url.URL) (named bool, err error) {
	switch {
	case u.User != nil:
		return false, &RefusedURLError{What: what, URL: bare(u), Reason: "it has a user name or password: drop the part up to the @"}
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return false, &RefusedURLError{What: what, URL: bare(u), Reason: "it is not an absolute https URL"}
	}
	origin := originOf(u)
	if origin == n.server || n.allowed[origin] {
		return true, nil
	}
	if n.loopback && oauth.IsLoopbackHost(u.Hostname()) {
		return true, nil
	}
	if u.Scheme != "https" {
		return false, insecure(what, u)
	}
	if err := safehttp.CheckHost(u.Hostname()); err != nil {
		return false, private(what, u, err)
	}
	return false, nil
}

// insecure is the refusal of http.
func insecure(what string, u *url.URL) error {
	return &RefusedURLError{
		What: what, URL: bare(u), Insecure: true,
		Reason: "it is not https, and http is for loopback hosts such as localhost; if there is no other way, allow the origin in AllowOrigins",
	}
}

// private is the refusal of an address.
func private(what string, u *url.URL, err error) error {
	return &RefusedURLError{
		What: what, URL: bare(u), Err: err,
		Reason: "a server named it, and its address is not public; allow the origin in AllowOrigins if that is right",
	}
}

// stayAtOrigin follows redirects of GET within one origin. A redirect of a POST
// would take a credential along.
func stayAtOrigin(r *http.Request, via []*http.Request) error {
	first := via[0]
	if first.Method != http.MethodGet || len(via) > maxRedirects || originOf(r.URL) != originOf(first.URL) {
		return http.ErrUseLastResponse
	}
	return nil
}

// parseURL reads an absolute http or https URL.
func parseURL(what, raw string) (*url.URL, error) {
	_, err := oauth.Origin(raw)
	if err == nil {
		var u *url.URL
		u, err = url.Parse(raw)
		switch {
		case err == nil && u.User != nil:
			return nil, &RefusedURLError{What: what, URL: bare(u), Reason: "it has a user name or password: drop the part up to the @"}
		case err == nil && (u.Scheme == "https" || u.Scheme == "http"):
			return u, nil
		}
	}
	return nil, &RefusedURLError{What: what, URL: oauth.CleanDescription(raw), Err: err, Reason: "it is not an absolute https URL such as https://mcp.example.com/mcp"}
}

// originOf is the origin of a URL that parseURL has read, or that may have none.
func originOf(u *url.URL) string {
	origin, err := oauth.Origin((&url.URL{Scheme: u.Scheme, Host: u.Host}).String())
	if err != nil {
		return ""
	}
	return origin
}

// bareURL is bare of a URL as it was written.
func bareURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(malformed URL)"
	}
	return bare(u)
}

// bare is the URL without what may hold a secret.
func bare(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
