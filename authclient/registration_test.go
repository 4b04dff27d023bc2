package authclient_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestRegisterClientRequest(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	m := oauth.ClientMetadata{
		RedirectURIs: []string{callbackURL}, ClientName: "Test", Scope: "a",
		Extra: map[string]json.RawMessage{"x": json.RawMessage(`{"y":1}`)},
	}
	client, err := authclient.RegisterClient(t.Context(), server(s, nil), m, "b c")
	if err != nil || client.ClientID != "registered-1" || client.Issuer != s.URL {
		t.Fatalf("client %+v, error %v", client, err)
	}
	// As it was given, without defaults; the scope is that of the request.
	if diff := cmp.Diff(map[string]any{
		"redirect_uris": []any{callbackURL}, "client_name": "Test", "scope": "b c", "x": map[string]any{"y": 1.0},
	}, object(t, s.to("/register")[0].Body)); diff != "" {
		t.Error(diff)
	}
	if _, err := authclient.RegisterClient(t.Context(), server(s, nil), m, ""); err != nil {
		t.Fatal(err)
	}
	if got := object(t, s.to("/register")[1].Body)["scope"]; got != "a" {
		t.Errorf("scope %v", got)
	}
}

func TestRegisterClientAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		status   int
		body     any
		metadata *oauth.Metadata
		err      error
	}{
		{"201", 201, map[string]any{"client_id": "x"}, nil, nil},
		{"200", 200, map[string]any{"client_id": "x"}, nil, nil},
		{"an application_type of its own", 201, map[string]any{"client_id": "x", "application_type": "spa"}, nil, nil},
		{"no client_id", 201, map[string]any{"redirect_uris": []string{}}, nil, authclient.ErrUnavailable},
		{"an empty client_id", 201, map[string]any{"client_id": ""}, nil, authclient.ErrUnavailable},
		{"redirect_uris is no list", 201, map[string]any{"client_id": "x", "redirect_uris": "y"}, nil, authclient.ErrUnavailable},
		{"refused", 400, map[string]any{"error": "invalid_redirect_uri", "error_description": "no"}, nil, oauth.ErrInvalidRedirectURI},
		{"refused without OAuth", 403, "no", nil, authclient.ErrRegistrationRejected},
		{"fails", 500, map[string]any{"error": "server_error"}, nil, authclient.ErrUnavailable},
		{"too many", 429, map[string]any{}, nil, authclient.ErrUnavailable},
		{"not supported", 201, map[string]any{"client_id": "x"}, &oauth.Metadata{TokenEndpoint: "x"}, authclient.ErrIncompatible},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.json("/register", test.status, test.body)
			client, err := authclient.RegisterClient(t.Context(), server(s, test.metadata), oauth.ClientMetadata{ClientName: "n"}, "")
			if test.err == nil {
				if err != nil || client.ClientID != "x" {
					t.Errorf("client %+v, error %v", client, err)
				}
				return
			}
			if !errors.Is(err, test.err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestRegistrationRejectedErrorSaysWhat(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.json("/register", 400, map[string]any{"error": "invalid_client_metadata", "error_description": "no such name"})
	p, _ := web(t, nil)
	_, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
	var rejected *authclient.RegistrationRejectedError
	if !errors.As(err, &rejected) || rejected.Status != 400 || rejected.Submitted.ClientName != "Test" || rejected.Body == "" {
		t.Fatalf("error %#v", err)
	}
	if !errors.Is(err, oauth.ErrInvalidClientMetadata) || len(s.to("/register")) != 1 {
		t.Errorf("error %v, requests %v", err, s.lines())
	}
}

func TestResolveClientMetadata(t *testing.T) {
	t.Parallel()
	both := []string{"authorization_code", "refresh_token"}
	for _, test := range []struct {
		name     string
		redirect string
		metadata oauth.ClientMetadata
		grants   []string
		kind     string
	}{
		{"https", "https://c.example/cb", oauth.ClientMetadata{}, both, "web"},
		{"loopback", "http://127.0.0.1:1/cb", oauth.ClientMetadata{}, both, "native"},
		{"localhost", "http://localhost/cb", oauth.ClientMetadata{}, both, "native"},
		{"IPv6 loopback", "http://[::1]:1/cb", oauth.ClientMetadata{}, both, "native"},
		{"private-use scheme", "com.example.app:/cb", oauth.ClientMetadata{}, both, "native"},
		{"one of several is loopback", "https://c.example/cb", oauth.ClientMetadata{RedirectURIs: []string{"https://c.example/cb", "http://localhost/cb"}}, both, "native"},
		{"the client's own stay", "http://localhost/cb", oauth.ClientMetadata{ApplicationType: "web", GrantTypes: []string{"authorization_code"}}, []string{"authorization_code"}, "web"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, _ := web(t, func(o *authclient.WebOptions) { o.RedirectURL, o.Metadata = test.redirect, test.metadata })
			m := authclient.ResolveClientMetadata(p)
			if diff := cmp.Diff(test.grants, m.GrantTypes); diff != "" || m.ApplicationType != test.kind {
				t.Errorf("application_type %q, %s", m.ApplicationType, diff)
			}
		})
	}
	machine := machineProvider{MemoryStore: authclient.NewMemoryStore()}
	if m := authclient.ResolveClientMetadata(machine); m.GrantTypes != nil || m.ApplicationType != "web" {
		t.Errorf("without a user: %+v", m)
	}
}

func TestValidateClientMetadataURL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		url   string
		valid bool
	}{
		{"", true},
		{"https://c.example/client.json", true},
		{"https://c.example/a/b/client.json?x=1", true},
		{"https://c.example/", false},
		{"https://c.example", false},
		{"http://c.example/client.json", false},
		{"javascript:alert(1)", false},
		{"data:text/plain,x", false},
		{"client.json", false},
		{"https://c.example/client.json#f", false},
		{"https://u:p@c.example/client.json", false},
	} {
		if err := authclient.ValidateClientMetadataURL(test.url); test.valid != (err == nil) || !test.valid && !errors.Is(err, oauth.ErrInvalidClientMetadata) {
			t.Errorf("%q: %v", test.url, err)
		}
	}
}

func TestClientMetadataDocument(t *testing.T) {
	t.Parallel()
	const document = "https://client.example.com/client.json"
	for _, test := range []struct {
		name      string
		supported any
		document  string
		client    string
		err       error
	}{
		{"used where it is supported", true, document, document, nil},
		{"else the client registers", nil, document, "registered-1", nil},
		{"false is not supported", false, document, "registered-1", nil},
		{"no document", true, "", "registered-1", nil},
		{"a malformed one is an error though not supported", nil, "http://client.example.com/c", "", oauth.ErrInvalidClientMetadata},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.set("client_id_metadata_document_supported", test.supported)
			p, store := web(t, nil)
			result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL(), ClientMetadataURL: test.document})
			if !errors.Is(err, test.err) {
				t.Fatal(err)
			}
			if test.err != nil {
				return
			}
			if err != nil || result.AuthorizationURL.Query().Get("client_id") != test.client {
				t.Fatalf("%v, %v", result.AuthorizationURL, err)
			}
			if kept, err := store.ClientInformation(t.Context(), s.URL); err != nil || kept.ClientID != test.client {
				t.Errorf("kept %+v, %v", kept, err)
			}
			if got := len(s.to("/register")); got != 0 && test.client == document {
				t.Errorf("%d registrations", got)
			}
		})
	}
}
