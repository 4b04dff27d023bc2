package authclient_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Which URLs are used, by who named them.
func TestServerURL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, url string
		allow     []string
		err       error
	}{
		{"http", "http://mcp.example/mcp", nil, authclient.ErrRefusedURL},
		{"http, allowed", "http://mcp.invalid/mcp", []string{"http://mcp.invalid"}, authclient.ErrUnavailable},
		{"http on another port than allowed", "http://mcp.invalid:81/mcp", []string{"http://mcp.invalid"}, authclient.ErrRefusedURL},
		{"relative", "/mcp", nil, authclient.ErrRefusedURL},
		{"empty", "", nil, authclient.ErrRefusedURL},
		{"another scheme", "ftp://mcp.example/", nil, authclient.ErrRefusedURL},
		{"userinfo", "https://u:p@127.0.0.1:1/mcp", nil, authclient.ErrRefusedURL},
		{"loopback in another notation", "http://2130706433/mcp", nil, authclient.ErrRefusedURL},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := authclient.DiscoverOAuthServerInfo(t.Context(), authclient.Options{ServerURL: test.url, AllowOrigins: test.allow})
			if !errors.Is(err, test.err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// What a public server may name, and what not: the requests that would be made
// are counted, none of them leaves this machine.
func TestURLsThatAServerNames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, url string
		allow     []string
		used      bool
	}{
		{"https", "https://as.example", nil, true},
		{"https on another port", "https://as.example:8443", nil, true},
		{"its own origin", "https://mcp.example", nil, true},
		{"http", "http://as.example", nil, false},
		{"http on its own host", "http://mcp.example", nil, false},
		{"loopback", "http://127.0.0.1:9", nil, false},
		{"loopback over https", "https://localhost:9", nil, false},
		{"a private address", "https://10.0.0.1", nil, false},
		{"a private address, allowed", "https://10.0.0.1", []string{"https://10.0.0.1"}, true},
		{"cloud metadata", "https://169.254.169.254", nil, false},
		{"an address in another notation", "https://0x7f.1", nil, false},
		{"IPv4 in IPv6", "https://[::ffff:10.0.0.1]", nil, false},
		{"userinfo", "https://u:p@as.example", nil, false},
		{"another scheme", "file:///etc/passwd", nil, false},
		{"relative", "as.example", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var hosts []string
			client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				hosts = append(hosts, r.URL.Host)
				w := httptest.NewRecorder()
				if r.URL.Path == prmPath+"/mcp" {
					sendJSON(w, 200, map[string]any{"resource": "https://mcp.example/mcp", "authorization_servers": []string{test.url}})
				} else {
					sendJSON(w, 200, map[string]any{"issuer": test.url, "token_endpoint": test.url + "/token"})
				}
				return w.Result(), nil
			})}
			_, err := authclient.DiscoverOAuthServerInfo(t.Context(), authclient.Options{
				ServerURL: "https://mcp.example/mcp", HTTPClient: client, AllowOrigins: test.allow,
			})
			if test.used != (err == nil) || !test.used && !errors.Is(err, authclient.ErrRefusedURL) {
				t.Errorf("error %v", err)
			}
			if want := 1 + btoi(test.used); len(hosts) != want {
				t.Errorf("requests to %v", hosts)
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Each endpoint of the metadata is held to the rules, before a credential goes
// there.
func TestEndpointsOfMetadata(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"registration_endpoint", "authorization_endpoint", "token_endpoint"} {
		for _, url := range []string{"http://as.example/x", "https://10.0.0.1/x", "file:///x", "x"} {
			t.Run(endpoint+" "+url, func(t *testing.T) {
				t.Parallel()
				s := newScripted(t)
				s.set(endpoint, url)
				p, store := web(t, nil)
				if endpoint == "token_endpoint" {
					s.saved(t, store, "old", "refresh-0")
				}
				_, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
				var refused *authclient.RefusedURLError
				if !errors.As(err, &refused) || refused.Insecure != (url == "http://as.example/x") {
					t.Errorf("error %v", err)
				}
			})
		}
	}
}

// A token endpoint without TLS is an error, and no reason to send the user away.
func TestInsecureTokenEndpointIsNotFallenThrough(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.set("token_endpoint", "http://as.example/token")
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
	if !errors.Is(err, authclient.ErrRefusedURL) || result.Status != "" {
		t.Errorf("%+v, %v", result, err)
	}
}

// Requests to URLs that a server named go through the guarded client, which
// checks what the name resolves to (safehttp).
func TestGuardedClientMakesForeignRequests(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.setResource("authorization_servers", []string{"https://as.example"})
	var asked []string
	o, err := authclient.Options{ServerURL: s.mcpURL()}.WithGuarded(roundTripper(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.Host+r.URL.Path)
		w := httptest.NewRecorder()
		sendJSON(w, 200, map[string]any{"issuer": "https://as.example", "token_endpoint": "https://as.example/token"})
		return w.Result(), nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authclient.DiscoverOAuthServerInfo(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"as.example" + asPath}, asked); diff != "" {
		t.Error(diff)
	}
}

// A redirect takes neither a credential nor the trust in a URL elsewhere.
func TestRedirects(t *testing.T) {
	t.Parallel()
	elsewhere := newScripted(t)
	to := func(url string, status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, url, status) }
	}
	t.Run("discovery, to another origin", func(t *testing.T) {
		s := newScripted(t)
		s.handle(prmPath+"/mcp", to(elsewhere.URL+prmPath+"/mcp", http.StatusFound))
		if _, err := authclient.DiscoverProtectedResourceMetadata(t.Context(), authclient.Options{ServerURL: s.mcpURL()}); !errors.Is(err, authclient.ErrUnavailable) {
			t.Error(err)
		}
	})
	for _, path := range []string{"/token", "/register"} {
		for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
			t.Run(path+" "+http.StatusText(status), func(t *testing.T) {
				s := newScripted(t)
				s.handle(path, to(elsewhere.URL+path, status))
				_, err := exchange(t, s)
				if path == "/register" {
					_, err = authclient.RegisterClient(t.Context(), server(s, nil), oauth.ClientMetadata{}, "")
				}
				if !errors.Is(err, authclient.ErrUnavailable) {
					t.Error(err)
				}
			})
		}
	}
	if len(elsewhere.seen()) != 0 {
		t.Errorf("requests elsewhere: %v", elsewhere.lines())
	}
}
