package authclient_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// What comes of any challenge is a URL that can be parsed, or nothing.
func FuzzWWWAuthenticate(f *testing.F) {
	f.Add(`Bearer resource_metadata="https://a.example/x", scope="a b", error="insufficient_scope"`)
	f.Add(`Basic realm="x", DPoP error=use_dpop_nonce, algs="ES256"`)
	f.Add(`Bearer`)
	f.Fuzz(func(t *testing.T, header string) {
		h := http.Header{"Www-Authenticate": {header}}
		c := authclient.ExtractWWWAuthenticateParams(h)
		if u, err := url.Parse(c.ResourceMetadataURL); err != nil || c.ResourceMetadataURL != "" && u.Host == "" {
			t.Errorf("%q: %v", c.ResourceMetadataURL, err)
		}
		if authclient.ExtractResourceMetadataURL(h) != c.ResourceMetadataURL {
			t.Error("the two disagree")
		}
		union := authclient.ComputeScopeUnion(c.Scope, "a")
		if authclient.IsStrictScopeSuperset(c.Scope, union) {
			t.Errorf("the union %q lacks a scope of %q", union, c.Scope)
		}
	})
}

// Any document is an error or metadata that lead nowhere they must not.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"resource":"https://mcp.example/mcp","authorization_servers":["https://as.example"]}`), []byte(`{"issuer":"https://as.example","token_endpoint":"https://as.example/token","code_challenge_methods_supported":["S256"],"authorization_endpoint":"https://as.example/authorize"}`))
	f.Add([]byte(`{"resource":"https://mcp.example"}`), []byte(`{"issuer":"https://mcp.example","token_endpoint":"http://10.0.0.1"}`))
	f.Add([]byte(`{`), []byte(`<html>`))
	f.Fuzz(func(t *testing.T, resource, server []byte) {
		client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Scheme != "https" || r.URL.User != nil {
				t.Errorf("a request to %s", r.URL)
			}
			w := httptest.NewRecorder()
			if r.URL.Path == prmPath+"/mcp" {
				_, _ = w.Write(resource)
			} else {
				_, _ = w.Write(server)
			}
			return w.Result(), nil
		})}
		o := authclient.Options{ServerURL: "https://mcp.example/mcp", HTTPClient: client}
		found, err := authclient.DiscoverOAuthServerInfo(t.Context(), o)
		if err != nil {
			return
		}
		as := authclient.AuthorizationServer{URL: found.AuthorizationServerURL, Metadata: found.AuthorizationServer, Options: o}
		u, _, err := authclient.StartAuthorization(as, authclient.AuthorizationRequest{Client: clientWith("", ""), RedirectURL: callbackURL})
		if err == nil && (u.Scheme != "https" || u.Query().Get("client_id") != "id") {
			t.Errorf("authorization at %s", u)
		}
	})
}

// Stored credentials survive a round trip, whatever a server has put into them.
func FuzzCredentials(f *testing.F) {
	f.Add([]byte(`{"access_token":"a","token_type":"Bearer","issuer":"https://as.example","expires_at":1767323045,"x":[1]}`))
	f.Add([]byte(`{"client_id":"x","client_secret":"s","issuer":"https://as.example","redirect_uris":["https://c.example/cb"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var tokens, tokensAgain authclient.Tokens
		if json.Unmarshal(data, &tokens) == nil {
			roundTrip(t, tokens, &tokensAgain)
			if tokens.AccessToken != tokensAgain.AccessToken || tokens.Issuer != tokensAgain.Issuer || !tokens.ExpiresAt.Equal(tokensAgain.ExpiresAt) {
				t.Errorf("%+v became %+v", tokens, tokensAgain)
			}
		}
		var client, clientAgain authclient.ClientInformation
		if json.Unmarshal(data, &client) == nil {
			roundTrip(t, client, &clientAgain)
			if client.ClientID != clientAgain.ClientID || client.Issuer != clientAgain.Issuer || client.ClientSecret != clientAgain.ClientSecret {
				t.Errorf("%+v became %+v", client, clientAgain)
			}
		}
	})
}

func roundTrip(t *testing.T, from, to any) {
	t.Helper()
	encoded, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(encoded, to)
	}
	if err != nil {
		t.Error(err)
	}
}
