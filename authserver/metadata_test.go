package authserver_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// SDK 1.4, with the additions of RFC 8414, 9207 and 9728.
func TestMetadataOfAFullServer(t *testing.T) {
	resources, err := oauth.NewResourceSet([]string{"https://auth.example.com/mcp"}, -1)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(c *authserver.Config, _ *scripted) {
		c.ServiceDocumentation = "https://docs.example.com/"
		c.ScopesSupported = []string{"mcp:read", "offline_access"}
		c.Resources = resources
	})
	a := s.do("GET", "/.well-known/oauth-authorization-server", "")
	want := `{"issuer":"https://auth.example.com",` +
		`"service_documentation":"https://docs.example.com/",` +
		`"authorization_endpoint":"https://auth.example.com/authorize",` +
		`"response_types_supported":["code"],` +
		`"response_modes_supported":["query"],` +
		`"code_challenge_methods_supported":["S256"],` +
		`"token_endpoint":"https://auth.example.com/token",` +
		`"token_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","none"],` +
		`"grant_types_supported":["authorization_code","refresh_token"],` +
		`"scopes_supported":["mcp:read","offline_access"],` +
		`"revocation_endpoint":"https://auth.example.com/revoke",` +
		`"revocation_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","none"],` +
		`"registration_endpoint":"https://auth.example.com/register",` +
		`"authorization_response_iss_parameter_supported":true,` +
		`"protected_resources":["https://auth.example.com/mcp"]}`
	if diff := cmp.Diff(want, a.Body); diff != "" {
		t.Error(diff)
	}
	if ct := a.Header.Get("Content-Type"); a.Status != 200 || ct != "application/json" {
		t.Errorf("%d %s", a.Status, ct)
	}
}

func TestMetadataOfAMinimalServer(t *testing.T) {
	server, err := authserver.New(authserver.Config{Issuer: issuer, Provider: struct{ authserver.Provider }{
		&scripted{memory: newMemory(), store: storeFunc(func(string) (*oauth.Client, error) { return nil, oauth.ErrInvalidClient })},
	}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(server.Metadata())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"registration_endpoint", "revocation", "scopes_supported", "service_documentation", "protected_resources", "null"} {
		if strings.Contains(string(body), name) {
			t.Errorf("%s in %s", name, body)
		}
	}
}

func TestMetadataOmitsIssParameterIfUnsupported(t *testing.T) {
	s := newSite(t, func(_ *authserver.Config, p *scripted) { p.noIss = true })
	if a := s.do("GET", "/.well-known/oauth-authorization-server", ""); strings.Contains(a.Body, "iss_parameter") {
		t.Error(a.Body)
	}
}

// R21: the issuer is published byte for byte.
func TestMetadataIssuerIsByteForByte(t *testing.T) {
	for _, want := range []string{"https://auth.example.com", "https://auth.example.com/", "https://auth.example.com/t/", "https://AUTH.example.com"} {
		s := newSite(t, func(c *authserver.Config, _ *scripted) { c.Issuer = want })
		if got := s.server.Metadata().Issuer; got != want {
			t.Errorf("issuer %q, want %q", got, want)
		}
	}
}

// Row 43 of clients and IdPs: one document at all forms, for every path.
func TestMetadataIsTheSameDocumentEverywhere(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) {
		c.Issuer = "https://auth.example.com/tenant"
		c.BaseURL = "https://mcp.example.com/base"
		c.ResourcePaths = []string{"/mcp", "/v1/other"}
	})
	want := s.do("GET", "/.well-known/oauth-authorization-server", "").Body
	for _, path := range []string{
		"/.well-known/oauth-authorization-server/tenant", "/tenant/.well-known/oauth-authorization-server",
		"/.well-known/oauth-authorization-server/base", "/base/.well-known/oauth-authorization-server",
		"/.well-known/oauth-authorization-server/mcp", "/mcp/.well-known/oauth-authorization-server",
		"/.well-known/oauth-authorization-server/v1/other", "/v1/other/.well-known/oauth-authorization-server/",
	} {
		if got := s.do("GET", path, ""); got.Status != 200 || got.Body != want {
			t.Errorf("%s: %d %s", path, got.Status, got.Body)
		}
	}
	if a := s.do("GET", "/.well-known/oauth-authorization-server/unknown", ""); a.Status != 404 {
		t.Errorf("unknown path: %d", a.Status)
	}
}

type openIDProvider struct {
	*scripted
	jwksURI string
}

func (p openIDProvider) ExtendMetadata(m *oauth.Metadata) {
	m.JWKSURI = p.jwksURI
	m.SubjectTypesSupported = []string{"public"}
	m.IDTokenSigningAlgValuesSupported = []string{"ES256"}
}

// R20: the OpenID form only if its mandatory members are true.
func TestOpenIDConfiguration(t *testing.T) {
	for name, row := range map[string]struct {
		jwksURI string
		status  int
	}{
		"complete": {"https://auth.example.com/jwks.json", 200},
		"no keys":  {"", 404},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(c *authserver.Config, p *scripted) {
				c.Provider = openIDProvider{p, row.jwksURI}
				c.ResourcePaths = []string{"/mcp"}
			})
			for _, path := range []string{
				"/.well-known/openid-configuration", "/.well-known/openid-configuration/mcp", "/mcp/.well-known/openid-configuration",
			} {
				a := s.do("GET", path, "")
				if a.Status != row.status || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Access-Control-Allow-Origin") != "*" {
					t.Errorf("%s: %d %v %s", path, a.Status, a.Header, a.Body)
				}
				if a.Status == 200 && a.Body != s.do("GET", "/.well-known/oauth-authorization-server", "").Body {
					t.Errorf("%s: another document", path)
				}
			}
		})
	}
}

// SDK 1.5, at the path form and the bare one.
func TestProtectedResourceMetadata(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) {
		c.ResourceServerURL = "https://mcp.example.com/v1/mcp"
		c.ResourceName = "Example"
		c.ScopesSupported = []string{"mcp:read", "offline_access"}
		c.ServiceDocumentation = "https://docs.example.com"
	})
	want := `{"resource":"https://mcp.example.com/v1/mcp","authorization_servers":["https://auth.example.com"],` +
		`"scopes_supported":["mcp:read"],"bearer_methods_supported":["header"],"resource_name":"Example",` +
		`"resource_documentation":"https://docs.example.com"}`
	for _, path := range []string{
		"/.well-known/oauth-protected-resource/v1/mcp", "/.well-known/oauth-protected-resource/v1/mcp/", "/.well-known/oauth-protected-resource",
	} {
		if diff := cmp.Diff(want, s.do("GET", path, "").Body); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	if a := s.do("GET", "/.well-known/oauth-protected-resource/v1", ""); a.Status != 404 {
		t.Errorf("other path: %d", a.Status)
	}
}
