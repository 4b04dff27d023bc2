package bearer_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

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
	if diff := cmp.Diff(bearer.Decision{}, decision, cmpopts.IgnoreUnexported(bearer.Decision{})); !ok || diff != "" {
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
