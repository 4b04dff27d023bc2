package bearer_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

func TestGuardTokenRows(t *testing.T) {
	challenge := func(attributes string) string {
		return `Bearer ` + attributes + `scope="mcp:read", resource_metadata="` + guardMetadataURL + `"`
	}
	invalid := func(description string) guardAnswer {
		return guardAnswer{
			Status: 401, Error: "invalid_token", Description: description,
			Challenge: challenge(`error="invalid_token", error_description="` + description + `", `),
		}
	}
	with := func(change func(*oauth.TokenInfo)) oauth.TokenInfo {
		info := guardToken("mcp:read")
		change(&info)
		return info
	}
	verifier := guardTokens{
		"good":         guardToken("mcp:read"),
		"more":         guardToken("mcp:read", "mcp:write"),
		"noscope":      guardToken(),
		"expired":      with(func(i *oauth.TokenInfo) { i.ExpiresAt = guardTime.Add(-time.Hour) }),
		"boundary":     with(func(i *oauth.TokenInfo) { i.ExpiresAt = guardTime }),
		"almost":       with(func(i *oauth.TokenInfo) { i.ExpiresAt = guardTime.Add(time.Nanosecond) }),
		"noexpiry":     with(func(i *oauth.TokenInfo) { i.ExpiresAt = time.Time{} }),
		"expiredscope": with(func(i *oauth.TokenInfo) { i.ExpiresAt, i.Scopes = guardTime.Add(-time.Hour), nil }),
		"foreign":      with(func(i *oauth.TokenInfo) { i.Audience = []string{"https://other.example.com/mcp"} }),
		"foreignold":   with(func(i *oauth.TokenInfo) { i.Audience, i.ExpiresAt = nil, guardTime.Add(-time.Hour) }),
		"noaudience":   with(func(i *oauth.TokenInfo) { i.Audience = nil }),
		"byresource":   with(func(i *oauth.TokenInfo) { i.Audience, i.Resource = nil, guardIdentifier }),
		"refused":      oauth.ErrInvalidToken.Describe("The signature is wrong"),
		"silent":       oauth.ErrInvalidToken,
		"quoting":      oauth.ErrInvalidToken.Describe("a \"quote\" and\r\nX-Evil: line"),
		"rawquoting":   &oauth.Error{Code: "invalid_token", Status: 401, Description: "a \"quote\" \\ and\r\nX-Evil: line"},
		"scopeerror":   oauth.ErrInsufficientScope.Describe("Not for this user"),
		"down":         oauth.ErrTemporarilyUnavailable.Describe("The keys cannot be loaded now"),
		"wrapped":      errors.Join(errors.New("no route to host"), oauth.ErrTemporarilyUnavailable.Describe("Later")),
		"servererror":  oauth.ErrServerError.Describe("Broken"),
		"plain":        errors.New("secret detail"),
		"nothing":      struct{}{},
		"badclient":    oauth.ErrInvalidRequest.Describe("Generic"),
		"denied":       oauth.ErrAccessDenied.Describe("You are not on the list"),
		"slowdown":     oauth.ErrTooManyRequests.Describe("Too many"),
		"statusless":   oauth.ErrServerError.WithStatus(200),
		"tail==":       guardToken("mcp:read"),
	}
	server := serveGuarded(t, newGuard(t, verifier, guardResource()))
	reached := guardAnswer{Status: 200, Reached: true}
	tooMany := guardAnswer{Status: 400, Error: "invalid_request", Description: "Send one access token only"}
	malformed := invalid("Invalid Authorization header format, expected 'Bearer TOKEN'")
	none := guardAnswer{Status: 401, Error: "invalid_token", Description: "Missing Authorization header", Challenge: challenge("")}
	for _, test := range []struct {
		name    string
		target  string
		headers []string
		want    guardAnswer
	}{
		{name: "no token: a challenge without error", want: none},
		{name: "empty header: as none", headers: []string{"Authorization:"}, want: none},
		{name: "token in the query is not read", target: "/mcp?access_token=good", want: none},
		{name: "good token", headers: []string{"Authorization: Bearer good"}, want: reached},
		{name: "scheme in any case", headers: []string{"Authorization: bEARER good"}, want: reached},
		{name: "padding", headers: []string{"Authorization: Bearer tail=="}, want: reached},
		{name: "token in query and header: the header counts", target: "/mcp?access_token=x", headers: []string{"Authorization: Bearer good"}, want: reached},
		{name: "other scheme", headers: []string{"Authorization: Basic Z29vZDo="}, want: malformed},
		{name: "other scheme with commas", headers: []string{`Authorization: Digest username="a", realm="b"`}, want: malformed},
		{name: "no token after the scheme", headers: []string{"Authorization: Bearer"}, want: malformed},
		{name: "two spaces", headers: []string{"Authorization: Bearer  good"}, want: malformed},
		{name: "tab", headers: []string{"Authorization: Bearer\tgood"}, want: malformed},
		{name: "extra word", headers: []string{"Authorization: Bearer good extra"}, want: malformed},
		{name: "quoted", headers: []string{`Authorization: Bearer "good"`}, want: malformed},
		{name: "padding inside", headers: []string{"Authorization: Bearer go=od"}, want: malformed},
		{name: "padding only", headers: []string{"Authorization: Bearer =="}, want: malformed},
		{name: "glued scheme", headers: []string{"Authorization: Bearergood"}, want: malformed},
		{
			name: "two headers", headers: []string{"Authorization: Bearer good", "Authorization: Bearer good"},
			want: guardAnswer{Status: 400, Error: "invalid_request", Description: "Send one Authorization header only"},
		},
		{name: "joined headers", headers: []string{"Authorization: Bearer good, Bearer bad"}, want: tooMany},
		{name: "joined with another scheme", headers: []string{"Authorization: Basic Z29vZDo=,  bearer good"}, want: tooMany},
		{name: "comma at the end", headers: []string{"Authorization: Bearer good,"}, want: tooMany},
		{
			name: "over 16 KiB", headers: []string{"Authorization: Bearer " + strings.Repeat("a", 16<<10+1)},
			want: invalid("The Authorization header is longer than 16 KiB"),
		},
		{
			name: "exactly 16 KiB", headers: []string{"Authorization: Bearer " + strings.Repeat("a", 16<<10)},
			want: invalid("The token is unknown"),
		},

		{name: "verifier refuses", headers: []string{"Authorization: Bearer refused"}, want: invalid("The signature is wrong")},
		{name: "verifier refuses without a word", headers: []string{"Authorization: Bearer silent"}, want: invalid("The access token is not valid")},
		{name: "nothing breaks the quoting", headers: []string{"Authorization: Bearer quoting"}, want: invalid("a 'quote' and  X-Evil: line")},
		{name: "nothing breaks the quoting of a literal error", headers: []string{"Authorization: Bearer rawquoting"}, want: invalid("a 'quote' ' and  X-Evil: line")},
		{
			name: "verifier wants scopes", headers: []string{"Authorization: Bearer scopeerror"},
			want: guardAnswer{
				Status: 403, Error: "insufficient_scope", Description: "Not for this user",
				Challenge: challenge(`error="insufficient_scope", error_description="Not for this user", `),
			},
		},
		{
			name: "verifier cannot tell: no challenge", headers: []string{"Authorization: Bearer down"},
			want: guardAnswer{Status: 503, Error: "temporarily_unavailable", Description: "The keys cannot be loaded now"},
		},
		{
			name: "wrapped errors keep their code", headers: []string{"Authorization: Bearer wrapped"},
			want: guardAnswer{Status: 503, Error: "temporarily_unavailable", Description: "Later"},
		},
		{
			name: "server error: no challenge", headers: []string{"Authorization: Bearer servererror"},
			want: guardAnswer{Status: 500, Error: "server_error", Description: "Broken"},
		},
		{
			name: "any other error is not told", headers: []string{"Authorization: Bearer plain"},
			want: guardAnswer{Status: 500, Error: "server_error", Description: "Internal Server Error"},
		},
		{
			name: "neither token nor error", headers: []string{"Authorization: Bearer nothing"},
			want: guardAnswer{Status: 500, Error: "server_error", Description: "Internal Server Error"},
		},
		{
			name: "an error with a status of success", headers: []string{"Authorization: Bearer statusless"},
			want: guardAnswer{Status: 500, Error: "server_error", Description: "Internal Server Error"},
		},
		{
			name: "other OAuth error: no challenge", headers: []string{"Authorization: Bearer badclient"},
			want: guardAnswer{Status: 400, Error: "invalid_request", Description: "Generic"},
		},
		{
			name: "access denied: no challenge, so that nobody steps up", headers: []string{"Authorization: Bearer denied"},
			want: guardAnswer{Status: 403, Error: "access_denied", Description: "You are not on the list"},
		},
		{
			name: "too many requests", headers: []string{"Authorization: Bearer slowdown"},
			want: guardAnswer{Status: 429, Error: "too_many_requests", Description: "Too many"},
		},

		{name: "audience of another resource", headers: []string{"Authorization: Bearer foreign"}, want: invalid("Token was not issued for this resource")},
		{name: "no audience", headers: []string{"Authorization: Bearer noaudience"}, want: invalid("Token was not issued for this resource")},
		{name: "audience before expiry", headers: []string{"Authorization: Bearer foreignold"}, want: invalid("Token was not issued for this resource")},
		{name: "the resource of the token is an audience", headers: []string{"Authorization: Bearer byresource"}, want: reached},

		{name: "expired", headers: []string{"Authorization: Bearer expired"}, want: invalid("Token has expired")},
		{name: "expires now", headers: []string{"Authorization: Bearer boundary"}, want: invalid("Token has expired")},
		{name: "expires next", headers: []string{"Authorization: Bearer almost"}, want: reached},
		{name: "no expiry", headers: []string{"Authorization: Bearer noexpiry"}, want: invalid("Token has no expiration time")},
		{name: "expiry before scope", headers: []string{"Authorization: Bearer expiredscope"}, want: invalid("Token has expired")},

		{
			name: "missing scope", headers: []string{"Authorization: Bearer noscope"},
			want: guardAnswer{
				Status: 403, Error: "insufficient_scope", Description: "Insufficient scope",
				Challenge: challenge(`error="insufficient_scope", error_description="Insufficient scope", `),
			},
		},
		{name: "more scopes than needed", headers: []string{"Authorization: Bearer more"}, want: reached},
	} {
		t.Run(test.name, func(t *testing.T) {
			target := test.target
			if target == "" {
				target = "/mcp"
			}
			got := ask(t, server, append([]string{"POST " + target + " HTTP/1.1"}, test.headers...)...)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGuardEveryMethodNeedsAToken(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{"good": guardToken("mcp:read")}, guardResource()))
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"} {
		head := method + " /mcp HTTP/1.1"
		// A session id is not a credential, an OPTIONS without Origin no preflight.
		got := ask(t, server, head, "Mcp-Session-Id: 1", "Access-Control-Request-Method: POST")
		if got.Status != 401 || got.Challenge == "" {
			t.Errorf("%s without token: %+v, want a challenge", method, got)
		}
		if got := ask(t, server, head, "Authorization: Bearer good"); !got.Reached {
			t.Errorf("%s with token: %+v, want the handler behind", method, got)
		}
	}
}

func TestGuardHeadHasNoBody(t *testing.T) {
	guard := newGuard(t, guardTokens{}, guardResource())
	recorder := httptest.NewRecorder()
	guard.Check(recorder, httptest.NewRequest(http.MethodHead, "/mcp", nil), nil)
	if recorder.Code != 401 || recorder.Body.Len() != 0 || recorder.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("status %d, body %q, header %v", recorder.Code, recorder.Body, recorder.Header())
	}
}

