package authserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// A client goes through the whole flow with a document as its id, on a port
// that the document does not name.
func TestDocumentFlow(t *testing.T) {
	s := newClientsSite(t)
	s.web.put(documentURL, page{body: document(t, "redirect_uris", []string{"http://localhost/callback"})})
	const redirect = "http://localhost:54321/callback"
	code := s.code("client_id", documentURL, "redirect_uri", redirect)
	if got := s.web.hitsOf(documentURL); got != 1 {
		t.Errorf("%d fetches", got)
	}
	// The vendor's site goes down: the token endpoint does not need it.
	s.web.put(documentURL, page{status: http.StatusInternalServerError})
	s.clock.advance(25 * time.Hour)
	a := s.postForm("/token", redemption(code, "client_id", documentURL, "redirect_uri", redirect))
	if a.Status != http.StatusOK {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	var tokens oauth.Tokens
	if err := json.Unmarshal([]byte(a.Body), &tokens); err != nil {
		t.Fatal(err)
	}
	for path, form := range map[string]string{
		"/token":  "grant_type=refresh_token&client_id=" + url.QueryEscape(documentURL) + "&refresh_token=" + tokens.RefreshToken,
		"/revoke": "client_id=" + url.QueryEscape(documentURL) + "&token=" + tokens.AccessToken,
	} {
		if a := s.postForm(path, form); a.Status != http.StatusOK {
			t.Errorf("%s: status %d: %s", path, a.Status, a.Body)
		}
	}
	if got := s.web.hitsOf(documentURL); got != 1 {
		t.Errorf("%d fetches, the token endpoint must not fetch for a public client", got)
	}
}

func TestDocumentMetadata(t *testing.T) {
	with, without := newClientsSite(t), newSite(t)
	m := with.server.Metadata()
	if !m.ClientIDMetadataDocumentSupported {
		t.Error("client_id_metadata_document_supported is not set")
	}
	if diff := cmp.Diff([]string{"client_secret_basic", "client_secret_post", "none", "private_key_jwt"}, m.TokenEndpointAuthMethodsSupported); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"RS256", "ES256", "EdDSA"}, m.TokenEndpointAuthSigningAlgValuesSupported); diff != "" {
		t.Error(diff)
	}
	if got := string(m.Extra["revocation_endpoint_auth_signing_alg_values_supported"]); got != `["RS256","ES256","EdDSA"]` {
		t.Error(got)
	}
	m = without.server.Metadata()
	if m.ClientIDMetadataDocumentSupported || len(m.TokenEndpointAuthMethodsSupported) != 3 || m.TokenEndpointAuthSigningAlgValuesSupported != nil || m.Extra != nil {
		t.Errorf("a store without documents advertises them: %+v", m)
	}
}

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
			"none", []string{"none"}, []string{"https://claude.ai/api/mcp/auth_callback", "https://claude.com/api/mcp/auth_callback"},
		},
		{
			"Claude Code", "https://claude.ai/oauth/claude-code-client-metadata",
			`"client_name":"Claude Code","client_uri":"https://claude.ai","redirect_uris":["http://localhost/callback","http://127.0.0.1/callback"],"token_endpoint_auth_method":"none"`,
			"none", []string{"none"}, []string{"http://localhost/callback", "http://127.0.0.1/callback"},
		},
		{
			"VS Code", "https://vscode.dev/oauth/client-metadata.json",
			`"client_name":"Visual Studio Code","client_uri":"https://vscode.dev/product","logo_uri":"https://code.visualstudio.com/icon.png","application_type":"native","redirect_uris":["http://127.0.0.1:33418/","https://vscode.dev/redirect"],"token_endpoint_auth_method":"none"`,
			"none", []string{"none"}, []string{"http://127.0.0.1:33418/", "https://vscode.dev/redirect"},
		},
		{
			"ChatGPT, private_key_jwt only", "https://chatgpt.com/oauth/abc123/client.json",
			`"client_name":"ChatGPT","redirect_uris":["https://chatgpt.com/connector/oauth/abc123"],"token_endpoint_auth_method":"private_key_jwt","token_endpoint_auth_signing_alg":"RS256","jwks_uri":"https://chatgpt.com/oauth/jwks.json"`,
			"private_key_jwt", []string{"private_key_jwt"}, []string{"https://chatgpt.com/connector/oauth/abc123"},
		},
		{
			"ChatGPT, either", "https://chatgpt.com/oauth/client.json",
			`"client_name":"ChatGPT","redirect_uris":["https://chatgpt.com/connector_platform_oauth_redirect"],"token_endpoint_auth_method":"private_key_jwt","token_endpoint_auth_methods_supported":["none","private_key_jwt"],"token_endpoint_auth_signing_alg":"RS256","jwks_uri":"https://chatgpt.com/oauth/jwks.json"`,
			"none", []string{"private_key_jwt", "none"}, []string{"https://chatgpt.com/connector_platform_oauth_redirect"},
		},
		{
			"Codex", "https://chatgpt.com/oauth/codex/client.json",
			`"client_name":"Codex","redirect_uris":["http://127.0.0.1/callback","http://localhost/callback"],"token_endpoint_auth_method":"none"`,
			"none", []string{"none"}, []string{"http://127.0.0.1/callback", "http://localhost/callback"},
		},
		{
			"Zed", "https://zed.dev/oauth/client-metadata.json",
			`"client_name":"Zed","application_type":"native","redirect_uris":["http://127.0.0.1/callback"],"token_endpoint_auth_method":"none"`,
			"none", []string{"none"}, []string{"http://127.0.0.1/callback"},
		},
		{
			"Goose", "https://goose-docs.ai/oauth/client-metadata.json",
			`"client_name":"goose","client_uri":"https://goose-docs.ai","redirect_uris":["http://127.0.0.1/oauth_callback","http://localhost/oauth_callback"],"token_endpoint_auth_method":"none"`,
			"none", []string{"none"}, []string{"http://127.0.0.1/oauth_callback", "http://localhost/oauth_callback"},
		},
		{
			"opencode", "https://opencode.ai/oauth/opencode/client.json",
			`"client_name":"OpenCode","redirect_uris":["http://127.0.0.1/mcp/oauth/callback","http://localhost/mcp/oauth/callback"],"token_endpoint_auth_method":"none"`,
			"none", []string{"none"}, []string{"http://127.0.0.1/mcp/oauth/callback", "http://localhost/mcp/oauth/callback"},
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

func TestDocumentFreshness(t *testing.T) {
	base := time.Unix(1_800_000_000, 0)
	for _, test := range []struct {
		rule   string
		header map[string]string
		life   time.Duration
	}{
		{"nothing said", nil, time.Hour},
		{"max-age", map[string]string{"Cache-Control": "public, max-age=7200"}, 2 * time.Hour},
		{"below the least", map[string]string{"Cache-Control": "max-age=0"}, 5 * time.Minute},
		{"above the most", map[string]string{"Cache-Control": "max-age=31536000"}, 24 * time.Hour},
		{"no-store", map[string]string{"Cache-Control": "no-store, max-age=7200"}, 5 * time.Minute},
		{"no-cache", map[string]string{"Cache-Control": "No-Cache"}, 5 * time.Minute},
		{"s-maxage wins", map[string]string{"Cache-Control": "s-maxage=7200, max-age=600"}, 2 * time.Hour},
		{"age in a cache before", map[string]string{"Cache-Control": "max-age=7200", "Age": "3600"}, time.Hour},
		{"expires", map[string]string{"Date": base.UTC().Format(http.TimeFormat), "Expires": base.Add(3 * time.Hour).UTC().Format(http.TimeFormat)}, 3 * time.Hour},
		{"expires in the past", map[string]string{"Date": base.UTC().Format(http.TimeFormat), "Expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, 5 * time.Minute},
		{"garbage", map[string]string{"Cache-Control": "max-age=x, ,=,", "Age": "x", "Expires": "0"}, time.Hour},
		{"negative", map[string]string{"Cache-Control": "max-age=-1"}, 5 * time.Minute},
	} {
		t.Run(test.rule, func(t *testing.T) {
			w, now := newWeb(t), &clock{now: base}
			w.put(documentURL, page{body: document(t), header: test.header})
			d := newDocuments(t, w, now.Now)
			get := func() {
				t.Helper()
				if _, err := d.Get(t.Context(), documentURL); err != nil {
					t.Fatal(err)
				}
			}
			get()
			now.advance(test.life - time.Second)
			get()
			if got := w.hitsOf(documentURL); got != 1 {
				t.Errorf("%d fetches while it is fresh", got)
			}
			now.advance(time.Second)
			get()
			if got := w.hitsOf(documentURL); got != 2 {
				t.Errorf("%d fetches after that", got)
			}
		})
	}
}

func TestDocumentStale(t *testing.T) {
	for _, test := range []struct {
		rule  string
		then  page
		stale bool
	}{
		{"connection reset", page{reset: true}, true},
		{"500", page{status: 500}, true},
		{"503", page{status: 503}, true},
		{"429", page{status: 429}, true},
		{"404 counts at once", page{status: 404}, false},
		{"410 counts at once", page{status: 410}, false},
		{"403 counts at once", page{status: 403}, false},
		{"redirect counts at once", page{status: 301}, false},
		{"invalid counts at once", page{body: "{}"}, false},
		{"other type counts at once", page{body: document(t), contentType: "text/html"}, false},
		{"other method counts at once", page{body: document(t, "token_endpoint_auth_method", "tls_client_auth")}, false},
	} {
		t.Run(test.rule, func(t *testing.T) {
			w, now := newWeb(t), &clock{now: time.Unix(1_800_000_000, 0)}
			d := newDocuments(t, w, now.Now)
			w.put(documentURL, page{body: document(t)})
			if _, err := d.Get(t.Context(), documentURL); err != nil {
				t.Fatal(err)
			}
			w.put(documentURL, test.then)
			now.advance(2 * time.Hour)
			_, err := d.Get(t.Context(), documentURL)
			if test.stale != (err == nil) || !test.stale && !errors.Is(err, oauth.ErrInvalidClient) {
				t.Fatalf("error %v", err)
			}
			if !test.stale {
				// Gone for good: trouble later does not bring it back.
				w.put(documentURL, page{status: 500})
				if _, err := d.Get(t.Context(), documentURL); !errors.Is(err, oauth.ErrTemporarilyUnavailable) {
					t.Errorf("error %v", err)
				}
				return
			}
			// The host in trouble is left alone for a while.
			hits := w.hitsOf(documentURL)
			for range 100 {
				if _, err := d.Get(t.Context(), documentURL); err != nil {
					t.Fatal(err)
				}
			}
			if got := w.hitsOf(documentURL); got != hits {
				t.Errorf("%d fetches more", got-hits)
			}
			// 24 hours after the last good fetch it is over.
			now.advance(22 * time.Hour)
			if _, err := d.Get(t.Context(), documentURL); err != nil {
				t.Errorf("after 24 hours: %v", err)
			}
			now.advance(time.Minute)
			if _, err := d.Get(t.Context(), documentURL); !errors.Is(err, oauth.ErrTemporarilyUnavailable) {
				t.Errorf("after more than 24 hours: %v", err)
			}
			// And it comes back, for errors are not kept.
			w.put(documentURL, page{body: document(t, "client_name", "New")})
			if doc, err := d.Get(t.Context(), documentURL); err != nil || doc.Client.ClientName != "New" {
				t.Errorf("after the trouble: %v", err)
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

func TestDocumentFailuresAreThrottled(t *testing.T) {
	at := func(i int) string { return fmt.Sprintf("https://client.example/%d", i) }
	t.Run("per host", func(t *testing.T) {
		w, now := newWeb(t), &clock{now: time.Unix(1_800_000_000, 0)}
		d := newDocuments(t, w, now.Now)
		w.put(documentURL, page{body: document(t), header: map[string]string{"Cache-Control": "max-age=300"}})
		if _, err := d.Get(t.Context(), documentURL); err != nil {
			t.Fatal(err)
		}
		now.advance(5*time.Minute - 30*time.Second)
		for i := range 20 {
			ctx := authserver.ContextWithCaller(t.Context(), fmt.Sprintf("192.0.2.%d", i))
			if _, err := d.Get(ctx, at(i)); !errors.Is(err, oauth.ErrInvalidClient) {
				t.Fatal(i, err)
			}
		}
		hits := w.allHits()
		ctx := authserver.ContextWithCaller(t.Context(), "192.0.2.100")
		if _, err := d.Get(ctx, at(20)); !errors.Is(err, oauth.ErrTooManyRequests) || w.allHits() != hits {
			t.Errorf("the 21st: %v, %d fetches more", err, w.allHits()-hits)
		}
		other := "https://other.example/c"
		w.put(other, page{body: document(t, "client_id", other)})
		if _, err := d.Get(ctx, other); err != nil {
			t.Errorf("another host: %v", err)
		}
		// Nobody can keep out a client that was good before.
		now.advance(31 * time.Second)
		for i := range 20 {
			_, _ = d.Get(authserver.ContextWithCaller(t.Context(), fmt.Sprintf("192.0.2.%d", 100+i)), at(i))
		}
		if _, err := d.Get(ctx, documentURL); err != nil || w.hitsOf(documentURL) != 2 {
			t.Errorf("a known document: %v, %d fetches", err, w.hitsOf(documentURL))
		}
		now.advance(time.Minute)
		if _, err := d.Get(ctx, at(21)); !errors.Is(err, oauth.ErrInvalidClient) {
			t.Errorf("a minute later: %v", err)
		}
	})
	t.Run("per caller", func(t *testing.T) {
		s := newClientsSite(t)
		authorize := func(i int) int {
			id := fmt.Sprintf("https://client%d.example/c", i)
			return s.do("GET", "/authorize?"+authorization("client_id", id), "").Status
		}
		for i := range 20 {
			if got := authorize(i); got != http.StatusBadRequest {
				t.Fatal(i, got)
			}
		}
		hits := s.web.allHits()
		if got := authorize(20); got != http.StatusTooManyRequests || s.web.allHits() != hits {
			t.Errorf("status %d, %d fetches more", got, s.web.allHits()-hits)
		}
	})
	t.Run("successes do not count", func(t *testing.T) {
		w, now := newWeb(t), &clock{now: time.Unix(1_800_000_000, 0)}
		d := newDocuments(t, w, now.Now)
		for i := range 50 {
			w.put(at(i), page{body: document(t, "client_id", at(i))})
			if _, err := d.Get(t.Context(), at(i)); err != nil {
				t.Fatal(i, err)
			}
		}
	})
}

// Trouble is 503, so that the client does not forget its registration.
func TestDocumentTroubleIsPassing(t *testing.T) {
	s := newClientsSite(t)
	for _, p := range []page{{status: 500}, {status: 429}, {reset: true}} {
		s.web.put(documentURL, p)
		a := s.do("GET", "/authorize?"+authorization("client_id", documentURL), "")
		if code, _ := a.oauthError(t); a.Status != http.StatusServiceUnavailable || code != "temporarily_unavailable" || a.Header.Get("Retry-After") == "" {
			t.Errorf("%+v: %d %s", p, a.Status, code)
		}
	}
	if got := s.web.hitsOf(documentURL); got < 3 {
		t.Errorf("%d fetches: an error was kept", got)
	}
}

func TestDocumentFetchesAtOnce(t *testing.T) {
	wait := make(chan struct{})
	w := newWeb(t)
	d := newDocuments(t, w, time.Now)
	var all sync.WaitGroup
	get := func(id, caller string) {
		all.Go(func() {
			ctx := authserver.ContextWithCaller(context.Background(), caller)
			if _, err := d.Get(ctx, id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	// 8 for one host, of which 4 run, and 40 for 40 hosts, of which 28 run.
	for i := range 8 {
		id := fmt.Sprintf("https://client.example/%d", i)
		w.put(id, page{body: document(t, "client_id", id), wait: wait})
		get(id, fmt.Sprintf("192.0.2.%d", i))
	}
	w.inUse(t, 4)
	for i := range 40 {
		id := fmt.Sprintf("https://client%d.example/c", i)
		w.put(id, page{body: document(t, "client_id", id), wait: wait})
		get(id, fmt.Sprintf("198.51.100.%d", i))
	}
	w.inUse(t, 32)
	// Everybody who wants a document that is on its way waits for it.
	for range 20 {
		get("https://client0.example/c", "203.0.113.1")
	}
	close(wait)
	all.Wait()
	if w.most != 32 || w.hitsOf("https://client0.example/c") != 1 {
		t.Errorf("%d at once, %d fetches of one document", w.most, w.hitsOf("https://client0.example/c"))
	}
}

// inUse waits until n requests are inside the server.
func (w *web) inUse(t *testing.T, n int) {
	t.Helper()
	deadline := time.Now().Add(4 * time.Second)
	for time.Now().Before(deadline) {
		w.mu.Lock()
		inside := w.inside
		w.mu.Unlock()
		if inside == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("never %d requests at once, at most %d", n, w.most)
}

// A caller who goes away does not take the document from those who wait.
func TestDocumentLeaderGoesAway(t *testing.T) {
	wait := make(chan struct{})
	w := newWeb(t)
	w.put(documentURL, page{body: document(t), wait: wait})
	d := newDocuments(t, w, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _, _ = d.Get(ctx, documentURL) })
	w.inUse(t, 1)
	cancel()
	all.Go(func() {
		if _, err := d.Get(t.Context(), documentURL); err != nil {
			t.Error(err)
		}
	})
	gone, stop := context.WithCancel(t.Context())
	stop()
	if _, err := d.Get(gone, documentURL); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits and goes away: %v", err)
	}
	close(wait)
	all.Wait()
}

func TestDocumentCacheIsBounded(t *testing.T) {
	w := newWeb(t)
	at := func(i int) string { return fmt.Sprintf("https://client.example/%d", i) }
	fill := func(configure func(*authserver.DocumentsConfig), filling int) *authserver.Documents {
		d := newDocuments(t, w, time.Now, configure)
		for i := range 6 {
			w.put(at(i), page{body: document(t, "client_id", at(i), "x", strings.Repeat("x", filling))})
			if _, err := d.Get(t.Context(), at(i)); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	kept := func(d *authserver.Documents) (n int) {
		for i := 5; i >= 0; i-- {
			hits := w.hitsOf(at(i))
			if _, err := d.Get(t.Context(), at(i)); err != nil {
				t.Fatal(err)
			}
			if w.hitsOf(at(i)) > hits {
				return n
			}
			n++
		}
		return n
	}
	if got := kept(fill(func(c *authserver.DocumentsConfig) { c.MaxEntries = 3 }, 0)); got != 3 {
		t.Errorf("%d documents kept of at most 3", got)
	}
	if got := kept(fill(func(c *authserver.DocumentsConfig) { c.MaxBytes = 40 << 10 }, 8000)); got != 2 {
		t.Errorf("%d documents kept of at most 40 KiB", got)
	}
}

// What a stranger names inside the network is never connected to.
func TestDocumentSSRF(t *testing.T) {
	var hits int
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits++
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(document(t)))
	}))
	defer inside.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(inside.URL, "http://"), ":")
	s := newClientsSite(t, func(_ *authserver.ClientsConfig, d *authserver.DocumentsConfig) { d.Client = nil })
	for _, id := range []string{
		inside.URL + "/c", "https://127.0.0.1:" + port + "/c", "https://localhost:" + port + "/c", "https://127.0.0.1/c",
		"https://[::1]/c", "https://[::ffff:127.0.0.1]/c", "https://0.0.0.0/c", "https://2130706433/c", "https://0x7f.1/c",
		"https://169.254.169.254/latest/meta-data", "https://[fe80::1]/c", "https://10.0.0.1/c", "https://100.100.100.200/c",
		"https://[64:ff9b::7f00:1]/c", "https://[2002:7f00:1::]/c", "https://localhost/c",
	} {
		a := s.do("GET", "/authorize?"+authorization("client_id", id), "")
		if code, description := a.oauthError(t); a.Status != http.StatusBadRequest || code != "invalid_client" {
			t.Errorf("%s: %d %s: %s", id, a.Status, code, description)
		}
	}
	if hits != 0 {
		t.Errorf("%d requests reached the inside", hits)
	}
}

// private_document_origins lifts the check of the address for that origin, not
// for others that its documents name.
func TestDocumentPrivateOrigins(t *testing.T) {
	var served string
	var keyHits int
	mux := http.NewServeMux()
	inside := httptest.NewServer(mux)
	defer inside.Close()
	mux.HandleFunc("/c", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(served))
	})
	mux.HandleFunc("/keys", func(http.ResponseWriter, *http.Request) { keyHits++ })
	id := inside.URL + "/c"
	get := func(origins ...string) (*authserver.Document, error) {
		d, err := authserver.NewDocuments(authserver.DocumentsConfig{PrivateOrigins: origins})
		if err != nil {
			t.Fatal(err)
		}
		return d.Get(t.Context(), id)
	}
	served = document(t, "client_id", id)
	if doc, err := get(inside.URL); err != nil || doc.Client.ClientID != id {
		t.Errorf("listed: %v", err)
	}
	if _, err := get("http://127.0.0.1:1"); !errors.Is(err, oauth.ErrInvalidClient) {
		t.Errorf("another origin listed: %v", err)
	}
	if _, err := authserver.NewDocuments(authserver.DocumentsConfig{PrivateOrigins: []string{"http://inside.example"}}); err == nil {
		t.Error("http on another host than loopback is accepted")
	}
	// A stranger's document names keys on the exempt origin.
	w := newWeb(t)
	d := newDocuments(t, w, time.Now, func(c *authserver.DocumentsConfig) { c.PrivateOrigins = []string{"https://inside.example"} })
	w.put(documentURL, page{body: document(t, "token_endpoint_auth_method", "private_key_jwt", "jwks_uri", "https://inside.example/keys")})
	if _, err := d.Get(t.Context(), documentURL); !errors.Is(err, oauth.ErrInvalidClient) {
		t.Errorf("keys on the exempt origin: %v", err)
	}
	own := "https://inside.example/c"
	w.put(own, page{body: document(t, "client_id", own, "token_endpoint_auth_method", "private_key_jwt", "jwks_uri", "https://inside.example/keys")})
	if _, err := d.Get(t.Context(), own); err != nil {
		t.Errorf("keys on its own origin: %v", err)
	}
	if keyHits != 0 {
		t.Error("the keys were fetched without an assertion")
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
