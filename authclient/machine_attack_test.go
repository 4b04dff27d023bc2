package authclient_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// machineProviders are one of each kind, for the issuer.
func machineProviders(t *testing.T, issuer string) map[string]authclient.Provider {
	t.Helper()
	assertion := func(context.Context, authclient.AssertionRequest) (string, error) {
		return signed(t, jwt.MapClaims{"aud": issuer}), nil
	}
	key := authclient.SigningKey{Signer: newECKey(t)}
	made := map[string]authclient.Provider{}
	add := func(name string, p authclient.Provider, err error) {
		if err != nil {
			t.Fatal(name, err)
		}
		made[name] = p
	}
	secret, err := authclient.NewClientCredentials(authclient.ClientCredentialsOptions{ClientID: "id", ClientSecret: "the-secret", ExpectedIssuer: issuer})
	add("client credentials", secret, err)
	private, err := authclient.NewPrivateKeyJWT(authclient.PrivateKeyJWTOptions{ClientID: "id", Key: key, ExpectedIssuer: issuer})
	add("private key", private, err)
	static, err := authclient.NewStaticAssertion(authclient.StaticAssertionOptions{ClientID: "id", Assertion: signed(t, jwt.MapClaims{"aud": issuer}), ExpectedIssuer: issuer})
	add("static assertion", static, err)
	enterprise, err := authclient.NewEnterpriseManaged(authclient.EnterpriseManagedOptions{ClientID: "id", ClientSecret: "the-secret", Assertion: assertion, ExpectedIssuer: issuer})
	add("enterprise managed", enterprise, err)
	workload, err := authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{Token: assertion, ExpectedIssuer: issuer})
	add("workload identity", workload, err)
	client, err := authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{Token: assertion, ClientID: "id", AsClient: true, ExpectedIssuer: issuer})
	add("workload identity as client", client, err)
	return made
}

// TestMachineCredentialStaysAtItsIssuer: an MCP server that names the
// authorization server of an attacker gets nothing.
func TestMachineCredentialStaysAtItsIssuer(t *testing.T) {
	t.Parallel()
	for name, p := range machineProviders(t, "https://idp.example.com") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attacker := newGrants(t, granted)
			attacker.set("token_endpoint_auth_methods_supported", []string{"client_secret_basic", "private_key_jwt", "none"})
			_, err := attacker.auth(t, p)
			var mismatch *authclient.AuthorizationServerMismatchError
			if !errors.As(err, &mismatch) || mismatch.Recorded != "https://idp.example.com" || mismatch.Current != attacker.URL {
				t.Errorf("err = %v, want that %s is not the expected issuer", err, attacker.URL)
			}
			if len(attacker.to("/token")) > 0 || len(attacker.to("/.well-known/oauth-authorization-server")) > 0 {
				t.Errorf("the attacker was asked: %v", attacker.lines())
			}
			// The metadata may lie about the issuer.
			attacker.set("issuer", "https://idp.example.com")
			s := authclient.AuthorizationServer{URL: attacker.URL}
			if _, err := authclient.FetchToken(t.Context(), p, s, authclient.FetchRequest{Resource: attacker.mcpURL()}); !errors.As(err, &mismatch) {
				t.Errorf("FetchToken: err = %v, want a mismatch", err)
			}
			if len(attacker.to("/token")) > 0 {
				t.Error("the attacker was asked for a token by FetchToken")
			}
		})
	}
}

// TestMachineChoosesItsIssuer: of several authorization servers that the MCP
// server names.
func TestMachineChoosesItsIssuer(t *testing.T) {
	t.Parallel()
	other, s := newGrants(t, granted), newGrants(t, granted)
	s.setResource("authorization_servers", []string{other.URL, s.URL})
	p := machineProviders(t, s.URL)["client credentials"]
	if result, err := s.auth(t, p); err != nil || result.Issuer != s.URL || len(other.seen()) > 0 {
		t.Errorf("%+v, %v; the other one was asked %v", result, err, other.lines())
	}
}

