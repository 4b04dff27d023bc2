package authserver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// registration is a good registration of a public client; pairs override
// members, nil removes.
func registration(t testing.TB, pairs ...any) string {
	t.Helper()
	m := map[string]any{
		"redirect_uris":              []string{"http://localhost:3334/oauth/callback"},
		"token_endpoint_auth_method": "none",
		"grant_types":                []string{"authorization_code", "refresh_token"},
		"response_types":             []string{"code"},
		"client_name":                "MCP CLI Proxy",
		"client_uri":                 "https://github.com/modelcontextprotocol/mcp-cli",
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == nil {
			delete(m, pairs[i].(string))
		} else {
			m[pairs[i].(string)] = pairs[i+1]
		}
	}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// What registered clients of real life send, and what an id becomes of it.
func TestSealedRegistration(t *testing.T) {
	for _, test := range []struct {
		client string
		body   string
	}{
		{"mcp-remote", registration(t)},
		{"Claude", registration(t, "redirect_uris", []string{"https://claude.ai/api/mcp/auth_callback"}, "client_name", "Claude", "client_uri", nil, "scope", "openid profile email offline_access mcp:read")},
		{"ChatGPT", registration(t, "redirect_uris", []string{"https://chatgpt.com/connector/oauth/Hq3x9aBcDeFg"}, "client_name", "ChatGPT")},
		{"Cursor", registration(t, "redirect_uris", []string{"cursor://anysphere.cursor-mcp/oauth/callback", "https://www.cursor.com/agents/mcp/oauth/callback", "http://localhost:8787/callback"}, "client_name", "Cursor")},
		{"VS Code", registration(t, "redirect_uris", []string{"http://127.0.0.1:33418/", "https://vscode.dev/redirect", "https://insiders.vscode.dev/redirect"}, "client_name", "Visual Studio Code", "application_type", "native")},
		{"Perplexity", registration(t, "redirect_uris", []string{"https://www.perplexity.ai/rest/connections/oauth_callback"}, "client_name", "Perplexity", "token_endpoint_auth_method", "client_secret_post", "grant_types", nil)},
		{"one that names no method", registration(t, "token_endpoint_auth_method", nil)},
		{"one without refresh", registration(t, "grant_types", []string{"authorization_code"})},
		{"one with a name of another script", registration(t, "client_name", "客户端 👩‍💻")},
	} {
		t.Run(test.client, func(t *testing.T) {
			s := newClientsSite(t)
			var sent oauth.ClientMetadata
			if err := json.Unmarshal([]byte(test.body), &sent); err != nil {
				t.Fatal(err)
			}
			c := s.register(test.body)
			if len(sent.GrantTypes) == 0 {
				sent.GrantTypes = []string{"authorization_code", "refresh_token"}
			}
			if diff := cmp.Diff(sent, c.ClientMetadata); diff != "" {
				t.Errorf("the answer is not what was registered: %s", diff)
			}
			if limit := 255; len(sent.RedirectURIs) == 1 && len(c.ClientID) > limit || len(c.ClientID) > 1024 {
				t.Errorf("an id of %d characters", len(c.ClientID))
			}
			if strings.HasPrefix(c.ClientID, "http") || strings.Trim(c.ClientID, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				t.Errorf("id %s", c.ClientID)
			}
			got, err := s.clients.GetClient(t.Context(), c.ClientID)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.ClientMetadata, got.ClientMetadata); diff != "" {
				t.Errorf("what is remembered differs from the answer: %s", diff)
			}
			if got.ClientSecret != c.ClientSecret || (c.ClientSecret == "") != (sent.TokenEndpointAuthMethod == "none") {
				t.Errorf("secret %q, then %q", c.ClientSecret, got.ClientSecret)
			}
			if again := s.register(test.body); (again.ClientID == c.ClientID) != (c.ClientSecret == "") || again.ClientSecret != "" && again.ClientSecret == c.ClientSecret {
				t.Errorf("registered again: id %s, secret %q", again.ClientID, again.ClientSecret)
			}
		})
	}
}

func TestSealedPublicClientFlow(t *testing.T) {
	s := newClientsSite(t)
	c := s.register(registration(t))
	const redirect = "http://localhost:40000/oauth/callback"
	code := s.code("client_id", c.ClientID, "redirect_uri", redirect)
	if a := s.postForm("/token", redemption(code, "client_id", c.ClientID, "redirect_uri", redirect)); a.Status != http.StatusOK {
		t.Errorf("status %d: %s", a.Status, a.Body)
	}
	a := s.postForm("/token", redemption(code, "client_id", c.ClientID, "client_secret", "x"))
	if code, _ := a.oauthError(t); code != "invalid_client" {
		t.Errorf("public client with a secret: %d %s", a.Status, code)
	}
}

