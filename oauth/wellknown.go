package oauth

import (
	"fmt"
	"strings"
)

// The names below /.well-known/ of the metadata documents.
const (
	// WellKnownProtectedResource is RFC 9728 §3.
	WellKnownProtectedResource = "oauth-protected-resource"
	// WellKnownAuthorizationServer is RFC 8414 §3.
	WellKnownAuthorizationServer = "oauth-authorization-server"
	// WellKnownOpenIDConfiguration is OpenID Connect Discovery 1.0 §4.
	WellKnownOpenIDConfiguration = "openid-configuration"
)

// WellKnownPath returns the path of a metadata document with the well-known
// part inserted before the path of the issuer or resource (RFC 8414 §3.1,
// RFC 9728 §3.1). A trailing slash of path is removed; "/" counts as empty.
func WellKnownPath(name, path string) string {
	return "/.well-known/" + name + cleanPath(path)
}

// WellKnownAppendedPath returns the path of a metadata document with the
// well-known part after the path, as OpenID Connect Discovery 1.0 §4.1 has it.
func WellKnownAppendedPath(name, path string) string {
	return cleanPath(path) + "/.well-known/" + name
}

// cleanPath gives path a leading slash and takes a trailing one.
func cleanPath(path string) string {
	path = strings.TrimSuffix(path, "/")
	if path != "" && path[0] != '/' {
		path = "/" + path
	}
	return path
}

// ProtectedResourceMetadataURL returns where the metadata of the resource is
// (RFC 9728 §3.1), the SDK's getOAuthProtectedResourceMetadataUrl: the
// well-known part inserted before the path; query, fragment, userinfo and a
// trailing slash dropped. The resource must be an absolute http or https URL.
func ProtectedResourceMetadataURL(resource string) (string, error) {
	u, err := normalizeHTTP(resource)
	if err != nil {
		return "", fmt.Errorf("the resource has no metadata URL: %w", err)
	}
	return u.origin() + WellKnownPath(WellKnownProtectedResource, u.path), nil
}

// AuthorizationServerMetadataURLs returns where a client looks for the metadata
// of the issuer, in the order in which it does (MCP authorization,
// "Authorization Server Metadata Discovery"). An issuer without a path has two
// places, one with a path three. Query and fragment are dropped. The issuer
// must be an absolute http or https URL.
func AuthorizationServerMetadataURLs(issuer string) ([]string, error) {
	u, err := normalizeHTTP(issuer)
	if err != nil {
		return nil, fmt.Errorf("the issuer has no metadata URL: %w", err)
	}
	origin := u.origin()
	urls := []string{
		origin + WellKnownPath(WellKnownAuthorizationServer, u.path),
		origin + WellKnownPath(WellKnownOpenIDConfiguration, u.path),
	}
	if cleanPath(u.path) != "" {
		urls = append(urls, origin+WellKnownAppendedPath(WellKnownOpenIDConfiguration, u.path))
	}
	return urls, nil
}
