package authclient_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// pins makes the authorization server one that gives no client more than it
// registered for, and no refresh token to another client than its own.
func (s *scripted) pins() {
	registered := make(map[string]string) // scopes by client
	owner := make(map[string]string)      // clients by refresh token
	s.handle("/register", func(w http.ResponseWriter, r *http.Request) {
		var m map[string]any
		_ = json.NewDecoder(r.Body).Decode(&m)
		id := fmt.Sprint("pinned-", len(registered)+1)
		registered[id], _ = m["scope"].(string)
		m["client_id"] = id
		sendJSON(w, http.StatusCreated, m)
	})
	s.handle("/authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if !authclient.IsStrictScopeSuperset(q.Get("scope"), registered[q.Get("client_id")]) {
			s.authorize(w, r)
			return
		}
		back := url.Values{"error": {"invalid_scope"}, "state": {q.Get("state")}}
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	})
	s.handle("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if old := r.PostForm.Get("refresh_token"); old != "" && owner[old] != r.PostForm.Get("client_id") {
			sendJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
			return
		}
		s.mu.Lock()
		owner[fmt.Sprint("refresh-", s.issued+1)] = r.PostForm.Get("client_id")
		s.mu.Unlock()
		s.token(w, r)
	})
}

// clients are the clients of the token requests.
func (s *scripted) clients() (ids []string) {
	for _, r := range s.to("/token") {
		ids = append(ids, r.Form.Get("grant_type")+" "+r.Form.Get("client_id"))
	}
	return ids
}

// A step-up beyond the registration registers anew.
func TestStepUpBeyondTheRegistration(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.pins()
	s.scopes = "mcp:read"
	p, _ := withUser(t)
	_, client := transport(t, s, p, authclient.TransportOptions{})
	for _, scope := range []string{"mcp:read", "mcp:write", "mcp:admin"} {
		s.wants(scope, false)
		if status, _, err := text(t, client, post(t, s.mcpURL(), "")); status != 200 || err != nil {
			t.Fatalf("%s: status %d, error %v", scope, status, err)
		}
	}
	if diff := cmp.Diff([]string{"mcp:read", "mcp:read mcp:write", "mcp:read mcp:write mcp:admin"}, s.asked(t)); diff != "" {
		t.Error(diff)
	}
}

// Until the user has agreed to more, the tokens of the old client stay good, and
// are refreshed by the old client.
func TestOldTokensStayDuringTheStepUp(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.pins()
	p, _ := web(t, nil)
	o := authclient.Options{ServerURL: s.mcpURL(), Scope: "mcp:read"}
	signIn(t, p, o)
	wider := o
	wider.Scope, wider.ForceReauthorization = "mcp:read mcp:write", true
	begun, err := authclient.Auth(t.Context(), p, wider)
	if err != nil || begun.Status != authclient.Redirect {
		t.Fatalf("%+v, %v", begun, err)
	}
	again := o
	again.ForceRefresh = true
	if result, err := authclient.Auth(t.Context(), p, again); err != nil || result.Status != authclient.Authorized {
		t.Fatalf("%+v, %v", result, err)
	}
	// A login that nobody finishes does not register each time.
	if begun, err = authclient.Auth(t.Context(), p, wider); err != nil || len(s.to("/register")) != 2 {
		t.Fatalf("%v, requests %v", err, s.lines())
	}
	o.Callback = browse(t, begun.AuthorizationURL)
	if result, err := authclient.Auth(t.Context(), p, o); err != nil || result.Tokens.Scope != "mcp:read mcp:write" {
		t.Fatalf("%+v, %v", result, err)
	}
	if _, err := authclient.Auth(t.Context(), p, again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{
		"authorization_code pinned-1", "refresh_token pinned-1", "authorization_code pinned-2", "refresh_token pinned-2",
	}, s.clients()); diff != "" {
		t.Error(diff)
	}
}

