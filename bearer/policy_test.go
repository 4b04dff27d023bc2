package bearer_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// policyServer is a guarded server that records the bodies that reach it.
type policyServer struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	last   *http.Request
	log    strings.Builder
}

func servePolicy(t testing.TB, policy bearer.Policy, scopes ...string) *policyServer {
	t.Helper()
	resource := guardResource()
	resource.Policy = policy
	resource.Implies = map[string][]string{"mcp:all": {"mcp:read", "mcp:write"}}
	s := new(policyServer)
	guard, err := bearer.NewGuard(bearer.GuardConfig{
		Resources: []bearer.Resource{resource}, AuthorizationServers: []string{guardIssuer},
		Verifier: guardTokens{"good": guardToken(scopes...)}, Now: func() time.Time { return guardTime },
		Logger: slog.New(slog.NewTextHandler(&s.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = serveHandler(t, bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading the body: %v", err)
		}
		s.mu.Lock()
		s.bodies, s.last = append(s.bodies, string(body)), r
		s.mu.Unlock()
		guardBackend(w, r)
	})))
	return s
}

// take returns the bodies that reached the server since the last call.
func (s *policyServer) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.bodies
	s.bodies = nil
	return taken
}

// post sends a call and returns what the client sees.
func (s *policyServer) post(t testing.TB, body string, headers ...string) guardAnswer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/mcp", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer good")
	request.Header.Set("Content-Type", "application/json")
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if value == "" {
			delete(request.Header, name)
			continue
		}
		request.Header[name] = append(request.Header[name], value)
		if name == "Content-Type" {
			request.Header[name] = []string{value}
		}
	}
	return s.do(t, request)
}

func (s *policyServer) do(t testing.TB, request *http.Request) guardAnswer {
	t.Helper()
	response, err := s.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer := guardAnswer{Status: response.StatusCode, Challenge: response.Header.Get("WWW-Authenticate"), Reached: response.Header.Get("X-Reached") == "true"}
	for _, member := range [][2]any{{"error", &answer.Error}, {"error_description", &answer.Description}} {
		if _, rest, ok := strings.Cut(string(text), `"`+member[0].(string)+`":"`); ok {
			*member[1].(*string), _, _ = strings.Cut(rest, `"`)
		}
	}
	return answer
}

func toolCall(name string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + name + `","arguments":{}}}`
}

func rpc(method, params string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":` + params + `}`
}

func rules(pairs ...string) (list []bearer.NameRule) {
	for pair := range slices.Chunk(pairs, 2) {
		list = append(list, bearer.NameRule{Pattern: pair[0], Scopes: strings.Fields(pair[1])})
	}
	return list
}

