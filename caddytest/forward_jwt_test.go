package caddytest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

// verifyAssertion is what a server behind does: it reads the JWKS and checks type,
// signature, issuer, audience and times.
func (c *caddyInstance) verifyAssertion(assertion, audience string) jwt.MapClaims {
	c.t.Helper()
	resp, body := c.send("GET", "/mcp-auth/jwks.json", nil, "")
	if resp.StatusCode != 200 {
		c.t.Fatalf("JWKS: %d %s", resp.StatusCode, body)
	}
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal([]byte(body), &set); err != nil {
		c.t.Fatal(err)
	}
	keys, err := set.JWKSlice()
	if err != nil {
		c.t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	token, err := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer(c.Origin), jwt.WithAudience(audience), jwt.WithExpirationRequired()).
		ParseWithClaims(assertion, claims, func(token *jwt.Token) (any, error) {
			for _, key := range keys {
				if key.Marshal().KID == token.Header["kid"] {
					return key.Key(), nil
				}
			}
			return nil, errors.New("unknown key")
		})
	if err != nil {
		c.t.Fatalf("%s: %v", assertion, err)
	}
	if token.Header["typ"] != "mcp-identity+jwt" {
		c.t.Errorf("typ is %v", token.Header["typ"])
	}
	return claims
}

func TestForwardJWT(t *testing.T) {
	c, idp, b := loadGuarded(t, "", "resource /mcp {\n scopes mcp:read\n forward jwt email groups\n}")
	token := idp.token(map[string]any{"aud": c.Origin + "/mcp", "email": "a@example.com", "name": "Alice", "groups": []string{"x", "y"}})
	spoofed := http.Header{
		"X-MCP-Identity": {"forged"}, "x_mcp_identity": {"forged"}, "X-Mcp-Identity-Jwt": {"forged"}, "X-MCP-User": {"root"},
		"Authorization": {"Bearer " + token}, "Connection": {"X-MCP-Identity"},
	}
	call := func() string {
		t.Helper()
		resp, body := c.send("GET", "/mcp", spoofed, "")
		requests := b.take()
		if resp.StatusCode != 200 || len(requests) != 1 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		var names []string
		for name := range requests[0].Header {
			if lower := strings.ReplaceAll(strings.ToLower(name), "_", "-"); strings.HasPrefix(lower, "x-mcp-") || lower == "authorization" {
				names = append(names, name)
			}
		}
		if diff := cmp.Diff([]string{"X-Mcp-Identity"}, names); diff != "" {
			t.Errorf("headers at the backend: %s", diff)
		}
		return requests[0].Header.Get("X-Mcp-Identity")
	}
	assertion := call()
	claims := c.verifyAssertion(assertion, c.Origin+"/mcp")
	if life := claims["exp"].(float64) - claims["iat"].(float64); life < 200 || life > 300 {
		t.Errorf("it lives for %v s", life)
	}
	for _, name := range []string{"iat", "exp", "jti"} {
		delete(claims, name)
	}
	want := jwt.MapClaims{
		"iss": c.Origin, "aud": c.Origin + "/mcp", "sub": "alice", "client_id": "c1", "scope": "mcp:read", "idp": idp.URL,
		"email": "a@example.com", "groups": []any{"x", "y"},
	}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Error(diff)
	}
	if call() != assertion {
		t.Error("the second request has another assertion")
	}
	// What the server was told is no token.
	if resp, body := c.send("GET", "/mcp", bearerHeader(assertion), ""); resp.StatusCode != 401 || len(b.take()) > 0 {
		t.Errorf("the assertion as access token: %d %s", resp.StatusCode, body)
	}
	c.send("GET", "/open", http.Header{"X-MCP-Identity": {"forged"}, "x.mcp.identity": {"forged"}}, "")
	for name := range b.take()[0].Header {
		if strings.Contains(strings.ToLower(name), "identity") {
			t.Errorf("an open request has %s", name)
		}
	}
}

