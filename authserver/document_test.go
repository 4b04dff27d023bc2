package authserver_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestDocumentURLRules(t *testing.T) {
	for _, test := range []struct{ rule, id, want string }{
		{"http", "http://client.example/c.json", "scheme is not https"},
		{"userinfo", "https://user@client.example/c.json", "user name"},
		{"empty userinfo", "https://@client.example/c.json", "user name"},
		{"host in userinfo", "https://claude.ai:x@client.example/c.json", "user name"},
		{"fragment", "https://client.example/c.json#a", "fragment"},
		{"empty fragment", "https://client.example/c.json#", "fragment"},
		{"no path", "https://client.example", "no path"},
		{"root path", "https://client.example/", "no path"},
		{"no path but a query", "https://client.example?c.json", "no path"},
		{"dot segment", "https://client.example/a/./c.json", "dot segment"},
		{"double-dot segment", "https://client.example/a/../c.json", "dot segment"},
		{"encoded dot segment", "https://client.example/a/%2e%2E/c.json", "dot segment"},
		{"half encoded dot segment", "https://client.example/a/.%2e/c.json", "dot segment"},
		{"dot segment at the end", "https://client.example/a/..", "dot segment"},
		{"no host", "https:///c.json", "host"},
		{"host ends in a dot", "https://client.example./c.json", "ends in a dot"},
		{"backslash", `https://client.example\@evil.example/c.json`, "percent-encoded"},
		{"space", "https://client.example/c .json", "percent-encoded"},
		{"non-ASCII", "https://clíent.example/c.json", "percent-encoded"},
		{"port that is none", "https://client.example:99999/c.json", "port"},
		{"too long", "https://client.example/" + strings.Repeat("a", 500), "longer"},
		{"escape that is none", "https://client.example/%zz", "not a URL"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			s := newClientsSite(t)
			a := s.do("GET", "/authorize?"+authorization("client_id", test.id), "")
			code, description := a.oauthError(t)
			if a.Status != http.StatusBadRequest || code != "invalid_client" || !strings.Contains(description, test.want) {
				t.Errorf("%d %s: %s", a.Status, code, description)
			}
			if s.web.allHits() != 0 {
				t.Error("it was fetched")
			}
			a = s.postForm("/token", redemption("x", "client_id", test.id))
			if code, _ := a.oauthError(t); code != "invalid_client" || a.Status != http.StatusUnauthorized {
				t.Errorf("at the token endpoint: %d %s", a.Status, code)
			}
		})
	}
}

