package authserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

func TestBlockedClients(t *testing.T) {
	blocked := map[[32]byte]bool{}
	var trouble error
	var mu sync.Mutex
	s := newClientsSite(t, func(c *authserver.ClientsConfig, _ *authserver.DocumentsConfig) {
		c.Blocked = func(_ context.Context, hash [32]byte) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			return blocked[hash], trouble
		}
		c.Preregistered = []oauth.Client{{
			ClientInformation: oauth.ClientInformation{ClientID: "my-app"},
			ClientMetadata:    oauth.ClientMetadata{RedirectURIs: []string{callback}, TokenEndpointAuthMethod: "none"},
		}}
	})
	s.web.put(documentURL, page{body: document(t)})
	for _, body := range []string{registration(t), registration(t, "token_endpoint_auth_method", "client_secret_post")} {
		c := s.register(body)
		got, err := s.clients.GetClient(t.Context(), c.ClientID)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		blocked[authserver.ClientHash(got)] = true
		mu.Unlock()
		a := s.postJSON("/register", body)
		if code, _ := a.oauthError(t); a.Status != http.StatusForbidden || code != "access_denied" {
			t.Errorf("registering again: %d %s", a.Status, code)
		}
		a = s.do("GET", "/authorize?"+authorization("client_id", c.ClientID), "")
		if code, _ := a.oauthError(t); code != "invalid_client" {
			t.Errorf("authorize: %d %s", a.Status, code)
		}
		a = s.postForm("/token", redemption("x", "client_id", c.ClientID, "client_secret", c.ClientSecret))
		if code, _ := a.oauthError(t); code != "invalid_client" {
			t.Errorf("token: %d %s", a.Status, code)
		}
	}
	s.register(registration(t, "client_name", "Another"))

	s.code("client_id", documentURL)
	mu.Lock()
	blocked[authserver.ClientHash(&oauth.Client{ClientInformation: oauth.ClientInformation{ClientID: documentURL}})] = true
	mu.Unlock()
	s.web.put(documentURL, page{body: document(t, "client_name", "Changed")})
	s.clock.advance(2 * time.Hour)
	hits := s.web.hitsOf(documentURL)
	a := s.do("GET", "/authorize?"+authorization("client_id", documentURL), "")
	if code, _ := a.oauthError(t); code != "invalid_client" || s.web.hitsOf(documentURL) != hits {
		t.Errorf("a blocked document: %d %s", a.Status, code)
	}
	a = s.postForm("/token", redemption("x", "client_id", documentURL))
	if code, _ := a.oauthError(t); code != "invalid_client" {
		t.Errorf("a blocked document at the token endpoint: %d %s", a.Status, code)
	}

	// When nobody can tell, nothing goes on.
	mu.Lock()
	trouble = oauth.ErrTemporarilyUnavailable
	mu.Unlock()
	if a := s.postJSON("/register", registration(t, "client_name", "Another")); a.Status != http.StatusServiceUnavailable {
		t.Errorf("registration with trouble: %d", a.Status)
	}
	s.code("client_id", "my-app") // configuration, not asked
}

// A blocked client does not come back because the policy drops one of its URIs.
func TestBlockedClientAndPolicy(t *testing.T) {
	keys := keyRing(t)
	var blocked [32]byte
	use := func(policy *oauth.RedirectPolicy) *clientsSite {
		return newClientsSite(t, func(c *authserver.ClientsConfig, _ *authserver.DocumentsConfig) {
			c.Keys, c.Policy = keys, policy
			c.Blocked = func(_ context.Context, hash [32]byte) (bool, error) { return hash == blocked, nil }
		})
	}
	before, after := use(nil), use(&oauth.RedirectPolicy{NoPrivateSchemes: true})
	c := before.register(registration(t, "redirect_uris", []string{callback, "cursor://x/cb"}))
	for _, seenBy := range []*clientsSite{before, after} {
		blocked = [32]byte{}
		got, err := seenBy.clients.GetClient(t.Context(), c.ClientID)
		if err != nil {
			t.Fatal(err)
		}
		blocked = authserver.ClientHash(got)
		if _, err := after.clients.GetClient(t.Context(), c.ClientID); !errors.Is(err, oauth.ErrInvalidClient) {
			t.Errorf("error %v", err)
		}
	}
}

