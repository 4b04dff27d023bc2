package authclient_test

import (
	"context"
	"errors"
	"testing"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestCheckResourceAllowed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, requested, configured string
		allowed                     bool
	}{
		{"the same", "https://a.example/mcp", "https://a.example/mcp", true},
		{"the origin covers a path", "https://a.example/mcp", "https://a.example/", true},
		{"the origin without slash", "https://a.example/mcp", "https://a.example", true},
		{"a path covers what is below", "https://a.example/b/c", "https://a.example/b", true},
		{"not half a segment", "https://a.example/bc", "https://a.example/b", false},
		{"not what is above", "https://a.example/", "https://a.example/b", false},
		{"a slash at the end of the configured one", "https://a.example/b", "https://a.example/b/", true},
		{"the query does not count", "https://a.example/b?x=1", "https://a.example/b?y=2", true},
		{"the case of the path counts", "https://a.example/B", "https://a.example/b", false},
		{"the case of the host does not", "https://A.example/b", "https://a.EXAMPLE/b", true},
		{"another port", "https://a.example:8443/b", "https://a.example/b", false},
		{"another scheme", "http://a.example/b", "https://a.example/b", false},
		{"another host", "https://b.example/b", "https://a.example/b", false},
		{"a host that begins alike", "https://a.example.evil/b", "https://a.example/b", false},
		{"userinfo is not the host", "https://a.example@evil.example/b", "https://a.example/b", false},
		{"an encoded slash is no segment", "https://a.example/b%2fc", "https://a.example/b", false},
		{"no URL", "https://a.example/b", "a.example/b", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := authclient.CheckResourceAllowed(test.requested, test.configured); got != test.allowed {
				t.Errorf("allowed %v", got)
			}
		})
	}
}

// validator chooses its resource itself.
type validator struct {
	authclient.Provider
	choose func(server, metadata string) (string, error)
}

func (v validator) ValidateResourceURL(_ context.Context, server, metadata string) (string, error) {
	return v.choose(server, metadata)
}

func TestSelectResourceURL(t *testing.T) {
	t.Parallel()
	refused := errors.New("not this one")
	choose := func(resource string, err error) func(string, string) (string, error) {
		return func(string, string) (string, error) { return resource, err }
	}
	for _, test := range []struct {
		name     string
		resource string // of the metadata; "-" for no metadata
		choose   func(server, metadata string) (string, error)
		want     string
		err      error
	}{
		{"that of the metadata", "https://a.example/mcp", nil, "https://a.example/mcp", nil},
		{"a shorter one", "https://a.example/", nil, "https://a.example/", nil},
		{"byte for byte", "https://A.example", nil, "https://A.example", nil},
		{"no metadata, no parameter", "-", nil, "", nil},
		{"another resource", "https://b.example/mcp", nil, "", authclient.ErrResourceMismatch},
		{"the provider chooses", "https://b.example/mcp", choose("https://c.example", nil), "https://c.example", nil},
		{"the provider leaves it out", "https://a.example/mcp", choose("", nil), "", nil},
		{"the provider refuses", "https://a.example/mcp", choose("", refused), "", refused},
		{"the provider is given both", "https://a.example/", func(server, metadata string) (string, error) { return server + " " + metadata, nil }, "https://a.example/mcp?q=1 https://a.example/", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var m *oauth.ProtectedResourceMetadata
			if test.resource != "-" {
				m = &oauth.ProtectedResourceMetadata{Resource: test.resource}
			}
			var p authclient.Provider
			p, _ = web(t, nil)
			if test.choose != nil {
				p = validator{p, test.choose}
			}
			got, err := authclient.SelectResourceURL(t.Context(), p, "https://a.example/mcp?q=1#f", m)
			if got != test.want || !errors.Is(err, test.err) {
				t.Errorf("resource %q, error %v", got, err)
			}
		})
	}
}

// The resource goes into all three requests, as the metadata spell it.
func TestResourceInAllRequests(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.setResource("resource", s.URL)
	p, _ := web(t, nil)
	signIn(t, p, authclient.Options{ServerURL: s.mcpURL()})
	if _, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL(), ForceRefresh: true}); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s.to("/authorize")[0].Query).Get("resource"); got != s.URL {
		t.Errorf("authorization request: %q", got)
	}
	for _, r := range s.to("/token") {
		if got := r.Form.Get("resource"); got != s.URL {
			t.Errorf("%s: %q", r.Form.Get("grant_type"), got)
		}
	}
}

func TestNoResourceWithoutMetadata(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.handle(prmPath+"/mcp", nil)
	p, _ := web(t, nil)
	signIn(t, p, authclient.Options{ServerURL: s.mcpURL()})
	if _, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL(), ForceRefresh: true}); err != nil {
		t.Fatal(err)
	}
	for _, r := range append(s.to("/token"), s.to("/authorize")...) {
		if r.Form.Has("resource") || query(t, r.Query).Has("resource") {
			t.Errorf("%s %s: a resource parameter", r.Method, r.Path)
		}
	}
}
