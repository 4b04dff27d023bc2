package oauth_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// SDK §9.5.
func TestResourceURLFromServerURL(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"the SDK's example", "HTTPS://Example.COM:443/a/../b/?x=1#f", "https://example.com/b/?x=1"},
		{"origin gains a slash", "https://example.com", "https://example.com/"},
		{"origin with a query", "https://example.com?x=1", "https://example.com/?x=1"},
		{"fragment is removed", "https://example.com/mcp#frag", "https://example.com/mcp"},
		{"empty fragment is removed", "https://example.com/mcp#", "https://example.com/mcp"},
		{"question mark in the fragment", "https://example.com/mcp#a?b", "https://example.com/mcp"},
		{"trailing slash stays", "https://example.com/mcp/", "https://example.com/mcp/"},
		{"userinfo stays", "https://u:p@example.com/mcp", "https://u:p@example.com/mcp"},
		{"other port stays", "http://example.com:443/", "http://example.com:443/"},
		{"case of the path stays", "https://example.com/MCP?Q", "https://example.com/MCP?Q"},
		{"IPv6", "http://[::1]:3000/mcp", "http://[::1]:3000/mcp"},
		{"dot segments", "https://example.com/a/./b/../../c/.", "https://example.com/c/"},
		{"encoded dot segments", "https://example.com/a/%2e%2E/b", "https://example.com/b"},
		{"dot segments above the root", "https://example.com/../../a/..", "https://example.com/"},
		{"space and non-ASCII are encoded", "https://example.com/a b/é?q=a b", "https://example.com/a%20b/%C3%A9?q=a%20b"},
		{"relative", "/mcp", ""},
		{"not a URL", "invalid-url", ""},
		{"no host", "https://", ""},
		{"other scheme", "ws://example.com/", ""},
		{"line break", "https://example.com/\r\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := oauth.ResourceURLFromServerURL(test.in)
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestSameResource(t *testing.T) {
	for _, test := range []struct {
		name, a, b string
		want       bool
	}{
		{"byte for byte", "https://h.example/mcp", "https://h.example/mcp", true},
		{"case of scheme and host", "HTTPS://H.Example/mcp", "https://h.example/mcp", true},
		{"default port", "https://h.example:443/mcp", "https://h.example/mcp", true},
		{"default port of http", "http://h.example:80", "http://h.example/", true},
		{"empty path and slash", "https://h.example", "https://h.example/", true},
		{"one trailing slash", "https://h.example/mcp/", "https://h.example/mcp", true},
		{"same query", "https://h.example/mcp/?a=1", "https://h.example/mcp?a=1", true},
		{"URN", "URN:example:mcp", "urn:example:mcp", true},

		{"case of the path", "https://h.example/MCP", "https://h.example/mcp", false},
		{"two trailing slashes", "https://h.example/mcp//", "https://h.example/mcp", false},
		{"two slashes and none", "https://h.example//", "https://h.example", false},
		{"other scheme", "http://h.example/mcp", "https://h.example/mcp", false},
		{"other port", "https://h.example:8443/mcp", "https://h.example/mcp", false},
		{"default port of another scheme", "http://h.example:443/", "https://h.example/", false},
		{"other query", "https://h.example/mcp?a=1", "https://h.example/mcp?a=2", false},
		{"query and none", "https://h.example/mcp?", "https://h.example/mcp", false},
		{"encoding is not undone", "https://h.example/%6dcp", "https://h.example/mcp", false},
		{"dot segments are not resolved", "https://h.example/a/../mcp", "https://h.example/mcp", false},
		{"fragment on both", "https://h.example/mcp#f", "https://h.example/mcp#f", false},
		{"empty fragment", "https://h.example/mcp#", "https://h.example/mcp", false},
		{"userinfo on both", "https://u@h.example/mcp", "https://u@h.example/mcp", false},
		{"relative", "/mcp", "/mcp", false},
		{"network-path reference", "//h.example/mcp", "//h.example/mcp", false},
		{"client id", "my-client", "my-client", false},
		{"empty", "", "", false},
		{"too long", "https://h.example/" + strings.Repeat("a", 2048), "https://h.example/" + strings.Repeat("a", 2048), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := oauth.SameResource(test.a, test.b); got != test.want {
				t.Errorf("SameResource(%q, %q) = %t", test.a, test.b, got)
			}
			if got := oauth.SameResource(test.b, test.a); got != test.want {
				t.Errorf("SameResource(%q, %q) = %t", test.b, test.a, got)
			}
		})
	}
}

