package authclient_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
)

const (
	prmPath  = "/.well-known/oauth-protected-resource"
	asPath   = "/.well-known/oauth-authorization-server"
	oidcPath = "/.well-known/openid-configuration"
)

func TestDiscoverProtectedResourceMetadata(t *testing.T) {
	t.Parallel()
	found := func(s *scripted, path string) { s.json(path, 200, map[string]any{"resource": s.URL + "/found"}) }
	for _, test := range []struct {
		name   string
		server string // path and query
		header string // path of the resource_metadata
		set    func(s *scripted)
		lines  []string
		err    error // nil: found
	}{
		{"at the path", "/mcp", "", func(s *scripted) { found(s, prmPath+"/mcp") }, []string{prmPath + "/mcp"}, nil},
		{"the query is kept", "/mcp?q=1", "", func(s *scripted) { found(s, prmPath+"/mcp") }, []string{prmPath + "/mcp?q=1"}, nil},
		{"a slash at the end is dropped", "/mcp/", "", func(s *scripted) { found(s, prmPath+"/mcp") }, []string{prmPath + "/mcp"}, nil},
		{"404 at the path, then the root without query", "/mcp?q=1", "", func(s *scripted) { found(s, prmPath) }, []string{prmPath + "/mcp?q=1", prmPath}, nil},
		{"401 at the path", "/mcp", "", func(s *scripted) { s.status(prmPath+"/mcp", 401); found(s, prmPath) }, []string{prmPath + "/mcp", prmPath}, nil},
		{"502 at the path", "/mcp", "", func(s *scripted) { s.status(prmPath+"/mcp", 502); found(s, prmPath) }, []string{prmPath + "/mcp", prmPath}, nil},
		{"web page at the path", "/mcp", "", func(s *scripted) {
			s.handle(prmPath+"/mcp", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<!doctype html>")) })
			found(s, prmPath)
		}, []string{prmPath + "/mcp", prmPath}, nil},
		{"500 at the path ends it", "/mcp", "", func(s *scripted) { s.status(prmPath+"/mcp", 500); found(s, prmPath) }, []string{prmPath + "/mcp"}, authclient.ErrUnavailable},
		{"404 at both", "/mcp", "", func(*scripted) {}, []string{prmPath + "/mcp", prmPath}, authclient.ErrNoMetadata},
		{"server at the root", "/", "", func(*scripted) {}, []string{prmPath}, authclient.ErrNoMetadata},
		{"server without a path", "", "", func(s *scripted) { found(s, prmPath) }, []string{prmPath}, nil},
		{"named by the challenge", "/mcp", "/custom/prm", func(s *scripted) { found(s, "/custom/prm") }, []string{"/custom/prm"}, nil},
		{"named by the challenge, no fallback", "/mcp", "/custom/prm", func(s *scripted) { found(s, prmPath) }, []string{"/custom/prm"}, authclient.ErrNoMetadata},
		{"without resource", "/mcp", "", func(s *scripted) { s.json(prmPath+"/mcp", 200, map[string]any{"scopes_supported": []string{"a"}}) }, []string{prmPath + "/mcp"}, authclient.ErrUnavailable},
		{"a list that is none", "/mcp", "", func(s *scripted) {
			s.json(prmPath+"/mcp", 200, map[string]any{"resource": "x", "authorization_servers": "x"})
		}, []string{prmPath + "/mcp"}, authclient.ErrUnavailable},
		{"a member that comes twice", "/mcp", "", func(s *scripted) {
			s.handle(prmPath+"/mcp", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(`{"resource":"https://a.example","resource":"https://b.example"}`))
			})
		}, []string{prmPath + "/mcp"}, authclient.ErrUnavailable},
		{"redirect within the origin", "/mcp", "", func(s *scripted) {
			s.handle(prmPath+"/mcp", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/moved", http.StatusFound) })
			found(s, "/moved")
		}, []string{prmPath + "/mcp", "/moved"}, nil},
		{"redirect in a circle", "/mcp", "", func(s *scripted) {
			s.handle(prmPath+"/mcp", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, prmPath+"/mcp", http.StatusFound) })
			found(s, prmPath)
		}, []string{prmPath + "/mcp", prmPath + "/mcp", prmPath + "/mcp", prmPath + "/mcp", prmPath + "/mcp", prmPath + "/mcp", prmPath}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.handle(prmPath+"/mcp", nil)
			test.set(s)
			o := authclient.Options{ServerURL: s.URL + test.server}
			if test.header != "" {
				o.ResourceMetadataURL = s.URL + test.header
			}
			m, err := authclient.DiscoverProtectedResourceMetadata(t.Context(), o)
			if !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			if test.err == nil && (err != nil || m.Resource != s.URL+"/found") {
				t.Errorf("metadata %+v, error %v", m, err)
			}
			if diff := cmp.Diff(gets(test.lines), s.lines()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func gets(paths []string) (lines []string) {
	for _, path := range paths {
		lines = append(lines, "GET "+path)
	}
	return lines
}

func TestDiscoveryHeaders(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	o := authclient.Options{ServerURL: s.mcpURL()}
	if _, err := authclient.DiscoverOAuthServerInfo(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	o.ProtocolVersion = "2026-07-28"
	if _, err := authclient.DiscoverOAuthServerInfo(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	var versions []string
	for _, r := range s.seen() {
		versions = append(versions, r.Header.Get("MCP-Protocol-Version"))
		if r.Header.Get("Accept") != "application/json" {
			t.Errorf("%s: Accept %q", r.Path, r.Header.Get("Accept"))
		}
	}
	if diff := cmp.Diff([]string{"2025-11-25", "2025-11-25", "2026-07-28", "2026-07-28"}, versions); diff != "" {
		t.Error(diff)
	}
}

func TestDiscoverAuthorizationServerMetadata(t *testing.T) {
	t.Parallel()
	found := func(s *scripted, path, issuer string) {
		s.json(path, 200, map[string]any{"issuer": s.URL + issuer, "authorization_endpoint": s.URL + "/a", "token_endpoint": s.URL + "/t"})
	}
	for _, test := range []struct {
		name   string
		server string
		set    func(s *scripted)
		lines  []string
		err    error
	}{
		{"OAuth at the root", "", func(s *scripted) { found(s, asPath, "") }, []string{asPath}, nil},
		{"OpenID at the root", "", func(s *scripted) { found(s, oidcPath, "") }, []string{asPath, oidcPath}, nil},
		{"OAuth with the path", "/t", func(s *scripted) { found(s, asPath+"/t", "/t") }, []string{asPath + "/t"}, nil},
		{"OpenID with the path inserted", "/t", func(s *scripted) { found(s, oidcPath+"/t", "/t") }, []string{asPath + "/t", oidcPath + "/t"}, nil},
		{"OpenID with the path before", "/t", func(s *scripted) { found(s, "/t"+oidcPath, "/t") }, []string{asPath + "/t", oidcPath + "/t", "/t" + oidcPath}, nil},
		{"never at the root for a server with a path", "/t", func(s *scripted) { found(s, asPath, "/t") }, []string{asPath + "/t", oidcPath + "/t", "/t" + oidcPath}, authclient.ErrNoMetadata},
		{"on after 4xx", "", func(s *scripted) { s.status(asPath, 403); found(s, oidcPath, "") }, []string{asPath, oidcPath}, nil},
		{"on after 502", "", func(s *scripted) { s.status(asPath, 502); found(s, oidcPath, "") }, []string{asPath, oidcPath}, nil},
		{"502 everywhere", "", func(s *scripted) { s.status(asPath, 502); s.status(oidcPath, 502) }, []string{asPath, oidcPath}, authclient.ErrUnavailable},
		{"not on after 500", "", func(s *scripted) { s.status(asPath, 500); found(s, oidcPath, "") }, []string{asPath}, authclient.ErrUnavailable},
		{"not on after 429", "", func(s *scripted) { s.status(asPath, 429); found(s, oidcPath, "") }, []string{asPath}, authclient.ErrUnavailable},
		{"on after a web page", "", func(s *scripted) {
			s.handle(asPath, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				_, _ = w.Write([]byte("hello"))
			})
			found(s, oidcPath, "")
		}, []string{asPath, oidcPath}, nil},
		{"not on after malformed JSON", "", func(s *scripted) {
			s.handle(asPath, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"issuer":`)) })
			found(s, oidcPath, "")
		}, []string{asPath}, authclient.ErrUnavailable},
		{"without token endpoint", "", func(s *scripted) { s.json(asPath, 200, map[string]any{"issuer": s.URL}) }, []string{asPath}, authclient.ErrIncompatible},
		{"larger than 1 MiB", "", func(s *scripted) {
			s.json(asPath, 200, map[string]any{"issuer": s.URL, "x": strings.Repeat("x", 1<<20)})
		}, []string{asPath}, authclient.ErrUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.handle(asPath, nil)
			test.set(s)
			m, err := authclient.DiscoverAuthorizationServerMetadata(t.Context(), s.URL+test.server, authclient.Options{})
			if !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			if test.err == nil && (err != nil || m.TokenEndpoint != s.URL+"/t") {
				t.Errorf("metadata %+v, error %v", m, err)
			}
			if diff := cmp.Diff(gets(test.lines), s.lines()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// RFC 8414 §3.3.
func TestMetadataIssuerIsThatOfTheURL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, url, issuer string // after the origin
		skip, accepted    bool
	}{
		{"the same", "", "", false, true},
		{"another tenant on the host", "/a", "/b", false, false},
		{"a slash in the URL only", "/", "", false, true},
		{"a slash in the issuer only", "", "/", false, false},
		{"another case", "/a", "/A", false, false},
		{"the check is skipped", "/a", "/b", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			path := asPath + strings.TrimSuffix(test.url, "/")
			s.json(path, 200, map[string]any{"issuer": s.URL + test.issuer, "token_endpoint": s.URL + "/t"})
			_, err := authclient.DiscoverAuthorizationServerMetadata(t.Context(), s.URL+test.url, authclient.Options{SkipIssuerMetadataValidation: test.skip})
			if test.accepted != (err == nil) || !test.accepted && !errors.Is(err, authclient.ErrIssuerMismatch) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestDiscoverOAuthServerInfo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		set  func(s *scripted, o *authclient.Options)
		url  string // of the authorization server, after the origin
		err  error
	}{
		{"named by the metadata", func(s *scripted, _ *authclient.Options) {
			s.setResource("authorization_servers", []string{s.URL + "/t", s.URL})
			s.json(asPath+"/t", 200, map[string]any{"issuer": s.URL + "/t", "token_endpoint": s.URL + "/t"})
		}, "/t", nil},
		{"the expected one of several", func(s *scripted, o *authclient.Options) {
			s.setResource("authorization_servers", []string{s.URL + "/t", s.URL})
			o.ExpectedIssuer = s.URL
		}, "", nil},
		{"the expected one is not named", func(s *scripted, o *authclient.Options) {
			o.ExpectedIssuer = "https://as.example"
		}, "", authclient.ErrAuthorizationServerMismatch},
		{"no metadata: the origin", func(s *scripted, _ *authclient.Options) { s.handle(prmPath+"/mcp", nil) }, "/", nil},
		{"metadata without a list: the origin", func(s *scripted, _ *authclient.Options) { s.setResource("authorization_servers", nil) }, "/", nil},
		{"an empty list: the origin", func(s *scripted, _ *authclient.Options) { s.setResource("authorization_servers", []string{}) }, "/", nil},
		{"the metadata fail", func(s *scripted, _ *authclient.Options) { s.status(prmPath+"/mcp", 500) }, "", authclient.ErrUnavailable},
		{"nothing listens", func(s *scripted, o *authclient.Options) { s.Server.Close() }, "", authclient.ErrUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			o := authclient.Options{ServerURL: s.mcpURL()}
			test.set(s, &o)
			found, err := authclient.DiscoverOAuthServerInfo(t.Context(), o)
			if !errors.Is(err, test.err) || test.err == nil && (err != nil || found.AuthorizationServerURL != s.URL+test.url) {
				t.Errorf("found %+v, error %v", found, err)
			}
		})
	}
}

// Revision 2025-03-26: no metadata at all, endpoints at the root.
func TestServerWithoutAnyMetadata(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.handle(prmPath+"/mcp", nil)
	s.handle(asPath, nil)
	p, _ := web(t, nil)
	result := signIn(t, p, authclient.Options{ServerURL: s.mcpURL()})
	if result.Resource != "" || result.Issuer != s.URL+"/" {
		t.Errorf("resource %q, issuer %q", result.Resource, result.Issuer)
	}
	for _, path := range []string{"/register", "/authorize", "/token"} {
		if len(s.to(path)) != 1 {
			t.Errorf("%s: %d requests", path, len(s.to(path)))
		}
	}
	if q := s.to("/authorize")[0].Query; strings.Contains(q, "resource=") {
		t.Errorf("a resource parameter in %s", q)
	}
}