func TestSealedConfidentialClientFlow(t *testing.T) {
	first, second := seal.GenerateKey(), seal.GenerateKey()
	s := newClientsSite(t, func(c *authserver.ClientsConfig, _ *authserver.DocumentsConfig) { c.Keys = keyRing(t, first) })
	c := s.register(registration(t, "redirect_uris", []string{callback}, "token_endpoint_auth_method", "client_secret_post"))
	if c.ClientSecretExpiresAt != 0 || c.ClientIDIssuedAt != s.clock.Now().Unix() || len(c.ClientSecret) != 43 {
		t.Errorf("%+v", c.ClientInformation)
	}
	other := s.register(registration(t, "redirect_uris", []string{callback}, "token_endpoint_auth_method", "client_secret_post"))
	token := func(s *clientsSite, id, secret string) (int, string) {
		a := s.postForm("/token", redemption("unknown", "client_id", id, "client_secret", secret))
		code, _ := a.oauthError(t)
		return a.Status, code
	}
	for _, test := range []struct{ rule, secret, want string }{
		{"its own secret", c.ClientSecret, "invalid_grant"},
		{"no secret", "", "invalid_client"},
		{"another client's secret", other.ClientSecret, "invalid_client"},
		{"a cut secret", c.ClientSecret[:22], "invalid_client"},
		{"a secret and more", c.ClientSecret + "A", "invalid_client"},
		{"a secret with a line break", c.ClientSecret[:42] + "%0a" + c.ClientSecret[42:], "invalid_client"},
		{"its id", c.ClientID, "invalid_client"},
	} {
		if _, got := token(s, c.ClientID, test.secret); got != test.want {
			t.Errorf("%s: %s", test.rule, got)
		}
	}
	a := s.postForm("/token", redemption("unknown", "client_id", ""), "Authorization", "Basic "+basicOf(c.ClientID, c.ClientSecret))
	if code, _ := a.oauthError(t); code != "invalid_client" {
		t.Errorf("by Basic, registered for post: %s", code)
	}
	// With a new key in front the client goes on; with the old one gone it ends.
	for _, test := range []struct {
		rule string
		keys []seal.Key
		want string
	}{
		{"new key in front", []seal.Key{second, first}, "invalid_grant"},
		{"old key dropped", []seal.Key{second}, "invalid_client"},
	} {
		s := newClientsSite(t, func(cfg *authserver.ClientsConfig, _ *authserver.DocumentsConfig) {
			cfg.Keys = keyRing(t, test.keys...)
		})
		if _, got := token(s, c.ClientID, c.ClientSecret); got != test.want {
			t.Errorf("%s: %s", test.rule, got)
		}
	}
}

func basicOf(id, secret string) string {
	req, _ := http.NewRequest(http.MethodPost, "/", nil)
	req.SetBasicAuth(id, secret)
	_, encoded, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	return encoded
}

func TestSealedSecretExpiry(t *testing.T) {
	keys := keyRing(t)
	s := newClientsSite(t, func(c *authserver.ClientsConfig, _ *authserver.DocumentsConfig) {
		c.SecretExpiry, c.Keys = time.Hour, keys
	})
	c := s.register(registration(t, "redirect_uris", []string{callback}, "token_endpoint_auth_method", "client_secret_post"))
	if want := s.clock.Now().Unix() + 3600; c.ClientSecretExpiresAt != want {
		t.Errorf("expires at %d, want %d", c.ClientSecretExpiresAt, want)
	}
	token := func(s *clientsSite) string {
		_, description := s.postForm("/token", redemption("x", "client_id", c.ClientID, "client_secret", c.ClientSecret)).oauthError(t)
		return description
	}
	s.clock.advance(time.Hour - time.Second)
	if got := token(s); strings.Contains(got, "expired") {
		t.Error(got)
	}
	s.clock.advance(time.Second)
	if got := token(s); got != "Client secret has expired" {
		t.Error(got)
	}
	// The secret keeps the life that the client was told.
	now := newClientsSite(t, func(c *authserver.ClientsConfig, _ *authserver.DocumentsConfig) { c.Keys = keys })
	now.clock.advance(time.Hour)
	if got := token(now); got != "Client secret has expired" {
		t.Error(got)
	}
}