func TestNewResourceSetRefuses(t *testing.T) {
	for _, test := range []struct {
		name         string
		identifiers  []string
		defaultIndex int
		want         string
	}{
		{"none", nil, -1, "at least one"},
		{"default out of range", []string{"https://h.example"}, 1, "index 1"},
		{"default below -1", []string{"https://h.example"}, -2, "index -2"},
		{"relative", []string{"/mcp"}, -1, "absolute"},
		{"other scheme", []string{"ftp://h.example/mcp"}, -1, "http or https"},
		{"URN", []string{"urn:example:mcp"}, -1, "http or https"},
		{"fragment", []string{"https://h.example/mcp#f"}, -1, "fragment"},
		{"userinfo", []string{"https://u@h.example/mcp"}, -1, "user name"},
		{"dot segment", []string{"https://h.example/a/../mcp"}, -1, "dot segment"},
		{"the same twice", []string{"https://h.example/mcp", "https://H.example:443/mcp/"}, -1, "same resource"},
		{"too long", []string{"https://h.example/" + strings.Repeat("a", 2048)}, -1, "2048"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := oauth.NewResourceSet(test.identifiers, test.defaultIndex)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v does not say %q", err, test.want)
			}
		})
	}
}

func TestResourceSetResolve(t *testing.T) {
	const a, b = "https://H.example/mcp", "https://h.example/admin/"
	one := []string{a}
	two := []string{a, b}
	for _, test := range []struct {
		name         string
		identifiers  []string
		defaultIndex int
		resource     string
		want         string // "" for invalid_target
	}{
		{"exact", two, -1, a, a},
		{"equivalent form means the configured bytes", two, -1, "https://h.example:443/mcp/", a},
		{"second", two, -1, "https://h.example/admin", b},
		{"absent: the only one", one, -1, "", a},
		{"absent: the default", two, 1, "", b},
		{"absent: several and no default", two, -1, "", ""},
		{"one: bare origin", one, -1, "https://h.example", a},
		{"one: bare origin with slash", one, -1, "https://h.example/", a},
		{"one: below", one, -1, "https://h.example/mcp/tools/x?y=1", a},
		{"one with a trailing slash: below", []string{b}, -1, "https://h.example/admin/x", b},
		{"one that is the origin: below", []string{"https://h.example"}, -1, "https://h.example/mcp", "https://h.example"},
		{"one with a query: itself", []string{"https://h.example/mcp?t=1"}, -1, "https://h.example/mcp/?t=1", "https://h.example/mcp?t=1"},
		{"one with a query: nothing is below", []string{"https://h.example/mcp?t=1"}, -1, "https://h.example/mcp/x", ""},
		{"one: sibling with the same prefix", one, -1, "https://h.example/mcpfoo", ""},
		{"one: above", one, -1, "https://h.example/other", ""},
		{"one: below by dot segments only", one, -1, "https://h.example/mcp/../admin", ""},
		{"one: below by encoded dot segments only", one, -1, "https://h.example/mcp/%2e%2e/admin", ""},
		{"one: other query", one, -1, "https://h.example/mcp?x=1", ""},
		{"one: origin with a query", one, -1, "https://h.example/?x=1", ""},
		{"one: other host", one, -1, "https://evil.example/mcp", ""},
		{"one: other port", one, -1, "https://h.example:8443/mcp", ""},
		{"one: http", one, -1, "http://h.example/mcp", ""},
		{"several: bare origin", two, -1, "https://h.example", ""},
		{"several: below", two, -1, "https://h.example/mcp/x", ""},
		{"fragment", one, -1, a + "#f", ""},
		{"empty fragment", one, -1, a + "#", ""},
		{"relative", one, -1, "/mcp", ""},
		{"userinfo", one, -1, "https://u@h.example/mcp", ""},
		{"blank", one, -1, " ", ""},
		{"over 2048 bytes", one, -1, "https://h.example/mcp/" + strings.Repeat("a", 2048), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			set, err := oauth.NewResourceSet(test.identifiers, test.defaultIndex)
			if err != nil {
				t.Fatal(err)
			}
			got, err := set.Resolve(test.resource)
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if test.want == "" && !errors.Is(err, oauth.ErrInvalidTarget) || test.want != "" && err != nil {
				t.Errorf("error %v", err)
			}
			if test.resource == "" {
				return
			}
			if canonical, ok := set.Canonical(test.resource); ok != (test.want != "") || ok && canonical != test.want {
				t.Errorf("Canonical: %q, %t", canonical, ok)
			}
		})
	}
}

func TestResourceSetIsACopy(t *testing.T) {
	identifiers := []string{"https://h.example/a", "https://h.example/b"}
	set, err := oauth.NewResourceSet(identifiers, 0)
	if err != nil {
		t.Fatal(err)
	}
	identifiers[0] = "https://evil.example"
	set.All()[1] = "https://evil.example"
	if diff := cmp.Diff([]string{"https://h.example/a", "https://h.example/b"}, set.All()); diff != "" {
		t.Error(diff)
	}
	if got, _ := set.Resolve(""); got != "https://h.example/a" {
		t.Errorf("default is %q", got)
	}
	if got, ok := set.Canonical(""); ok {
		t.Errorf(`Canonical("") = %q; absent is not a form of a resource`, got)
	}
}
