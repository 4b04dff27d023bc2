package mcpauth

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// ownClient returns the client for metadata and tokens if this transport has
// certificates, a proxy or name servers of its own, nil if the usual one will
// do. What the operator named goes the way of the proxied requests; what the MCP
// server names is still https with a public address.
func (t *Transport) ownClient(r *RemoteServer) *http.Client {
	if !t.special {
		return nil
	}
	guarded, err := safehttp.NewGuardedClient(safehttp.GuardOptions{AnyPort: true, Methods: []string{http.MethodPost}})
	if err != nil {
		return nil
	}
	return &http.Client{Transport: &ownNetwork{
		own: &t.HTTPTransport, others: guarded.Transport,
		named: append(slices.Clone(r.AllowOrigins), t.origin),
	}}
}

// isSpecial reports whether the usual client could not reach the server.
func isSpecial(h *reverseproxy.HTTPTransport) bool {
	if h.Resolver != nil || h.NetworkProxyRaw != nil || h.ForwardProxyURL != "" || h.LocalAddress != "" {
		return true
	}
	if h.TLS == nil {
		return false
	}
	//lint:ignore SA1019 configurations may still have the two lists of certificates
	return h.TLS.CARaw != nil || len(h.TLS.RootCAPool) > 0 || len(h.TLS.RootCAPEMFiles) > 0 || h.TLS.InsecureSkipVerify || //nolint:staticcheck // as above
		h.TLS.ClientCertificateFile != "" || h.TLS.ClientCertificateAutomate != "" || h.TLS.ServerName != ""
}

// ownNetwork sends requests to named origins through the transport.
type ownNetwork struct {
	own, others http.RoundTripper
	named       []string
}

// RoundTrip implements http.RoundTripper.
func (n *ownNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	origin, err := oauth.Origin((&url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host}).String())
	if err == nil && slices.ContainsFunc(n.named, func(o string) bool { named, err := oauth.Origin(o); return err == nil && named == origin }) {
		return n.own.RoundTrip(r)
	}
	return n.others.RoundTrip(r)
}