func TestPolicyRules(t *testing.T) {
	policy := bearer.Policy{
		Tools:   rules("delete_*", "mcp:delete", "*_all", "mcp:bulk mcp:write", "write", "mcp:write"),
		Prompts: rules("secret", "mcp:secret"),
		URIs:    rules("file:///private/*", "mcp:private"),
		Methods: rules("resources/*", "mcp:resources", "notifications/roots/list_changed", "mcp:roots"),
	}
	for _, row := range []struct{ name, scopes, body, lacks string }{
		{"a tool without a rule", "mcp:read", toolCall("read"), ""},
		{"a tool with a rule", "mcp:read", toolCall("delete_x"), "mcp:read mcp:delete"},
		{"a tool with a rule, granted", "mcp:read mcp:delete", toolCall("delete_x"), ""},
		{"all rules that match count", "mcp:read mcp:delete", toolCall("delete_all"), "mcp:read mcp:delete mcp:bulk mcp:write"},
		{"a broader scope", "mcp:all", toolCall("write"), ""},
		{"the base scopes come along", "mcp:delete", toolCall("delete_x"), "mcp:read mcp:delete"},
		{"what else means something is kept", "mcp:read mcp:secret other", toolCall("delete_x"), "mcp:read mcp:delete mcp:secret"},
		{"case counts", "mcp:read", toolCall("Delete_x"), ""},
		{"an escaped name is the same", "mcp:read", toolCall(`\u0064elete_x`), "mcp:read mcp:delete"},
		{"a prompt of a tool's name", "mcp:read", rpc("prompts/get", `{"name":"delete_x"}`), ""},
		{"a prompt", "mcp:read", rpc("prompts/get", `{"name":"secret"}`), "mcp:read mcp:secret"},
		{"a prompt by completion", "mcp:read", rpc("completion/complete", `{"ref":{"type":"ref/prompt","name":"secret"}}`), "mcp:read mcp:secret"},
		{"a tool of a prompt's name", "mcp:read", toolCall("secret"), ""},
		{"a method", "mcp:read", rpc("resources/list", `{}`), "mcp:read mcp:resources"},
		{"a resource", "mcp:read mcp:resources", rpc("resources/read", `{"uri":"file:///private/a"}`), "mcp:read mcp:resources mcp:private"},
		{"a resource in another spelling", "mcp:read mcp:resources", rpc("resources/read", `{"uri":"FILE:///open/../%70rivate/a"}`), "mcp:read mcp:resources mcp:private"},
		{"another resource", "mcp:read mcp:resources", rpc("resources/subscribe", `{"uri":"file:///open/a"}`), ""},
		{"a resource by subscription", "mcp:read", rpc("subscriptions/listen", `{"notifications":{"resourceSubscriptions":["a:b","file:///private/a"]}}`), "mcp:read mcp:private"},
		{"a notification", "mcp:read", `{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}`, "mcp:read mcp:roots"},
		{"another notification", "mcp:read", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, ""},
		{"a response", "mcp:read", `{"jsonrpc":"2.0","id":1,"result":{}}`, ""},
		{"a batch", "mcp:read", "[" + toolCall("a") + "," + toolCall("b") + "]", ""},
		{"one call of a batch", "mcp:read", "[" + toolCall("a") + "," + toolCall("delete_x") + "]", "mcp:read mcp:delete"},
		{"two calls of a batch", "mcp:read", "[" + toolCall("delete_x") + "," + rpc("resources/list", "{}") + "]", "mcp:read mcp:delete mcp:resources"},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := servePolicy(t, policy, strings.Fields(row.scopes)...)
			got := server.post(t, row.body)
			if row.lacks == "" {
				if bodies := server.take(); got.Status != 200 || !slices.Equal(bodies, []string{row.body}) {
					t.Errorf("%+v, the server behind got %q", got, bodies)
				}
				return
			}
			if got.Status != 403 || got.Error != "insufficient_scope" || len(server.take()) > 0 {
				t.Fatalf("%+v", got)
			}
			for _, want := range []string{`error="insufficient_scope"`, `scope="` + row.lacks + `"`, `resource_metadata="` + guardMetadataURL + `"`} {
				if !strings.Contains(got.Challenge, want) {
					t.Errorf("challenge %s lacks %s", got.Challenge, want)
				}
			}
		})
	}
}

func TestStepUpNamesTheCall(t *testing.T) {
	server := servePolicy(t, bearer.Policy{Tools: rules("*", "mcp:tools"), URIs: rules("*", "mcp:uris"), Methods: rules("x*", "mcp:x")}, "mcp:read")
	for body, want := range map[string]string{
		toolCall("delete_x"):                                   "Insufficient scope for the tool delete_x",
		toolCall(`a\"b\\c é`):                                  "Insufficient scope for the tool a?b?c??",
		toolCall(strings.Repeat("a", 100)):                     "Insufficient scope for the tool " + strings.Repeat("a", 61) + "...",
		rpc("resources/read", `{"uri":"a:b"}`):                 "Insufficient scope for the resource a:b",
		rpc("x/y", `{"name":"a"}`):                             "Insufficient scope for the method x/y",
		"[" + rpc("ping", "{}") + "," + rpc("x/1", "{}") + "]": "Insufficient scope for the method x/1",
	} {
		got := server.post(t, body)
		if got.Description != want || !strings.Contains(got.Challenge, `error_description="`+want+`"`) {
			t.Errorf("%q, challenge %s, want %q", got.Description, got.Challenge, want)
		}
	}
}

func TestAllowComesBeforeScopes(t *testing.T) {
	server := servePolicy(t, bearer.Policy{
		Allow: func(info *oauth.TokenInfo) (bool, string) { return info.UserID == "bob", "the reason is for the log" },
	})
	want := guardAnswer{Status: 403, Error: "access_denied", Description: "This user may not use this resource"}
	if diff := cmp.Diff(want, server.post(t, "no JSON", "Content-Type: text/plain")); diff != "" {
		t.Error(diff)
	}
}

func TestAllowAloneReadsNoBody(t *testing.T) {
	server := servePolicy(t, bearer.Policy{Allow: func(*oauth.TokenInfo) (bool, string) { return true, "" }}, "mcp:read")
	if got := server.post(t, "no JSON", "Content-Type: text/plain"); got.Status != 200 || !slices.Equal(server.take(), []string{"no JSON"}) {
		t.Errorf("%+v", got)
	}
}

