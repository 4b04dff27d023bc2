package authclient_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
)

// A credential of one authorization server is never presented to another one,
// whatever the MCP server says (SEP-2352).
func TestCredentialsStayWithTheirIssuer(t *testing.T) {
	t.Parallel()
	one, two := newScripted(t), newScripted(t)
	p, store := web(t, nil)
	one.saved(t, store, "old", "refresh-of-one")
	// The MCP server of one moves to the authorization server two.
	one.setResource("authorization_servers", []string{two.URL})
	result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: one.mcpURL()})
	if err != nil || result.Status != authclient.Redirect || result.Issuer != two.URL {
		t.Fatalf("%+v, %v", result, err)
	}
	if got := result.AuthorizationURL.Query().Get("client_id"); got != "registered-1" || len(two.to("/register")) != 1 {
		t.Errorf("client %q", got)
	}
	if len(two.to("/token")) != 0 || len(one.to("/token")) != 0 {
		t.Error("a refresh token was sent")
	}
	// Those of the first are kept beside those of the second.
	client, err := store.ClientInformation(t.Context(), one.URL)
	if err != nil || client == nil || client.ClientID != "client-1" {
		t.Errorf("client %+v, error %v", client, err)
	}
	tokens, err := store.Tokens(t.Context(), one.URL)
	if err != nil || tokens == nil || tokens.RefreshToken != "refresh-of-one" {
		t.Errorf("tokens %+v, error %v", tokens, err)
	}
}

// A provider that keeps only one credential and says for whom it is.
func TestStampOfAnotherIssuerCountsAsAbsent(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	client := clientWith("", "")
	client.Issuer = "https://other.example"
	tokens := &authclient.Tokens{Issuer: "https://other.example"}
	tokens.AccessToken, tokens.RefreshToken = "a", "refresh-of-other"
	single := singleSlot{p, client, tokens}
	result, err := authclient.Auth(t.Context(), single, authclient.Options{ServerURL: s.mcpURL()})
	if err != nil || result.Status != authclient.Redirect || result.Client.ClientID != "registered-1" || len(s.to("/token")) != 0 {
		t.Errorf("%+v, %v, requests %v", result, err, s.lines())
	}
	_ = store
}

func TestStampMayDifferBySlash(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	client := clientWith("", "")
	client.Issuer = s.URL + "/"
	tokens := &authclient.Tokens{Issuer: s.URL + "/"}
	tokens.AccessToken, tokens.RefreshToken = "a", "r"
	result, err := authclient.Auth(t.Context(), singleSlot{p, client, tokens}, authclient.Options{ServerURL: s.mcpURL()})
	if err != nil || result.Status != authclient.Authorized || len(s.to("/register")) != 0 {
		t.Errorf("%+v, %v, requests %v", result, err, s.lines())
	}
}

// What was stored before credentials were bound is bound on first use.
func TestUnboundCredentialsAreBoundOnFirstUse(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	client := clientWith("", "")
	tokens := &authclient.Tokens{}
	tokens.AccessToken, tokens.RefreshToken = "a", "r"
	if err := errors.Join(store.SaveClientInformation(t.Context(), client), store.SaveTokens(t.Context(), tokens)); err != nil {
		t.Fatal(err)
	}
	result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
	if err != nil || result.Status != authclient.Authorized {
		t.Fatalf("%+v, %v", result, err)
	}
	boundClient, err1 := store.ClientInformation(t.Context(), s.URL)
	boundTokens, err2 := store.Tokens(t.Context(), s.URL)
	if err := errors.Join(err1, err2); err != nil || boundClient.Issuer != s.URL || boundTokens.Issuer != s.URL {
		t.Errorf("%+v, %+v, %v", boundClient, boundTokens, err)
	}
	if elsewhere, _ := store.Tokens(t.Context(), "https://other.example"); elsewhere != nil {
		t.Errorf("they still count for others: %+v", elsewhere)
	}
}

// A client that was registered beforehand, without saying where, belongs to the
// first authorization server that it is used at.
func TestFixedClientIsBoundOnFirstUse(t *testing.T) {
	t.Parallel()
	one, two := newScripted(t), newScripted(t)
	p, _ := web(t, func(o *authclient.WebOptions) { o.Client = clientWith("secret", "") })
	signIn(t, p, authclient.Options{ServerURL: one.mcpURL()})
	one.setResource("authorization_servers", []string{two.URL})
	_, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: one.mcpURL(), RefusedToken: "token-1"})
	if !errors.Is(err, authclient.ErrAuthorizationServerMismatch) || len(two.to("/token")) != 0 || len(two.to("/register")) != 0 {
		t.Errorf("error %v, requests %v", err, two.lines())
	}
}

// Metadata that claim the issuer of another server do not get its credentials,
// not even with the check of the issuer off.
func TestSkippedIssuerCheckDoesNotGiveAwayCredentials(t *testing.T) {
	t.Parallel()
	one, evil := newScripted(t), newScripted(t)
	p, store := web(t, nil)
	one.saved(t, store, "old", "refresh-of-one")
	evil.set("issuer", one.URL)
	result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: evil.mcpURL(), SkipIssuerMetadataValidation: true})
	if err != nil || result.Issuer != evil.URL || len(evil.to("/token")) != 0 || result.Client.ClientID != "registered-1" {
		t.Errorf("%+v, %v, requests %v", result, err, evil.lines())
	}
}

