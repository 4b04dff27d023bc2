package oauth_test

import (
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestCheckIssuer(t *testing.T) {
	for _, test := range []struct {
		name     string
		issuer   string
		insecure bool
		want     string // part of the error, "" if it is accepted
	}{
		{name: "https", issuer: "https://mcp.example.com"},
		{name: "https with a path", issuer: "https://mcp.example.com/tenant/a"},
		{name: "https with a trailing slash", issuer: "https://mcp.example.com/"},
		{name: "https with a port", issuer: "https://mcp.example.com:8443"},
		{name: "https on an IPv6 address", issuer: "https://[2001:db8::1]:8443/a"},
		{name: "template-free path characters", issuer: "https://login.example.com/0f1e-2d/v2.0/~a:b@c"},
		{name: "http on localhost", issuer: "http://localhost:8080"},
		{name: "http on LOCALHOST", issuer: "http://LOCALHOST"},
		{name: "http on 127.0.0.1", issuer: "http://127.0.0.1:3000/x"},
		{name: "the SDK refuses http on [::1], RFC 8252 has it as loopback", issuer: "http://[::1]:3"},
		{name: "the SDK refuses http on 127.0.0.2, which is loopback too", issuer: "http://127.0.0.2/"},
		{name: "http elsewhere if insecure", issuer: "http://mcp.example.com", insecure: true},

		{name: "http elsewhere", issuer: "http://example.com/a", want: `write "https://example.com/a"`},
		{name: "http on a subdomain of localhost", issuer: "http://foo.localhost/", want: "must be https"},
		{name: "http on a look-alike", issuer: "http://127.0.0.1.evil.com", want: "must be https"},
		{name: "http on an IPv4 address mapped to IPv6", issuer: "http://[::ffff:127.0.0.1]", want: "must be https"},
		{name: "ftp on localhost, which the SDK accepts", issuer: "ftp://localhost/", want: "not an https URL"},
		{name: "ftp even if insecure", issuer: "ftp://localhost/", insecure: true, want: "not an https URL"},
		{name: "query", issuer: "https://example.com/a?x=1", want: `must not have a query string: write "https://example.com/a"`},
		{name: "query even if insecure", issuer: "http://example.com/a?x=1", insecure: true, want: "must not have a query string"},
		{name: "bare question mark, which the SDK accepts", issuer: "https://example.com?", want: `write "https://example.com"`},
		{name: "fragment", issuer: "https://example.com#f", want: `must not have a fragment: write "https://example.com"`},
		{name: "bare hash, which the SDK accepts", issuer: "https://example.com/#", want: `write "https://example.com/"`},
		{name: "query and fragment", issuer: "https://example.com/?a#b", want: `write "https://example.com/"`},
		{name: "userinfo", issuer: "https://user:hunter2@example.com", want: "user name or password"},
		{name: "empty", issuer: "", want: "write a URL such as https://mcp.example.com"},
		{name: "no scheme", issuer: "mcp.example.com", want: "write one such as https://mcp.example.com"},
		{name: "placeholder that was not set", issuer: "https://", want: "host"},
		{name: "no authority", issuer: "https:mcp.example.com", want: "host"},
		{name: "path only", issuer: "/mcp", want: "not an https URL"},
		{name: "port out of range", issuer: "https://example.com:65536", want: "port"},
		{name: "empty port", issuer: "https://example.com:", want: "port"},
		{name: "dot segment", issuer: "https://example.com/a/../b", want: "dot segment"},
		{name: "single-dot segment at the end", issuer: "https://example.com/a/.", want: "dot segment"},
		{name: "encoded dot segment", issuer: "https://example.com/%2E%2e/b", want: "percent-encoding"},
		{name: "doubled slash", issuer: "https://example.com//a", want: "doubled slash"},
		{name: "doubled trailing slash", issuer: "https://example.com/a//", want: "doubled slash"},
		{name: "percent-encoding", issuer: "https://example.com/a%20b", want: "percent-encoding"},
		{name: "backslash", issuer: `https://example.com\a`, want: "backslash"},
		{name: "space", issuer: "https://example.com/a b", want: "space"},
		{name: "leading space", issuer: " https://example.com", want: "not an https URL"},
		{name: "line break", issuer: "https://example.com/\r\nX: y", want: "percent-encoding"},
		{name: "non-ASCII", issuer: "https://example.com/ä", want: "percent-encoding"},
		{name: "Caddy placeholder", issuer: "https://{host}", want: "percent-encoding"},
		{name: "empty label", issuer: "https://example..com", want: "host"},
		{name: "too long", issuer: "https://example.com/" + strings.Repeat("a", 2048), want: "longer than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := oauth.CheckIssuer(test.issuer, test.insecure)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.want != "" && err == nil:
				t.Error("accepted")
			case test.want != "" && !strings.Contains(err.Error(), test.want):
				t.Errorf("error %q does not say %q", err, test.want)
			case err != nil && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("error repeats the password: %v", err)
			case err != nil && strings.ContainsAny(err.Error(), "\r\n"):
				t.Errorf("error has a raw line break: %q", err)
			}
		})
	}
}

func TestIsLoopbackHost(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost": true, "127.0.0.1": true, "127.255.255.254": true, "::1": true,

		"": false, "localhost.": false, "localhost.evil": false, "foo.localhost": false, "127.0.0.1.evil.com": false,
		"0x7f.1": false, "127.1": false, "127.0.0.01": false, "0177.0.0.1": false, "2130706433": false,
		"::ffff:127.0.0.1": false, "[::1]": false, "::1%lo": false, "::2": false, "0.0.0.0": false, "128.0.0.1": false,
		"127.0.0.1:80": false, " localhost": false, "1ocalhost": false,
	} {
		if got := oauth.IsLoopbackHost(host); got != want {
			t.Errorf("IsLoopbackHost(%q) = %t", host, got)
		}
	}
}

func TestJoinURL(t *testing.T) {
	for _, test := range []struct{ base, path, want string }{
		{"https://a.example", "/token", "https://a.example/token"},
		{"https://a.example/", "/token", "https://a.example/token"},
		{"https://a.example/tenant/a", "/token", "https://a.example/tenant/a/token"},
		{"https://a.example/tenant/a/", "/token", "https://a.example/tenant/a/token"},
	} {
		if got := oauth.JoinURL(test.base, test.path); got != test.want {
			t.Errorf("JoinURL(%q, %q) = %q, want %q", test.base, test.path, got, test.want)
		}
	}
}

func TestOrigin(t *testing.T) {
	for _, test := range []struct{ url, want string }{
		{"https://a.example", "https://a.example"},
		{"HTTPS://A.Example:443/Path?q#f", "https://a.example"},
		{"http://a.example:80", "http://a.example"},
		{"http://a.example:443", "http://a.example:443"},
		{"https://a.example:8443/", "https://a.example:8443"},
		{"https://u:p@a.example/", "https://a.example"},
		{"https://a.example@b.example@c.example/", "https://c.example"},
		{"http://[::1]:3000/x", "http://[::1]:3000"},
		{"vscode-webview://abc/x", "vscode-webview://abc"},

		{"a.example", ""},
		{"//a.example", ""},
		{"null", ""},
		{"mailto:a@example.com", ""},
		{"https:///x", ""},
		{"https://a.example:0", ""},
		{"https://evil.example\\@a.example", ""},
	} {
		got, err := oauth.Origin(test.url)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("Origin(%q) = %q, %v, want %q", test.url, got, err, test.want)
		}
	}
}
