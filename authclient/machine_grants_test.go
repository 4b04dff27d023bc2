package authclient_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// newGrants is a scripted server whose token endpoint answers as the function
// says.
func newGrants(t *testing.T, answer func(r *http.Request) (status int, body any)) *scripted {
	t.Helper()
	s := newScripted(t)
	s.setResource("scopes_supported", []string{"mcp:read"})
	s.handle("/token", func(w http.ResponseWriter, r *http.Request) {
		status, body := answer(r)
		sendJSON(w, status, body)
	})
	return s
}

func (s *scripted) auth(t *testing.T, p authclient.Provider) (authclient.Result, error) {
	t.Helper()
	return authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
}

// basic are the credentials of a request, decoded as RFC 6749 §2.3.1 has it.
func (r recorded) basic() [2]string {
	id, secret, _ := (&http.Request{Header: r.Header}).BasicAuth()
	id, _ = url.QueryUnescape(id)
	secret, _ = url.QueryUnescape(secret)
	return [2]string{id, secret}
}

func granted(*http.Request) (int, any) {
	return http.StatusOK, map[string]any{"access_token": "at-1", "token_type": "Bearer", "expires_in": 300}
}

func refused(code string) func(*http.Request) (int, any) {
	return func(*http.Request) (int, any) { return http.StatusBadRequest, map[string]any{"error": code} }
}

// signed is a JWT as a platform or an identity provider makes it.
func signed(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(newECKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func newECKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// assertionType is RFC 7523 §2.2.
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// TestMachineGrants shows what each provider sends for a token.
func TestMachineGrants(t *testing.T) {
	t.Parallel()
	platform := signed(t, jwt.MapClaims{"sub": "workload"})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(platform+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		methods []string // token_endpoint_auth_methods_supported
		make    func(issuer string) (authclient.Provider, error)
		form    url.Values // without resource
		basic   [2]string
	}{
		"client credentials by basic": {
			make: func(issuer string) (authclient.Provider, error) {
				return authclient.NewClientCredentials(authclient.ClientCredentialsOptions{ClientID: "id", ClientSecret: "se:cr t", ExpectedIssuer: issuer})
			},
			form:  url.Values{"grant_type": {"client_credentials"}, "scope": {"mcp:read"}},
			basic: [2]string{"id", "se:cr t"},
		},
		"client credentials by post, for the server takes nothing else": {
			methods: []string{"client_secret_post"},
			make: func(issuer string) (authclient.Provider, error) {
				return authclient.NewClientCredentials(authclient.ClientCredentialsOptions{ClientID: "id", ClientSecret: "secret", ExpectedIssuer: issuer})
			},
			form: url.Values{"grant_type": {"client_credentials"}, "scope": {"mcp:read"}, "client_id": {"id"}, "client_secret": {"secret"}},
		},
		"client credentials by post, for the caller wants it": {
			methods: []string{"client_secret_basic", "client_secret_post"},
			make: func(issuer string) (authclient.Provider, error) {
				return authclient.NewClientCredentials(authclient.ClientCredentialsOptions{ClientID: "id", ClientSecret: "secret", Method: "client_secret_post", ExpectedIssuer: issuer})
			},
			form: url.Values{"grant_type": {"client_credentials"}, "scope": {"mcp:read"}, "client_id": {"id"}, "client_secret": {"secret"}},
		},
		"a configured scope is not widened by what the server supports": {
			make: func(issuer string) (authclient.Provider, error) {
				return authclient.NewClientCredentials(authclient.ClientCredentialsOptions{ClientID: "id", ClientSecret: "secret", Scope: "own", ExpectedIssuer: issuer})
			},
			form:  url.Values{"grant_type": {"client_credentials"}, "scope": {"own"}},
			basic: [2]string{"id", "secret"},
		},
		"static assertion": {
			methods: []string{"private_key_jwt"},
			make: func(issuer string) (authclient.Provider, error) {
				return authclient.NewStaticAssertion(authclient.StaticAssertionOptions{ClientID: "id", Assertion: platform, ExpectedIssuer: issuer})
			},
			form: url.Values{
				"grant_type": {"client_credentials"}, "scope": {"mcp:read"},
				"client_id": {"id"}, "client_assertion": {platform}, "client_assertion_type": {assertionType},
			},
		},
		"workload identity from a file, without a client": {
			methods: []string{"none"},
			make: func(issuer string) (authclient.Provider, error) {
				return authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{TokenFile: file, ExpectedIssuer: issuer})
			},
			form: url.Values{"grant_type": {authclient.GrantTypeJWTBearer}, "scope": {"mcp:read"}, "assertion": {platform}},
		},
		"workload identity of a client": {
			methods: []string{"none"},
			make: func(issuer string) (authclient.Provider, error) {
				return authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{TokenFile: file, ClientID: "id", ExpectedIssuer: issuer})
			},
			form: url.Values{"grant_type": {authclient.GrantTypeJWTBearer}, "scope": {"mcp:read"}, "assertion": {platform}, "client_id": {"id"}},
		},
		"workload identity as a client's assertion": {
			make: func(issuer string) (authclient.Provider, error) {
				return authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{TokenFile: file, ClientID: "id", AsClient: true, ExpectedIssuer: issuer})
			},
			form: url.Values{
				"grant_type": {"client_credentials"}, "scope": {"mcp:read"},
				"client_id": {"id"}, "client_assertion": {platform}, "client_assertion_type": {assertionType},
			},
		},
		"any issuer": {
			make: func(string) (authclient.Provider, error) {
				return authclient.NewClientCredentials(authclient.ClientCredentialsOptions{ClientID: "id", ClientSecret: "secret", AnyIssuer: true})
			},
			form:  url.Values{"grant_type": {"client_credentials"}, "scope": {"mcp:read"}},
			basic: [2]string{"id", "secret"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGrants(t, granted)
			if test.methods != nil {
				s.set("token_endpoint_auth_methods_supported", test.methods)
			}
			p, err := test.make(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			result, err := s.auth(t, p)
			if err != nil {
				t.Fatal(err)
			}
			if result.Status != authclient.Authorized || result.Tokens.AccessToken != "at-1" || result.Tokens.Issuer != s.URL {
				t.Errorf("result: %+v", result)
			}
			calls := s.to("/token")
			if len(calls) != 1 {
				t.Fatalf("%d token requests, want one", len(calls))
			}
			test.form.Set("resource", s.mcpURL())
			if diff := cmp.Diff(test.form, calls[0].Form); diff != "" {
				t.Errorf("form (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.basic, calls[0].basic()); diff != "" {
				t.Errorf("basic (-want +got):\n%s", diff)
			}
			// Good tokens are used again.
			if _, err := s.auth(t, p); err != nil || len(s.to("/token")) != 1 {
				t.Errorf("second time: %d token requests, %v", len(s.to("/token")), err)
			}
		})
	}
}

// TestMachineChallengeScope: what the challenge asks for is added to the
// configured scope.
func TestMachineChallengeScope(t *testing.T) {
	t.Parallel()
	s := newGrants(t, granted)
	p, err := authclient.NewClientCredentials(authclient.ClientCredentialsOptions{
		ClientID: "id", ClientSecret: "secret", Scope: "own", ExpectedIssuer: s.URL,
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL(), Scope: "mcp:write own"})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.to("/token")[0].Form.Get("scope"); got != "own mcp:write" {
		t.Errorf("asked for %q", got)
	}
	if result.Tokens.Scope != "own mcp:write" {
		t.Errorf("the tokens have the scope %q", result.Tokens.Scope)
	}
}

// TestMachineRefusalIsNotRepeated: what cannot be mended by the program is asked
// once.
func TestMachineRefusalIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			s := newGrants(t, refused(code))
			p, err := authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{
				Token:          func(context.Context, authclient.AssertionRequest) (string, error) { return "a.b.c", nil },
				ExpectedIssuer: s.URL,
			})
			if err != nil {
				t.Fatal(err)
			}
			var refusal *oauth.Error
			if _, err := s.auth(t, p); !errors.As(err, &refusal) || refusal.Code != code {
				t.Errorf("err = %v, want %s", err, code)
			}
			if n := len(s.to("/token")); n != 1 {
				t.Errorf("%d token requests, want one", n)
			}
		})
	}
}

