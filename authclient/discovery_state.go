package authclient

import (
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// DiscoveryState is what discovery found, the SDK's OAuthDiscoveryState.
type DiscoveryState struct {
	// AuthorizationServerURL is as the MCP server names it.
	AuthorizationServerURL string `json:"authorization_server_url"`
	// ResourceMetadataURL is that of a challenge; "" if there was none.
	ResourceMetadataURL string                           `json:"resource_metadata_url,omitempty"`
	ProtectedResource   *oauth.ProtectedResourceMetadata `json:"protected_resource,omitempty"`
	AuthorizationServer *oauth.Metadata                  `json:"authorization_server,omitempty"`
	// FoundAt is when this was found.
	FoundAt time.Time `json:"found_at"`
	// Scope is that of the authorization request under way.
	Scope string `json:"scope,omitempty"`
	// Client is that of the authorization request under way if it is to replace
	// the stored one, to which tokens are bound; else nil. It may hold a secret.
	Client *ClientInformation `json:"client,omitempty"`
}

// Issuer is the issuer of the metadata, else the URL of the authorization server.
func (s *DiscoveryState) Issuer() string {
	if s.AuthorizationServer != nil {
		return s.AuthorizationServer.Issuer
	}
	return s.AuthorizationServerURL
}
