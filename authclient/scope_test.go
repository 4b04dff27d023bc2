package authclient_test

import (
	"testing"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestSelectScope(t *testing.T) {
	t.Parallel()
	resource := func(scopes ...string) *oauth.ProtectedResourceMetadata {
		return &oauth.ProtectedResourceMetadata{ScopesSupported: scopes}
	}
	server := func(scopes ...string) *oauth.Metadata { return &oauth.Metadata{ScopesSupported: scopes} }
	refreshes := []string{"authorization_code", "refresh_token"}
	for _, test := range []struct {
		name      string
		challenge string
		resource  *oauth.ProtectedResourceMetadata
		server    *oauth.Metadata
		client    oauth.ClientMetadata
		want      string
	}{
		{"the challenge first", "a b", resource("c"), nil, oauth.ClientMetadata{Scope: "d"}, "a b"},
		{"the resource second", "", resource("c", "d"), nil, oauth.ClientMetadata{Scope: "e"}, "c d"},
		{"the client third", "", resource(), nil, oauth.ClientMetadata{Scope: "e"}, "e"},
		{"the client, without metadata", "", nil, nil, oauth.ClientMetadata{Scope: "e"}, "e"},
		{"none", "", nil, nil, oauth.ClientMetadata{}, ""},
		{"none of an empty list", "", resource(), nil, oauth.ClientMetadata{}, ""},
		{"offline_access to a challenge", "a", nil, server("offline_access"), oauth.ClientMetadata{GrantTypes: refreshes}, "a offline_access"},
		{"offline_access to the resource", "", resource("c"), server("x", "offline_access"), oauth.ClientMetadata{GrantTypes: refreshes}, "c offline_access"},
		{"offline_access to the client", "", nil, server("offline_access"), oauth.ClientMetadata{Scope: "e", GrantTypes: refreshes}, "e offline_access"},
		{"offline_access not alone", "", nil, server("offline_access"), oauth.ClientMetadata{GrantTypes: refreshes}, ""},
		{"offline_access not if the server lacks it", "a", nil, server("a"), oauth.ClientMetadata{GrantTypes: refreshes}, "a"},
		{"offline_access not without metadata", "a", nil, nil, oauth.ClientMetadata{GrantTypes: refreshes}, "a"},
		{"offline_access not twice, of the client", "", nil, server("offline_access"), oauth.ClientMetadata{Scope: "e offline_access", GrantTypes: refreshes}, "e offline_access"},
		{"offline_access not twice, of the resource", "", resource("offline_access", "c"), server("offline_access"), oauth.ClientMetadata{GrantTypes: refreshes}, "offline_access c"},
		{"offline_access not without the grant", "a", nil, server("offline_access"), oauth.ClientMetadata{GrantTypes: []string{"authorization_code"}}, "a"},
		{"offline_access not if the client does not say", "a", nil, server("offline_access"), oauth.ClientMetadata{}, "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := authclient.SelectScope(test.challenge, test.resource, test.server, test.client); got != test.want {
				t.Errorf("scope %q", got)
			}
		})
	}
}

func TestComputeScopeUnion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		scopes []string
		want   string
	}{
		{"nothing", nil, ""},
		{"empty ones", []string{"", " "}, ""},
		{"in the order of appearance", []string{"b a", "c a"}, "b a c"},
		{"runs of spaces", []string{" a  b ", "\ta"}, "a b"},
		{"a broad scope does not swallow a narrow one", []string{"mcp", "mcp:read"}, "mcp mcp:read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := authclient.ComputeScopeUnion(test.scopes...); got != test.want {
				t.Errorf("union %q", got)
			}
		})
	}
}

func TestIsStrictScopeSuperset(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, union, current string
		want                 bool
	}{
		{"nothing", "", "a", false},
		{"the same", "a b", "b a", false},
		{"less", "a", "a b", false},
		{"more", "a b", "a", true},
		{"more than nothing", "a", "", true},
		{"other", "c", "a b", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := authclient.IsStrictScopeSuperset(test.union, test.current); got != test.want {
				t.Errorf("superset %v", got)
			}
		})
	}
}

// The scope of the authorization request goes to the registration too, with all
// that the resource supports: a later step-up may need it.
func TestScopeInRequests(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		challenge     string
		offline       bool // the server lists it and the client says refresh_token
		scope, prompt string

		alsoRegistered string
	}{
		{"challenge", "a b", false, "a b", "", "mcp:read mcp:write"},
		{"all that the resource supports", "", false, "mcp:read mcp:write", "", ""},
		{"offline_access asks for consent", "a", true, "a offline_access", "consent", ""}, // the server lists no other
		{"a scope that only contains the word does not", "a not_offline_access", false, "a not_offline_access", "", "mcp:read mcp:write"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.setResource("scopes_supported", []string{"mcp:read", "mcp:write"})
			p, _ := web(t, func(o *authclient.WebOptions) {
				if test.offline {
					s.set("scopes_supported", []string{"offline_access"})
					o.Metadata.GrantTypes = []string{"authorization_code", "refresh_token"}
				}
			})
			result := signIn(t, p, authclient.Options{ServerURL: s.mcpURL(), Scope: test.challenge})
			q := query(t, s.to("/authorize")[0].Query)
			if q.Get("scope") != test.scope || q.Get("prompt") != test.prompt {
				t.Errorf("scope %q, prompt %q", q.Get("scope"), q.Get("prompt"))
			}
			if got := object(t, s.to("/register")[0].Body)["scope"]; got != authclient.ComputeScopeUnion(test.scope, test.alsoRegistered) {
				t.Errorf("registered scope %q", got)
			}
			if result.Tokens.Scope != test.scope {
				t.Errorf("scope of the tokens %q", result.Tokens.Scope)
			}
			for _, r := range s.to("/token") {
				if r.Form.Has("scope") {
					t.Error("a scope at the token endpoint")
				}
			}
		})
	}
}
