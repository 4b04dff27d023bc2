package caddytest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// upstreamTokenSite forwards what the identity provider %s gave; the last %s is
// the server behind.
const upstreamTokenSite = `
{ORIGIN} {
	log
	mcp_auth {ORIGIN} {
		upstream oidc %s {
			client_id broker
			client_secret secret-of-the-broker
		}
		allow email *@example.com
		resource /mcp {
			scopes mcp:read
			forward upstream_token
		}
	}
	reverse_proxy %s
}
`

// TestForwardUpstreamToken: the server behind gets the user's token of the
// identity provider, refreshed, and the client a challenge or 503 if there is
// none.
func TestForwardUpstreamToken(t *testing.T) {
	idp, b := newSignInIDP(t), newBackend(t)
	var life atomic.Int64
	var down atomic.Int32 // status in place of an answer
	life.Store(300)
	idp.handle("/token", func(w http.ResponseWriter, r *http.Request) {
		if status := int(down.Load()); status != 0 {
			answerJSON(w, status, map[string]any{"error": "invalid_grant"})
			return
		}
		recorder := httptest.NewRecorder()
		idp.issue(recorder, r)
		var answer map[string]any
		if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
			t.Error(err)
		}
		answer["expires_in"] = life.Load()
		answerJSON(w, recorder.Code, answer)
	})
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(upstreamTokenSite, idp.URL, b.addr())); err != nil {
		t.Fatal(err)
	}
	id := c.register(testRedirect)
	login := func() map[string]any {
		t.Helper()
		person := newBrowser(t)
		person.open(c.Origin + authorizeTarget(id, "s1"))
		back := person.allow()
		if back == nil {
			t.Fatalf("at %s: %s", person.at, person.page)
		}
		return c.mustExchange(id, back.Query())
	}
	// forwarded returns whose upstream token the backend got.
	forwarded := func(tokens map[string]any) (token string) {
		t.Helper()
		resp, body := c.send("GET", "/mcp", bearerHeader(fmt.Sprint(tokens["access_token"])), "")
		requests := b.take()
		if resp.StatusCode != 200 || len(requests) != 1 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		if got := requests[0].Header.Get("X-Mcp-User"); got != "a-1" {
			t.Errorf("X-MCP-User %q", got)
		}
		token, _ = strings.CutPrefix(requests[0].Header.Get("Authorization"), "Bearer ")
		idp.mu.Lock()
		defer idp.mu.Unlock()
		if idp.access[token]["sub"] != "a-1" {
			t.Errorf("the backend got %q, which is no access token of the identity provider", token)
		}
		return token
	}
	tokens := login()
	first := forwarded(tokens)
	if asked := idp.count("/token"); forwarded(tokens) != first || idp.count("/token") != asked {
		t.Error("the second request has another token")
	}

	life.Store(20) // at the next login: due at once
	tokens = login()
	second := forwarded(tokens)
	if second == first || forwarded(tokens) != second {
		t.Error("a token that is due was not refreshed, or more than once")
	}

	life.Store(1)
	tokens = login()
	down.Store(http.StatusInternalServerError)
	time.Sleep(1100 * time.Millisecond) // it is over
	header := bearerHeader(fmt.Sprint(tokens["access_token"]))
	header.Set("Origin", c.Origin)
	resp, body := c.send("GET", "/mcp", header, "")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || len(b.take()) > 0 {
		t.Errorf("the identity provider is down: %d %s", resp.StatusCode, body)
	}
	down.Store(0)
	tokens = login()
	down.Store(http.StatusBadRequest)
	time.Sleep(1100 * time.Millisecond)
	header.Set("Authorization", "Bearer "+fmt.Sprint(tokens["access_token"]))
	resp, body = c.send("GET", "/mcp", header, "")
	challenge := resp.Header.Get("WWW-Authenticate")
	if resp.StatusCode != 401 || len(b.take()) > 0 || !strings.Contains(body, "invalid_token") || !strings.Contains(challenge, `error="invalid_token"`) ||
		!strings.Contains(challenge, `resource_metadata="`+c.Origin+`/.well-known/oauth-protected-resource/mcp"`) || !strings.Contains(challenge, `scope="mcp:read"`) {
		t.Errorf("the identity provider says no: %d %s %s", resp.StatusCode, challenge, body)
	}
	if resp.Header.Get("Access-Control-Allow-Origin") != c.Origin || len(resp.Header.Values("Access-Control-Allow-Origin")) != 1 {
		t.Errorf("CORS: %v", resp.Header)
	}
	if resp, answer := c.refresh(id, tokens["refresh_token"]); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("the client's refresh: %d %v", resp.StatusCode, answer)
	}
	for line := range strings.Lines(c.log()) {
		if strings.Contains(line, first) || strings.Contains(line, second) {
			t.Errorf("an upstream token is in the log: %s", line)
		}
	}
}

// TestForwardUpstreamTokenIsRefused where there is none.
func TestForwardUpstreamTokenIsRefused(t *testing.T) {
	idp := newScriptedIDP(t)
	for name, mode := range map[string]string{
		"accounts":             "accounts {\n alice " + hash(t, "a") + "\n}",
		"proxy":                "proxy {\n issuer " + idp.URL + "\n audience any\n}",
		"authorization_server": "authorization_server " + idp.URL,
	} {
		c := newCaddy(t)
		err := c.load(memoryStore, "{ORIGIN} {\n mcp_auth {ORIGIN} {\n"+mode+"\nresource /mcp {\n forward upstream_token\n}\n}\n}")
		if err == nil || !strings.Contains(err.Error(), "forward upstream_token needs `upstream`") {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := newCaddy(t)
	err := c.load(memoryStore, "{ORIGIN} {\n mcp_bearer {\n resource {ORIGIN}/mcp\n authorization_server "+idp.URL+"\n forward upstream_token\n}\n}")
	if err == nil || !strings.Contains(err.Error(), "forward upstream_token needs `upstream`") {
		t.Errorf("mcp_bearer: %v", err)
	}
}
