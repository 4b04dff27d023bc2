package authclient_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// startIdentityProvider answers a token exchange with the grant.
func startIdentityProvider(t *testing.T, grant string) *scripted {
	t.Helper()
	return newGrants(t, func(*http.Request) (int, any) {
		return http.StatusOK, map[string]any{"access_token": grant, "token_type": "N_A", "issued_token_type": authclient.TokenTypeIDJAG}
	})
}

func subject(token string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token, nil }
}

// TestEnterpriseManaged: the user's id_token goes to the identity provider only,
// the grant for it to the MCP server's authorization server only.
func TestEnterpriseManaged(t *testing.T) {
	t.Parallel()
	grant, idToken := signed(t, jwt.MapClaims{"sub": "alice"}), signed(t, jwt.MapClaims{"sub": "alice", "nonce": "n"})
	exchange := func(s *scripted, more url.Values) url.Values {
		form := url.Values{
			"grant_type":           {"urn:ietf:params:oauth:grant-type:token-exchange"},
			"requested_token_type": {"urn:ietf:params:oauth:token-type:id-jag"},
			"subject_token":        {idToken}, "subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
			"audience": {s.URL}, "resource": {s.mcpURL()}, "scope": {"mcp:read"},
		}
		for name, values := range more {
			form[name] = values
		}
		return form
	}
	tests := map[string]struct {
		idpMethods []string
		idp        func(idp *scripted) authclient.IdentityProvider
		exchange   url.Values // besides
		idpBasic   [2]string
	}{
		"by discovery, with a secret": {
			idpMethods: []string{"client_secret_basic"},
			idp: func(idp *scripted) authclient.IdentityProvider {
				return authclient.IdentityProvider{Issuer: idp.URL, ClientID: "idp-client", ClientSecret: "idp-secret"}
			},
			idpBasic: [2]string{"idp-client", "idp-secret"},
		},
		"by token endpoint, with a secret": {
			idp: func(idp *scripted) authclient.IdentityProvider {
				return authclient.IdentityProvider{TokenEndpoint: idp.URL + "/token", ClientID: "idp-client", ClientSecret: "idp-secret"}
			},
			exchange: url.Values{"client_id": {"idp-client"}, "client_secret": {"idp-secret"}},
		},
		"public client": {
			idp: func(idp *scripted) authclient.IdentityProvider {
				return authclient.IdentityProvider{TokenEndpoint: idp.URL + "/token", ClientID: "idp-client"}
			},
			exchange: url.Values{"client_id": {"idp-client"}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			idp, s := startIdentityProvider(t, grant), newGrants(t, granted)
			if test.idpMethods != nil {
				idp.set("token_endpoint_auth_methods_supported", test.idpMethods)
			}
			chosen := test.idp(idp)
			chosen.SubjectToken = subject(idToken)
			p, err := authclient.NewEnterpriseManaged(authclient.EnterpriseManagedOptions{
				ClientID: "mcp-client", ClientSecret: "mcp-secret", IdentityProvider: &chosen, ExpectedIssuer: s.URL,
			})
			if err != nil {
				t.Fatal(err)
			}
			result, err := s.auth(t, p)
			if err != nil || result.Tokens.AccessToken != "at-1" {
				t.Fatalf("%+v, %v", result, err)
			}
			at := idp.to("/token")[0]
			if diff := cmp.Diff(exchange(s, test.exchange), at.Form); diff != "" {
				t.Errorf("at the identity provider (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.idpBasic, at.basic()); diff != "" {
				t.Errorf("basic at the identity provider (-want +got):\n%s", diff)
			}
			want := url.Values{
				"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {grant},
				"resource": {s.mcpURL()}, "scope": {"mcp:read"},
			}
			at = s.to("/token")[0]
			if diff := cmp.Diff(want, at.Form); diff != "" {
				t.Errorf("at the authorization server (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([2]string{"mcp-client", "mcp-secret"}, at.basic()); diff != "" {
				t.Errorf("basic at the authorization server (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEnterpriseManagedWithKey: the client may have a key in place of a secret.
func TestEnterpriseManagedWithKey(t *testing.T) {
	t.Parallel()
	s := newGrants(t, granted)
	p, err := authclient.NewEnterpriseManaged(authclient.EnterpriseManagedOptions{
		ClientID: "mcp-client", Key: authclient.SigningKey{Signer: newECKey(t)}, ExpectedIssuer: s.URL,
		Assertion: func(_ context.Context, r authclient.AssertionRequest) (string, error) {
			if r.Issuer != s.URL || r.Resource != s.mcpURL() || r.Scope != "mcp:read" || r.HTTPClient == nil {
				t.Errorf("asked for %+v", r)
			}
			return "a.b.c", nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.auth(t, p); err != nil {
		t.Fatal(err)
	}
	form := s.to("/token")[0].Form
	if form.Get("assertion") != "a.b.c" || audienceOf(t, form.Get("client_assertion")) != s.URL {
		t.Errorf("form: %v", form)
	}
}

// TestEnterpriseManagedRefusals: what the identity provider answers is checked,
// and named as its answer; the authorization server is not asked then.
func TestEnterpriseManagedRefusals(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer  func(*http.Request) (int, any)
		subject func(context.Context) (string, error)
		want    string
		is      error
	}{
		"another kind of token": {
			answer: func(*http.Request) (int, any) {
				return 200, map[string]any{"access_token": "a.b.c", "token_type": "Bearer", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
			},
			want: "another kind of token",
		},
		"no issued_token_type": {
			answer: func(*http.Request) (int, any) {
				return 200, map[string]any{"access_token": "a.b.c", "token_type": "N_A"}
			},
			want: "another kind of token",
		},
		"no token": {
			answer: func(*http.Request) (int, any) {
				return 200, map[string]any{"token_type": "N_A", "issued_token_type": authclient.TokenTypeIDJAG}
			},
			is: authclient.ErrUnavailable,
		},
		"not a JWT": {
			answer: func(*http.Request) (int, any) {
				return 200, map[string]any{"access_token": "opaque-secret", "token_type": "N_A", "issued_token_type": authclient.TokenTypeIDJAG}
			},
			want: "not a signed JWT",
		},
		"the user's session has ended": {answer: refused("invalid_grant"), want: "the identity provider gives no grant", is: oauth.ErrInvalidGrant},
		"server error":                 {answer: func(*http.Request) (int, any) { return 503, nil }, is: authclient.ErrUnavailable},
		"nobody is signed in": {
			answer:  granted,
			subject: func(context.Context) (string, error) { return "", errors.New("sign in first") },
			want:    "sign in first",
		},
		"an empty id_token": {answer: granted, subject: subject(""), want: "SubjectToken is missing"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			idp, s := newGrants(t, test.answer), newGrants(t, granted)
			if test.subject == nil {
				test.subject = subject("id.to.ken")
			}
			p, err := authclient.NewEnterpriseManaged(authclient.EnterpriseManagedOptions{
				ClientID: "mcp-client", ExpectedIssuer: s.URL,
				IdentityProvider: &authclient.IdentityProvider{Issuer: idp.URL, ClientID: "idp-client", SubjectToken: test.subject},
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.auth(t, p)
			if err == nil || !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("err = %v, want %q, %v", err, test.want, test.is)
			}
			if err != nil && (strings.Contains(err.Error(), "id.to.ken") || strings.Contains(err.Error(), "opaque-secret")) {
				t.Errorf("the error holds a token: %v", err)
			}
			if n := len(s.to("/token")); n != 0 {
				t.Errorf("the authorization server was asked %d times", n)
			}
		})
	}
}

// TestEnterpriseManagedNeedsAResource: a server without metadata has none that
// an identity provider could grant.
func TestEnterpriseManagedNeedsAResource(t *testing.T) {
	t.Parallel()
	p, err := authclient.NewEnterpriseManaged(authclient.EnterpriseManagedOptions{
		ClientID: "c", ExpectedIssuer: "https://idp.example.com",
		Assertion: func(context.Context, authclient.AssertionRequest) (string, error) {
			t.Error("a grant was asked for")
			return "", nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.PrepareTokenRequest(t.Context(), authclient.Grant{Issuer: "https://idp.example.com"}); err == nil || !strings.Contains(err.Error(), "RFC 9728") {
		t.Errorf("err = %v", err)
	}
}

// TestExchangeJWTAuthorizationGrant is the second step alone.
func TestExchangeJWTAuthorizationGrant(t *testing.T) {
	t.Parallel()
	s := newGrants(t, granted)
	server := authclient.AuthorizationServer{URL: s.URL}
	client := &authclient.ClientInformation{Issuer: s.URL}
	client.ClientID, client.ClientSecret = "id", "secret"
	tokens, err := authclient.ExchangeJWTAuthorizationGrant(t.Context(), server, authclient.JWTAuthorizationGrantExchange{
		Assertion: "a.b.c", Client: client, Scope: "mcp:read",
	})
	if err != nil || tokens.AccessToken != "at-1" || tokens.Scope != "mcp:read" || tokens.Issuer != s.URL {
		t.Fatalf("%+v, %v", tokens, err)
	}
	if got := s.to("/token")[0].basic(); got != [2]string{"id", "secret"} {
		t.Errorf("basic is the default; got %s", got)
	}
	client.Issuer = "https://other.example"
	if _, err := authclient.ExchangeJWTAuthorizationGrant(t.Context(), server, authclient.JWTAuthorizationGrantExchange{Assertion: "a.b.c", Client: client}); !errors.Is(err, authclient.ErrAuthorizationServerMismatch) {
		t.Errorf("client of another issuer: %v", err)
	}
	insecure := authclient.AuthorizationServer{URL: "http://idp.example.com"}
	if _, err := authclient.ExchangeJWTAuthorizationGrant(t.Context(), insecure, authclient.JWTAuthorizationGrantExchange{Assertion: "a.b.c"}); !errors.Is(err, authclient.ErrRefusedURL) {
		t.Errorf("http: %v", err)
	}
}