// Between redirect and callback the MCP server names another authorization
// server: the code stays with the one that the user went to.
func TestCallbackGoesToTheServerOfTheRedirect(t *testing.T) {
	t.Parallel()
	one, evil := newScripted(t), newScripted(t)
	p, _ := web(t, nil)
	o := authclient.Options{ServerURL: one.mcpURL()}
	result, err := authclient.Auth(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	one.setResource("authorization_servers", []string{evil.URL})
	o.Callback = browse(t, result.AuthorizationURL)
	if result, err = authclient.Auth(t.Context(), p, o); err != nil || result.Issuer != one.URL || len(evil.seen()) != 0 {
		t.Errorf("%+v, %v, requests %v", result, err, evil.lines())
	}
}

func TestCallbackBinding(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(s *scripted, state *authclient.DiscoveryState) *authclient.DiscoveryState
		err    error
	}{
		{"recorded", func(_ *scripted, d *authclient.DiscoveryState) *authclient.DiscoveryState { return d }, nil},
		{"recorded without metadata", func(_ *scripted, d *authclient.DiscoveryState) *authclient.DiscoveryState {
			d.AuthorizationServer = nil
			return d
		}, nil},
		{"recorded with a slash at the end", func(_ *scripted, d *authclient.DiscoveryState) *authclient.DiscoveryState {
			d.AuthorizationServer = nil
			d.AuthorizationServerURL += "/"
			return d
		}, nil},
		{"recorded, and its metadata name another issuer now", func(s *scripted, d *authclient.DiscoveryState) *authclient.DiscoveryState {
			d.AuthorizationServer = nil
			s.set("issuer", "https://evil.example")
			return d
		}, authclient.ErrIssuerMismatch},
		{"lost", func(*scripted, *authclient.DiscoveryState) *authclient.DiscoveryState { return nil }, authclient.ErrAuthorizationServerMismatch},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			p, store := web(t, nil)
			o := authclient.Options{ServerURL: s.mcpURL()}
			result, err := authclient.Auth(t.Context(), p, o)
			if err != nil {
				t.Fatal(err)
			}
			o.Callback = browse(t, result.AuthorizationURL)
			state, err := store.DiscoveryState(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			changed := *state
			before := changed
			if err := store.SaveDiscoveryState(t.Context(), test.change(s, &changed)); err != nil {
				t.Fatal(err)
			}
			_, err = authclient.Auth(t.Context(), p, o)
			if !errors.Is(err, test.err) || test.err == nil && err != nil {
				t.Errorf("error %v", err)
			}
			if after, _ := store.DiscoveryState(t.Context()); test.err != nil && after != nil && after.AuthorizationServer != nil && !cmp.Equal(before.AuthorizationServer, after.AuthorizationServer) {
				t.Error("the state was overwritten")
			}
			if test.err != nil && len(s.to("/token")) != 0 {
				t.Error("the code was sent")
			}
		})
	}
}

// Stored discovery is used without a request, completed if it lacks something,
// and asked about again when the server has refused a token.
func TestDiscoveryState(t *testing.T) {
	t.Parallel()
	prm, as := "GET "+prmPath+"/mcp", "GET "+asPath
	for _, test := range []struct {
		name    string
		change  func(d *authclient.DiscoveryState)
		options authclient.Options
		lines   []string // of discovery
	}{
		{"all is there", func(*authclient.DiscoveryState) {}, authclient.Options{}, nil},
		{"server metadata are missing", func(d *authclient.DiscoveryState) { d.AuthorizationServer = nil }, authclient.Options{}, []string{as}},
		{"resource metadata are missing", func(d *authclient.DiscoveryState) { d.ProtectedResource = nil }, authclient.Options{}, []string{prm}},
		{"too old", func(d *authclient.DiscoveryState) { d.FoundAt = d.FoundAt.Add(-2e12 * 2) }, authclient.Options{}, []string{prm, as}},
		{"a token was refused", func(*authclient.DiscoveryState) {}, authclient.Options{RefusedToken: "old"}, []string{prm}},
		{"of another issuer than the expected one", func(d *authclient.DiscoveryState) { d.AuthorizationServerURL = "https://old.example" }, authclient.Options{ExpectedIssuer: "self"}, []string{prm, as}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			p, store := web(t, nil)
			if _, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()}); err != nil {
				t.Fatal(err)
			}
			s.saved(t, store, "old", "refresh-0")
			state, err := store.DiscoveryState(t.Context())
			if err != nil || state.AuthorizationServer == nil || state.ProtectedResource == nil {
				t.Fatalf("state %+v, error %v", state, err)
			}
			changed := *state
			test.change(&changed)
			if err := store.SaveDiscoveryState(t.Context(), &changed); err != nil {
				t.Fatal(err)
			}
			s.forget()
			test.options.ServerURL = s.mcpURL()
			if test.options.ExpectedIssuer != "" {
				test.options.ExpectedIssuer = s.URL
			}
			if _, err := authclient.Auth(t.Context(), p, test.options); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(append(test.lines, "POST /token"), s.lines()); diff != "" {
				t.Error(diff)
			}
			if after, _ := store.DiscoveryState(t.Context()); after.AuthorizationServer == nil || after.ProtectedResource == nil {
				t.Errorf("the state was not completed: %+v", after)
			}
		})
	}
}