// URLs that look odd and are allowed, compared as they came.
func TestDocumentURLAllowed(t *testing.T) {
	for _, id := range []string{
		"https://client.example/c.json?v=1", "https://client.example:8443/c.json", "https://client.example//c",
		"https://client.example/a/...", "https://Client.Example/c.json", "https://client.example/a/..b", "https://client.example/c%20d",
	} {
		w := newWeb(t)
		w.put(id, page{body: document(t, "client_id", id)})
		doc, err := newDocuments(t, w, time.Now).Get(t.Context(), id)
		if err != nil || doc.Client.ClientID != id {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestDocumentHosts(t *testing.T) {
	w := newWeb(t)
	d := newDocuments(t, w, time.Now, func(c *authserver.DocumentsConfig) { c.Hosts = []string{"claude.ai", "*.Example.com"} })
	for _, test := range []struct {
		id string
		ok bool
	}{
		{"https://claude.ai/c", true},
		{"https://CLAUDE.ai/c", true},
		{"https://a.example.com/c", true},
		{"https://a.b.example.com/c", true},
		{"https://example.com/c", false},
		{"https://evilexample.com/c", false},
		{"https://evilclaude.ai/c", false},
		{"https://a.claude.ai/c", false},
		{"https://claude.ai.evil.example/c", false},
		{"https://claude.ai@evil.example/c", false},
	} {
		if err := d.Check(test.id); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.id, err)
		}
		if _, err := d.Get(t.Context(), test.id); !test.ok && !errors.Is(err, oauth.ErrInvalidClient) {
			t.Errorf("%s: %v", test.id, err)
		}
	}
	for _, host := range []string{"", "*", "*.com", "https://claude.ai", "claude.ai/path", "claude.ai:443", "a.*.example", "claude.ai.", "user@host"} {
		if _, err := authserver.NewDocuments(authserver.DocumentsConfig{Hosts: []string{host}}); err == nil {
			t.Errorf("host %q is accepted", host)
		}
	}
}

func TestDocumentContentRules(t *testing.T) {
	for _, test := range []struct {
		rule string
		page page
		want string // part of the description, "" if it is accepted
	}{
		{"good", page{body: document(t)}, ""},
		{"type with charset", page{body: document(t), contentType: "application/json; charset=utf-8"}, ""},
		{"more specific type", page{body: document(t), contentType: "application/cimd+json"}, ""},
		{"members that are null", page{body: document(t, "client_secret", json.RawMessage("null"), "logo_uri", json.RawMessage("null"))}, ""},
		{"unknown grant type beside ours", page{body: document(t, "grant_types", []string{"authorization_code", "urn:ietf:params:oauth:grant-type:device_code"})}, ""},
		{"no method and no keys", page{body: document(t, "token_endpoint_auth_method", nil)}, ""},
		{"larger than recommended", page{body: document(t, "x", strings.Repeat("x", 8000))}, ""},
		{"one redirect URI of two is bad", page{body: document(t, "redirect_uris", []string{"http://evil.example/", callback})}, ""},

		{"html", page{body: document(t), contentType: "text/html"}, "JSON document"},
		{"json in text", page{body: document(t), contentType: "text/json"}, "JSON document"},
		{"201", page{body: document(t), status: 201}, "status 200"},
		{"redirect", page{body: document(t), status: 302, header: map[string]string{"Location": "https://client.example/other"}}, "status 200"},
		{"404", page{body: document(t), status: 404}, "status 200"},
		{"too large", page{body: document(t, "x", strings.Repeat("x", 11000))}, "too large"},
		{"empty", page{body: " "}, "malformed"},
		{"array", page{body: "[]"}, "not a JSON object"},
		{"null", page{body: "null"}, "not a JSON object"},
		{"member twice", page{body: `{"client_id":"https://evil.example/",` + document(t)[1:]}, "same name"},
		{"member of the wrong type", page{body: document(t, "redirect_uris", "https://x.example/")}, "member redirect_uris"},
		{"other client_id", page{body: document(t, "client_id", "https://client.example/other")}, "byte for byte"},
		{"client_id that only normalises alike", page{body: document(t, "client_id", "https://CLIENT.example/oauth/client.json")}, "byte for byte"},
		{"no client_id", page{body: document(t, "client_id", nil)}, "client_id is required"},
		{"client_id in other case", page{body: document(t, "client_id", nil, "Client_ID", documentURL)}, "client_id is required"},
		{"no client_name", page{body: document(t, "client_name", nil)}, "client_name is required"},
		{"invisible client_name", page{body: document(t, "client_name", "\u202e\u200b ")}, "client_name is required"},
		{"no redirect_uris", page{body: document(t, "redirect_uris", nil)}, "redirect_uris"},
		{"no redirect_uris in the list", page{body: document(t, "redirect_uris", []string{})}, "redirect_uris"},
		{"only bad redirect URIs", page{body: document(t, "redirect_uris", []string{"javascript:alert(1)", "http://evil.example/"})}, "redirect URI refused"},
		{"client_secret", page{body: document(t, "client_secret", "x")}, "client_secret is not allowed"},
		{"client_secret_expires_at", page{body: document(t, "client_secret_expires_at", 0)}, "client_secret_expires_at is not allowed"},
		{"client_secret_basic", page{body: document(t, "token_endpoint_auth_method", "client_secret_basic")}, "shared secret"},
		{"client_secret_jwt", page{body: document(t, "token_endpoint_auth_method", "client_secret_jwt")}, "shared secret"},
		{"client_secret_post among several", page{body: document(t, "token_endpoint_auth_methods_supported", []string{"none", "client_secret_post"})}, "shared secret"},
		{"method that nobody here verifies", page{body: document(t, "token_endpoint_auth_method", "tls_client_auth")}, "no method of client authentication"},
		{"private_key_jwt without keys", page{body: document(t, "token_endpoint_auth_method", "private_key_jwt")}, "needs jwks"},
		{"private_key_jwt with empty keys", page{body: document(t, "token_endpoint_auth_method", "private_key_jwt", "jwks", map[string]any{"keys": []any{}})}, "no public key"},
		{"private_key_jwt with other alg", page{body: document(t, "token_endpoint_auth_method", "private_key_jwt", "jwks_uri", "https://client.example/keys", "token_endpoint_auth_signing_alg", "HS256")}, "signing_alg"},
		{"keys at http", page{body: document(t, "token_endpoint_auth_method", "private_key_jwt", "jwks_uri", "http://client.example/keys")}, "jwks_uri"},
		{"keys in a file", page{body: document(t, "token_endpoint_auth_method", "private_key_jwt", "jwks_uri", "file:///etc/passwd")}, "jwks_uri"},
		{"keys here and there", page{body: document(t, "jwks_uri", "https://client.example/keys", "jwks", map[string]any{"keys": []any{}})}, "jwks"},
		{"grants without code", page{body: document(t, "grant_types", []string{"client_credentials"})}, "grant_types"},
		{"response type token", page{body: document(t, "response_types", []string{"token"})}, "response_types"},
		{"application_type", page{body: document(t, "application_type", "service")}, "application_type"},
	} {
		t.Run(test.rule, func(t *testing.T) {
			s := newClientsSite(t)
			s.web.put(documentURL, test.page)
			a := s.do("GET", "/authorize?"+authorization("client_id", documentURL), "")
			if test.want == "" {
				if a.location(t).Get("code") == "" {
					t.Errorf("no code: %v", a)
				}
				return
			}
			code, description := a.oauthError(t)
			if a.Status != http.StatusBadRequest || code != "invalid_client" || !strings.Contains(description, test.want) {
				t.Errorf("%d %s: %s", a.Status, code, description)
			}
		})
	}
}

// The documents of known clients, in the shapes that public threads show.
func TestKnownDocuments(t *testing.T) {
	common := `"grant_types":["authorization_code","refresh_token"],"response_types":["code"]`
	for _, test := range []struct {
		client, id, members string
		method              string
		methods             []string
		redirectURIs        []string
	}{
		{
			"Claude", "https://claude.ai/oauth/mcp-oauth-client-metadata",
			`"client_name":"Claude","client_uri":"https://claude.ai","redirect_uris":["https://claude.ai/api/mcp/auth_callback","https://claude.com/api/mcp/auth_callback"],"token_endpoint_auth_method":"none"`,
			"none",
			[]string{"none"},
			[]string{"https://claude.ai/api/mcp/auth_callback", "https://claude.com/api/mcp/auth_callback"},
		},
		{
			"Claude Code", "https://claude.ai/oauth/claude-code-client-metadata",
			`"client_name":"Claude Code","client_uri":"https://claude.ai","redirect_uris":["http://localhost/callback","http://127.0.0.1/callback"],"token_endpoint_auth_method":"none"`,
			"none",
			[]string{"none"},
			[]string{"http://localhost/callback", "http://127.0.0.1/callback"},
		},
		{
			"VS Code", "https://vscode.dev/oauth/client-metadata.json",
			`"client_name":"Visual Studio Code","client_uri":"https://vscode.dev/product","logo_uri":"https://code.visualstudio.com/icon.png","application_type":"native","redirect_uris":["http://127.0.0.1:33418/","https://vscode.dev/redirect"],"token_endpoint_auth_method":"none"`,
			"none",
			[]string{"none"},
			[]string{"http://127.0.0.1:33418/", "https://vscode.dev/redirect"},
		},
		{
			"ChatGPT, private_key_jwt only", "https://chatgpt.com/oauth/abc123/client.json",
			`"client_name":"ChatGPT","redirect_uris":["https://chatgpt.com/connector/oauth/abc123"],"token_endpoint_auth_method":"private_key_jwt","token_endpoint_auth_signing_alg":"RS256","jwks_uri":"https://chatgpt.com/oauth/jwks.json"`,
			"private_key_jwt",
			[]string{"private_key_jwt"},
			[]string{"https://chatgpt.com/connector/oauth/abc123"},
		},
		{
			"ChatGPT, either", "https://chatgpt.com/oauth/client.json",
			`"client_name":"ChatGPT","redirect_uris":["https://chatgpt.com/connector_platform_oauth_redirect"],"token_endpoint_auth_method":"private_key_jwt","token_endpoint_auth_methods_supported":["none","private_key_jwt"],"token_endpoint_auth_signing_alg":"RS256","jwks_uri":"https://chatgpt.com/oauth/jwks.json"`,
			"none",
			[]string{"private_key_jwt", "none"},
			[]string{"https://chatgpt.com/connector_platform_oauth_redirect"},
		},
		{
			"Codex", "https://chatgpt.com/oauth/codex/client.json",
			`"client_name":"Codex","redirect_uris":["http://127.0.0.1/callback","http://localhost/callback"],"token_endpoint_auth_method":"none"`,
			"none",
			[]string{"none"},
			[]string{"http://127.0.0.1/callback", "http://localhost/callback"},
		},
		{
			"Zed", "https://zed.dev/oauth/client-metadata.json",
			`"client_name":"Zed","application_type":"native","redirect_uris":["http://127.0.0.1/callback"],"token_endpoint_auth_method":"none"`,
			"none",
			[]string{"none"},
			[]string{"http://127.0.0.1/callback"},
		},
		{
			"Goose", "https://goose-docs.ai/oauth/client-metadata.json",
			`"client_name":"goose","client_uri":"https://goose-docs.ai","redirect_uris":["http://127.0.0.1/oauth_callback","http://localhost/oauth_callback"],"token_endpoint_auth_method":"none"`,
			"none",
			[]string{"none"},
			[]string{"http://127.0.0.1/oauth_callback", "http://localhost/oauth_callback"},
		},
		{
			"opencode", "https://opencode.ai/oauth/opencode/client.json",
			`"client_name":"OpenCode","redirect_uris":["http://127.0.0.1/mcp/oauth/callback","http://localhost/mcp/oauth/callback"],"token_endpoint_auth_method":"none"`,
			"none",
			[]string{"none"},
			[]string{"http://127.0.0.1/mcp/oauth/callback", "http://localhost/mcp/oauth/callback"},
		},
	} {
		t.Run(test.client, func(t *testing.T) {
			w := newWeb(t)
			w.put(test.id, page{body: fmt.Sprintf(`{"client_id":%q,%s,%s}`, test.id, test.members, common)})
			doc, err := newDocuments(t, w, time.Now).Get(t.Context(), test.id)
			if err != nil {
				t.Fatal(err)
			}
			if doc.Client.TokenEndpointAuthMethod != test.method || doc.Client.ClientID != test.id || !doc.Client.AllowsGrant("refresh_token") {
				t.Errorf("%+v", doc.Client)
			}
			if diff := cmp.Diff(test.methods, doc.Methods); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(test.redirectURIs, doc.Client.RedirectURIs); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A change counts with the next fetch, and shows in the hash, so that
// remembered consent is dropped.
func TestDocumentChange(t *testing.T) {
	w, now := newWeb(t), &clock{now: time.Unix(1_800_000_000, 0)}
	d := newDocuments(t, w, now.Now)
	w.put("https://client.example/keys", page{body: `{"keys":[]}`})
	seen := map[[32]byte]string{}
	for _, change := range [][]any{
		{},
		{"client_name", "Other"},
		{"redirect_uris", []string{callback, "https://app.example.com/other"}},
		{"scope", "a b"},
		{"client_uri", "https://client.example"},
		{"grant_types", []string{"authorization_code"}},
		{"application_type", "web"},
		{"jwks_uri", "https://client.example/keys"},
		{"jwks_uri", "https://client.example/other-keys"},
	} {
		w.put(documentURL, page{body: document(t, change...)})
		now.advance(2 * time.Hour)
		doc, err := d.Get(t.Context(), documentURL)
		if err != nil {
			t.Fatal(change, err)
		}
		if before, ok := seen[doc.Hash]; ok || doc.Hash != authserver.MetadataHash(doc.Client) {
			t.Errorf("%v has the hash of %s", change, before)
		}
		seen[doc.Hash] = fmt.Sprint(change)
		if got := authserver.ClientHash(doc.Client); got != authserver.ClientHash(&oauth.Client{ClientInformation: oauth.ClientInformation{ClientID: documentURL}}) {
			t.Error("the hash for blocking changes with the document")
		}
	}
	w.put(documentURL, page{body: document(t, "logo_uri", "https://client.example/logo.png", "x", 1)})
	now.advance(2 * time.Hour)
	if doc, err := d.Get(t.Context(), documentURL); err != nil || seen[doc.Hash] != "[]" {
		t.Errorf("what nobody relies on changes the hash: %v", err)
	}
}

func TestVerifiedHost(t *testing.T) {
	for id, want := range map[string]string{
		"https://Claude.ai/oauth/c": "claude.ai", "https://client.example:8443/c": "client.example:8443", "my-app": "", "AQabc": "",
	} {
		host, verified := authserver.VerifiedHost(&oauth.Client{ClientInformation: oauth.ClientInformation{ClientID: id}})
		if host != want || verified != (want != "") {
			t.Errorf("%s: %q, %t", id, host, verified)
		}
	}
}
