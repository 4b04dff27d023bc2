package caddytest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestPolicyJSON: what the Caddyfile refuses while it is read is refused in JSON
// as well, and placeholders count with what they stand for.
func TestPolicyJSON(t *testing.T) {
	t.Setenv("MCPAUTH_TEST_DOMAIN", "example.com")
	t.Setenv("MCPAUTH_TEST_TOOL", "delete_*")
	for _, row := range []struct{ name, settings, want string }{
		{"all of it", `"tools": [{"name": "{env.MCPAUTH_TEST_TOOL}", "scopes": ["a"]}], "allow": [{"email": "*@{env.MCPAUTH_TEST_DOMAIN}"}], "when": "{'a': tool}.a != ''"`, ""},
		{"when is not replaced", `"when": "tool != '{env.MCPAUTH_TEST_NOT_SET}'"`, ""},
		{"tool without scopes", `"tools": [{"name": "a"}]`, "tool takes a name and the scopes"},
		{"method without a name", `"methods": [{"scopes": ["a"]}]`, "method takes a name and the scopes"},
		{"no scope", `"uris": [{"name": "a", "scopes": ["a b"]}]`, "is no scope"},
		{"offline_access", `"prompts": [{"name": "a", "scopes": ["offline_access"]}]`, "offline_access"},
		{"allow nobody in particular", `"allow": [{}]`, "write exactly one of"},
		{"allow null", `"allow": [null]`, "a rule is empty"},
		{"allow any", `"allow": [{"any": true}]`, "leave out allow any"},
		{"a claim without a value", `"allow": [{"claim": "a"}]`, "a claim stands alone and has a value"},
		{"a claim and a group", `"allow": [{"claim": "a", "value": "b", "group": "c"}]`, "a claim stands alone and has a value"},
		{"email by a placeholder", `"allow": [{"email": "{env.MCPAUTH_TEST_DOMAIN}"}]`, "is no address"},
		{"when does not compile", `"when": "tool = 1"`, "when: line 1, column 6"},
		{"when is too long", `"when": "` + strings.Repeat(" ", 17<<10) + `true"`, "more than 16384"},
		{"when would not end soon", `"when": "` + strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300) + `"`, "when: "},
		{"body_limit", `"body_limit": -1`, "body_limit: write a size"},
		{"mcp_headers", `"mcp_headers": "yes"`, "mcp_headers takes trusted"},
		{"unknown", `"tool": []`, "unknown field"},
	} {
		t.Run(row.name, func(t *testing.T) {
			config := fmt.Sprintf(`{"apps": {"http": {"servers": {"s": {"listen": [":0"], "routes": [{"handle": [
				{"handler": "mcp_auth", "issuer": "https://mcp.example.com",
				 "provider": {"mode": "resource_server", "authorization_server": "https://idp.example.com"},
				 "resources": [{"path": "/mcp", %s}]}]}]}}}}}`, row.settings)
			var c caddy.Config
			if err := json.Unmarshal([]byte(config), &c); err != nil {
				t.Fatal(err)
			}
			c.StorageRaw = json.RawMessage(fmt.Sprintf(`{"module": "file_system", "root": %q}`, t.TempDir()))
			c.Admin = &caddy.AdminConfig{Disabled: true}
			err := caddy.Validate(&c)
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}