func TestGuardTroubleSaysWhenToRetry(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{"down": oauth.ErrTemporarilyUnavailable}, guardResource()))
	res, _ := sendRaw(t, server, "", "POST /mcp HTTP/1.1", "Authorization: Bearer down")
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
}

func TestGuardNoExpiryAllowed(t *testing.T) {
	info := guardToken("mcp:read")
	info.ExpiresAt = time.Time{}
	guard, err := bearer.NewGuard(bearer.GuardConfig{
		Resources: []bearer.Resource{guardResource()}, AuthorizationServers: []string{guardIssuer},
		Verifier: guardTokens{"good": info}, AllowNoExpiry: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, serveGuarded(t, guard), "POST /mcp HTTP/1.1", "Authorization: Bearer good"); !got.Reached {
		t.Errorf("%+v", got)
	}
}

func TestGuardScopes(t *testing.T) {
	resource := bearer.Resource{
		Identifier: guardIdentifier, Path: "/mcp",
		Scopes:  []string{"mcp:read", "mcp:write", "offline_access"},
		Require: []string{"mcp:read"},
		Implies: map[string][]string{"mcp:all": {"mcp:admin"}, "mcp:admin": {"mcp:write"}, "mcp:write": {"mcp:read"}},
		Paths: []bearer.PathRule{
			{Pattern: "/mcp/admin*", Scopes: []string{"mcp:admin"}},
			{Pattern: "/mcp/admin/keys", Scopes: []string{"mcp:keys", "mcp:read"}},
		},
	}
	reached := ""
	for _, test := range []struct {
		name   string
		path   string
		scopes []string
		want   string // scope of the 403, empty if the request gets through
	}{
		{"required scope", "/mcp", []string{"mcp:read"}, reached},
		{"advertised scopes are not all required", "/mcp/tools", []string{"mcp:read"}, reached},
		{"a broader scope implies it", "/mcp", []string{"mcp:write"}, reached},
		{"implication is transitive", "/mcp", []string{"mcp:all"}, reached},
		{"a narrower scope implies nothing", "/mcp/admin", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"path rule", "/mcp/admin", []string{"mcp:read", "mcp:admin"}, reached},
		{"path rule as prefix", "/mcp/administrators", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"path rule in other case", "/mcp/ADMIN", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"path rule behind doubled slashes", "/mcp//admin", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"path rule behind an escape", "/mcp/%61dmin", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"path rule behind two escapes", "/mcp/%2561dmin", []string{"mcp:read"}, "mcp:read mcp:admin"},
		{"all matching rules count", "/mcp/admin/keys", []string{"mcp:admin"}, "mcp:read mcp:admin mcp:keys"},
		{"rule with a slash behind", "/mcp/admin/keys/", []string{"mcp:admin"}, "mcp:read mcp:admin mcp:keys"},
		{"exact rule does not reach below", "/mcp/admin/keys/1", []string{"mcp:admin"}, reached},
		{"all rules satisfied", "/mcp/admin/keys", []string{"mcp:keys", "mcp:all"}, reached},
		{"known grants are kept, sorted", "/mcp/admin", []string{"mcp:write", "mcp:keys", "mcp:read"}, "mcp:read mcp:admin mcp:keys mcp:write"},
		{"foreign grants are not told", "/mcp", []string{"email", "offline_access", "openid"}, "mcp:read"},
		{"scopes are compared by case", "/mcp", []string{"MCP:READ"}, "mcp:read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serveGuarded(t, newGuard(t, guardTokens{"t": guardToken(test.scopes...)}, resource))
			want := guardAnswer{Status: 200, Reached: true}
			if test.want != reached {
				want = guardAnswer{
					Status: 403, Error: "insufficient_scope", Description: "Insufficient scope",
					Challenge: `Bearer error="insufficient_scope", error_description="Insufficient scope", scope="` +
						test.want + `", resource_metadata="` + guardMetadataURL + `"`,
				}
			}
			if diff := cmp.Diff(want, ask(t, server, "POST "+test.path+" HTTP/1.1", "Authorization: Bearer t")); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a 401 names what this request needs", func(t *testing.T) {
		got := ask(t, serveGuarded(t, newGuard(t, guardTokens{}, resource)), "POST /mcp/admin HTTP/1.1")
		if want := `Bearer scope="mcp:read mcp:admin", resource_metadata="` + guardMetadataURL + `"`; got.Challenge != want {
			t.Errorf("challenge %q, want %q", got.Challenge, want)
		}
	})
	t.Run("nothing required", func(t *testing.T) {
		open := guardResource()
		open.Require = []string{}
		server := serveGuarded(t, newGuard(t, guardTokens{"t": guardToken()}, open))
		if got := ask(t, server, "POST /mcp HTTP/1.1", "Authorization: Bearer t"); !got.Reached {
			t.Errorf("%+v", got)
		}
		want := `Bearer resource_metadata="` + guardMetadataURL + `"`
		if got := ask(t, server, "POST /mcp HTTP/1.1"); got.Challenge != want {
			t.Errorf("challenge %q, want %q", got.Challenge, want)
		}
	})
}

func TestGuardAudience(t *testing.T) {
	other := bearer.Resource{Identifier: "https://mcp.example.com/other", Path: "/other", Scopes: []string{"mcp:read"}}
	listed := guardResource()
	listed.Audiences = []string{"api://mcp", "https://api.example.com/v1"}
	anybody := guardResource()
	anybody.AnyAudience = true
	one := []bearer.Resource{guardResource()}
	for _, test := range []struct {
		name      string
		resources []bearer.Resource
		audience  []string
		want      bool
	}{
		{"identifier", one, []string{guardIdentifier}, true},
		{"one of several", one, []string{"https://x.example.com", guardIdentifier}, true},
		{"host in another case", one, []string{"HTTPS://MCP.example.COM/mcp"}, true},
		{"default port", one, []string{"https://mcp.example.com:443/mcp"}, true},
		{"slash behind", one, []string{"https://mcp.example.com/mcp/"}, true},
		{"bare origin with one resource", one, []string{"https://mcp.example.com"}, true},
		{"bare origin with slash", one, []string{"https://mcp.example.com/"}, true},
		{"URL below the only resource", one, []string{"https://mcp.example.com/mcp/sse"}, true},
		{"path in another case", one, []string{"https://mcp.example.com/MCP"}, false},
		{"other path", one, []string{"https://mcp.example.com/mcpfoo"}, false},
		{"other host", one, []string{"https://mcp.example.com.evil.example/mcp"}, false},
		{"other port", one, []string{"https://mcp.example.com:8443/mcp"}, false},
		{"other scheme", one, []string{"http://mcp.example.com/mcp"}, false},
		{"userinfo", one, []string{"https://mcp.example.com@evil.example/mcp"}, false},
		{"below by dot segments", one, []string{"https://mcp.example.com/mcp/../other"}, false},
		{"empty", one, []string{""}, false},
		{"none", one, nil, false},
		{"bare origin with two resources", []bearer.Resource{guardResource(), other}, []string{"https://mcp.example.com"}, false},
		{"below with two resources", []bearer.Resource{guardResource(), other}, []string{"https://mcp.example.com/mcp/sse"}, false},
		{"another resource of this guard", []bearer.Resource{guardResource(), other}, []string{"https://mcp.example.com/other"}, false},
		{"listed, no URL", []bearer.Resource{listed}, []string{"api://mcp"}, true},
		{"listed, other spelling", []bearer.Resource{listed}, []string{"https://API.example.com/v1/"}, true},
		{"identifier beside a list", []bearer.Resource{listed}, []string{guardIdentifier}, true},
		{"bare origin beside a list", []bearer.Resource{listed}, []string{"https://mcp.example.com"}, false},
		{"not listed", []bearer.Resource{listed}, []string{"api://other"}, false},
		{"any", []bearer.Resource{anybody}, []string{"whoever"}, true},
		{"any, even none", []bearer.Resource{anybody}, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			info := guardToken("mcp:read")
			info.Audience = test.audience
			server := serveGuarded(t, newGuard(t, guardTokens{"t": info}, test.resources...))
			got := ask(t, server, "POST /mcp HTTP/1.1", "Authorization: Bearer t")
			if got.Reached != test.want || !test.want && got.Description != "Token was not issued for this resource" {
				t.Errorf("%+v, want reached %v", got, test.want)
			}
		})
	}
}