// The redirect URL of the program has changed: its tokens are still those of the
// old client.
func TestRefreshByTheClientOfTheTokens(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.pins()
	p, store := web(t, nil)
	signIn(t, p, authclient.Options{ServerURL: s.mcpURL()})
	moved, err := authclient.NewWeb(store, authclient.WebOptions{RedirectURL: "https://new.example.com/callback"})
	if err != nil {
		t.Fatal(err)
	}
	o := authclient.Options{ServerURL: s.mcpURL(), ForceRefresh: true}
	if result, err := authclient.Auth(t.Context(), moved, o); err != nil || result.Status != authclient.Authorized {
		t.Fatalf("%+v, %v", result, err)
	}
	o.ForceRefresh, o.ForceReauthorization = false, true
	if _, err := authclient.Auth(t.Context(), moved, o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"authorization_code pinned-1", "refresh_token pinned-1"}, s.clients()); diff != "" || len(s.to("/register")) != 2 {
		t.Errorf("%s, requests %v", diff, s.lines())
	}
}

// A server that refuses to register for all the scope of the resource is asked
// for what is needed now.
func TestRegistrationForLessScope(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.setResource("scopes_supported", []string{"mcp:read", "mcp:odd"})
	s.handle("/register", func(w http.ResponseWriter, r *http.Request) {
		var m map[string]any
		_ = json.NewDecoder(r.Body).Decode(&m)
		if m["scope"] != "mcp:read" {
			sendJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_client_metadata"})
			return
		}
		sendJSON(w, http.StatusCreated, merged(m, map[string]any{"client_id": "narrow"}))
	})
	p, _ := web(t, nil)
	if result := signIn(t, p, authclient.Options{ServerURL: s.mcpURL(), Scope: "mcp:read"}); result.Client.ClientID != "narrow" {
		t.Errorf("%+v", result.Client)
	}
}

// A server that grants less at registration than it was asked for is not asked
// again and again.
func TestRegistrationThatStaysNarrow(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.json("/register", 201, map[string]any{"client_id": "narrow", "redirect_uris": []string{callbackURL}, "scope": "basic"})
	p, _ := web(t, nil)
	for range 3 {
		if _, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL(), Scope: "mcp:read"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(s.to("/register")); got != 1 {
		t.Errorf("%d registrations", got)
	}
}

// Ready providers ask for a refresh token where the server has to be asked. A
// client that was registered beforehand may not get one, and does if it says so.
func TestOfflineAccessByDefault(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		options func(o *authclient.WebOptions)
		scope   string
	}{
		{"registered by the package", func(*authclient.WebOptions) {}, "a offline_access"},
		{"registered beforehand", func(o *authclient.WebOptions) { o.Client = clientWith("", "") }, "a"},
		{"registered beforehand, and it says refresh_token", func(o *authclient.WebOptions) {
			o.Client, o.Metadata.GrantTypes = clientWith("", ""), []string{"authorization_code", "refresh_token"}
		}, "a offline_access"},
		{"without the grant", func(o *authclient.WebOptions) { o.Metadata.GrantTypes = []string{"authorization_code"} }, "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.set("scopes_supported", []string{"a", "offline_access"})
			p, _ := web(t, test.options)
			result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL(), Scope: "a"})
			if err != nil || result.Scope != test.scope {
				t.Errorf("scope %q, %v", result.Scope, err)
			}
			if got := result.AuthorizationURL.Query().Get("prompt"); (got == "consent") != (test.scope != "a") {
				t.Errorf("prompt %q", got)
			}
		})
	}
	t.Run("at a terminal", func(t *testing.T) {
		t.Parallel()
		s := newScripted(t)
		s.set("scopes_supported", []string{"a", "offline_access"})
		l, _ := loopback(t, authclient.LoopbackOptions{NoBrowser: true}, nil)
		result, err := authclient.Auth(t.Context(), l, authclient.Options{ServerURL: s.mcpURL(), Scope: "a"})
		if err != nil || result.Scope != "a offline_access" {
			t.Errorf("scope %q, %v", result.Scope, err)
		}
	})
}
