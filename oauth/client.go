package oauth

import (
	"encoding/json"
	"slices"
	"time"
)

// Methods of client authentication at the token endpoint (RFC 7591 §2,
// RFC 7523 §2.2).
const (
	AuthMethodNone              = "none"
	AuthMethodClientSecretBasic = "client_secret_basic"
	AuthMethodClientSecretPost  = "client_secret_post"
	AuthMethodPrivateKeyJWT     = "private_key_jwt"
)

// Grant types.
const (
	GrantTypeAuthorizationCode = "authorization_code"
	GrantTypeRefreshToken      = "refresh_token"
	GrantTypeClientCredentials = "client_credentials"
)

// Values of application_type (OpenID Connect Dynamic Client Registration §2).
const (
	ApplicationTypeWeb    = "web"
	ApplicationTypeNative = "native"
)

// ClientMetadata is what a client says about itself when it registers
// (RFC 7591 §2), the SDK's OAuthClientMetadata.
type ClientMetadata struct {
	RedirectURIs            []string
	TokenEndpointAuthMethod string
	GrantTypes              []string
	ResponseTypes           []string
	ClientName              string
	ClientURI               string
	LogoURI                 string
	// Scope is the space-separated list that the client may ask for.
	Scope           string
	Contacts        []string
	TOSURI          string
	PolicyURI       string
	JWKSURI         string
	JWKS            json.RawMessage
	SoftwareID      string
	SoftwareVersion string
	// SoftwareStatement is a signed JWT about the software; it is not evaluated.
	SoftwareStatement string
	// ApplicationType is "native" or "web"; MCP clients send it since 2026-07-28.
	ApplicationType string

	// Extra holds the members that this type does not name.
	Extra map[string]json.RawMessage
}

func (m *ClientMetadata) members() []member {
	return []member{
		{name: "redirect_uris", field: &m.RedirectURIs, always: true},
		{name: "token_endpoint_auth_method", field: &m.TokenEndpointAuthMethod},
		{name: "grant_types", field: &m.GrantTypes},
		{name: "response_types", field: &m.ResponseTypes},
		{name: "client_name", field: &m.ClientName},
		{name: "client_uri", field: &m.ClientURI},
		{name: "logo_uri", field: &m.LogoURI},
		{name: "scope", field: &m.Scope},
		{name: "contacts", field: &m.Contacts},
		{name: "tos_uri", field: &m.TOSURI},
		{name: "policy_uri", field: &m.PolicyURI},
		{name: "jwks_uri", field: &m.JWKSURI},
		{name: "jwks", field: &m.JWKS},
		{name: "software_id", field: &m.SoftwareID},
		{name: "software_version", field: &m.SoftwareVersion},
		{name: "software_statement", field: &m.SoftwareStatement},
		{name: "application_type", field: &m.ApplicationType},
	}
}

// MarshalJSON writes the members that are set, in the order of RFC 7591 §2.
func (m ClientMetadata) MarshalJSON() ([]byte, error) {
	if m.RedirectURIs == nil {
		m.RedirectURIs = []string{}
	}
	return marshalMembers(m.members(), m.Extra)
}

// UnmarshalJSON reads a client metadata object. Members are matched by exact
// name; unknown ones are kept in Extra.
func (m *ClientMetadata) UnmarshalJSON(data []byte) (err error) {
	*m = ClientMetadata{}
	m.Extra, err = unmarshalMembers(data, m.members())
	return err
}

// ClientInformation is what a registration gives to a client (RFC 7591 §3.2.1),
// the SDK's OAuthClientInformation.
type ClientInformation struct {
	ClientID     string
	ClientSecret string
	// ClientIDIssuedAt is in seconds since 1970, 0 if unknown.
	ClientIDIssuedAt int64
	// ClientSecretExpiresAt is in seconds since 1970; 0 means never. It is
	// written whenever there is a secret.
	ClientSecretExpiresAt int64
}

func (c *ClientInformation) members() []member {
	return []member{
		{name: "client_id", field: &c.ClientID, required: true, always: true},
		{name: "client_secret", field: &c.ClientSecret},
		{name: "client_id_issued_at", field: &c.ClientIDIssuedAt},
		{name: "client_secret_expires_at", field: &c.ClientSecretExpiresAt, always: c.ClientSecret != ""},
	}
}

// MarshalJSON writes the members of RFC 7591 §3.2.1.
func (c ClientInformation) MarshalJSON() ([]byte, error) {
	return marshalMembers(c.members(), nil)
}

// UnmarshalJSON reads client information; client_id is required.
func (c *ClientInformation) UnmarshalJSON(data []byte) error {
	*c = ClientInformation{}
	_, err := unmarshalMembers(data, c.members())
	return err
}

// ClientInformationFull is a registered client: its credentials and its
// metadata (RFC 7591 §3.2.1), the SDK's OAuthClientInformationFull.
type ClientInformationFull struct {
	ClientMetadata
	ClientInformation
}

// Client is a registered client as the server side sees it.
type Client = ClientInformationFull

// MarshalJSON writes the metadata, then the credentials.
func (c ClientInformationFull) MarshalJSON() ([]byte, error) {
	if c.RedirectURIs == nil {
		c.RedirectURIs = []string{}
	}
	return marshalMembers(slices.Concat(c.ClientMetadata.members(), c.ClientInformation.members()), c.Extra)
}

// UnmarshalJSON reads a registered client; client_id is required.
func (c *ClientInformationFull) UnmarshalJSON(data []byte) (err error) {
	*c = ClientInformationFull{}
	c.Extra, err = unmarshalMembers(data, slices.Concat(c.ClientMetadata.members(), c.ClientInformation.members()))
	return err
}

// SecretExpired reports whether the client's secret has expired at now.
func (c *ClientInformation) SecretExpired(now time.Time) bool {
	return c.ClientSecret != "" && c.ClientSecretExpiresAt != 0 && now.Unix() >= c.ClientSecretExpiresAt
}

// AllowsGrant reports whether the client registered for the grant type. A
// client that names none may use authorization_code, the default of
// RFC 7591 §2, and refresh_token, because clients that ask for it without
// saying so are common.
func (m *ClientMetadata) AllowsGrant(grantType string) bool {
	if len(m.GrantTypes) == 0 {
		return grantType == GrantTypeAuthorizationCode || grantType == GrantTypeRefreshToken
	}
	return slices.Contains(m.GrantTypes, grantType)
}
