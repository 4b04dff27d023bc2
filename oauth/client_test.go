package oauth_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestClientMetadataJSON(t *testing.T) {
	const document = `{"redirect_uris":["https://a.example/cb?a=1&b=<2>"],"token_endpoint_auth_method":"none",` +
		`"grant_types":["authorization_code","refresh_token"],"response_types":["code"],"client_name":"Ä","client_uri":"https://a.example",` +
		`"logo_uri":"https://a.example/l","scope":"a b","contacts":["x@a.example"],"tos_uri":"https://a.example/t",` +
		`"policy_uri":"https://a.example/p","jwks_uri":"https://a.example/j","jwks":{"keys":[]},"software_id":"s",` +
		`"software_version":"1","software_statement":"e.y.J","application_type":"native",` +
		`"Client_Name":"kept apart: names are exact","x_number":12345678901234567890,"x_object":{"b":1,"a":[null]}}`
	var m oauth.ClientMetadata
	if err := json.Unmarshal([]byte(document), &m); err != nil {
		t.Fatal(err)
	}
	want := oauth.ClientMetadata{
		RedirectURIs: []string{"https://a.example/cb?a=1&b=<2>"}, TokenEndpointAuthMethod: "none",
		GrantTypes: []string{"authorization_code", "refresh_token"}, ResponseTypes: []string{"code"}, ClientName: "Ä",
		ClientURI: "https://a.example", LogoURI: "https://a.example/l", Scope: "a b", Contacts: []string{"x@a.example"},
		TOSURI: "https://a.example/t", PolicyURI: "https://a.example/p", JWKSURI: "https://a.example/j",
		JWKS: json.RawMessage(`{"keys":[]}`), SoftwareID: "s", SoftwareVersion: "1", SoftwareStatement: "e.y.J",
		ApplicationType: "native",
		Extra: map[string]json.RawMessage{
			"Client_Name": json.RawMessage(`"kept apart: names are exact"`),
			"x_number":    json.RawMessage(`12345678901234567890`),
			"x_object":    json.RawMessage(`{"b":1,"a":[null]}`),
		},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got, err := m.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(document, string(got)); diff != "" {
		t.Errorf("round trip, -want +got:\n%s", diff)
	}
}

func TestUnmarshalMembers(t *testing.T) {
	for _, test := range []struct {
		name, document string
		into           any
		want           string // part of the error, "" if it is read
	}{
		{"null is absent", `{"client_name":null,"redirect_uris":null}`, new(oauth.ClientMetadata), ""},
		{"null for a required member", `{"client_id":null}`, new(oauth.ClientInformation), "client_id is required"},
		{"missing required member", `{}`, new(oauth.ClientInformationFull), "client_id is required"},
		{"times as floats", `{"client_id":"a","client_id_issued_at":1.7e9,"client_secret_expires_at":0.0}`, new(oauth.ClientInformation), ""},
		{"time out of range", `{"client_id":"a","client_id_issued_at":1e300}`, new(oauth.ClientInformation), "client_id_issued_at must be a number"},
		{"time as a string", `{"client_id":"a","client_id_issued_at":"1"}`, new(oauth.ClientInformation), "client_id_issued_at must be a number"},
		{"string for a list", `{"redirect_uris":"https://a.example"}`, new(oauth.ClientMetadata), "redirect_uris must be an array of strings"},
		{"null in a list", `{"redirect_uris":["https://a.example",null]}`, new(oauth.ClientMetadata), "redirect_uris must be an array of strings"},
		{"number in a list", `{"contacts":[1]}`, new(oauth.ClientMetadata), "contacts must be an array of strings"},
		{"number for a string", `{"client_name":1}`, new(oauth.ClientMetadata), "client_name must be a string"},
		{"string for a flag", `{"issuer":"i","client_id_metadata_document_supported":"true"}`, new(oauth.Metadata), "must be true or false"},
		{"null document", `null`, new(oauth.Metadata), "not null"},
		{"array", `[]`, new(oauth.ProtectedResourceMetadata), "array"},
		{"metadata without issuer", `{"token_endpoint":"x"}`, new(oauth.Metadata), "issuer is required"},
		{"resource metadata without resource", `{}`, new(oauth.ProtectedResourceMetadata), "resource is required"},
	} {
		t.Run(test.name, func(t *testing.T) {
			// Not json.Unmarshal: it does not call UnmarshalJSON for null.
			err := test.into.(json.Unmarshaler).UnmarshalJSON([]byte(test.document))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestUnmarshalReplacesEverything(t *testing.T) {
	m := oauth.ClientMetadata{ClientName: "old", Extra: map[string]json.RawMessage{"x": json.RawMessage("1")}}
	if err := json.Unmarshal([]byte(`{"scope":"a"}`), &m); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(oauth.ClientMetadata{Scope: "a"}, m); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// SDK §4: metadata first, then the credentials; a secret comes with its expiry
// (jitsu#1430), a public client has neither.
func TestClientInformationFullJSON(t *testing.T) {
	for _, test := range []struct {
		name   string
		client oauth.ClientInformationFull
		want   string
	}{
		{
			"public",
			oauth.ClientInformationFull{
				ClientMetadata:    oauth.ClientMetadata{RedirectURIs: []string{"https://a.example"}, TokenEndpointAuthMethod: "none"},
				ClientInformation: oauth.ClientInformation{ClientID: "a", ClientIDIssuedAt: 5},
			},
			`{"redirect_uris":["https://a.example"],"token_endpoint_auth_method":"none","client_id":"a","client_id_issued_at":5}`,
		},
		{
			"confidential, the secret never expires",
			oauth.ClientInformationFull{
				ClientInformation: oauth.ClientInformation{ClientID: "a", ClientSecret: "s"},
			},
			`{"redirect_uris":[],"client_id":"a","client_secret":"s","client_secret_expires_at":0}`,
		},
		{
			"extra members come last and cannot replace known ones",
			oauth.ClientInformationFull{
				ClientMetadata:    oauth.ClientMetadata{Extra: map[string]json.RawMessage{"z": json.RawMessage("1"), "client_id": json.RawMessage(`"evil"`)}},
				ClientInformation: oauth.ClientInformation{ClientID: "a"},
			},
			`{"redirect_uris":[],"client_id":"a","z":1}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := json.Marshal(test.client)
			if err != nil || string(got) != test.want {
				t.Errorf("got %s, %v, want %s", got, err, test.want)
			}
		})
	}
	var client oauth.Client
	if err := json.Unmarshal([]byte(`{"client_id":"a","client_secret":"s","client_secret_expires_at":7,"scope":"b","x":1}`), &client); err != nil {
		t.Fatal(err)
	}
	want := oauth.Client{
		ClientMetadata:    oauth.ClientMetadata{Scope: "b", Extra: map[string]json.RawMessage{"x": json.RawMessage("1")}},
		ClientInformation: oauth.ClientInformation{ClientID: "a", ClientSecret: "s", ClientSecretExpiresAt: 7},
	}
	if diff := cmp.Diff(want, client); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSecretExpiredAndAllowsGrant(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, test := range []struct {
		secret  string
		expires int64
		want    bool
	}{
		{"s", 0, false},
		{"s", 1001, false},
		{"s", 1000, true},
		{"s", 999, true},
		{"", 999, false},
	} {
		c := oauth.ClientInformation{ClientSecret: test.secret, ClientSecretExpiresAt: test.expires}
		if got := c.SecretExpired(now); got != test.want {
			t.Errorf("%+v: %t", test, got)
		}
	}

	unsaid, said := oauth.ClientMetadata{}, oauth.ClientMetadata{GrantTypes: []string{"authorization_code", "client_credentials"}}
	for _, test := range []struct {
		client oauth.ClientMetadata
		grant  string
		want   bool
	}{
		{unsaid, oauth.GrantTypeAuthorizationCode, true},
		{unsaid, oauth.GrantTypeRefreshToken, true},
		{unsaid, oauth.GrantTypeClientCredentials, false},
		{said, oauth.GrantTypeAuthorizationCode, true},
		{said, oauth.GrantTypeClientCredentials, true},
		{said, oauth.GrantTypeRefreshToken, false},
	} {
		if got := test.client.AllowsGrant(test.grant); got != test.want {
			t.Errorf("%v, %s: %t", test.client.GrantTypes, test.grant, got)
		}
	}
}

func FuzzClientMetadata(f *testing.F) {
	f.Add([]byte(`{"redirect_uris":["https://a.example"],"x":{"y":[1,null]},"client_name":"n"}`))
	f.Add([]byte(`{"Client_Name":"<&>","scope":null,"jwks":null,"contacts":[]}`))
	f.Add([]byte(`{"redirect_uris":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m oauth.ClientMetadata
		if json.Unmarshal(data, &m) != nil || bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
			return
		}
		written, err := m.MarshalJSON()
		if err != nil {
			t.Fatalf("what was read from %q cannot be written: %v", data, err)
		}
		var before, after map[string]any
		if json.Unmarshal(data, &before) != nil || json.Unmarshal(written, &after) != nil {
			t.Fatalf("%q became %q", data, written)
		}
		for name, value := range before {
			if _, unknown := m.Extra[name]; unknown {
				if diff := cmp.Diff(value, after[name]); diff != "" {
					t.Errorf("member %q changed:\n%s", name, diff)
				}
			}
		}
		for name := range after {
			if _, had := before[name]; !had && name != "redirect_uris" {
				t.Errorf("member %q came from nowhere", name)
			}
		}
		var again oauth.ClientMetadata
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%q is not read back: %v", written, err)
		}
		rewritten, err := again.MarshalJSON()
		if err != nil || !bytes.Equal(written, rewritten) {
			t.Errorf("%q became %q, %v", written, rewritten, err)
		}
	})
}
