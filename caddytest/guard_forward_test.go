package caddytest_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIdentityHeaders(t *testing.T) {
	spoofed := http.Header{
		"X-MCP-User": {"root"}, "X-Mcp-Client": {"x"}, "x-mcp-scope": {"*"}, "X_MCP_User": {"root"}, "X-MCP_User": {"root"},
		"X-Mcp-User-Email": {"root@example.com"}, "X-Mcp-User-Groups": {"admins"}, "X-Mcp-User-Name": {"root"},
		"Connection": {"X-Mcp-User"},
	}
	identityOf := func(r *http.Request) map[string]string {
		got := map[string]string{}
		for name, values := range r.Header {
			lower := strings.ReplaceAll(strings.ToLower(name), "_", "-")
			if strings.HasPrefix(lower, "x-mcp-") || lower == "authorization" {
				got[name] = strings.Join(values, "|")
			}
		}
		return got
	}
	claims := map[string]any{"sub": "ål ice", "client_id": "c,1", "scope": "mcp:read b", "email": "a@example.com", "name": "Alice", "groups": []string{"x y", "z"}}
	for _, row := range []struct {
		forward string
		want    map[string]string
	}{
		{"", map[string]string{"X-Mcp-User": "%C3%A5l%20ice", "X-Mcp-Client": "c%2C1", "X-Mcp-Scope": "mcp:read b"}},
		{"forward identity", map[string]string{"X-Mcp-User": "%C3%A5l%20ice", "X-Mcp-Client": "c%2C1", "X-Mcp-Scope": "mcp:read b"}},
		{"forward identity email name groups", map[string]string{
			"X-Mcp-User": "%C3%A5l%20ice", "X-Mcp-Client": "c%2C1", "X-Mcp-Scope": "mcp:read b",
			"X-Mcp-User-Email": "a@example.com", "X-Mcp-User-Name": "Alice", "X-Mcp-User-Groups": "x%20y,z",
		}},
		{"forward none", map[string]string{}},
	} {
		t.Run(row.forward, func(t *testing.T) {
			c, idp, b := loadGuarded(t, "", "resource /mcp {\n scopes mcp:read\n"+row.forward+"\n}")
			claims["aud"] = c.Origin + "/mcp"
			header := spoofed.Clone()
			header["Authorization"] = []string{"Bearer " + idp.token(claims)}
			resp, body := c.send("GET", "/mcp", header, "")
			requests := b.take()
			if resp.StatusCode != 200 || len(requests) != 1 {
				t.Fatalf("%d %s, %d requests", resp.StatusCode, body, len(requests))
			}
			if diff := cmp.Diff(row.want, identityOf(requests[0])); diff != "" {
				t.Errorf("headers at the backend (-want +got):\n%s", diff)
			}
			// A request that is not guarded must not carry what looks like our
			// word either.
			c.send("GET", "/open", spoofed, "")
			if diff := cmp.Diff(map[string]string{}, identityOf(b.take()[0])); diff != "" {
				t.Errorf("headers of an open request (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("forward access_token", func(t *testing.T) {
		c, idp, b := loadGuarded(t, "", "resource /mcp {\n scopes mcp:read\nforward access_token\n}")
		token := idp.token(map[string]any{"aud": c.Origin + "/mcp"})
		c.send("GET", "/mcp", bearerHeader(token), "")
		if got := b.take()[0].Header.Get("Authorization"); got != "Bearer "+token {
			t.Errorf("Authorization at the backend is %q", got)
		}
	})
	t.Run("oversized identity", func(t *testing.T) {
		c, idp, b := loadGuarded(t, "", "resource /mcp {\n scopes mcp:read\n}")
		resp, _ := c.send("GET", "/mcp", bearerHeader(idp.token(map[string]any{"aud": c.Origin + "/mcp", "sub": strings.Repeat("u", 9000)})), "")
		if resp.StatusCode != 500 || len(b.take()) > 0 {
			t.Errorf("%d, want 500 and no request to the backend", resp.StatusCode)
		}
	})
}

// A token in a trailer is no token for the server behind either.
func TestTrailersAreStripped(t *testing.T) {
	c, idp, b := loadGuarded(t, "", "resource /mcp {\n scopes mcp:read\n}")
	conn, err := net.Dial("tcp", net.JoinHostPort("localhost", strconv.Itoa(c.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\nTrailer: X-Foo\r\nConnection: close\r\n\r\n"+
		"2\r\n{}\r\n0\r\nX-Foo: a\r\nAuthorization: Bearer smuggled\r\nX-Mcp-User: root\r\n\r\n", idp.token(map[string]any{"aud": c.Origin + "/mcp"}))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	if got := b.take()[0].Trailer; got.Get("Authorization") != "" || got.Get("X-Mcp-User") != "" {
		t.Errorf("trailers at the backend: %v", got)
	}
}

// What is forwarded to a request that lies in two resources is what both allow.
func TestForwardOfTwoResources(t *testing.T) {
	c, idp, b := loadGuarded(t, "rewrite /a /b", "resource /a {\n forward access_token\n}\nresource /b {\n forward none\n}")
	token := idp.token(map[string]any{"aud": []string{c.Origin + "/a", c.Origin + "/b"}})
	if resp, body := c.send("GET", "/a", bearerHeader(token), ""); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	if got := b.take()[0].Header; got.Get("Authorization") != "" || got.Get("X-Mcp-User") != "" {
		t.Errorf("headers at the backend: %v", got)
	}
}

func TestOriginsAndCORS(t *testing.T) {
	c, idp, b := loadGuarded(t, "", "resource /mcp {\n scopes mcp:read\n origins https://app.example.com\n}")
	token := "Bearer " + idp.token(map[string]any{"aud": c.Origin + "/mcp"})
	b.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*") // the backend's own idea
		w.Header().Set("Mcp-Session-Id", "s")
	}
	for _, row := range []struct {
		name, origin, token string
		status              int
		allowed             string
	}{
		{"listed", "https://app.example.com", token, 200, "https://app.example.com"},
		{"listed, no token", "https://app.example.com", "", 401, "https://app.example.com"},
		{"own", c.Origin, token, 200, c.Origin},
		{"foreign", "https://evil.example", token, 403, ""},
		{"foreign, no token", "https://evil.example", "", 403, ""},
		{"suffix of a listed one", "https://app.example.com.evil.example", token, 403, ""},
		{"null", "null", token, 403, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			header := http.Header{"Origin": {row.origin}}
			if row.token != "" {
				header.Set("Authorization", row.token)
			}
			resp, body := c.send("POST", "/mcp", header, "{}")
			if resp.StatusCode != row.status || len(b.take()) > 0 != (row.status == 200) {
				t.Fatalf("%d %s, want %d", resp.StatusCode, body, row.status)
			}
			if got := strings.Join(resp.Header.Values("Access-Control-Allow-Origin"), "|"); got != row.allowed {
				t.Errorf("Access-Control-Allow-Origin %q, want %q", got, row.allowed)
			}
			if row.status == 403 && strings.Contains(resp.Header.Get("WWW-Authenticate"), "insufficient_scope") {
				t.Error("a refused origin makes clients step up")
			}
		})
	}
	resp, _ := c.send("OPTIONS", "/mcp", http.Header{
		"Origin": {"https://app.example.com"}, "Access-Control-Request-Method": {"POST"},
		"Access-Control-Request-Headers": {"authorization,content-type,mcp-protocol-version"},
	}, "")
	if resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || len(b.take()) > 0 {
		t.Errorf("preflight: %d %v", resp.StatusCode, resp.Header)
	}
}

func TestPlaceholders(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(`
{ORIGIN} {
	mcp_auth {ORIGIN} {
		authorization_server %s
		resource /mcp
	}
	reverse_proxy %s {
		header_up X-Seen "{http.auth.user.id} {http.auth.user.client_id} {http.auth.user.scopes} {http.auth.user.email} {http.auth.user.groups} {http.auth.user.claims.tenant}"
	}
}`, idp.URL, b.addr()))
	c.send("GET", "/mcp", bearerHeader(idp.token(map[string]any{
		"aud": c.Origin + "/mcp", "email": "a@example.com", "groups": []string{"x", "y"}, "tenant": "t1",
	})), "")
	if got, want := b.take()[0].Header.Get("X-Seen"), "alice c1 mcp:read a@example.com x,y t1"; got != want {
		t.Errorf("placeholders %q, want %q", got, want)
	}
}
