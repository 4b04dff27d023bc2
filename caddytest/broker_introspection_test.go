package caddytest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
)

// TestBrokerIntrospection: a resource server elsewhere finds the introspection
// endpoint in the metadata, which names it if somebody may use it.
func TestBrokerIntrospection(t *testing.T) {
	const elsewhere = `
http://127.0.0.1:{PORT} {
	mcp_bearer {
		resource http://127.0.0.1:{PORT}/mcp
		authorization_server {ORIGIN}
		verify introspection {
			client_id notes-api
			client_secret secret-of-notes-api
		}
	}
	respond "{http.auth.user.id}"
}
`
	const settings = `
		resource http://127.0.0.1:{PORT}/mcp {
			scopes mcp:read
		}
		resource /other
		client notes-api {
			secret secret-of-notes-api
			introspect http://127.0.0.1:{PORT}/mcp
		}
`
	c := newCaddy(t)
	metadata := func() (m struct {
		Endpoint string   `json:"introspection_endpoint"`
		Methods  []string `json:"introspection_endpoint_auth_methods_supported"`
	},
	) {
		_, body := c.send("GET", "/.well-known/oauth-authorization-server", nil, "")
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	site := func(settings string) string {
		return fmt.Sprintf(accountsSite, hash(t, alicePassword), hash(t, "b"), settings, "localhost:1")
	}
	if err := c.load(memoryStore, site("")); err != nil {
		t.Fatal(err)
	}
	if m := metadata(); m.Endpoint != "" || m.Methods != nil {
		t.Errorf("without anybody who may introspect: %+v", m)
	}
	// One after the other: a guard fetches the metadata while it starts, and
	// until then the configuration before it answers.
	for _, sites := range []string{site(settings), site(settings) + elsewhere} {
		if err := c.load(memoryStore, sites); err != nil {
			t.Fatal(err)
		}
	}
	if m := metadata(); m.Endpoint != c.Origin+"/mcp-auth/introspect" || fmt.Sprint(m.Methods) != "[client_secret_basic]" {
		t.Errorf("metadata: %+v", m)
	}
	resource := fmt.Sprintf("http://127.0.0.1:%d/mcp", c.Port)
	id := c.register(testRedirect)
	tokens := c.mustExchange(id, newBrowser(t).signIn(c.Origin+authorizeTarget(id, "s")+"&"+url.Values{"resource": {resource}}.Encode(), "alice", alicePassword))
	for token, want := range map[string]int{fmt.Sprint(tokens["access_token"]): http.StatusOK, "another": http.StatusUnauthorized} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", resource, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != want {
			t.Errorf("%s: status %d, %s, %v", token, resp.StatusCode, body, err)
		}
	}
}