// TestGuardSeveralResources: the longest path wins, and the challenge names the
// metadata of the requested resource.
func TestGuardSeveralResources(t *testing.T) {
	server := serveGuarded(t, newGuard(t, guardTokens{}, []bearer.Resource{
		{Identifier: "https://mcp.example.com", Path: "/", Scopes: []string{"site"}},
		{Identifier: "https://mcp.example.com/mcp", Path: "/mcp", Scopes: []string{"mcp"}},
		{Identifier: "https://mcp.example.com/mcp/inner", Path: "/mcp/inner", Scopes: []string{"inner"}},
		{Identifier: "https://api.example.com/v1", Path: "/v1", Scopes: []string{"api"}},
	}...))
	challenge := func(scope, metadataURL string) string {
		return `Bearer scope="` + scope + `", resource_metadata="` + metadataURL + `"`
	}
	for path, want := range map[string]string{
		"/":               challenge("site", "https://mcp.example.com/.well-known/oauth-protected-resource"),
		"/mcpfoo":         challenge("site", "https://mcp.example.com/.well-known/oauth-protected-resource"),
		"/mcp":            challenge("mcp", "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"),
		"/mcp/innermost":  challenge("mcp", "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"),
		"/mcp/inner/most": challenge("inner", "https://mcp.example.com/.well-known/oauth-protected-resource/mcp/inner"),
		"/v1/x":           challenge("api", "https://api.example.com/.well-known/oauth-protected-resource/v1"),
	} {
		if got := ask(t, server, "POST "+path+" HTTP/1.1"); got.Challenge != want {
			t.Errorf("%s: challenge %q, want %q", path, got.Challenge, want)
		}
	}
}