func TestForwardJWTSettings(t *testing.T) {
	c, idp, b := loadGuarded(t, "", `resource /mcp {
	scopes mcp:read
	forward jwt {
		audience https://notes.internal
		ttl 1m
		header Authorization
	}
}`)
	c.send("GET", "/mcp", bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp"})), "")
	header := b.take()[0].Header
	assertion, _ := strings.CutPrefix(header.Get("Authorization"), "Bearer ")
	claims := c.verifyAssertion(assertion, "https://notes.internal")
	if claims["exp"].(float64)-claims["iat"].(float64) != 60 || header.Get("X-Mcp-Identity") != "" {
		t.Errorf("%v, %v", claims, header)
	}
}

// TestForwardJWTOfABroker: the assertion is no access token there, at its
// introspection endpoint, nor where somebody trusts both key sets.
func TestForwardJWTOfABroker(t *testing.T) {
	b := newBackend(t)
	c := newCaddy(t)
	site := strings.Replace(fmt.Sprintf(accountsSite, hash(t, "correct horse"), hash(t, "b"), "", b.addr()), "forward identity email groups", "forward jwt email groups", 1)
	other := fmt.Sprintf(`
http://127.0.0.1:{PORT} {
	mcp_bearer {
		resource http://127.0.0.1:{PORT}/api
		authorization_server {ORIGIN}
		audience any
		verify jwt {
			jwks_uri {ORIGIN}/mcp-auth/jwks.json
		}
	}
	reverse_proxy %s
}`, b.addr())
	if err := c.load("", site+other); err != nil {
		t.Fatal(err)
	}
	id := c.register(testRedirect)
	answer := newBrowser(t).signIn(c.Origin+authorizeTarget(id, "s1"), "alice", "correct horse")
	tokens := c.mustExchange(id, answer)
	use := func() string {
		t.Helper()
		resp, body := c.send("GET", "/mcp", bearerHeader(fmt.Sprint(tokens["access_token"])), "")
		requests := b.take()
		if resp.StatusCode != 200 || len(requests) != 1 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		return requests[0].Header.Get("X-Mcp-Identity")
	}
	assertion := use()
	claims := c.verifyAssertion(assertion, c.Origin+"/mcp")
	if claims["sub"] != "alice" || claims["email"] != "alice@example.com" || claims["client_id"] != id || claims["grant_id"] != nil || claims["idp"] != nil {
		t.Errorf("%v", claims)
	}
	if resp, body := c.send("GET", "/mcp", bearerHeader(assertion), ""); resp.StatusCode != 401 || len(b.take()) > 0 {
		t.Errorf("at the broker: %d %s", resp.StatusCode, body)
	}
	resp, err := http.DefaultClient.Do(mustRequest(t, fmt.Sprintf("http://127.0.0.1:%d/api", c.Port), assertion))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 401 || len(b.take()) > 0 {
		t.Errorf("where its keys are trusted: %d", resp.StatusCode)
	}
	// The keys are the same after a restart: they are derived.
	if err := c.load("", site); err != nil {
		t.Fatal(err)
	}
	c.verifyAssertion(assertion, c.Origin+"/mcp")
	if got := use(); got == "" {
		t.Error("no assertion after a reload")
	}
}

func mustRequest(t *testing.T, target, token string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// TestForwardOfTwoKinds: what is sent to a request that lies in two resources is
// what both allow, whatever the kinds.
func TestForwardOfTwoKinds(t *testing.T) {
	for _, row := range []struct {
		one, other string
		identity   bool
	}{
		{"jwt", "identity", false},
		{"jwt", "jwt", false}, // of another audience
		{"access_token", "identity", true},
		{"access_token", "jwt", false},
	} {
		c, idp, b := loadGuarded(t, "rewrite /a /b", "resource /a {\n forward "+row.one+"\n}\nresource /b {\n forward "+row.other+"\n}")
		token := idp.token(map[string]any{"aud": []string{c.Origin + "/a", c.Origin + "/b"}})
		if resp, body := c.send("GET", "/a", bearerHeader(token), ""); resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		header := b.take()[0].Header
		if header.Get("Authorization") != "" || header.Get("X-Mcp-Identity") != "" || (header.Get("X-Mcp-User") != "") != row.identity {
			t.Errorf("%s and %s: %v", row.one, row.other, header)
		}
	}
}
