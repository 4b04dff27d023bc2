package authclient_test

import (
	"context"
	"errors"
	"net/url"
	"testing"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// machineProvider is a client without a user.
type machineProvider struct {
	*authclient.MemoryStore
	client *authclient.ClientInformation
	grants *[]authclient.Grant
}

func (machineProvider) RedirectURL() string                  { return "" }
func (machineProvider) ClientMetadata() oauth.ClientMetadata { return oauth.ClientMetadata{} }
func (m machineProvider) ClientInformation(context.Context, string) (*authclient.ClientInformation, error) {
	return m.client, nil
}

func (machineProvider) RedirectToAuthorization(context.Context, *url.URL) error {
	return errors.New("there is nobody to redirect")
}

func (m machineProvider) PrepareTokenRequest(_ context.Context, g authclient.Grant) (url.Values, error) {
	if m.grants != nil {
		*m.grants = append(*m.grants, g)
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if g.Scope != "" {
		form.Set("scope", g.Scope)
	}
	return form, nil
}

func TestMachineGrant(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.setResource("scopes_supported", []string{"mcp:read"})
	s.set("authorization_endpoint", nil)
	s.set("code_challenge_methods_supported", nil)
	var grants []authclient.Grant
	client := clientWith("secret", "")
	client.Issuer = s.URL
	p := machineProvider{authclient.NewMemoryStore(), client, &grants}
	result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
	if err != nil || result.Status != authclient.Authorized || result.Tokens.Scope != "mcp:read" {
		t.Fatalf("result %+v, error %v", result, err)
	}
	if g := grants[0]; g.Issuer != s.URL || g.Resource != s.mcpURL() || g.Scope != "mcp:read" || g.Metadata == nil || g.HTTPClient == nil {
		t.Errorf("grant %+v", g)
	}
	form := s.to("/token")[0].Form
	if form.Get("resource") != s.mcpURL() || form.Get("scope") != "mcp:read" {
		t.Errorf("form %v", form)
	}
	// Good tokens are used again; expired ones are fetched anew, not refreshed.
	if _, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()}); err != nil || len(s.to("/token")) != 1 {
		t.Errorf("%d token requests, %v", len(s.to("/token")), err)
	}
	if _, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL(), RefusedToken: "token-1"}); err != nil || len(s.to("/token")) != 2 {
		t.Errorf("%d token requests, %v", len(s.to("/token")), err)
	}
}

// A secret is not presented to another authorization server than it is for.
func TestMachineSecretIsForOneIssuer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		stamped string
		options authclient.Options
	}{
		{"the client says for which", "https://as.example", authclient.Options{}},
		{"the options do", "", authclient.Options{ExpectedIssuer: "https://as.example"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			client := clientWith("secret", "")
			client.Issuer = test.stamped
			test.options.ServerURL = s.mcpURL()
			_, err := authclient.Auth(t.Context(), machineProvider{authclient.NewMemoryStore(), client, nil}, test.options)
			if !errors.Is(err, authclient.ErrAuthorizationServerMismatch) || len(s.to("/token")) != 0 || len(s.to("/register")) != 0 {
				t.Errorf("error %v, requests %v", err, s.lines())
			}
		})
	}
}

// A grant such as workload identity has no client.
func TestMachineWithoutClient(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	if _, err := authclient.Auth(t.Context(), machineProvider{MemoryStore: authclient.NewMemoryStore()}, authclient.Options{ServerURL: s.mcpURL()}); err != nil {
		t.Fatal(err)
	}
	if r := s.to("/token")[0]; r.Form.Has("client_id") || r.Header.Get("Authorization") != "" {
		t.Errorf("form %v", r.Form)
	}
}
