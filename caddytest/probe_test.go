package caddytest_test

import (
	"strings"
	"testing"
)

// TestProbe: a load tells the operator whose clients would not find their way, and
// the one whose guard is bypassed, without a request to the server behind.
func TestProbe(t *testing.T) {
	const (
		lost   = "the metadata of a protected resource cannot be reached"
		open   = "requests for a protected resource do not reach its guard"
		before = "requests for a protected resource are redirected or refused before they reach its guard"
		other  = "clients are told to use a URL whose scheme and port this site does not listen on"
		behind = "\n\tservers {\n\t\ttrusted_proxies static private_ranges\n\t}\n"
	)
	for _, row := range []struct{ name, globals, site, want string }{
		{"site level", "", "{ORIGIN} {\n{AUTH}\n{PROXY}\n}", ""},
		{"in a handle with the server", "", "{ORIGIN} {\nhandle {\n{AUTH}\n{PROXY}\n}\n}", ""},
		{"a page beside it", "", "{ORIGIN} {\n{AUTH}\nhandle /about {\nrespond about\n}\nhandle {\n{PROXY}\n}\n}", ""},
		{"two guards", "", "{ORIGIN} {\nmcp_bearer {\nresource {ORIGIN}/other\nauthorization_server {ORIGIN}\n}\n{AUTH}\n{PROXY}\n}", ""},
		{"rewritten before it", "", "{ORIGIN} {\nroute {\nuri strip_prefix /mcp\n{AUTH}\n{PROXY}\n}\n}", ""},
		{"only below a path", "", "{ORIGIN} {\nhandle /mcp* {\n{AUTH}\n}\n}", lost},
		{"after a catch-all", "", "{ORIGIN} {\nroute {\nrespond 200\n{AUTH}\n}\n}", lost},
		{"wrong host", "", "http://other.localhost:{PORT} {\n{AUTH}\n}", lost},
		{"the resource in a handle beside it", "", "{ORIGIN} {\nhandle /mcp* {\n{PROXY}\n}\nhandle {\n{AUTH}\n}\n}", open},
		{"the server before it in a route", "", "{ORIGIN} {\nroute {\nreverse_proxy /mcp* {BACKEND}\n{AUTH}\n}\n}", open},
		{"the server before it by the order of directives", "\n\torder mcp_auth after reverse_proxy\n", "{ORIGIN} {\n{AUTH}\nreverse_proxy /mcp* {BACKEND}\n}", open},
		{"only calls bypass it", "", "{ORIGIN} {\n@calls {\nmethod POST\npath /mcp*\n}\nhandle @calls {\n{PROXY}\n}\nhandle {\n{AUTH}\n{PROXY}\n}\n}", open},
		{"redirected", "", "{ORIGIN} {\nredir /mcp /mcp/\n{AUTH}\n{PROXY}\n}", before},
		{"refused by something else", "", "{ORIGIN} {\nroute {\nrespond /mcp* 403\n{AUTH}\n}\n}", before},
		{"another port", "", "http://localhost:{PORT} {\nmcp_auth http://localhost:9 {\n{SETTINGS}\n}\n}", other},
		{"another scheme", "", "http://localhost:{PORT} {\nmcp_auth https://localhost:{PORT} {\n{SETTINGS}\n}\n}", other},
		{"another port behind a proxy", behind, "http://localhost:{PORT} {\nmcp_auth http://localhost:9 {\n{SETTINGS}\n}\n}", ""},
		{"the port that stands for 80", "\n\thttp_port {PORT}\n", "http://localhost {\nmcp_auth http://localhost {\n{SETTINGS}\n}\n}", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			idp, b, c := newScriptedIDP(t), newBackend(t), newCaddy(t)
			settings := "authorization_server " + idp.URL + "\nresource /mcp\n"
			site := strings.NewReplacer(
				"{AUTH}", "mcp_auth {ORIGIN} {\n"+settings+"}",
				"{SETTINGS}", settings,
				"{PROXY}", "reverse_proxy {BACKEND}",
			).Replace(row.site)
			if err := c.load(row.globals, strings.ReplaceAll(site, "{BACKEND}", b.addr())); err != nil {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return strings.Contains(c.log(), "what the sites protect has been probed") })
			for _, complaint := range []string{lost, open, before, other} {
				want := 0
				if complaint == row.want {
					want = 1
				}
				if got := strings.Count(c.log(), complaint); got != want {
					t.Errorf("%d times %q, want %d", got, complaint, want)
				}
			}
			for _, r := range b.take() {
				if !strings.Contains(r.URL.Path, "/.well-known/") {
					t.Errorf("the server behind got %s %s", r.Method, r.URL)
				}
			}
		})
	}
}
