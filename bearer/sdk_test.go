package bearer_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// The rows of the TypeScript SDK's requireBearerAuth (section 6) and of its
// error classes (section 8) that no other test of this package shows;
// docs/sdk-compatibility.md has them all.

// SDK 6: a token in the body is not read.
func TestSDKTokenInTheFormIsNotRead(t *testing.T) {
	guard := newGuard(t, guardTokens{"good": guardToken("mcp:read")}, guardResource())
	require := bearer.RequireBearerAuth(bearer.RequireBearerAuthOptions{Verifier: guardTokens{"good": guardToken("mcp:read")}})
	for name, handler := range map[string]http.Handler{
		"guard":             bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(guardBackend)),
		"RequireBearerAuth": require(http.HandlerFunc(guardBackend)),
	} {
		res, _ := sendRaw(t, serveHandler(t, handler), "access_token=good",
			"POST /mcp HTTP/1.1", "Content-Type: application/x-www-form-urlencoded", "Content-Length: 17")
		if res.StatusCode != 401 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
}

// SDK 6: requireBearerAuth makes no exception for preflights and HEAD, and sets
// no CORS headers.
func TestSDKRequireBearerAuthHasNoCORS(t *testing.T) {
	server := serveHandler(t, bearer.RequireBearerAuth(bearer.RequireBearerAuthOptions{Verifier: guardTokens{}})(http.HandlerFunc(guardBackend)))
	for _, method := range []string{"OPTIONS", "HEAD", "GET", "POST"} {
		res, _ := sendRaw(t, server, "", method+" /mcp HTTP/1.1", "Origin: http://localhost:6274", "Access-Control-Request-Method: POST")
		if res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %v", method, res.StatusCode, res.Header)
		}
		for name := range res.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: %s is set", method, name)
			}
		}
	}
}

// SDK 6: the handler gets the verifier's value itself, further claims included,
// and every request is verified.
func TestSDKHandlerGetsTheVerifiersValue(t *testing.T) {
	info := guardToken("mcp:read")
	info.Extra = map[string]any{"tenant": "t1"}
	info.ExpiresAt = time.Now().Add(time.Hour)
	asked := 0
	verifier := bearer.VerifierFunc(func(context.Context, string) (*oauth.TokenInfo, error) {
		asked++
		return &info, nil
	})
	handler := bearer.RequireBearerAuth(bearer.RequireBearerAuthOptions{Verifier: verifier})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if got := bearer.TokenInfoFromContext(r.Context()); got != &info {
			t.Errorf("another value: %+v", got)
		}
	}))
	for range 2 {
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.Header.Set("Authorization", "Bearer x")
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	if asked != 2 {
		t.Errorf("the verifier was asked %d times", asked)
	}
}

// SDK 6 and 8: every error that a verifier may throw. 401 and missing scopes
// have a challenge, nothing else has. The SDK answers 400 for the rest.
func TestSDKVerifierErrors(t *testing.T) {
	challenge := func(code string) string {
		return `Bearer error="` + code + `", error_description="why", scope="mcp:read", resource_metadata="` + guardMetadataURL + `"`
	}
	for _, row := range []struct {
		err       *oauth.Error
		status    int
		challenge string
	}{
		{oauth.ErrInvalidToken, 401, challenge("invalid_token")},
		{oauth.ErrInsufficientScope, 403, challenge("insufficient_scope")},
		{oauth.ErrServerError, 500, ""},
		{oauth.ErrInvalidRequest, 400, ""},
		{oauth.ErrInvalidGrant, 400, ""},
		{oauth.ErrUnauthorizedClient, 400, ""},
		{oauth.ErrUnsupportedGrantType, 400, ""},
		{oauth.ErrInvalidScope, 400, ""},
		{oauth.ErrAccessDenied, 403, ""},
		{oauth.ErrTemporarilyUnavailable, 503, ""},
		{oauth.ErrUnsupportedResponseType, 400, ""},
		{oauth.ErrUnsupportedTokenType, 400, ""},
		{oauth.ErrMethodNotAllowed, 405, ""},
		{oauth.ErrTooManyRequests, 429, ""},
		{oauth.ErrInvalidClientMetadata, 400, ""},
		{oauth.ErrInvalidTarget, 400, ""},
		{oauth.NewError("custom_code", ""), 400, ""},
		// A 401 has a challenge whatever its code (RFC 9110 §15.5.2).
		{oauth.ErrInvalidClient, 401, challenge("invalid_client")},
	} {
		t.Run(row.err.Code, func(t *testing.T) {
			server := serveGuarded(t, newGuard(t, guardTokens{"x": row.err.Describe("why")}, guardResource()))
			want := guardAnswer{Status: row.status, Error: row.err.Code, Description: "why", Challenge: row.challenge}
			if diff := cmp.Diff(want, ask(t, server, "POST /mcp HTTP/1.1", "Authorization: Bearer x")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
