package oauth_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestWellKnownPath(t *testing.T) {
	for _, test := range []struct{ path, inserted, appended string }{
		{"", "/.well-known/n", "/.well-known/n"},
		{"/", "/.well-known/n", "/.well-known/n"},
		{"/mcp", "/.well-known/n/mcp", "/mcp/.well-known/n"},
		{"/mcp/", "/.well-known/n/mcp", "/mcp/.well-known/n"},
		{"/a/b", "/.well-known/n/a/b", "/a/b/.well-known/n"},
		{"mcp", "/.well-known/n/mcp", "/mcp/.well-known/n"},
	} {
		if got := oauth.WellKnownPath("n", test.path); got != test.inserted {
			t.Errorf("WellKnownPath(%q) = %q, want %q", test.path, got, test.inserted)
		}
		if got := oauth.WellKnownAppendedPath("n", test.path); got != test.appended {
			t.Errorf("WellKnownAppendedPath(%q) = %q, want %q", test.path, got, test.appended)
		}
	}
}

func TestProtectedResourceMetadataURL(t *testing.T) {
	for _, test := range []struct{ name, resource, want string }{
		{"query is dropped", "https://a.com/mcp?q=1", "https://a.com/.well-known/oauth-protected-resource/mcp"},
		{"fragment is dropped", "https://a.com/mcp#f", "https://a.com/.well-known/oauth-protected-resource/mcp"},
		{"trailing slash is stripped, as in v2", "https://a.com/mcp/", "https://a.com/.well-known/oauth-protected-resource/mcp"},
		{"bare origin", "https://a.com", "https://a.com/.well-known/oauth-protected-resource"},
		{"root", "https://a.com/", "https://a.com/.well-known/oauth-protected-resource"},
		{"port stays", "http://localhost:3000/v1/mcp", "http://localhost:3000/.well-known/oauth-protected-resource/v1/mcp"},
		{"userinfo is dropped", "https://u:p@a.com/mcp", "https://a.com/.well-known/oauth-protected-resource/mcp"},
		{"dot segments cannot leave the well-known path", "https://a.com/../../x", "https://a.com/.well-known/oauth-protected-resource/x"},
		{"encoded path stays encoded", "https://a.com/a%2Fb", "https://a.com/.well-known/oauth-protected-resource/a%2Fb"},
		{"relative", "/mcp", ""},
		{"no host", "https:///mcp", ""},
		{"other scheme", "ftp://a.com/mcp", ""},
		{"URN", "urn:example:mcp", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := oauth.ProtectedResourceMetadataURL(test.resource)
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

// SDK §9.3 row 4 and the MCP specification (R20) give the order.
func TestAuthorizationServerMetadataURLs(t *testing.T) {
	root := []string{
		"https://a.com/.well-known/oauth-authorization-server",
		"https://a.com/.well-known/openid-configuration",
	}
	tenant := []string{
		"https://a.com/.well-known/oauth-authorization-server/t",
		"https://a.com/.well-known/openid-configuration/t",
		"https://a.com/t/.well-known/openid-configuration",
	}
	for _, test := range []struct {
		issuer string
		want   []string
	}{
		{"https://a.com", root},
		{"https://a.com/", root},
		{"https://a.com?q#f", root},
		{"https://a.com/t", tenant},
		{"https://a.com/t/", tenant},
		{"https://A.com:443/t?q=1#f", tenant},
		{"a.com", nil},
		{"file:///etc/passwd", nil},
	} {
		t.Run(test.issuer, func(t *testing.T) {
			got, err := oauth.AuthorizationServerMetadataURLs(test.issuer)
			if diff := cmp.Diff(test.want, got); diff != "" || (err == nil) != (test.want != nil) {
				t.Errorf("error %v, -want +got:\n%s", err, diff)
			}
		})
	}
}

func ExampleAuthorizationServerMetadataURLs() {
	urls, _ := oauth.AuthorizationServerMetadataURLs("https://auth.example.com/tenant")
	for _, u := range urls {
		fmt.Println(u)
	}
	// Output:
	// https://auth.example.com/.well-known/oauth-authorization-server/tenant
	// https://auth.example.com/.well-known/openid-configuration/tenant
	// https://auth.example.com/tenant/.well-known/openid-configuration
}