func TestPreregisteredClients(t *testing.T) {
	k := newSigner(t, "k1", "ES256")
	client := func(id, secret, method string, uris ...string) oauth.Client {
		return oauth.Client{
			ClientInformation: oauth.ClientInformation{ClientID: id, ClientSecret: secret},
			ClientMetadata:    oauth.ClientMetadata{RedirectURIs: uris, TokenEndpointAuthMethod: method},
		}
	}
	byKey := client("by-key", "", oauth.AuthMethodPrivateKeyJWT, callback)
	byKey.JWKS = json.RawMessage(jwks(t, k))
	s := newClientsSite(t, func(c *authserver.ClientsConfig, _ *authserver.DocumentsConfig) {
		c.Preregistered = []oauth.Client{
			client("my-app", "s3cret", "", "myapp://callback"),
			client(documentURL, "", oauth.AuthMethodNone, callback), // its document is not asked
			byKey,
		}
		c.Dynamic = false
	})
	s.code("client_id", "my-app", "redirect_uri", "myapp://callback")
	s.code("client_id", documentURL)
	if s.web.allHits() != 0 {
		t.Error("the document of a pre-registered client was fetched")
	}
	for secret, want := range map[string]string{"s3cret": "invalid_grant", "wrong": "invalid_client", "": "invalid_client"} {
		if code, _ := s.postForm("/token", redemption("x", "client_id", "my-app", "client_secret", secret)).oauthError(t); code != want {
			t.Errorf("secret %q: %s", secret, code)
		}
	}
	code := s.code("client_id", "by-key")
	if got, _ := s.postForm("/token", redemption(code, "client_id", "by-key")).oauthError(t); got != "invalid_client" {
		t.Errorf("without an assertion: %s", got)
	}
	a := s.postForm("/token", asserted(code, k.sign(t, s.claims("iss", "by-key", "sub", "by-key")), "client_id", "by-key"))
	if a.Status != http.StatusOK {
		t.Errorf("status %d: %s", a.Status, a.Body)
	}

	for rule, clients := range map[string][]oauth.Client{
		"no id":              {client("", "", "", callback)},
		"twice":              {client("a", "", "", callback), client("a", "", "", callback)},
		"no redirect URI":    {client("a", "", "")},
		"script":             {client("a", "", "", "javascript:alert(1)")},
		"none with a secret": {client("a", "s", "none", callback)},
		"basic without one":  {client("a", "", "client_secret_basic", callback)},
		"keys missing":       {client("a", "", "private_key_jwt", callback)},
		"unknown method":     {client("a", "", "tls_client_auth", callback)},
		"control character":  {client("a\n", "", "", callback)},
	} {
		if _, err := authserver.NewClients(authserver.ClientsConfig{Issuer: issuer, Keys: keyRing(t), Preregistered: clients}); err == nil {
			t.Errorf("%s: accepted", rule)
		}
	}
	for rule, config := range map[string]authserver.ClientsConfig{
		"no issuer":       {Keys: keyRing(t)},
		"no keys":         {Issuer: issuer},
		"negative expiry": {Issuer: issuer, Keys: keyRing(t), SecretExpiry: -1},
		"part of seconds": {Issuer: issuer, Keys: keyRing(t), SecretExpiry: time.Millisecond},
		"bad policy":      {Issuer: issuer, Keys: keyRing(t), Policy: &oauth.RedirectPolicy{ClientSets: []string{"x"}}},
	} {
		if _, err := authserver.NewClients(config); err == nil {
			t.Errorf("%s: accepted", rule)
		}
	}
}

// Keys that cannot be opened yet are asked for again.
func TestClientsOpenKeysLazily(t *testing.T) {
	ring := keyRing(t)
	calls := 0
	s := newClientsSite(t, func(c *authserver.ClientsConfig, _ *authserver.DocumentsConfig) {
		c.Keys = func() (*seal.Ring, error) {
			if calls++; calls == 1 {
				return nil, errors.New("the disk is not there")
			}
			return ring()
		}
	})
	a := s.postJSON("/register", registration(t))
	if code, description := a.oauthError(t); code != "server_error" || strings.Contains(description, "disk") {
		t.Errorf("%s: %s", code, description)
	}
	for range 3 {
		s.register(registration(t))
	}
	if calls != 2 {
		t.Errorf("opened %d times", calls)
	}
}

func TestClientsWithoutDocuments(t *testing.T) {
	clients, err := authserver.NewClients(authserver.ClientsConfig{Issuer: issuer, Keys: keyRing(t)})
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, func(_ *authserver.Config, p *scripted) { p.store = clients.Store() })
	if m := s.server.Metadata(); m.ClientIDMetadataDocumentSupported || len(m.TokenEndpointAuthMethodsSupported) != 3 {
		t.Errorf("%+v", m)
	}
	a := s.do("GET", "/authorize?"+authorization("client_id", documentURL), "")
	if code, description := a.oauthError(t); code != "invalid_client" || !strings.Contains(description, "no client metadata documents") {
		t.Errorf("%s: %s", code, description)
	}
}