// TestMachineAssertionReplay: whoever asks a provider to authenticate at another
// issuer gets no assertion.
func TestMachineAssertionReplay(t *testing.T) {
	t.Parallel()
	for name, p := range machineProviders(t, "https://idp.example.com") {
		authenticator, ok := p.(authclient.ClientAuthenticator)
		if !ok || name == "workload identity" { // whose assertion is the grant
			continue
		}
		r := &authclient.TokenRequest{
			Header: http.Header{}, Form: map[string][]string{}, URL: "https://attacker.example/token", Issuer: "https://attacker.example",
		}
		err := authenticator.AddClientAuthentication(t.Context(), r)
		if !errors.Is(err, authclient.ErrAuthorizationServerMismatch) || len(r.Form) > 0 || len(r.Header) > 0 {
			t.Errorf("%s: err = %v, form %v, header %v", name, err, r.Form, r.Header)
		}
	}
}

// TestMachineTokensStayAtTheirIssuer: tokens in a shared store that another
// authorization server issued are not used.
func TestMachineTokensStayAtTheirIssuer(t *testing.T) {
	t.Parallel()
	s := newGrants(t, granted)
	store := authclient.NewMemoryStore()
	foreign := &authclient.Tokens{Issuer: "https://other.example"}
	foreign.AccessToken, foreign.TokenType = "foreign", "Bearer"
	if err := store.SaveTokens(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	p, err := authclient.NewClientCredentials(authclient.ClientCredentialsOptions{ClientID: "id", ClientSecret: "secret", ExpectedIssuer: s.URL, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	result, err := s.auth(t, p)
	if err != nil || result.Tokens.AccessToken != "at-1" {
		t.Errorf("got %+v, %v", result.Tokens, err)
	}
}

// TestMachineOptions: what is missing or contradicts itself is an error that
// says what to write.
func TestMachineOptions(t *testing.T) {
	t.Parallel()
	key := authclient.SigningKey{Signer: newECKey(t)}
	source := func(context.Context, authclient.AssertionRequest) (string, error) { return "", nil }
	subject := func(context.Context) (string, error) { return "", nil }
	const issuer = "https://idp.example.com"
	secret := func(o authclient.ClientCredentialsOptions) error {
		_, err := authclient.NewClientCredentials(o)
		return err
	}
	private := func(o authclient.PrivateKeyJWTOptions) error {
		_, err := authclient.NewPrivateKeyJWT(o)
		return err
	}
	static := func(o authclient.StaticAssertionOptions) error {
		_, err := authclient.NewStaticAssertion(o)
		return err
	}
	enterprise := func(o authclient.EnterpriseManagedOptions) error {
		o.ClientID, o.ExpectedIssuer = "id", issuer
		_, err := authclient.NewEnterpriseManaged(o)
		return err
	}
	workload := func(o authclient.WorkloadIdentityOptions) error {
		o.ExpectedIssuer = issuer
		_, err := authclient.NewWorkloadIdentity(o)
		return err
	}
	idp := authclient.IdentityProvider{Issuer: issuer, ClientID: "idp", SubjectToken: subject}
	with := func(change func(*authclient.IdentityProvider)) authclient.EnterpriseManagedOptions {
		changed := idp
		change(&changed)
		return authclient.EnterpriseManagedOptions{IdentityProvider: &changed}
	}
	tests := map[string]struct {
		err  error
		want string
	}{
		"no client_id":      {secret(authclient.ClientCredentialsOptions{ClientSecret: "s", ExpectedIssuer: issuer}), "ClientID is missing"},
		"no secret":         {secret(authclient.ClientCredentialsOptions{ClientID: "c", ExpectedIssuer: issuer}), "ClientSecret is missing"},
		"no issuer":         {secret(authclient.ClientCredentialsOptions{ClientID: "c", ClientSecret: "s"}), "ExpectedIssuer is missing"},
		"two issuers":       {secret(authclient.ClientCredentialsOptions{ClientID: "c", ClientSecret: "s", ExpectedIssuer: issuer, AnyIssuer: true}), "exclude each other"},
		"issuer is no URL":  {secret(authclient.ClientCredentialsOptions{ClientID: "c", ClientSecret: "s", ExpectedIssuer: "idp"}), "not an absolute https URL"},
		"unknown method":    {secret(authclient.ClientCredentialsOptions{ClientID: "c", ClientSecret: "s", ExpectedIssuer: issuer, Method: "none"}), "Method"},
		"no key":            {private(authclient.PrivateKeyJWTOptions{ClientID: "c", ExpectedIssuer: issuer}), "private key is missing"},
		"wrong algorithm":   {private(authclient.PrivateKeyJWTOptions{ClientID: "c", ExpectedIssuer: issuer, Key: authclient.SigningKey{Signer: key.Signer, Algorithm: "RS256"}}), "does not fit the key"},
		"long life":         {private(authclient.PrivateKeyJWTOptions{ClientID: "c", ExpectedIssuer: issuer, Key: key, Lifetime: 5*60*1e9 + 1}), "lives from 1 second to 5m0s"},
		"reserved claim":    {private(authclient.PrivateKeyJWTOptions{ClientID: "c", ExpectedIssuer: issuer, Key: key, Claims: map[string]any{"aud": "x"}}), "the claim aud is set"},
		"no assertion":      {static(authclient.StaticAssertionOptions{ClientID: "c", ExpectedIssuer: issuer}), "Assertion is missing"},
		"not a JWT":         {static(authclient.StaticAssertionOptions{ClientID: "c", ExpectedIssuer: issuer, Assertion: "opaque"}), "not a signed JWT"},
		"no source":         {enterprise(authclient.EnterpriseManagedOptions{}), "exactly one of IdentityProvider and Assertion"},
		"two sources":       {enterprise(authclient.EnterpriseManagedOptions{IdentityProvider: &idp, Assertion: source}), "exactly one of IdentityProvider and Assertion"},
		"key and secret":    {enterprise(authclient.EnterpriseManagedOptions{IdentityProvider: &idp, Key: key, ClientSecret: "s"}), "ClientSecret and Method exclude Key"},
		"idp client":        {enterprise(with(func(i *authclient.IdentityProvider) { i.ClientID = "" })), "ClientID is missing"},
		"idp subject":       {enterprise(with(func(i *authclient.IdentityProvider) { i.SubjectToken = nil })), "SubjectToken is missing"},
		"idp place":         {enterprise(with(func(i *authclient.IdentityProvider) { i.Issuer = "" })), "either Issuer or TokenEndpoint"},
		"idp URL":           {enterprise(with(func(i *authclient.IdentityProvider) { i.Issuer = "idp" })), "not an absolute https URL"},
		"no token":          {workload(authclient.WorkloadIdentityOptions{}), "exactly one of TokenFile and Token"},
		"two tokens":        {workload(authclient.WorkloadIdentityOptions{TokenFile: "f", Token: source}), "exactly one of TokenFile and Token"},
		"client without id": {workload(authclient.WorkloadIdentityOptions{TokenFile: "f", AsClient: true}), "AsClient needs the ClientID"},
	}
	for name, test := range tests {
		if test.err == nil || !strings.Contains(test.err.Error(), test.want) {
			t.Errorf("%s: err = %v, want one with %q", name, test.err, test.want)
		}
	}
}

// TestForeignAssertionIsChecked: what a file or function returns cannot add
// parameters, and is not quoted in errors.
func TestForeignAssertionIsChecked(t *testing.T) {
	t.Parallel()
	s := newGrants(t, granted)
	for name, assertion := range map[string]string{
		"empty":       " \n",
		"two parts":   "aaaa.bbbb",
		"other bytes": "aaaa.bbbb.cc&scope=admin",
		"a web page":  "<html>top-secret</html>",
		"endless":     strings.Repeat("a", 70_000) + ".b.c",
	} {
		p, err := authclient.NewWorkloadIdentity(authclient.WorkloadIdentityOptions{
			Token:          func(context.Context, authclient.AssertionRequest) (string, error) { return assertion, nil },
			ExpectedIssuer: s.URL,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.auth(t, p); err == nil || strings.Contains(err.Error(), "top-secret") {
			t.Errorf("%s: err = %v", name, err)
		}
	}
	if n := len(s.to("/token")); n != 0 {
		t.Errorf("%d token requests", n)
	}
}
