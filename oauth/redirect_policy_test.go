package oauth_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestRedirectPolicyCheck(t *testing.T) {
	var none *oauth.RedirectPolicy
	noPrivate := &oauth.RedirectPolicy{NoPrivateSchemes: true}
	claude := &oauth.RedirectPolicy{ClientSets: []string{"claude"}}
	subdomains := &oauth.RedirectPolicy{Patterns: []string{"https://*.example.com/callback"}}
	prefix := &oauth.RedirectPolicy{Patterns: []string{"https://chatgpt.example/connector/oauth/*"}}
	myapp := &oauth.RedirectPolicy{Patterns: []string{"myapp://callback/*"}}
	wholeScheme := &oauth.RedirectPolicy{Patterns: []string{"myapp:"}}
	const web, native = oauth.ApplicationTypeWeb, oauth.ApplicationTypeNative

	for _, test := range []struct {
		name            string
		policy          *oauth.RedirectPolicy
		uri             string
		applicationType string
		refused         string // part of the reason, "" if allowed
	}{
		{name: "https", uri: "https://app.example/cb"},
		{name: "https with port and query", uri: "https://app.example:8443/cb?a=b"},
		{name: "https without path", uri: "https://app.example"},
		{name: "https with scheme and host in capitals", uri: "HTTPS://App.Example/cb"},
		{name: "https for web", uri: "https://app.example/cb", applicationType: web},
		{name: "https on loopback", uri: "https://localhost:8443/cb"},
		{name: "http on localhost", uri: "http://localhost:6274/oauth/callback", applicationType: native},
		{name: "http on 127.0.0.1", uri: "http://127.0.0.1:33418/"},
		{name: "http on another address of 127/8", uri: "http://127.8.9.1/cb"},
		{name: "http on [::1]", uri: "http://[::1]:1/cb"},
		{name: "http on loopback for web: browser clients on the developer's machine", uri: "http://localhost:6274/cb", applicationType: web},
		{name: "reverse-DNS scheme, RFC 8252 §7.1", uri: "com.example.app:/oauth2redirect"},
		{name: "reverse-DNS scheme with authority", uri: "com.example.app://cb"},
		{name: "known client cursor", uri: "cursor://anysphere.cursor-mcp/oauth/callback"},
		{name: "known client vscode", uri: "vscode://vscode.github-authentication/did-authenticate"},
		{name: "known client claude", uri: "claude://claude.ai/mcp-auth-callback/sdk"},
		{name: "known client vscode-insiders", uri: "vscode-insiders://x/y"},
		{name: "known client windsurf", uri: "windsurf://x/y"},
		{name: "known client goose", uri: "goose://oauth"},
		{name: "known client zed", uri: "zed://oauth"},

		{name: "javascript", uri: "javascript:alert(1)", refused: "never allowed"},
		{name: "JavaScript in mixed case", uri: "JavaScript:alert(1)", refused: "never allowed"},
		{name: "javascript with authority", uri: "javascript://app.example/%0aalert(1)", refused: "never allowed"},
		{name: "data", uri: "data:text/html,x", refused: "never allowed"},
		{name: "file", uri: "file:///etc/passwd", refused: "never allowed"},
		{name: "blob", uri: "blob:https://app.example/1", refused: "never allowed"},
		{name: "vbscript", uri: "vbscript:x", refused: "never allowed"},
		{name: "about", uri: "about:blank", refused: "never allowed"},
		{name: "filesystem", uri: "filesystem:https://app.example/x", refused: "never allowed"},
		{name: "view-source", uri: "view-source:https://app.example/x", refused: "never allowed"},
		{name: "mailto", uri: "mailto:a@example.com", refused: "scheme is not allowed"},
		{name: "unknown private-use scheme", uri: "myapp://callback/x", refused: "scheme is not allowed"},
		{name: "host and port read as a scheme", uri: "localhost:3000/cb", refused: "scheme is not allowed"},
		{name: "scheme with an empty label", uri: "com..example:/cb", refused: "scheme is not allowed"},
		{name: "scheme with a dot at the end", uri: "example.:/cb", refused: "scheme is not allowed"},
		{name: "private-use scheme and nothing else", uri: "com.example.app:", refused: "nothing follows"},
		{name: "private-use scheme and an empty authority", uri: "com.example.app://", refused: "nothing follows"},
		{name: "private-use scheme for web", uri: "cursor://x/cb", applicationType: web, refused: "native"},
		{name: "private-use scheme with a port that is no number", uri: "cursor://x:y/cb", refused: "not a valid URI"},
		{name: "private-use scheme with a lone bracket", uri: "cursor://[x/cb", refused: "not a valid URI"},
		{name: "private-use scheme with userinfo", uri: "cursor://u@x/cb", refused: "user name"},

		{name: "http elsewhere", uri: "http://evil.example/cb", refused: "loopback"},
		{name: "http on a private address", uri: "http://192.168.1.1/cb", refused: "loopback"},
		{name: "http on 0.0.0.0", uri: "http://0.0.0.0/cb", refused: "loopback"},
		{name: "loopback as the first labels", uri: "http://127.0.0.1.evil.com/cb", refused: "loopback"},
		{name: "localhost as the first label", uri: "http://localhost.evil.com/cb", refused: "loopback"},
		{name: "subdomain of localhost", uri: "http://evil.localhost/cb", refused: "loopback"},
		{name: "localhost with a dot", uri: "http://localhost./cb", refused: "loopback"},
		{name: "hexadecimal address", uri: "http://0x7f.1/cb", refused: "loopback"},
		{name: "decimal address", uri: "http://2130706433/cb", refused: "loopback"},
		{name: "short address", uri: "http://127.1/cb", refused: "loopback"},
		{name: "IPv4 mapped to IPv6", uri: "http://[::ffff:127.0.0.1]/cb", refused: "loopback"},
		{name: "userinfo that looks like loopback", uri: "http://localhost@evil.example/cb", refused: "user name"},
		{name: "userinfo with a port", uri: "http://localhost:80@evil.example/cb", refused: "user name"},
		{name: "userinfo on loopback", uri: "http://u:p@localhost/cb", refused: "user name"},
		{name: "empty userinfo", uri: "https://@app.example/cb", refused: "user name"},

		{name: "fragment", uri: "https://app.example/cb#f", refused: "fragment"},
		{name: "empty fragment", uri: "https://app.example/cb#", refused: "fragment"},
		{name: "backslash", uri: `https://app.example\@evil.example/`, refused: "backslash"},
		{name: "space", uri: "https://app.example/a b", refused: "space"},
		{name: "leading space", uri: " https://app.example/cb", refused: "space"},
		{name: "tab inside the scheme, which browsers drop", uri: "java\tscript:alert(1)", refused: "control character"},
		{name: "line break", uri: "https://app.example/cb\r\nX: y", refused: "control character"},
		{name: "NUL", uri: "https://app.example/\x00", refused: "control character"},
		{name: "DEL", uri: "https://app.example/\x7f", refused: "control character"},
		{name: "non-ASCII", uri: "https://äpp.example/cb", refused: "non-ASCII"},
		{name: "quote", uri: `https://app.example/"`, refused: "RFC 3986"},
		{name: "angle bracket", uri: "https://app.example/<x>", refused: "RFC 3986"},
		{name: "broken percent-escape", uri: "https://app.example/%zz", refused: "percent"},
		{name: "cut percent-escape", uri: "https://app.example/%a", refused: "percent"},
		{name: "percent-escape in the host", uri: "https://app%2eexample/", refused: "host"},
		{name: "dot segment", uri: "https://app.example/a/../cb", refused: "dot segment"},
		{name: "encoded dot segment", uri: "https://app.example/a/%2E./cb", refused: "dot segment"},
		{name: "no host", uri: "https:///cb", refused: "host"},
		{name: "no authority", uri: "https:app.example/cb", refused: "host"},
		{name: "one slash", uri: "https:/app.example/cb", refused: "host"},
		{name: "empty host before a port", uri: "https://:443/cb", refused: "host"},
		{name: "empty port", uri: "https://app.example:/cb", refused: "port"},
		{name: "port out of range", uri: "https://app.example:99999/cb", refused: "port"},
		{name: "port that is no number", uri: "https://app.example:8a/cb", refused: "port"},
		{name: "relative", uri: "/cb", refused: "absolute"},
		{name: "network-path reference", uri: "//app.example/cb", refused: "absolute"},
		{name: "empty", uri: "", refused: "absolute"},
		{name: "2048 bytes", uri: "https://app.example/" + strings.Repeat("a", 2028)},
		{name: "2049 bytes", uri: "https://app.example/" + strings.Repeat("a", 2029), refused: "2048"},

		{name: "private schemes off: reverse DNS", policy: noPrivate, uri: "com.example.app:/cb", refused: "no private-use schemes"},
		{name: "private schemes off: known client", policy: noPrivate, uri: "cursor://x/cb", refused: "no private-use schemes"},
		{name: "private schemes off: https", policy: noPrivate, uri: "https://app.example/cb"},
		{name: "private schemes off: loopback", policy: noPrivate, uri: "http://localhost/cb"},

		{name: "client set: its URI", policy: claude, uri: "https://claude.ai/api/mcp/auth_callback"},
		{name: "client set: other URI", policy: claude, uri: "https://app.example/cb", refused: "not among those"},
		{name: "client set: other path", policy: claude, uri: "https://claude.ai/other", refused: "not among those"},
		{name: "client set: added query", policy: claude, uri: "https://claude.ai/api/mcp/auth_callback?x", refused: "not among those"},
		{name: "client set: loopback stays", policy: claude, uri: "http://127.0.0.1:5000/any"},
		{name: "client set: known scheme stays", policy: claude, uri: "cursor://x/cb"},
		{name: "client set of loopback URIs confines https too", policy: &oauth.RedirectPolicy{ClientSets: []string{"inspector"}}, uri: "https://app.example/cb", refused: "not among those"},
		{name: "several client sets", policy: &oauth.RedirectPolicy{ClientSets: []string{"claude", "chatgpt"}}, uri: "https://chatgpt.com/connector/oauth/abc123"},
		{name: "client set and pattern", policy: &oauth.RedirectPolicy{ClientSets: []string{"claude"}, Patterns: []string{"https://app.example/cb"}}, uri: "https://app.example/cb"},

		{name: "wildcard host: one label", policy: subdomains, uri: "https://a.example.com/callback"},
		{name: "wildcard host: several labels", policy: subdomains, uri: "https://a.b.EXAMPLE.com:443/callback"},
		{name: "wildcard host: none", policy: subdomains, uri: "https://example.com/callback", refused: "not among those"},
		{name: "wildcard host: an empty one", policy: subdomains, uri: "https://.example.com/callback", refused: "host"},
		{name: "wildcard host: not at a label boundary", policy: subdomains, uri: "https://evilexample.com/callback", refused: "not among those"},
		{name: "wildcard host: as the first labels", policy: subdomains, uri: "https://a.example.com.evil.com/callback", refused: "not among those"},
		{name: "wildcard host: other path", policy: subdomains, uri: "https://a.example.com/callback2", refused: "not among those"},
		{name: "wildcard host: path in another case", policy: subdomains, uri: "https://a.example.com/Callback", refused: "not among those"},
		{name: "wildcard host: other port", policy: subdomains, uri: "https://a.example.com:8443/callback", refused: "not among those"},
		{name: "prefix: below", policy: prefix, uri: "https://chatgpt.example/connector/oauth/abc"},
		{name: "prefix: further below", policy: prefix, uri: "https://chatgpt.example/connector/oauth/a/b"},
		{name: "prefix: above", policy: prefix, uri: "https://chatgpt.example/connector/", refused: "not among those"},
		{name: "prefix: left by dot segments", policy: prefix, uri: "https://chatgpt.example/connector/oauth/../../evil", refused: "dot segment"},
		{name: "prefix: left by encoded dot segments", policy: prefix, uri: "https://chatgpt.example/connector/oauth/%2e%2e/evil", refused: "dot segment"},
		{name: "prefix: left by encoded slashes", policy: prefix, uri: "https://chatgpt.example/connector/oauth/..%2F..%2fevil", refused: "not among those"},
		{name: "prefix: left by encoded backslashes", policy: prefix, uri: "https://chatgpt.example/connector/oauth/..%5Cevil", refused: "not among those"},
		{name: "prefix: does not cover a query", policy: prefix, uri: "https://chatgpt.example/connector/oauth/a?next=x", refused: "not among those"},
		{name: "private-use pattern: matches", policy: myapp, uri: "myapp://callback/x"},
		{name: "private-use pattern: other host", policy: myapp, uri: "myapp://other/x", refused: "scheme is not allowed"},
		{name: "private-use pattern: does not confine https", policy: myapp, uri: "https://app.example/cb"},
		{name: "private-use pattern: not for web", policy: myapp, uri: "myapp://callback/x", applicationType: web, refused: "native"},
		{name: "whole scheme", policy: wholeScheme, uri: "MyApp:/anything?x"},
		{name: "whole scheme with slashes", policy: &oauth.RedirectPolicy{Patterns: []string{"myapp://*"}}, uri: "myapp://a/b"},
		{name: "whole scheme: not another one", policy: wholeScheme, uri: "myapp2:/x", refused: "scheme is not allowed"},
		{name: "an invalid policy refuses everything", policy: &oauth.RedirectPolicy{ClientSets: []string{"nobody"}}, uri: "https://app.example/cb", refused: "faulty redirect policy"},

		{name: "nil policy is the default: allowed", policy: none, uri: "https://app.example/cb"},
	} {
		t.Run(test.name, func(t *testing.T) {
			policy := test.policy
			err := policy.Check(test.uri, test.applicationType)
			if policy == nil { // the zero value is the same
				if zero := new(oauth.RedirectPolicy).Check(test.uri, test.applicationType); fmt.Sprint(zero) != fmt.Sprint(err) {
					t.Errorf("nil says %v, the zero value %v", err, zero)
				}
			}
			if test.refused == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if !errors.Is(err, oauth.ErrInvalidRedirectURI) || !strings.Contains(err.Error(), test.refused) {
				t.Errorf("error %v does not say %q", err, test.refused)
			}
		})
	}
}

