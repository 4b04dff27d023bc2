package authclient_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// page answers as a maintenance page does.
func page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = w.Write([]byte("<html>back soon"))
}

// unreadable makes the resource metadata fail in a way that may pass.
var unreadable = map[string]func(s *scripted, path string){
	"502 of a load balancer": func(s *scripted, path string) { s.status(path, 502) },
	"403 of a firewall":      func(s *scripted, path string) { s.status(path, 403) },
	"a maintenance page":     func(s *scripted, path string) { s.handle(path, page) },
	"503":                    func(s *scripted, path string) { s.status(path, 503) },
	"a redirect to a login": func(s *scripted, path string) {
		s.handle(path, http.RedirectHandler("https://login.example/", http.StatusFound).ServeHTTP)
	},
	"404 of a new instance": func(s *scripted, path string) { s.handle(path, nil) },
}

// Metadata that cannot be read do not move the client to the origin of the MCP
// server, neither for a refresh nor for what is recorded.
func TestTroubleDoesNotMoveTheClient(t *testing.T) {
	t.Parallel()
	for name, set := range unreadable {
		for _, age := range []time.Duration{0, 3 * time.Hour} {
			t.Run(name+", record of "+age.String(), func(t *testing.T) {
				t.Parallel()
				one, two := newScripted(t), newScripted(t)
				one.setResource("authorization_servers", []string{two.URL})
				p, store := web(t, nil)
				now := time.Now()
				o := authclient.Options{ServerURL: one.mcpURL(), Now: func() time.Time { return now }}
				signIn(t, p, o)
				now = now.Add(age)
				set(one, prmPath+"/mcp")
				set(one, prmPath)
				one.forget()
				o.RefusedToken = "token-1"
				result, err := authclient.Auth(t.Context(), p, o)
				if err != nil || result.Status != authclient.Authorized || result.Issuer != two.URL || result.Tokens.AccessToken != "token-2" {
					t.Errorf("%+v, %v", result, err)
				}
				if strays := append(append(one.to("/register"), one.to("/token")...), one.to(asPath)...); len(strays) != 0 {
					t.Errorf("requests %v", one.lines())
				}
				state, err := store.DiscoveryState(t.Context())
				if err != nil || state.AuthorizationServerURL != two.URL {
					t.Errorf("recorded %+v, %v", state, err)
				}
			})
		}
	}
}

// Without a record there is nothing to go on with, and nobody is sent away.
func TestTroubleAtTheFirstLogin(t *testing.T) {
	t.Parallel()
	for name, set := range unreadable {
		if name == "404 of a new instance" {
			continue // that is a server of revision 2025-03-26
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.handle(asPath, nil)
			set(s, prmPath+"/mcp")
			set(s, prmPath)
			p, _ := web(t, nil)
			result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
			if !errors.Is(err, authclient.ErrUnavailable) || result.Status != "" || len(s.to("/register")) != 0 {
				t.Errorf("%+v, %v, requests %v", result, err, s.lines())
			}
		})
	}
}

// A server of old with a web application at its origin is one, if its
// authorization server says so itself.
func TestWebApplicationBesideAServerOfOld(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.handle(prmPath+"/mcp", page)
	s.handle(prmPath, page)
	p, _ := web(t, nil)
	if result := signIn(t, p, authclient.Options{ServerURL: s.mcpURL()}); result.Issuer != s.URL {
		t.Errorf("issuer %q", result.Issuer)
	}
}

// The server itself says that it has moved: that counts.
func TestServerThatHasMoved(t *testing.T) {
	t.Parallel()
	one, two := newScripted(t), newScripted(t)
	one.setResource("authorization_servers", []string{two.URL})
	p, _ := web(t, nil)
	o := authclient.Options{ServerURL: one.mcpURL()}
	signIn(t, p, o)
	one.setResource("authorization_servers", []string{one.URL})
	o.RefusedToken = "token-1"
	if result, err := authclient.Auth(t.Context(), p, o); err != nil || result.Status != authclient.Redirect || result.Issuer != one.URL {
		t.Errorf("%+v, %v", result, err)
	}
}

// The metadata were at a place that the challenge named, and have moved to the
// well-known one; the challenge names none any more.
func TestRecordedMetadataURLThatHasGone(t *testing.T) {
	t.Parallel()
	for name, challenge := range map[string]string{"named by the record": "", "named by the challenge": "/custom"} {
		for _, place := range []string{prmPath + "/mcp", prmPath} {
			t.Run(name+", now at "+place, func(t *testing.T) {
				t.Parallel()
				one, two := newScripted(t), newScripted(t)
				one.setResource("authorization_servers", []string{two.URL})
				one.handle("/custom", one.resourceMetadata)
				one.handle(prmPath+"/mcp", nil)
				p, store := web(t, nil)
				o := authclient.Options{ServerURL: one.mcpURL(), ResourceMetadataURL: one.URL + "/custom"}
				signIn(t, p, o)
				one.handle("/custom", nil)
				one.handle(place, one.resourceMetadata)
				if o.ResourceMetadataURL = ""; challenge != "" {
					o.ResourceMetadataURL = one.URL + challenge
				}
				o.RefusedToken = "token-1"
				one.forget()
				result, err := authclient.Auth(t.Context(), p, o)
				if err != nil || result.Issuer != two.URL || len(one.to(place)) == 0 {
					t.Fatalf("%+v, %v, requests %v", result, err, one.lines())
				}
				if state, err := store.DiscoveryState(t.Context()); err != nil || state.ResourceMetadataURL != "" {
					t.Errorf("recorded %+v, %v", state, err)
				}
			})
		}
	}
}