// TestWorkloadTokenIsReadEachTime: the platform replaces the file.
func TestWorkloadTokenIsReadEachTime(t *testing.T) {
	t.Parallel()
	s := newGrants(t, func(*http.Request) (int, any) {
		return http.StatusOK, map[string]any{"access_token": "at", "token_type": "Bearer"} // of unknown life
	})
	file := filepath.Join(t.TempDir(), "token")
	p, err := authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{TokenFile: file, ExpectedIssuer: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.auth(t, p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
	for _, token := range []string{"a.b.c", "d.e.f"} {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.auth(t, p); err != nil {
			t.Fatal(err)
		}
		calls := s.to("/token")
		if got := calls[len(calls)-1].Form.Get("assertion"); got != token {
			t.Errorf("sent %q, the file has %q", got, token)
		}
	}
}

// TestWorkloadTokenFunction is told what the token is for.
func TestWorkloadTokenFunction(t *testing.T) {
	t.Parallel()
	s := newGrants(t, granted)
	var got authclient.AssertionRequest
	p, err := authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{
		Token: func(_ context.Context, r authclient.AssertionRequest) (string, error) {
			got = r
			return "a.b.c", nil
		},
		ExpectedIssuer: s.URL,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.auth(t, p); err != nil {
		t.Fatal(err)
	}
	if got.HTTPClient == nil {
		t.Error("no HTTP client")
	}
	got.HTTPClient = nil
	want := authclient.AssertionRequest{Issuer: s.URL, TokenEndpoint: s.URL + "/token", Resource: s.mcpURL(), Scope: "mcp:read"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}
