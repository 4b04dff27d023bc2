package oauth_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// The rows of the SDK's redirectUriMatches (§10.1, §2.2), then what it accepts
// and we do not.
func TestMatchRedirectURI(t *testing.T) {
	for _, test := range []struct {
		name, registered, requested string
		want                        bool
	}{
		{"exact match passes", "https://a.example/cb", "https://a.example/cb", true},
		{"exact private-use match passes", "cursor://a/cb", "cursor://a/cb", true},
		{"loopback: any port matches portless registration", "http://localhost/cb", "http://localhost:9999/cb", true},
		{"loopback: any port matches ported registration", "http://127.0.0.1:3000/cb", "http://127.0.0.1:9999/cb", true},
		{"loopback: no port matches ported registration", "http://127.0.0.1:3000/cb", "http://127.0.0.1/cb", true},
		{"loopback: [::1]", "http://[::1]/cb", "http://[::1]:9999/cb", true},
		{"loopback: another address of 127/8 with itself", "http://127.0.0.2/cb", "http://127.0.0.2:1/cb", true},
		{"loopback: query equal", "http://localhost/cb?a=1", "http://localhost:9/cb?a=1", true},
		{"loopback: no path", "http://localhost", "http://localhost:9", true},
		{"loopback: different path rejected", "http://localhost/cb", "http://localhost/other", false},
		{"loopback: different case of path rejected", "http://localhost/cb", "http://localhost/CB", false},
		{"loopback: different query rejected", "http://localhost/cb", "http://localhost/cb?x=1", false},
		{"loopback: different scheme rejected", "http://localhost/cb", "https://localhost/cb", false},
		{"loopback: localhost and 127.0.0.1 cross-match rejected", "http://localhost/cb", "http://127.0.0.1/cb", false},
		{"loopback: 127.0.0.1 and localhost cross-match rejected", "http://127.0.0.1/cb", "http://localhost/cb", false},
		{"loopback: 127.0.0.1 and [::1] cross-match rejected", "http://127.0.0.1/cb", "http://[::1]/cb", false},
		{"loopback: two addresses of 127/8 cross-match rejected", "http://127.0.0.1/cb", "http://127.0.0.2/cb", false},
		{"non-loopback: port must match exactly", "https://a.example/cb", "https://a.example:8443/cb", false},
		{"non-loopback: default port is not the same string", "https://a.example/cb", "https://a.example:443/cb", false},
		{"non-loopback: case of the host is not the same string", "https://a.example/cb", "https://A.example/cb", false},
		{"non-loopback: no relaxation for private IPs", "http://192.168.1.1/cb", "http://192.168.1.1:8080/cb", false},
		{"non-loopback: no relaxation for look-alikes", "http://127.0.0.1.evil.com/cb", "http://127.0.0.1.evil.com:8080/cb", false},
		{"malformed URIs rejected", "not-a-uri", "also-not-a-uri", false},
		{"malformed requested rejected", "http://localhost/cb", "http://localhost:port/cb", false},
		{"malformed registered rejected", "localhost/cb", "http://localhost:1/cb", false},
		{"empty", "", "", false},

		{"SDK accepts a fragment", "http://localhost/cb", "http://localhost:9999/cb#f", false},
		{"SDK accepts an empty fragment", "http://localhost/cb", "http://localhost:9999/cb#", false},
		{"SDK accepts capitals", "http://localhost/cb", "HTTP://LOCALHOST:9999/cb", false},
		{"SDK accepts userinfo", "http://localhost/cb", "http://u:p@localhost:9999/cb", false},
		{"SDK accepts userinfo that hides the host's end", "http://localhost/cb", "http://localhost:9999@evil.example/cb", false},
		{"SDK accepts dot segments", "http://localhost/cb", "http://localhost/x/../cb", false},
		{"SDK relaxes https on loopback", "https://localhost/cb", "https://localhost:9/cb", false},
		{"SDK relaxes any scheme on loopback", "foo://localhost/cb", "foo://localhost:9/cb", false},
		{"empty port", "http://localhost/cb", "http://localhost:/cb", false},
		{"port 0", "http://localhost/cb", "http://localhost:0/cb", false},
		{"port out of range", "http://localhost/cb", "http://localhost:65536/cb", false},
		{"path moved into the port", "http://localhost/cb", "http://localhost:80/cb/", false},
		{"backslash before the path", "http://localhost/cb", `http://localhost:9\cb`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := oauth.MatchRedirectURI([]string{"https://other.example/cb", test.registered}, test.requested); got != test.want {
				t.Errorf("registered %s, requested %s: %t", test.registered, test.requested, got)
			}
			if oauth.MatchRedirectURI(nil, test.requested) {
				t.Error("matches without a registration")
			}
		})
	}
}