// TestGuardRewrites: a request belongs to a resource if its path before or after
// rewrites does; if both do, the scopes of both are needed (SECURITY §7).
func TestGuardRewrites(t *testing.T) {
	resources := []bearer.Resource{
		{
			Identifier: guardIdentifier, Path: "/mcp", Scopes: []string{"mcp"},
			Paths: []bearer.PathRule{{Pattern: "/mcp/admin*", Scopes: []string{"admin"}}},
		},
		{
			Identifier: "https://mcp.example.com/api", Path: "/api", Scopes: []string{"api"},
			Implies: map[string][]string{"apiall": {"api"}},
		},
	}
	forAPI := guardToken("api")
	forAPI.Audience = []string{"https://mcp.example.com/api"}
	tokens := guardTokens{
		"mcp": guardToken("mcp"), "both": guardToken("mcp", "api"), "admin": guardToken("mcp", "admin"),
		"wide": guardToken("mcp", "apiall"), "forapi": forAPI,
	}
	for _, test := range []struct {
		name              string
		original, current string
		token             string
		wantStatus        int
		wantScope         string
	}{
		{"neither", "/a", "/b", "", 200, ""},
		{"original only", "/mcp", "/index.php", "", 401, "mcp"},
		{"original only, with token", "/mcp", "/index.php", "mcp", 200, ""},
		{"current only", "/pretty", "/mcp", "", 401, "mcp"},
		{"current only, with token", "/pretty", "/mcp", "mcp", 200, ""},
		{"prefix stripped into a resource", "/v2/mcp", "/mcp", "", 401, "mcp"},
		{"both in one: rules of both", "/mcp/x", "/mcp/admin", "mcp", 403, "mcp admin"},
		{"both in one: rules of the original", "/mcp/admin", "/mcp/x", "mcp", 403, "mcp admin"},
		{"both in one, enough", "/mcp/admin", "/mcp/x", "admin", 200, ""},
		{"both: no token", "/mcp", "/api", "", 401, "mcp api"},
		{"both: scopes of one", "/mcp", "/api", "mcp", 403, "mcp api"},
		{"both: scopes of both", "/mcp", "/api", "both", 200, ""},
		{"both: each knows its own implications", "/mcp", "/api", "wide", 200, ""},
		{"both: the audience is that of the original", "/mcp", "/api", "forapi", 401, "mcp api"},
		{"odd original", "/mcp/../x", "/x", "mcp", 400, ""},
		{"odd current", "/x", "/x/../mcp", "mcp", 400, ""},
		{"odd current beside a good original", "/mcp", "/mcp;x", "mcp", 400, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			guard := newGuard(t, tokens, resources...)
			request := httptest.NewRequest(http.MethodPost, "http://mcp.example.com/", nil)
			request.URL = &url.URL{Path: test.current}
			if test.token != "" {
				request.Header.Set("Authorization", "Bearer "+test.token)
			}
			recorder := httptest.NewRecorder()
			decision, ok := guard.Check(recorder, request, &url.URL{Path: test.original})
			if ok != (test.wantStatus == 200) || !ok && recorder.Code != test.wantStatus {
				t.Fatalf("went on %v, status %d, want %d", ok, recorder.Code, test.wantStatus)
			}
			challenge := recorder.Header().Get("WWW-Authenticate")
			if test.wantScope != "" && !strings.Contains(challenge, `scope="`+test.wantScope+`"`) {
				t.Errorf("challenge %q, want scope %q", challenge, test.wantScope)
			}
			if ok && decision.Guarded != (test.token != "") {
				t.Errorf("guarded %v", decision.Guarded)
			}
		})
	}
	t.Run("both must allow the web origin", func(t *testing.T) {
		first, second := resources[0], resources[1]
		first.Origins = []string{"https://app.example.com"}
		for origin, want := range map[string]int{"https://app.example.com": 403, "https://mcp.example.com": 401} {
			request := httptest.NewRequest(http.MethodPost, "/api", nil)
			request.Header.Set("Origin", origin)
			recorder := httptest.NewRecorder()
			newGuard(t, tokens, first, second).Check(recorder, request, &url.URL{Path: "/mcp"})
			if recorder.Code != want {
				t.Errorf("%s: %d, want %d", origin, recorder.Code, want)
			}
		}
	})
	t.Run("a stale RawPath counts too", func(t *testing.T) {
		request := httptest.NewRequest(http.MethodPost, "/x", nil)
		request.URL = &url.URL{Path: "/y", RawPath: "/mcp"}
		if decision, ok := newGuard(t, tokens, resources...).Check(httptest.NewRecorder(), request, nil); ok || !decision.Guarded {
			t.Errorf("%+v went on %v", decision, ok)
		}
	})
}

