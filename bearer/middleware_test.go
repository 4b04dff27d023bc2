package bearer_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestMiddlewareTellsTheHandlerWhoAsks(t *testing.T) {
	type seen struct{ User, Authorization string }
	for _, test := range []struct {
		name, path string
		forward    bool
		want       seen
	}{
		{"guarded", "/mcp", false, seen{User: "alice"}},
		{"guarded, token forwarded", "/mcp", true, seen{"alice", "Bearer good"}},
		{"open: untouched", "/open", false, seen{"", "Bearer good"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			guard := newGuard(t, guardTokens{"good": guardToken("mcp:read")}, guardResource())
			got := make(chan seen, 1)
			server := serveHandler(t, bearer.Middleware(guard, bearer.MiddlewareOptions{ForwardAccessToken: test.forward})(
				http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					s := seen{Authorization: r.Header.Get("Authorization")}
					if info := bearer.TokenInfoFromContext(r.Context()); info != nil {
						s.User = info.UserID
					}
					got <- s
				})))
			sendRaw(t, server, "", "POST "+test.path+" HTTP/1.1", "Authorization: Bearer good")
			if diff := cmp.Diff(test.want, <-got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMiddlewareServesMetadata(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{}, bearer.Resource{Identifier: guardIdentifier}))
	for path, want := range map[string]int{metadataRoot + "/mcp": 200, metadataRoot: 200, metadataRoot + "/x": 404, "/.well-known/other": 401} {
		res, _ := sendRaw(t, server, "", "GET "+path+" HTTP/1.1")
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
}

// TestRequireBearerAuth: the rows of the SDK's requireBearerAuth, with the
// deliberate differences: no error in the challenge when no token was sent,
// expiry before scope, temporarily_unavailable as 503.
func TestRequireBearerAuth(t *testing.T) {
	with := func(change func(*oauth.TokenInfo)) oauth.TokenInfo {
		info := oauth.TokenInfo{ClientID: "c", Scopes: []string{"read", "write"}, ExpiresAt: guardTime.Add(time.Hour)}
		change(&info)
		return info
	}
	verifier := guardTokens{
		"good":     with(func(i *oauth.TokenInfo) { i.Resource = guardIdentifier }),
		"audience": with(func(i *oauth.TokenInfo) { i.Audience = []string{guardIdentifier + "/"} }),
		"foreign":  with(func(i *oauth.TokenInfo) { i.Resource = "https://other.example.com/mcp" }),
		"unbound":  with(func(*oauth.TokenInfo) {}),
		"narrow":   with(func(i *oauth.TokenInfo) { i.Resource, i.Scopes = guardIdentifier, []string{"read"} }),
		"expired":  with(func(i *oauth.TokenInfo) { i.Resource, i.ExpiresAt, i.Scopes = guardIdentifier, guardTime, nil }),
		"noexpiry": with(func(i *oauth.TokenInfo) { i.Resource, i.ExpiresAt = guardIdentifier, time.Time{} }),
		"server":   oauth.ErrServerError.Describe("Broken"),
		"plain":    errors.New("detail"),
		"later":    oauth.ErrTemporarilyUnavailable.Describe("Later"),
		"generic":  oauth.NewError("custom_error", "Generic"),
	}
	full := bearer.RequireBearerAuthOptions{RequiredScopes: []string{"read", "write"}, ResourceMetadataURL: guardMetadataURL, ExpectedResource: guardIdentifier}
	bare := bearer.RequireBearerAuthOptions{}
	lax := bearer.RequireBearerAuthOptions{AllowNoExpiry: true}
	attributes := `scope="read write", resource_metadata="` + guardMetadataURL + `"`
	refused := func(status int, code, description string) guardAnswer {
		return guardAnswer{
			Status: status, Error: code, Description: description,
			Challenge: `Bearer error="` + code + `", error_description="` + description + `", ` + attributes,
		}
	}
	silent := func(status int, code, description string) guardAnswer {
		return guardAnswer{Status: status, Error: code, Description: description}
	}
	reached := guardAnswer{Status: 200, Reached: true}
	for _, test := range []struct {
		name    string
		options bearer.RequireBearerAuthOptions
		header  string
		want    guardAnswer
	}{
		{"valid", full, "Authorization: Bearer good", reached},
		{"valid by audience", full, "Authorization: Bearer audience", reached},
		{
			"no header", full, "X-None: 1",
			guardAnswer{Status: 401, Error: "invalid_token", Description: "Missing Authorization header", Challenge: "Bearer " + attributes},
		},
		{
			"no header and no options", bare, "X-None: 1",
			guardAnswer{Status: 401, Error: "invalid_token", Description: "Missing Authorization header", Challenge: "Bearer"},
		},
		{"malformed", full, "Authorization: InvalidFormat", refused(401, "invalid_token", "Invalid Authorization header format, expected 'Bearer TOKEN'")},
		{"unknown", full, "Authorization: Bearer what", refused(401, "invalid_token", "The token is unknown")},
		{
			"no options", bare, "Authorization: Bearer what",
			guardAnswer{
				Status: 401, Error: "invalid_token", Description: "The token is unknown",
				Challenge: `Bearer error="invalid_token", error_description="The token is unknown"`,
			},
		},
		{"foreign", full, "Authorization: Bearer foreign", refused(401, "invalid_token", "Token was not issued for this resource")},
		{"unbound", full, "Authorization: Bearer unbound", refused(401, "invalid_token", "Token was not issued for this resource")},
		{"unbound, left to the verifier", bare, "Authorization: Bearer unbound", reached},
		{"narrow", full, "Authorization: Bearer narrow", refused(403, "insufficient_scope", "Insufficient scope")},
		{"expired, without scopes", full, "Authorization: Bearer expired", refused(401, "invalid_token", "Token has expired")},
		{"no expiry", full, "Authorization: Bearer noexpiry", refused(401, "invalid_token", "Token has no expiration time")},
		{"no expiry allowed", lax, "Authorization: Bearer noexpiry", reached},
		{"server error", full, "Authorization: Bearer server", silent(500, "server_error", "Broken")},
		{"unexpected error", full, "Authorization: Bearer plain", silent(500, "server_error", "Internal Server Error")},
		{"unavailable", full, "Authorization: Bearer later", silent(503, "temporarily_unavailable", "Later")},
		{"other OAuth error", full, "Authorization: Bearer generic", silent(400, "custom_error", "Generic")},
	} {
		t.Run(test.name, func(t *testing.T) {
			options := test.options
			options.Verifier, options.Now = verifier, func() time.Time { return guardTime }
			server := serveHandler(t, bearer.RequireBearerAuth(options)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if bearer.TokenInfoFromContext(r.Context()) == nil || r.Header.Get("Authorization") == "" {
					t.Error("the handler does not learn who asks")
				}
				guardBackend(w, r)
			})))
			if diff := cmp.Diff(test.want, ask(t, server, "GET /any HTTP/1.1", test.header)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRequireBearerAuthWithoutVerifier(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic: every token would be judged by nobody")
		}
	}()
	bearer.RequireBearerAuth(bearer.RequireBearerAuthOptions{})
}