func TestRedirectPolicyValidate(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy oauth.RedirectPolicy
		want   string // part of the error, "" if valid
	}{
		{"zero", oauth.RedirectPolicy{}, ""},
		{"all client sets", oauth.RedirectPolicy{ClientSets: oauth.ClientSetNames()}, ""},
		{"client sets with schemes of their own, private schemes off", oauth.RedirectPolicy{ClientSets: []string{"cursor"}, NoPrivateSchemes: true}, ""},
		{"loopback pattern", oauth.RedirectPolicy{Patterns: []string{"http://localhost/cb"}}, ""},
		{"unknown client set", oauth.RedirectPolicy{ClientSets: []string{"clod"}}, "there are chatgpt, claude, codex, copilot-studio, cursor,"},
		{"private-use pattern, private schemes off", oauth.RedirectPolicy{Patterns: []string{"myapp:/cb"}, NoPrivateSchemes: true}, "turned off"},
		{"relative", oauth.RedirectPolicy{Patterns: []string{"/cb"}}, "absolute"},
		{"host only", oauth.RedirectPolicy{Patterns: []string{"*.example.com"}}, "absolute"},
		{"http", oauth.RedirectPolicy{Patterns: []string{"http://app.example/cb"}}, "write https"},
		{"javascript", oauth.RedirectPolicy{Patterns: []string{"javascript:*"}}, "never allowed"},
		{"DATA", oauth.RedirectPolicy{Patterns: []string{"DATA:*"}}, "never allowed"},
		{"any host", oauth.RedirectPolicy{Patterns: []string{"https://*/cb"}}, "whole labels"},
		{"any host of a top-level domain", oauth.RedirectPolicy{Patterns: []string{"https://*.com/cb"}}, "two labels"},
		{"* inside a label", oauth.RedirectPolicy{Patterns: []string{"https://a*.example.com/cb"}}, "whole labels"},
		{"* as a label in the middle", oauth.RedirectPolicy{Patterns: []string{"https://a.*.example.com/cb"}}, "whole labels"},
		{"two * in the host", oauth.RedirectPolicy{Patterns: []string{"https://*.*.example.com/cb"}}, "whole labels"},
		{"* as a port", oauth.RedirectPolicy{Patterns: []string{"https://example.com:*/cb"}}, "port"},
		{"* in the middle of the path", oauth.RedirectPolicy{Patterns: []string{"https://example.com/*/cb"}}, "last character"},
		{"two * in the path", oauth.RedirectPolicy{Patterns: []string{"https://example.com/**"}}, "last character"},
		{"* in the query", oauth.RedirectPolicy{Patterns: []string{"https://example.com/cb?a=*"}}, "query"},
		{"* in the host of a private-use scheme", oauth.RedirectPolicy{Patterns: []string{"myapp://a*/x"}}, "myapp://*"},
		{"fragment", oauth.RedirectPolicy{Patterns: []string{"https://example.com/cb#"}}, "fragment"},
		{"userinfo", oauth.RedirectPolicy{Patterns: []string{"https://u@example.com/cb"}}, "user name"},
		{"dot segment", oauth.RedirectPolicy{Patterns: []string{"https://example.com/a/../*"}}, "dot segment"},
		{"space", oauth.RedirectPolicy{Patterns: []string{"https://example.com/a b"}}, "space"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.policy.Validate()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// Row 30 of the clients' page: Cursor sends three URIs at once, and one that is
// unusable here must not cost it the others.
func TestRedirectPolicyFilter(t *testing.T) {
	const (
		scheme   = "cursor://anysphere.cursor-mcp/oauth/callback"
		hosted   = "https://www.cursor.com/agents/mcp/oauth/callback"
		loopback = "http://localhost:8787/callback"
		evil     = "http://evil.example/cb"
	)
	for _, test := range []struct {
		name            string
		policy          *oauth.RedirectPolicy
		uris            []string
		applicationType string
		kept, refused   []string
		err             string
	}{
		{name: "all good", uris: []string{scheme, hosted, loopback}, kept: []string{scheme, hosted, loopback}},
		{name: "a bad one is dropped", uris: []string{evil, hosted, "javascript:x"}, kept: []string{hosted}, refused: []string{evil, "javascript:x"}},
		{name: "repetitions are dropped", uris: []string{hosted, loopback, hosted}, kept: []string{hosted, loopback}},
		{name: "policy", policy: &oauth.RedirectPolicy{NoPrivateSchemes: true}, uris: []string{scheme, loopback}, kept: []string{loopback}, refused: []string{scheme}},
		{name: "application type", applicationType: oauth.ApplicationTypeWeb, uris: []string{scheme, hosted}, kept: []string{hosted}, refused: []string{scheme}},
		{name: "none left: the first reason", uris: []string{evil, "javascript:x"}, refused: []string{evil, "javascript:x"}, err: "http is for loopback hosts only"},
		{name: "empty list", err: "must not be empty"},
		{name: "invalid policy", policy: &oauth.RedirectPolicy{Patterns: []string{"*"}}, uris: []string{hosted}, err: "faulty redirect policy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			kept, refused, err := test.policy.Filter(test.uris, test.applicationType)
			if diff := cmp.Diff(test.kept, kept); diff != "" {
				t.Errorf("kept, -want +got:\n%s", diff)
			}
			for _, uri := range test.refused {
				if !errors.Is(refused[uri], oauth.ErrInvalidRedirectURI) {
					t.Errorf("%s: %v", uri, refused[uri])
				}
			}
			if len(refused) != len(test.refused) {
				t.Errorf("refused %v", refused)
			}
			if test.err == "" && err != nil {
				t.Errorf("error %v", err)
			}
			if test.err != "" && (!errors.Is(err, oauth.ErrInvalidRedirectURI) || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v does not say %q", err, test.err)
			}
		})
	}
}

// What clients were seen to use, clients-and-idps §2, passes the default policy
// and that of their own client set.
func TestClientSets(t *testing.T) {
	for name, uris := range map[string][]string{
		"claude":         {"https://claude.ai/api/mcp/auth_callback", "https://claude.com/api/mcp/auth_callback", "http://localhost:54321/callback", "claude://claude.ai/mcp-auth-callback/sdk"},
		"chatgpt":        {"https://chatgpt.com/connector/oauth/Zb7x", "https://chatgpt.com/connector_platform_oauth_redirect"},
		"codex":          {"http://127.0.0.1:33418/callback/a1"},
		"cursor":         {"http://localhost:8787/callback", "https://www.cursor.com/agents/mcp/oauth/callback", "cursor://anysphere.cursor-mcp/oauth/callback"},
		"vscode":         {"http://127.0.0.1:33418/", "https://vscode.dev/redirect", "https://insiders.vscode.dev/redirect"},
		"inspector":      {"http://localhost:6274/oauth/callback", "http://localhost:6274/oauth/callback/debug"},
		"mcp-remote":     {"http://localhost:3334/oauth/callback"},
		"goose":          {"http://127.0.0.1:5107/oauth_callback"},
		"gemini":         {"http://localhost:7777/oauth/callback", "https://oauth-redirect.googleusercontent.com/r/project"},
		"copilot-studio": {"https://global.consent.azure-apim.net/redirect/cr938-5fzephyr-20mcp"},
		"mistral":        {"https://callback.mistral.ai/v1/integrations_auth/oauth2_callback"},
		"perplexity":     {"https://www.perplexity.ai/rest/connections/oauth_callback"},
		"zed":            {"http://127.0.0.1:4000/callback"},
		"opencode":       {"http://127.0.0.1:19876/mcp/oauth/callback"},
		"n8n":            {"https://oauth.n8n.cloud/oauth2/callback"},
		"windsurf":       {"windsurf://codeium.windsurf/callback"},
	} {
		policy := &oauth.RedirectPolicy{ClientSets: []string{name}}
		if err := policy.Validate(); err != nil {
			t.Error(err)
		}
		for _, uri := range uris {
			if err := policy.Check(uri, ""); err != nil {
				t.Errorf("set %s refuses %s: %v", name, uri, err)
			}
			if err := new(oauth.RedirectPolicy).Check(uri, ""); err != nil {
				t.Errorf("the default policy refuses %s: %v", uri, err)
			}
		}
		if err := policy.Check("https://evil.example/cb", ""); err == nil {
			t.Errorf("set %s allows any https URI", name)
		}
	}
}

func FuzzRedirectPolicy(f *testing.F) {
	for _, uri := range []string{
		"https://a.example/cb", "http://localhost:1/cb", "cursor://a/cb", "com.example.app:/cb", "javascript:x", "JAVASCRIPT://x",
		"data:,x", "https://chatgpt.com/connector/oauth/x", "myapp://a", "http://127.0.0.1.evil.com/", "https://a.example/..%2f",
	} {
		f.Add(uri, "https://*.example/cb")
		f.Add(uri, "myapp://*")
	}
	f.Add("data:x", "data:*")
	f.Fuzz(func(t *testing.T, uri, pattern string) {
		policies := []*oauth.RedirectPolicy{nil, {NoPrivateSchemes: true}, {ClientSets: []string{"chatgpt"}}, {Patterns: []string{pattern}}}
		for _, policy := range policies {
			err := policy.Check(uri, "")
			if err != nil {
				if !errors.Is(err, oauth.ErrInvalidRedirectURI) {
					t.Errorf("%q: %v", uri, err)
				}
				continue
			}
			u, err := url.Parse(uri)
			if err != nil {
				t.Fatalf("%q is allowed but does not parse: %v", uri, err)
			}
			switch u.Scheme { // lower-cased by url.Parse
			case "", "javascript", "data", "file", "blob", "vbscript", "about":
				t.Errorf("%q is allowed", uri)
			case "http":
				if !oauth.IsLoopbackHost(u.Hostname()) {
					t.Errorf("%q is allowed", uri)
				}
			}
			if u.User != nil || u.Fragment != "" || strings.ContainsAny(uri, "#\\ \r\n\x00") {
				t.Errorf("%q is allowed", uri)
			}
			if !oauth.MatchRedirectURI([]string{uri}, uri) {
				t.Errorf("%q is allowed but does not match itself", uri)
			}
			if _, err := oauth.AppendRedirectParams(uri, [][2]string{{"code", "x"}}); err != nil {
				t.Errorf("%q is allowed but takes no parameters: %v", uri, err)
			}
			if kept, _, err := policy.Filter([]string{uri}, ""); err != nil || len(kept) != 1 {
				t.Errorf("%q is allowed by Check and not by Filter: %v", uri, err)
			}
		}
	})
}
