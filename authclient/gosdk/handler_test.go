package gosdk_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/authclient/gosdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const server = "https://mcp.example.com/mcp"

func newHandler(t *testing.T) (*gosdk.Handler, *authclient.MemoryStore) {
	t.Helper()
	store := authclient.NewMemoryStore()
	p, err := authclient.NewWeb(store, authclient.WebOptions{RedirectURL: "https://client.example.com/callback"})
	if err != nil {
		t.Fatal(err)
	}
	h, err := gosdk.NewHandler(p, server, authclient.TransportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return h, store
}

func TestTokenSource(t *testing.T) {
	t.Parallel()
	h, store := newHandler(t)
	if source, err := h.TokenSource(t.Context()); source != nil || err != nil {
		t.Errorf("without a token: %v, %v", source, err)
	}
	tokens := &authclient.Tokens{Issuer: "https://idp.example.com"}
	tokens.AccessToken, tokens.TokenType = "at", "bearer"
	if err := store.SaveTokens(t.Context(), tokens); err != nil {
		t.Fatal(err)
	}
	source, err := h.TokenSource(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if token, err := source.Token(); err != nil || token.AccessToken != "at" || token.Type() != "Bearer" {
		t.Errorf("%+v, %v", token, err)
	}
	bound := *tokens
	bound.TokenType = "DPoP"
	if err := store.SaveTokens(t.Context(), &bound); err != nil {
		t.Fatal(err)
	}
	if source, err := h.TokenSource(t.Context()); err == nil {
		t.Errorf("a bound token would go as Bearer: %v", source)
	}
}

// TestProverIsRefused: the SDK would send a bound token as Bearer.
func TestProverIsRefused(t *testing.T) {
	t.Parallel()
	p, err := authclient.NewWeb(authclient.NewMemoryStore(), authclient.WebOptions{RedirectURL: "https://client.example.com/callback"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := authclient.NewDPoP(authclient.DPoPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bound := struct {
		*authclient.Web
		*authclient.DPoP
	}{p, d}
	if _, err := gosdk.NewHandler(bound, server, authclient.TransportOptions{}); err == nil || !strings.Contains(err.Error(), "WithOAuth") {
		t.Errorf("err = %v", err)
	}
}

// TestForbiddenWithoutScope: what no token would change is not tried again.
func TestForbiddenWithoutScope(t *testing.T) {
	t.Parallel()
	h, _ := newHandler(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp := &http.Response{
		StatusCode: http.StatusForbidden, Status: "403 Forbidden", Header: http.Header{}, Body: io.NopCloser(strings.NewReader("no")),
	}
	if err := h.Authorize(t.Context(), r, resp); !errors.Is(err, authclient.ErrUnauthorized) {
		t.Errorf("err = %v", err)
	}
}