func TestLoopbackAndDefaultRedirectURI(t *testing.T) {
	for uri, want := range map[string]bool{
		"http://localhost/cb": true, "http://LOCALHOST:80/cb": true, "http://127.3.2.1:9/": true, "http://[::1]": true,
		"https://localhost/cb": false, "http://u@localhost/cb": false, "http://localhost/cb#": false,
		"http://localhost.evil/cb": false, "http://a.example/cb": false, "cursor://localhost/cb": false, "": false,
	} {
		if got := oauth.IsLoopbackRedirect(uri); got != want {
			t.Errorf("IsLoopbackRedirect(%q) = %t", uri, got)
		}
	}
	for _, test := range []struct {
		name       string
		registered []string
		want       string
	}{
		{"none", nil, ""},
		{"one", []string{"https://a.example/cb"}, "https://a.example/cb"},
		{"one private-use", []string{"cursor://a/cb"}, "cursor://a/cb"},
		{"one on loopback: the port is not known", []string{"http://localhost/cb"}, ""},
		{"two", []string{"https://a.example/cb", "https://b.example/cb"}, ""},
		{"one and one on loopback", []string{"https://a.example/cb", "http://localhost/cb"}, ""},
	} {
		got, ok := oauth.DefaultRedirectURI(test.registered)
		if got != test.want || ok != (test.want != "") {
			t.Errorf("%s: %q, %t", test.name, got, ok)
		}
	}
}

func TestAppendRedirectParams(t *testing.T) {
	params := [][2]string{{"code", "a+b/c="}, {"empty", ""}, {"state", "x y&z\r\n\"é"}}
	const added = "code=a%2Bb%2Fc%3D&state=x+y%26z%0D%0A%22%C3%A9"
	for _, test := range []struct{ name, uri, want string }{
		{"no query", "https://a.example/cb", "https://a.example/cb?" + added},
		{"no path", "https://a.example", "https://a.example?" + added},
		{"query is kept byte for byte", "https://a.example/cb?b=%7e&a=1+2", "https://a.example/cb?b=%7e&a=1+2&" + added},
		{"empty query", "https://a.example/cb?", "https://a.example/cb?" + added},
		{"query that ends with &", "https://a.example/cb?a=1&", "https://a.example/cb?a=1&" + added},
		{"private-use scheme", "com.example.app:/cb", "com.example.app:/cb?" + added},
		{"loopback", "http://[::1]:3000/cb", "http://[::1]:3000/cb?" + added},
		{"fragment", "https://a.example/cb#f", ""},
		{"line break", "https://a.example/cb\r\nX: y", ""},
		{"relative", "/cb", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := oauth.AppendRedirectParams(test.uri, params)
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if (test.want == "") != errors.Is(err, oauth.ErrInvalidRedirectURI) {
				t.Errorf("error %v", err)
			}
			if err != nil {
				return
			}
			u, err := url.Parse(got)
			if err != nil {
				t.Fatal(err)
			}
			if q := u.Query(); q.Get("state") != params[2][1] || q.Get("code") != params[0][1] || q.Has("empty") {
				t.Errorf("parsed back: %v", q)
			}
		})
	}
	if got, err := oauth.AppendRedirectParams("https://a.example/cb?a", nil); got != "https://a.example/cb?a" || err != nil {
		t.Errorf("nothing to append: %q, %v", got, err)
	}
}

func FuzzMatchRedirectURI(f *testing.F) {
	f.Add("http://localhost/cb", "http://localhost:9999/cb")
	f.Add("http://127.0.0.1:3000/cb?a", "http://127.0.0.1:3/cb?a")
	f.Add("http://[::1]/", "http://[::1]:1/")
	f.Add("https://a.example/cb", "https://a.example/cb")
	f.Add("http://localhost/cb", "http://localhost:1@evil.example/cb")
	f.Fuzz(func(t *testing.T, registered, requested string) {
		if !oauth.MatchRedirectURI([]string{registered}, requested) || registered == requested {
			return
		}
		a, errA := url.Parse(registered)
		b, errB := url.Parse(requested)
		if errA != nil || errB != nil {
			t.Fatalf("%q matches %q, and one of them is no URL", registered, requested)
		}
		if !oauth.IsLoopbackHost(b.Hostname()) || b.User != nil || b.Fragment != "" {
			t.Errorf("%q matches %q", registered, requested)
		}
		a.Host, b.Host = withoutPort(a), withoutPort(b)
		if a.String() != b.String() || a.Host != b.Host {
			t.Errorf("%q matches %q, which differs in more than the port", registered, requested)
		}
		if !oauth.MatchRedirectURI([]string{requested}, registered) {
			t.Errorf("%q matches %q, but not the other way", registered, requested)
		}
	})
}

func withoutPort(u *url.URL) string { return strings.TrimSuffix(u.Host, ":"+u.Port()) }

func ExampleMatchRedirectURI() {
	registered := []string{"http://localhost/callback"}
	fmt.Println(oauth.MatchRedirectURI(registered, "http://localhost:33418/callback"))
	fmt.Println(oauth.MatchRedirectURI(registered, "http://127.0.0.1:33418/callback"))
	// Output:
	// true
	// false
}
