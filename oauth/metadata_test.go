package oauth_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// SDK §1.4: the order of the members on the wire, absent ones left out.
func TestMetadataJSON(t *testing.T) {
	m := oauth.Metadata{
		Issuer: "https://a.example", AuthorizationEndpoint: "https://a.example/authorize?a=1&b=2", TokenEndpoint: "https://a.example/token",
		ResponseTypesSupported: []string{"code"}, CodeChallengeMethodsSupported: []string{"S256"},
		TokenEndpointAuthMethodsSupported: []string{"none"}, GrantTypesSupported: []string{"authorization_code"},
		ScopesSupported: []string{}, RegistrationEndpoint: "https://a.example/register",
		AuthorizationResponseIssParameterSupported: true,
		Extra: map[string]json.RawMessage{"x": json.RawMessage(`[1]`), "a": json.RawMessage(`{}`)},
	}
	const want = `{"issuer":"https://a.example","authorization_endpoint":"https://a.example/authorize?a=1&b=2",` +
		`"response_types_supported":["code"],"code_challenge_methods_supported":["S256"],"token_endpoint":"https://a.example/token",` +
		`"token_endpoint_auth_methods_supported":["none"],"grant_types_supported":["authorization_code"],` +
		`"registration_endpoint":"https://a.example/register","authorization_response_iss_parameter_supported":true,"a":{},"x":[1]}`
	got, err := m.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var back oauth.Metadata
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	m.ScopesSupported = nil // empty is absent
	if diff := cmp.Diff(m, back); diff != "" {
		t.Errorf("round trip, -want +got:\n%s", diff)
	}
}

// SDK §1.5: the order; resource byte for byte, without an added slash.
func TestProtectedResourceMetadataJSON(t *testing.T) {
	m := oauth.ProtectedResourceMetadata{
		Resource: "https://A.example", AuthorizationServers: []string{"https://a.example"}, ScopesSupported: []string{"a"},
		ResourceName: "R", ResourceDocumentation: "https://a.example/d", BearerMethodsSupported: []string{"header"},
		Extra: map[string]json.RawMessage{"x": json.RawMessage(`1`)},
	}
	const want = `{"resource":"https://A.example","authorization_servers":["https://a.example"],"scopes_supported":["a"],` +
		`"bearer_methods_supported":["header"],"resource_name":"R","resource_documentation":"https://a.example/d","x":1}`
	got, err := m.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var back oauth.ProtectedResourceMetadata
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, back); diff != "" {
		t.Errorf("round trip, -want +got:\n%s", diff)
	}
}

func TestMarshalRefusesBrokenExtra(t *testing.T) {
	m := oauth.Metadata{Issuer: "i", Extra: map[string]json.RawMessage{"x": json.RawMessage(`{`)}}
	if got, err := m.MarshalJSON(); err == nil {
		t.Errorf("wrote %s", got)
	}
}
