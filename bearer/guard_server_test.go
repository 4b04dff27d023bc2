package bearer_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	guardIdentifier  = "https://mcp.example.com/mcp"
	guardMetadataURL = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"
	guardIssuer      = "https://auth.example.com"
)

// guardTime is when the tests of the guard happen.
var guardTime = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

// guardTokens is a Verifier that knows the tokens by name: a TokenInfo, or the
// error that it answers with.
type guardTokens map[string]any

func (g guardTokens) VerifyAccessToken(_ context.Context, token string) (*oauth.TokenInfo, error) {
	switch known := g[token].(type) {
	case oauth.TokenInfo:
		known.Token = token
		return &known, nil
	case error:
		return nil, known
	case nil:
		return nil, oauth.ErrInvalidToken.Describe("The token is unknown")
	default:
		return nil, nil
	}
}

// guardToken is a token that is good for guardResource.
func guardToken(scopes ...string) oauth.TokenInfo {
	return oauth.TokenInfo{
		ClientID: "client", UserID: "alice", Scopes: scopes,
		Audience: []string{guardIdentifier}, ExpiresAt: guardTime.Add(time.Hour),
	}
}

// guardResource is the resource of most tests.
func guardResource() bearer.Resource {
	return bearer.Resource{Identifier: guardIdentifier, Path: "/mcp", Scopes: []string{"mcp:read"}}
}

func newGuard(t testing.TB, verifier bearer.Verifier, resources ...bearer.Resource) *bearer.Guard {
	t.Helper()
	guard, err := bearer.NewGuard(bearer.GuardConfig{
		Resources: resources, AuthorizationServers: []string{guardIssuer},
		Verifier: verifier, Now: func() time.Time { return guardTime },
	})
	if err != nil {
		t.Fatal(err)
	}
	return guard
}

// guardAnswer is what a client sees. Reached says that the handler behind the
// guard answered.
type guardAnswer struct {
	Status      int
	Challenge   string
	Error       string
	Description string
	Reached     bool
}

// guardBackend stands behind the guard.
func guardBackend(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Reached", "true")
	w.WriteHeader(http.StatusOK)
}

// serveGuarded starts a server with the guard in front of guardBackend.
func serveGuarded(t testing.TB, guard *bearer.Guard) *httptest.Server {
	t.Helper()
	return serveHandler(t, bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(guardBackend)))
}

func serveHandler(t testing.TB, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

// sendRaw sends the lines of a request head byte for byte, which net/http's
// client would not.
func sendRaw(t testing.TB, server *httptest.Server, body string, head ...string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head = append(head, "Host: mcp.example.com", "Connection: close", "", body)
	if _, err := io.WriteString(conn, strings.Join(head, "\r\n")); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(head[0], " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(answer)
}

// ask sends a request head and returns what the client sees. It checks what
// every refusal must have.
func ask(t testing.TB, server *httptest.Server, head ...string) guardAnswer {
	t.Helper()
	res, body := sendRaw(t, server, "", head...)
	answer := guardAnswer{
		Status:    res.StatusCode,
		Challenge: res.Header.Get("WWW-Authenticate"),
		Reached:   res.Header.Get("X-Reached") == "true",
	}
	if answer.Reached || res.StatusCode == http.StatusNoContent || strings.HasPrefix(head[0], "HEAD ") {
		return answer
	}
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q, want application/json", got)
	}
	if got := res.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q, want no-store", got)
	}
	var members map[string]string
	if err := json.Unmarshal([]byte(body), &members); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	answer.Error, answer.Description = members["error"], members["error_description"]
	return answer
}