// Ids that were tampered with, cut, or made for something else are refused alike.
func TestSealedIDAttacks(t *testing.T) {
	key := seal.GenerateKey()
	s := newClientsSite(t, func(c *authserver.ClientsConfig, _ *authserver.DocumentsConfig) { c.Keys = keyRing(t, key) })
	c := s.register(registration(t, "redirect_uris", []string{callback}))
	ring, err := seal.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(purpose seal.Purpose, issuer string, plaintext []byte) string {
		id, err := ring.Sealer(purpose, issuer).Seal(plaintext, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	plaintext, err := ring.Sealer(seal.PurposeClientID, issuer).Open(c.ClientID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(c.ClientID)
	flipped[len(flipped)/2] ^= 1
	foreign := newClientsSite(t).register(registration(t))
	ids := map[string]string{
		"flipped":              string(flipped),
		"cut":                  c.ClientID[:len(c.ClientID)-1],
		"longer":               c.ClientID + "A",
		"padded":               c.ClientID + "=",
		"other key":            foreign.ClientID,
		"other purpose":        sealed(seal.PurposeProxyID, issuer, plaintext),
		"other issuer":         sealed(seal.PurposeClientID, "https://other.example", plaintext),
		"plaintext of nothing": sealed(seal.PurposeClientID, issuer, nil),
		"unknown format":       sealed(seal.PurposeClientID, issuer, append([]byte{9}, plaintext[1:]...)),
		"plaintext cut":        sealed(seal.PurposeClientID, issuer, plaintext[:len(plaintext)-1]),
		"without redirect URI": sealed(seal.PurposeClientID, issuer, []byte{1, 0, 0, 0, 0}),
		"random":               strings.Repeat("A", 200),
		"too long":             strings.Repeat("A", 5000),
	}
	for rule, id := range ids {
		a := s.do("GET", "/authorize?"+authorization("client_id", id), "")
		if code, description := a.oauthError(t); a.Status != http.StatusBadRequest || code != "invalid_client" || !strings.Contains(description, "add it again") {
			t.Errorf("%s: %d %s: %s", rule, a.Status, code, description)
		}
		a = s.postForm("/token", redemption("x", "client_id", id))
		if code, description := a.oauthError(t); a.Status != http.StatusUnauthorized || code != "invalid_client" || description != "Client authentication failed" {
			t.Errorf("%s at the token endpoint: %d %s: %s", rule, a.Status, code, description)
		}
	}
	if code := s.code("client_id", c.ClientID); code == "" {
		t.Error("the genuine id does not work")
	}
	if again := sealed(seal.PurposeClientID, issuer, plaintext); again == c.ClientID {
		t.Error("the test seals like the server")
	}
}

func TestSealedIDLength(t *testing.T) {
	s := newClientsSite(t)
	long := func(n int) string { return "https://app.example.com/" + strings.Repeat("q", n) }
	for _, test := range []struct {
		rule       string
		body       string
		most       int
		name       string // what stays of the name
		uri, scope bool   // whether client_uri and scope stay
	}{
		{"everything fits", registration(t, "scope", "a b"), 255, "MCP CLI Proxy", true, true},
		{"client_uri goes first", registration(t, "client_uri", long(200), "scope", "a b"), 255, "MCP CLI Proxy", false, true},
		{"then scope", registration(t, "scope", strings.Repeat("q", 200)), 255, "MCP CLI Proxy", false, false},
		{"then the end of the name", registration(t, "client_name", strings.Repeat("Näme ", 50)), 255, "Näme", false, false},
		{"one long redirect URI", registration(t, "redirect_uris", []string{long(300)}), 1024, "MCP CLI Proxy", true, false},
		{"one redirect URI and hardly a name", registration(t, "redirect_uris", []string{long(100)}, "client_name", strings.Repeat("xq ", 80)), 255, "xq", false, false},
		{"several redirect URIs", registration(t, "redirect_uris", []string{long(100), long(101), long(102)}), 1024, "MCP CLI Proxy", true, false},
	} {
		t.Run(test.rule, func(t *testing.T) {
			c := s.register(test.body)
			if len(c.ClientID) > test.most {
				t.Errorf("an id of %d characters", len(c.ClientID))
			}
			if !strings.HasPrefix(c.ClientName, test.name) || strings.HasSuffix(c.ClientName, " ") || (c.ClientURI != "") != test.uri || (c.Scope != "") != test.scope {
				t.Errorf("name %q, client_uri %q, scope %q", c.ClientName, c.ClientURI, c.Scope)
			}
			if got, err := s.clients.GetClient(t.Context(), c.ClientID); err != nil || got.ClientName != c.ClientName {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	for _, uris := range [][]string{{long(1000)}, {long(400), long(401)}} {
		a := s.postJSON("/register", registration(t, "redirect_uris", uris, "client_name", nil, "client_uri", nil))
		if code, _ := a.oauthError(t); a.Status != http.StatusBadRequest || code != "invalid_client_metadata" {
			t.Errorf("%d %s", a.Status, code)
		}
	}
}

// The policy of today decides about registrations of yesterday.
func TestSealedPolicyIsAppliedAgain(t *testing.T) {
	keys := keyRing(t)
	use := func(configure func(*authserver.ClientsConfig)) *clientsSite {
		return newClientsSite(t, func(c *authserver.ClientsConfig, _ *authserver.DocumentsConfig) {
			c.Keys = keys
			configure(c)
		})
	}
	before := use(func(*authserver.ClientsConfig) {})
	mixed := before.register(registration(t, "redirect_uris", []string{callback, "cursor://x/cb"}))
	private := before.register(registration(t, "redirect_uris", []string{"cursor://x/cb"}))
	strict := use(func(c *authserver.ClientsConfig) { c.Policy = &oauth.RedirectPolicy{NoPrivateSchemes: true} })
	c, err := strict.clients.GetClient(t.Context(), mixed.ClientID)
	if err != nil || len(c.RedirectURIs) != 1 || c.RedirectURIs[0] != callback {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := strict.clients.GetClient(t.Context(), private.ClientID); !errors.Is(err, oauth.ErrInvalidClient) {
		t.Errorf("a client of which no redirect URI is left: %v", err)
	}
	off := use(func(c *authserver.ClientsConfig) { c.Dynamic = false })
	if _, err := off.clients.GetClient(t.Context(), mixed.ClientID); !errors.Is(err, oauth.ErrInvalidClient) {
		t.Errorf("registration is off: %v", err)
	}
	if a := off.postJSON("/register", registration(t)); a.Status != http.StatusNotFound || off.server.Metadata().RegistrationEndpoint != "" {
		t.Errorf("/register with registration off: %d", a.Status)
	}
	if _, ok := off.clients.Store().(authserver.Registrar); ok {
		t.Error("the store is a Registrar with registration off")
	}
}

// A flood of registrations leaves nothing behind.
func TestRegistrationFlood(t *testing.T) {
	s := newClientsSite(t)
	register := func(i int) {
		method := "none"
		if i%2 == 1 {
			method = "client_secret_post"
		}
		body := fmt.Sprintf(`{"redirect_uris":["http://localhost:%d/callback"],"token_endpoint_auth_method":%q,"client_name":"Client %d"}`, 1+i%65535, method, i)
		req := httptest.NewRequest(http.MethodPost, issuer+"/register", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		s.server.ServeHTTP(rec, req)
		if rec.Code != http.StatusCreated {
			t.Fatal(rec.Code, rec.Body)
		}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	registrar := s.clients.Store().(authserver.Registrar)
	for i := range 1000 {
		register(i)
	}
	before := heap()
	for i := range 5_000 {
		register(i)
	}
	// The rest without HTTP, which is slow under the race detector.
	for i := range 95_000 {
		metadata := oauth.ClientMetadata{RedirectURIs: []string{fmt.Sprintf("https://app%d.example.com/cb", i)}, TokenEndpointAuthMethod: []string{"none", "client_secret_basic"}[i%2]}
		if _, err := registrar.RegisterClient(t.Context(), &oauth.Client{ClientMetadata: metadata}); err != nil {
			t.Fatal(err)
		}
	}
	if growth := heap() - before; growth > 4<<20 {
		t.Errorf("the heap grew by %d bytes", growth)
	}
}

func BenchmarkRegister(b *testing.B) {
	for _, method := range []string{"none", "client_secret_basic"} {
		b.Run(method, func(b *testing.B) {
			s := newClientsSite(b)
			body := []byte(registration(b, "token_endpoint_auth_method", method))
			b.ReportAllocs()
			for b.Loop() {
				req := httptest.NewRequest(http.MethodPost, issuer+"/register", bytes.NewReader(body))
				req.Header.Set("Content-Type", "application/json")
				rec := httptest.NewRecorder()
				s.server.ServeHTTP(rec, req)
				if rec.Code != http.StatusCreated {
					b.Fatal(rec.Code)
				}
			}
		})
	}
}

func BenchmarkGetSealedClient(b *testing.B) {
	s := newClientsSite(b)
	c := s.register(registration(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.clients.GetClient(b.Context(), c.ClientID); err != nil {
			b.Fatal(err)
		}
	}
}