func TestGuardDecision(t *testing.T) {
	guard := newGuard(t, guardTokens{"good": guardToken("mcp:read")}, guardResource())
	request := httptest.NewRequest(http.MethodPost, "/mcp", nil)
	request.Header.Set("Authorization", "Bearer good")
	decision, ok := guard.Check(httptest.NewRecorder(), request, nil)
	if !ok || !decision.Guarded || decision.Resource.Identifier != guardIdentifier || decision.Info.UserID != "alice" || decision.Writer != nil {
		t.Errorf("%+v, went on %v", decision, ok)
	}
	if request.Header.Get("Authorization") == "" {
		t.Error("Check removed the token, which is the caller's choice")
	}
	decision, ok = guard.Check(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/open", nil), nil)
	if diff := cmp.Diff(bearer.Decision{}, decision); !ok || diff != "" {
		t.Errorf("went on %v: %s", ok, diff)
	}
}

func TestGuardLogsRefusalsWithoutToken(t *testing.T) {
	var log strings.Builder
	guard, err := bearer.NewGuard(bearer.GuardConfig{
		Resources: []bearer.Resource{{Identifier: guardIdentifier}}, AuthorizationServers: []string{guardIssuer},
		Verifier: guardTokens{"sesame": errors.New("connection refused")},
		Logger:   slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(guardBackend)))
	ask(t, server, "POST /mcp HTTP/1.1", "Authorization: Bearer sesame")
	for range 2 { // no resource line has /sse: one advice (SECURITY §8)
		ask(t, server, "GET /sse HTTP/1.1")
	}
	server.Close()
	text := log.String()
	if !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "connection refused") || strings.Contains(text, "sesame") {
		t.Errorf("log: %s", text)
	}
	if got := strings.Count(text, "add a resource line"); got != 1 {
		t.Errorf("%d lines of advice, want 1: %s", got, text)
	}
}

func BenchmarkGuardCheck(b *testing.B) {
	info := guardToken("mcp:read")
	verifier := bearer.VerifierFunc(func(context.Context, string) (*oauth.TokenInfo, error) { return &info, nil })
	guard := newGuard(b, verifier, guardResource())
	for name, path := range map[string]string{"admitted": "/mcp", "open": "/static/app.js"} {
		b.Run(name, func(b *testing.B) {
			request := httptest.NewRequest(http.MethodPost, path, nil)
			request.Header.Set("Authorization", "Bearer good")
			recorder := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := guard.Check(recorder, request, nil); !ok {
					b.Fatal("refused")
				}
			}
		})
	}
	b.Run("refused", func(b *testing.B) {
		request := httptest.NewRequest(http.MethodPost, "/mcp", nil)
		b.ReportAllocs()
		for b.Loop() {
			guard.Check(httptest.NewRecorder(), request, nil)
		}
	})
}