func TestWhen(t *testing.T) {
	var seen []bearer.Call
	policy := bearer.Policy{When: func(_ context.Context, call *bearer.Call) (bool, error) {
		seen = append(seen, bearer.Call{Method: call.Method, Name: call.Name, URI: call.URI, Arguments: slices.Clone(call.Arguments)})
		if call.Info.UserID != "alice" {
			return true, nil
		}
		if call.Name == "broken" {
			return true, errors.New("no such key")
		}
		return call.Name != "no", nil
	}}
	server := servePolicy(t, policy, "mcp:read")
	denied := guardAnswer{Status: 403, Error: "access_denied", Description: "The policy of this resource does not permit the tool no"}
	if diff := cmp.Diff(denied, server.post(t, toolCall("no"))); diff != "" {
		t.Error(diff)
	}
	seen = nil
	if got := server.post(t, "["+toolCall("yes")+","+toolCall("no")+"]"); got.Status != 403 || len(seen) != 2 {
		t.Errorf("%+v after %d calls", got, len(seen))
	}
	if got := server.post(t, toolCall("broken")); got.Status != 403 || got.Challenge != "" || !strings.Contains(server.log.String(), "no such key") {
		t.Errorf("%+v, log %s", got, server.log.String())
	}
	if len(server.take()) > 0 {
		t.Error("a refused call reached the server")
	}
	seen = nil
	for _, body := range []string{rpc("tools/call", `{"name":"yes","arguments":{"a":[1]}}`), rpc("resources/read", `{"uri":"a:b"}`), `{"jsonrpc":"2.0","id":1,"result":{}}`} {
		if got := server.post(t, body); got.Status != 200 {
			t.Errorf("%s: %+v", body, got)
		}
	}
	want := []bearer.Call{{Method: "tools/call", Name: "yes", Arguments: []byte(`{"a":[1]}`)}, {Method: "resources/read", URI: "a:b"}}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
	if got := server.post(t, rpc("tools/call", `{"name":"yes","arguments":{"a":1,"A":2}}`)); got.Status != 400 {
		t.Errorf("arguments that can be read in two ways: %+v", got)
	}
}

func TestWhenIsAskedAfterScopes(t *testing.T) {
	server := servePolicy(t, bearer.Policy{
		Tools: rules("a", "mcp:a"),
		When:  func(context.Context, *bearer.Call) (bool, error) { return false, nil },
	}, "mcp:read")
	if got := server.post(t, toolCall("a")); got.Error != "insufficient_scope" {
		t.Errorf("%+v", got)
	}
}

func TestMayList(t *testing.T) {
	resource := guardResource()
	resource.Policy = bearer.Policy{
		Tools: rules("delete_*", "mcp:delete"), Prompts: rules("p", "mcp:p"), URIs: rules("file:///private/*", "mcp:private"),
		When:                 func(_ context.Context, call *bearer.Call) (bool, error) { return call.Name != "never", nil },
		WhenIgnoresArguments: true,
	}
	for _, row := range []struct {
		name, scopes string
		kind         bearer.CallKind
		entry        string
		want         bool
	}{
		{"no rule", "mcp:read", bearer.ToolCall, "read", true},
		{"scope is lacking", "mcp:read", bearer.ToolCall, "delete_x", false},
		{"scope is there", "mcp:read mcp:delete", bearer.ToolCall, "delete_x", true},
		{"prompt", "mcp:read", bearer.PromptCall, "p", false},
		{"prompt of a tool's name", "mcp:read", bearer.PromptCall, "delete_x", true},
		{"resource", "mcp:read", bearer.ResourceCall, "file:///private/x", false},
		{"other resource", "mcp:read", bearer.ResourceCall, "file:///x", true},
		{"condition", "mcp:read", bearer.ToolCall, "never", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			guard := newGuard(t, guardTokens{"good": guardToken(strings.Fields(row.scopes)...)}, resource)
			request := httptest.NewRequest(http.MethodGet, "/mcp", nil)
			request.Header.Set("Authorization", "Bearer good")
			decision, ok := guard.Check(httptest.NewRecorder(), request, nil)
			if got := decision.MayList(row.kind, row.entry); !ok || got != row.want {
				t.Errorf("admitted %t, may list %t", ok, got)
			}
		})
	}
}

func TestPolicyConfigurationErrors(t *testing.T) {
	for want, policy := range map[string]bearer.Policy{
		"a tool rule has no pattern":  {Tools: rules("", "a")},
		`uri rule "x" names no scope`: {URIs: []bearer.NameRule{{Pattern: "x"}}},
		"is not a scope":              {Methods: []bearer.NameRule{{Pattern: "x", Scopes: []string{"a b"}}}},
		"offline_access":              {Prompts: rules("x", "offline_access")},
		"must not be negative":        {BodyLimit: -1},
	} {
		resource := guardResource()
		resource.Policy = policy
		_, err := bearer.NewGuard(bearer.GuardConfig{Resources: []bearer.Resource{resource}, AuthorizationServers: []string{guardIssuer}, Verifier: guardTokens{}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
