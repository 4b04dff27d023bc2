package authclient

import "github.com/caddy-mcp/mcpauth/oauth"

// AuthorizationServer is where the single steps of the flow go.
type AuthorizationServer struct {
	// URL is that by which the server was found.
	URL string
	// Metadata is nil for a server without; its endpoints are then /authorize,
	// /token and /register at the origin (revision 2025-03-26).
	Metadata *oauth.Metadata
	// Options are those of the flow; of interest are HTTPClient, AllowOrigins,
	// AssumePKCE and ServerURL. Without ServerURL the URL counts as one that the
	// caller chose.
	Options Options
}

// Issuer is the issuer of the metadata, else the URL. Metadata that name an
// issuer other than the URL do not decide which credentials they get.
func (s *AuthorizationServer) Issuer() string {
	if s.Metadata != nil && sameIssuer(s.Metadata.Issuer, s.URL) {
		return s.Metadata.Issuer
	}
	return s.URL
}
