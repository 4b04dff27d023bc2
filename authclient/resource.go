package authclient

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// ResourceURLFromServerURL is the resource identifier of an MCP server that is
// known by its URL: [oauth.ResourceURLFromServerURL].
func ResourceURLFromServerURL(serverURL string) (string, error) {
	return oauth.ResourceURLFromServerURL(serverURL)
}

// CheckResourceAllowed reports whether tokens for the configured resource are
// for the requested one, the SDK's function of that name: the origins are the
// same, and the path of the configured one is that of the requested one or a
// beginning of it that ends with a segment. Queries do not count.
func CheckResourceAllowed(requested, configured string) bool {
	r, errR := parseURL("", requested)
	c, errC := parseURL("", configured)
	if errR != nil || errC != nil || originOf(r) != originOf(c) {
		return false
	}
	return strings.HasPrefix(closedPath(r), closedPath(c))
}

// closedPath is the path with a slash at the end.
func closedPath(u *url.URL) string { return strings.TrimSuffix(u.EscapedPath(), "/") + "/" }

// SelectResourceURL returns the resource parameter for the MCP server, the
// SDK's function of that name: what p says if it is a ResourceValidator, else
// the resource of the metadata, byte for byte, which must cover the server.
// Without metadata it is "".
func SelectResourceURL(ctx context.Context, p Provider, serverURL string, metadata *oauth.ProtectedResourceMetadata) (string, error) {
	server, err := oauth.ResourceURLFromServerURL(serverURL)
	if err != nil {
		return "", err
	}
	named := ""
	if metadata != nil {
		named = metadata.Resource
	}
	if v, ok := p.(ResourceValidator); ok {
		return v.ValidateResourceURL(ctx, server, named)
	}
	if metadata == nil {
		return "", nil
	}
	if !CheckResourceAllowed(server, named) {
		return "", fmt.Errorf("%w: the protected resource metadata are for %q and not for %q, so a token for it could be used elsewhere: connect to the URL that they name, or have the operator of the server correct them", ErrResourceMismatch, bareURL(named), bareURL(server))
	}
	return named, nil
}
