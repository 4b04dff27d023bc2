package authclient_test

import (
	"context"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func clientWith(secret, method string) *authclient.ClientInformation {
	c := &authclient.ClientInformation{}
	c.ClientID, c.ClientSecret, c.TokenEndpointAuthMethod = "id", secret, method
	return c
}

func TestSelectClientAuthMethod(t *testing.T) {
	t.Parallel()
	const basic, post, none = oauth.AuthMethodClientSecretBasic, oauth.AuthMethodClientSecretPost, oauth.AuthMethodNone
	for _, test := range []struct {
		name               string
		secret, registered string
		supported          []string
		want               string
	}{
		{"as registered", "s", post, []string{basic, post}, post},
		{"as registered, of a server that does not say", "s", post, nil, post},
		{"as registered, without a secret", "", none, []string{basic, none}, none},
		{"registered, but not supported", "s", basic, []string{post}, post},
		{"registered, but there is no secret", "", basic, []string{basic, none}, none},
		{"registered as what only a provider can do", "s", oauth.AuthMethodPrivateKeyJWT, []string{oauth.AuthMethodPrivateKeyJWT, basic}, basic},
		{"secret, and a server that does not say", "s", "", nil, basic},
		{"no secret, and a server that does not say", "", "", nil, none},
		{"basic before post", "s", "", []string{none, post, basic}, basic},
		{"post before none", "s", "", []string{none, post}, post},
		{"none if that is all", "s", "", []string{none}, none},
		{"none without a secret", "", "", []string{basic, post, none}, none},
		{"nothing fits, secret", "s", "", []string{"tls_client_auth"}, post},
		{"nothing fits, no secret", "", "", []string{basic}, none},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := authclient.SelectClientAuthMethod(clientWith(test.secret, test.registered), test.supported); got != test.want {
				t.Errorf("method %q", got)
			}
		})
	}
}

// authenticator authenticates itself.
type authenticator struct{ *authclient.Web }

func (authenticator) AddClientAuthentication(_ context.Context, r *authclient.TokenRequest) error {
	r.Header.Set("X-Client", r.Client.ClientID)
	r.Form.Set("client_assertion", "for "+r.Issuer+" at "+r.URL)
	return nil
}

func TestClientAuthenticationOnTheWire(t *testing.T) {
	t.Parallel()
	basic := func(credentials string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
	}
	type sent struct{ Authorization, ID, Secret string }
	for _, test := range []struct {
		name       string
		id, secret string
		supported  []string
		want       sent
	}{
		{"basic", "id", "s", []string{"client_secret_basic"}, sent{Authorization: basic("id:s")}},
		{"basic, form-encoded (RFC 6749 section 2.3.1)", "i:d", "a b%+", []string{"client_secret_basic"}, sent{Authorization: basic("i%3Ad:a+b%25%2B")}},
		{"post", "id", "s", []string{"client_secret_post"}, sent{ID: "id", Secret: "s"}},
		{"none", "id", "", []string{"none"}, sent{ID: "id"}},
		{"a server that does not say", "id", "s", nil, sent{Authorization: basic("id:s")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			as := server(s, &oauth.Metadata{Issuer: s.URL, TokenEndpoint: s.URL + "/token", TokenEndpointAuthMethodsSupported: test.supported})
			c := clientWith(test.secret, "")
			c.ClientID = test.id
			old := &authclient.Tokens{Tokens: oauth.Tokens{RefreshToken: "r"}}
			if _, err := authclient.RefreshAuthorization(t.Context(), as, authclient.RefreshRequest{Client: c, Tokens: old}); err != nil {
				t.Fatal(err)
			}
			r := s.to("/token")[0]
			got := sent{r.Header.Get("Authorization"), r.Form.Get("client_id"), r.Form.Get("client_secret")}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestClientAuthenticatorReplacesTheMethods(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, func(o *authclient.WebOptions) { o.Client = clientWith("secret", "") })
	signIn(t, authenticator{p}, authclient.Options{ServerURL: s.mcpURL()})
	r := s.to("/token")[0]
	if r.Header.Get("X-Client") != "id" || r.Form.Get("client_assertion") != "for "+s.URL+" at "+s.URL+"/token" {
		t.Errorf("headers %v, form %v", r.Header, r.Form)
	}
	if r.Header.Get("Authorization") != "" || r.Form.Has("client_secret") || strings.Contains(url.Values(r.Form).Encode(), "secret=secret") {
		t.Error("the secret was sent besides")
	}
}

// server is the authorization server of s, found by its URL.
func server(s *scripted, m *oauth.Metadata) authclient.AuthorizationServer {
	return authclient.AuthorizationServer{URL: s.URL, Metadata: m}
}
