package caddytest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// The proxy advertises what the upstream turns out to have.
func TestProxyMetadataFollowsTheUpstream(t *testing.T) {
	idp := newScriptedIDP(t)
	bare := map[string]any{
		"issuer": idp.URL, "authorization_endpoint": idp.URL + "/authorize", "token_endpoint": idp.URL + "/token", "jwks_uri": idp.URL + "/keys",
	}
	full := map[string]any{
		"registration_endpoint": idp.URL + "/register", "revocation_endpoint": idp.URL + "/revoke", "scopes_supported": []string{"openid", "offline_access"},
	}
	for name, value := range bare {
		full[name] = value
	}
	for _, row := range []struct {
		name     string
		upstream map[string]any // nil: it is down
		offered  bool
		offline  bool
	}{
		{"nothing but the necessary", bare, false, false},
		{"everything", full, true, true},
		{"down", nil, true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			idp.handle("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
				if row.upstream == nil {
					w.WriteHeader(http.StatusInternalServerError)
					return
				}
				answerJSON(w, 200, row.upstream)
			})
			c := loadCaddy(t, fmt.Sprintf(scriptedProxySite, idp.URL, "client my-app {\nredirect_uris "+testRedirect+"\n}", "localhost:1"))
			resp, body := c.send("GET", "/.well-known/oauth-authorization-server", nil, "")
			var metadata struct {
				Registration string   `json:"registration_endpoint"`
				Revocation   string   `json:"revocation_endpoint"`
				Scopes       []string `json:"scopes_supported"`
			}
			if err := json.Unmarshal([]byte(body), &metadata); err != nil || resp.StatusCode != 200 {
				t.Fatalf("%d %s", resp.StatusCode, body)
			}
			if (metadata.Registration != "") != row.offered || (metadata.Revocation != "") != row.offered || slices.Contains(metadata.Scopes, "offline_access") != row.offline {
				t.Errorf("metadata: %s", body)
			}
		})
	}
}

// The operator decides what a client of theirs may ask for.
func TestClientScopesConfineAStaticClient(t *testing.T) {
	idp := newScriptedIDP(t)
	c := loadCaddy(t, fmt.Sprintf(scriptedProxySite, idp.URL, "client my-app {\nredirect_uris "+testRedirect+"\nscopes mcp:read\n}", "localhost:1"))
	for asked, want := range map[string]string{"mcp:read+mcp:admin": "scope=mcp%3Aread", "mcp:admin": "error=invalid_scope"} {
		resp, _ := c.send("GET", strings.Replace(authorizeTarget("my-app", "s"), "scope=mcp%3Aread", "scope="+asked, 1), nil, "")
		location := resp.Header.Get("Location")
		if !strings.Contains(location, want) || strings.Contains(location, "admin") {
			t.Errorf("scope %s: %d %s", asked, resp.StatusCode, location)
		}
	}
}
