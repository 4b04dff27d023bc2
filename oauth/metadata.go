package oauth

import "encoding/json"

// Metadata is an authorization server's metadata (RFC 8414 §2), the SDK's
// OAuthMetadata. Members that it does not name are kept in Extra.
type Metadata struct {
	Issuer                                     string
	ServiceDocumentation                       string
	AuthorizationEndpoint                      string
	ResponseTypesSupported                     []string
	ResponseModesSupported                     []string
	CodeChallengeMethodsSupported              []string
	TokenEndpoint                              string
	TokenEndpointAuthMethodsSupported          []string
	TokenEndpointAuthSigningAlgValuesSupported []string
	GrantTypesSupported                        []string
	ScopesSupported                            []string
	RevocationEndpoint                         string
	RevocationEndpointAuthMethodsSupported     []string
	IntrospectionEndpoint                      string
	IntrospectionEndpointAuthMethodsSupported  []string
	RegistrationEndpoint                       string
	JWKSURI                                    string
	UserinfoEndpoint                           string
	SubjectTypesSupported                      []string
	IDTokenSigningAlgValuesSupported           []string
	UILocalesSupported                         []string
	OPPolicyURI                                string
	OPTOSURI                                   string
	// AuthorizationResponseIssParameterSupported is RFC 9207 §3.
	AuthorizationResponseIssParameterSupported bool
	// ClientIDMetadataDocumentSupported is
	// draft-ietf-oauth-client-id-metadata-document §5.
	ClientIDMetadataDocumentSupported bool
	// ProtectedResources is RFC 9728 §4.
	ProtectedResources []string

	// Extra holds the members that this type does not name.
	Extra map[string]json.RawMessage
}

func (m *Metadata) members() []member {
	return []member{
		{name: "issuer", field: &m.Issuer, required: true, always: true},
		{name: "service_documentation", field: &m.ServiceDocumentation},
		{name: "authorization_endpoint", field: &m.AuthorizationEndpoint},
		{name: "response_types_supported", field: &m.ResponseTypesSupported},
		{name: "response_modes_supported", field: &m.ResponseModesSupported},
		{name: "code_challenge_methods_supported", field: &m.CodeChallengeMethodsSupported},
		{name: "token_endpoint", field: &m.TokenEndpoint},
		{name: "token_endpoint_auth_methods_supported", field: &m.TokenEndpointAuthMethodsSupported},
		{name: "token_endpoint_auth_signing_alg_values_supported", field: &m.TokenEndpointAuthSigningAlgValuesSupported},
		{name: "grant_types_supported", field: &m.GrantTypesSupported},
		{name: "scopes_supported", field: &m.ScopesSupported},
		{name: "revocation_endpoint", field: &m.RevocationEndpoint},
		{name: "revocation_endpoint_auth_methods_supported", field: &m.RevocationEndpointAuthMethodsSupported},
		{name: "introspection_endpoint", field: &m.IntrospectionEndpoint},
		{name: "introspection_endpoint_auth_methods_supported", field: &m.IntrospectionEndpointAuthMethodsSupported},
		{name: "registration_endpoint", field: &m.RegistrationEndpoint},
		{name: "jwks_uri", field: &m.JWKSURI},
		{name: "userinfo_endpoint", field: &m.UserinfoEndpoint},
		{name: "subject_types_supported", field: &m.SubjectTypesSupported},
		{name: "id_token_signing_alg_values_supported", field: &m.IDTokenSigningAlgValuesSupported},
		{name: "ui_locales_supported", field: &m.UILocalesSupported},
		{name: "op_policy_uri", field: &m.OPPolicyURI},
		{name: "op_tos_uri", field: &m.OPTOSURI},
		{name: "authorization_response_iss_parameter_supported", field: &m.AuthorizationResponseIssParameterSupported},
		{name: "client_id_metadata_document_supported", field: &m.ClientIDMetadataDocumentSupported},
		{name: "protected_resources", field: &m.ProtectedResources},
	}
}

// MarshalJSON writes the members that are set; no list is ever null.
func (m Metadata) MarshalJSON() ([]byte, error) { return marshalMembers(m.members(), m.Extra) }

// UnmarshalJSON reads authorization-server metadata; issuer is required.
func (m *Metadata) UnmarshalJSON(data []byte) (err error) {
	*m = Metadata{}
	m.Extra, err = unmarshalMembers(data, m.members())
	return err
}

// ProtectedResourceMetadata describes a protected resource (RFC 9728 §2), the
// SDK's OAuthProtectedResourceMetadata.
type ProtectedResourceMetadata struct {
	// Resource is the resource identifier, byte for byte as configured.
	Resource                        string
	AuthorizationServers            []string
	JWKSURI                         string
	ScopesSupported                 []string
	BearerMethodsSupported          []string
	ResourceSigningAlgsSupported    []string
	ResourceName                    string
	ResourceDocumentation           string
	ResourcePolicyURI               string
	ResourceTOSURI                  string
	AuthorizationDetailsTypes       []string
	DPoPSigningAlgValuesSupported   []string
	DPoPBoundAccessTokensRequired   bool
	TLSClientCertificateBoundTokens bool

	// Extra holds the members that this type does not name.
	Extra map[string]json.RawMessage
}

func (m *ProtectedResourceMetadata) members() []member {
	return []member{
		{name: "resource", field: &m.Resource, required: true, always: true},
		{name: "authorization_servers", field: &m.AuthorizationServers},
		{name: "jwks_uri", field: &m.JWKSURI},
		{name: "scopes_supported", field: &m.ScopesSupported},
		{name: "bearer_methods_supported", field: &m.BearerMethodsSupported},
		{name: "resource_signing_alg_values_supported", field: &m.ResourceSigningAlgsSupported},
		{name: "resource_name", field: &m.ResourceName},
		{name: "resource_documentation", field: &m.ResourceDocumentation},
		{name: "resource_policy_uri", field: &m.ResourcePolicyURI},
		{name: "resource_tos_uri", field: &m.ResourceTOSURI},
		{name: "authorization_details_types_supported", field: &m.AuthorizationDetailsTypes},
		{name: "dpop_signing_alg_values_supported", field: &m.DPoPSigningAlgValuesSupported},
		{name: "dpop_bound_access_tokens_required", field: &m.DPoPBoundAccessTokensRequired},
		{name: "tls_client_certificate_bound_access_tokens", field: &m.TLSClientCertificateBoundTokens},
	}
}

// MarshalJSON writes the members that are set, in the SDK's order.
func (m ProtectedResourceMetadata) MarshalJSON() ([]byte, error) {
	return marshalMembers(m.members(), m.Extra)
}

// UnmarshalJSON reads protected-resource metadata; resource is required.
func (m *ProtectedResourceMetadata) UnmarshalJSON(data []byte) (err error) {
	*m = ProtectedResourceMetadata{}
	m.Extra, err = unmarshalMembers(data, m.members())
	return err
}
