package authclient_test

import (
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// idJAG answers with a grant of the token type.
func idJAG(tokenType string) func(*http.Request) (int, any) {
	return func(*http.Request) (int, any) {
		return http.StatusOK, map[string]any{"access_token": "a.b.c", "token_type": tokenType, "issued_token_type": authclient.TokenTypeIDJAG}
	}
}

// TestRequestJWTAuthorizationGrant are the cases of the SDK's
// requestJwtAuthorizationGrant.
func TestRequestJWTAuthorizationGrant(t *testing.T) {
	t.Parallel()
	request := authclient.JWTAuthorizationGrantRequest{
		Audience: "https://as.example", Resource: "https://mcp.example/mcp", SubjectToken: "i.d.t", ClientID: "idp-client",
	}
	with := func(change func(*authclient.JWTAuthorizationGrantRequest)) authclient.JWTAuthorizationGrantRequest {
		changed := request
		change(&changed)
		return changed
	}
	sent := func(more url.Values) url.Values {
		form := url.Values{
			"grant_type": {authclient.GrantTypeTokenExchange}, "requested_token_type": {authclient.TokenTypeIDJAG},
			"audience": {"https://as.example"}, "resource": {"https://mcp.example/mcp"},
			"subject_token": {"i.d.t"}, "subject_token_type": {authclient.TokenTypeIDToken},
		}
		for name, values := range more {
			form[name] = values
		}
		return form
	}
	for name, test := range map[string]struct {
		request authclient.JWTAuthorizationGrantRequest
		methods []string
		answer  func(*http.Request) (int, any)
		form    url.Values
		basic   [2]string
		err     error
	}{
		"a public client sends no secret": {
			request: request, answer: idJAG("N_A"), form: sent(url.Values{"client_id": {"idp-client"}}),
		},
		"secret and scope, in the form": {
			request: with(func(r *authclient.JWTAuthorizationGrantRequest) { r.ClientSecret, r.Scope = "s", "a b" }),
			answer:  idJAG("N_A"), form: sent(url.Values{"client_id": {"idp-client"}, "client_secret": {"s"}, "scope": {"a b"}}),
		},
		"secret by basic, for the metadata say so": {
			request: with(func(r *authclient.JWTAuthorizationGrantRequest) { r.ClientSecret = "s" }),
			methods: []string{"client_secret_basic"}, answer: idJAG("N_A"), form: sent(nil), basic: [2]string{"idp-client", "s"},
		},
		"secret by basic, for the caller says so": {
			request: with(func(r *authclient.JWTAuthorizationGrantRequest) {
				r.ClientSecret, r.Method = "s", oauth.AuthMethodClientSecretBasic
			}),
			answer: idJAG("N_A"), form: sent(nil), basic: [2]string{"idp-client", "s"},
		},
		"a SAML assertion": {
			request: with(func(r *authclient.JWTAuthorizationGrantRequest) { r.SubjectTokenType = authclient.TokenTypeSAML2 }),
			answer:  idJAG("N_A"), form: sent(url.Values{"client_id": {"idp-client"}, "subject_token_type": {authclient.TokenTypeSAML2}}),
		},
		"another token_type does not matter": {
			request: request, answer: idJAG("Bearer"), form: sent(url.Values{"client_id": {"idp-client"}}),
		},
		"an OAuth error": {request: request, answer: refused("invalid_target"), err: oauth.ErrInvalidTarget},
		"another error":  {request: request, answer: func(*http.Request) (int, any) { return http.StatusForbidden, "no" }, err: authclient.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGrants(t, test.answer)
			if test.methods != nil {
				s.set("token_endpoint_auth_methods_supported", test.methods)
			}
			grant, err := authclient.DiscoverAndRequestJWTAuthorizationGrant(t.Context(), s.URL, test.request, authclient.Options{})
			if !errors.Is(err, test.err) {
				t.Fatalf("err = %v, want %v", err, test.err)
			}
			if test.err != nil {
				return
			}
			if grant.Assertion != "a.b.c" {
				t.Errorf("grant %+v", grant)
			}
			call := s.to("/token")[0]
			if diff := cmp.Diff(test.form, call.Form); diff != "" {
				t.Errorf("form (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.basic, call.basic()); diff != "" {
				t.Errorf("basic (-want +got):\n%s", diff)
			}
		})
	}
	for name, incomplete := range map[string]authclient.JWTAuthorizationGrantRequest{
		"Audience":     with(func(r *authclient.JWTAuthorizationGrantRequest) { r.Audience = "" }),
		"Resource":     with(func(r *authclient.JWTAuthorizationGrantRequest) { r.Resource = "" }),
		"SubjectToken": with(func(r *authclient.JWTAuthorizationGrantRequest) { r.SubjectToken = "" }),
		"ClientID":     with(func(r *authclient.JWTAuthorizationGrantRequest) { r.ClientID = "" }),
	} {
		_, err := authclient.RequestJWTAuthorizationGrant(t.Context(), authclient.AuthorizationServer{URL: "https://idp.invalid"}, incomplete)
		if want := "token exchange: " + name + " is missing"; err == nil || err.Error() != want {
			t.Errorf("err = %v, want %q", err, want)
		}
	}
}

// TestTokenExchangeNetwork: no credential goes over http, and an identity
// provider that cannot be found gets none.
func TestTokenExchangeNetwork(t *testing.T) {
	t.Parallel()
	request := authclient.JWTAuthorizationGrantRequest{Audience: "https://as.example", Resource: "https://mcp.example", SubjectToken: "i.d.t", ClientID: "c"}
	var refused *authclient.RefusedURLError
	_, err := authclient.RequestJWTAuthorizationGrant(t.Context(), authclient.AuthorizationServer{URL: "http://idp.example"}, request)
	if !errors.As(err, &refused) || !refused.Insecure {
		t.Errorf("http: %v", err)
	}
	s := newGrants(t, granted)
	s.set("token_endpoint", "http://idp.example/token")
	if _, err := authclient.DiscoverAndRequestJWTAuthorizationGrant(t.Context(), s.URL, request, authclient.Options{}); !errors.As(err, &refused) || !refused.Insecure {
		t.Errorf("http in the metadata: %v", err)
	}
	s.set("token_endpoint", "https://169.254.169.254/token")
	if _, err := authclient.DiscoverAndRequestJWTAuthorizationGrant(t.Context(), s.URL, request, authclient.Options{}); !errors.As(err, &refused) {
		t.Errorf("a private address in the metadata: %v", err)
	}
	s.status("/.well-known/oauth-authorization-server", http.StatusNotFound)
	if _, err := authclient.DiscoverAndRequestJWTAuthorizationGrant(t.Context(), s.URL, request, authclient.Options{}); !errors.Is(err, authclient.ErrNoMetadata) {
		t.Errorf("no metadata: %v", err)
	}
	if n := len(s.to("/token")); n != 0 {
		t.Errorf("%d token requests", n)
	}
}

// TestMachineProviderShape: what the SDK's providers say of themselves, and that
// nothing of a login is pretended.
func TestMachineProviderShape(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]oauth.ClientMetadata{
		"client credentials": {ClientName: "client-credentials-client", GrantTypes: []string{"client_credentials"}},
		"private key": {
			ClientName: "private-key-jwt-client", GrantTypes: []string{"client_credentials"}, TokenEndpointAuthMethod: "private_key_jwt",
		},
		"static assertion": {
			ClientName: "static-private-key-jwt-client", GrantTypes: []string{"client_credentials"}, TokenEndpointAuthMethod: "private_key_jwt",
		},
		"enterprise managed": {ClientName: "cross-app-access-client", GrantTypes: []string{authclient.GrantTypeJWTBearer}},
		"workload identity": {
			ClientName: "workload-identity-client", GrantTypes: []string{authclient.GrantTypeJWTBearer}, TokenEndpointAuthMethod: "none",
		},
	} {
		p := machineProviders(t, "https://idp.example.com")[name]
		want.RedirectURIs = []string{}
		if diff := cmp.Diff(want, p.ClientMetadata()); diff != "" {
			t.Errorf("%s: metadata (-want +got):\n%s", name, diff)
		}
		if p.RedirectURL() != "" {
			t.Errorf("%s: redirect URL %q", name, p.RedirectURL())
		}
		_, verifierErr := p.CodeVerifier(t.Context())
		for what, err := range map[string]error{
			"redirect": p.RedirectToAuthorization(t.Context(), &url.URL{}), "save verifier": p.SaveCodeVerifier(t.Context(), "v"), "verifier": verifierErr,
		} {
			if err == nil {
				t.Errorf("%s: %s succeeds", name, what)
			}
		}
		if _, registers := p.(authclient.Registrar); registers {
			t.Errorf("%s would register", name)
		}
	}
}
