package authclient_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// attended is a provider with a user who signs in at once.
type attended struct {
	*authclient.Web
	t    *testing.T
	last **url.URL
}

func withUser(t *testing.T) (attended, *authclient.MemoryStore) {
	t.Helper()
	p, store := web(t, nil)
	return attended{p, t, new(*url.URL)}, store
}

func (a attended) RedirectToAuthorization(_ context.Context, u *url.URL) error {
	*a.last = u
	return nil
}

func (a attended) WaitForCallback(context.Context) (url.Values, error) {
	return browse(a.t, *a.last), nil
}

// wants makes the MCP server want the scope. always is a server that wants it
// from everybody, even who has it.
func (s *scripted) wants(scope string, always bool) {
	s.handle("/mcp", func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		has := s.granted[token]
		valid := s.valid[token]
		s.mu.Unlock()
		switch {
		case !valid:
			s.mcp(w, r)
		case always || !slices.Contains(strings.Fields(has), scope):
			w.Header().Set("WWW-Authenticate", oauth.FormatChallenge("Bearer", [2]string{"error", "insufficient_scope"}, [2]string{"scope", scope}))
			w.WriteHeader(http.StatusForbidden)
		default:
			s.mcp(w, r)
		}
	})
}

func TestStepUp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		options  authclient.TransportOptions
		always   bool // the server is never content
		err      error
		attempts int      // at the MCP server
		scopes   []string // that the user was asked for
	}{
		{"the union is asked for, once", authclient.TransportOptions{}, false, nil, 2, []string{"mcp:read", "mcp:read mcp:write"}},
		{"a server that is never content", authclient.TransportOptions{}, true, authclient.ErrInsufficientScope, 2, []string{"mcp:read", "mcp:read mcp:write"}},
		{"more attempts", authclient.TransportOptions{MaxStepUpRetries: 3}, true, authclient.ErrInsufficientScope, 4, []string{"mcp:read", "mcp:read mcp:write"}},
		{"none", authclient.TransportOptions{MaxStepUpRetries: -1}, false, authclient.ErrInsufficientScope, 1, []string{"mcp:read"}},
		{"the caller decides", authclient.TransportOptions{OnInsufficientScope: authclient.Throw}, false, oauth.ErrInsufficientScope, 1, []string{"mcp:read"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.scopes = "mcp:read"
			p, _ := withUser(t)
			_, client := transport(t, s, p, test.options)
			if status, _, err := text(t, client, post(t, s.mcpURL(), "hello")); status != 200 || err != nil {
				t.Fatalf("status %d, error %v", status, err)
			}
			before := len(s.to("/mcp"))
			s.wants("mcp:write", test.always)
			status, _, err := text(t, client, post(t, s.mcpURL(), "hello"))
			if !errors.Is(err, test.err) || test.err == nil && (status != 200 || err != nil) {
				t.Errorf("status %d, error %v", status, err)
			}
			if got := len(s.to("/mcp")) - before; got != test.attempts {
				t.Errorf("%d attempts", got)
			}
			var asked []string
			for _, r := range s.to("/authorize") {
				asked = append(asked, query(t, r.Query).Get("scope"))
			}
			if diff := cmp.Diff(test.scopes, asked); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestInsufficientScopeErrorSaysWhat(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.accept("good", true)
	s.wants("mcp:write", false)
	p, store := web(t, nil)
	s.saved(t, store, "good", "refresh-0")
	_, client := transport(t, s, p, authclient.TransportOptions{OnInsufficientScope: authclient.Throw})
	_, _, err := text(t, client, post(t, s.mcpURL(), ""))
	var insufficient *authclient.InsufficientScopeError
	if !errors.As(err, &insufficient) || insufficient.RequiredScope != "mcp:write" {
		t.Errorf("error %v", err)
	}
}

// A refresh cannot widen the scope, so there is none; the old token stays until
// the user has agreed.
func TestStepUpDoesNotRefresh(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.accept("good", true)
	s.wants("mcp:write", false)
	p, store := web(t, nil)
	s.saved(t, store, "good", "refresh-0")
	_, client := transport(t, s, p, authclient.TransportOptions{})
	_, _, err := text(t, client, post(t, s.mcpURL(), ""))
	var unauthorized *authclient.UnauthorizedError
	if !errors.As(err, &unauthorized) || unauthorized.Result == nil || unauthorized.Result.Scope != "mcp:write" || len(s.to("/token")) != 0 {
		t.Errorf("error %v, requests %v", err, s.lines())
	}
	if tokens, err := store.Tokens(t.Context(), ""); err != nil || tokens.AccessToken != "good" {
		t.Errorf("tokens %+v, error %v", tokens, err)
	}
}

// A GET steps up as well.
func TestStepUpOfAStream(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.wants("mcp:read", false)
	p, _ := withUser(t)
	_, client := transport(t, s, p, authclient.TransportOptions{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.mcpURL(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, err := text(t, client, req); status != 200 || err != nil {
		t.Errorf("status %d, error %v", status, err)
	}
}
