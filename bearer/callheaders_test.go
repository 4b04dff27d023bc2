package bearer_test

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
)

func sentinel(name string) string {
	return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(name)) + "?="
}

func TestMirroredHeaders(t *testing.T) {
	const modern, old = "Mcp-Protocol-Version: 2026-07-28", "Mcp-Protocol-Version: 2025-11-25"
	call := "Mcp-Method: tools/call"
	batch := "[" + toolCall("a") + "]"
	for _, row := range []struct {
		name    string
		body    string
		headers []string
		status  int
	}{
		{"none, old", toolCall("a"), []string{old}, 200},
		{"none, no version", toolCall("a"), nil, 200},
		{"right", toolCall("a"), []string{modern, call, "Mcp-Name: a"}, 200},
		{"right, old", toolCall("a"), []string{old, call, "Mcp-Name: a"}, 200},
		{"right, a later revision", toolCall("a"), []string{"Mcp-Protocol-Version: 2027-01-01", call, "Mcp-Name: a"}, 200},
		{"method missing", toolCall("a"), []string{modern}, 400},
		{"method missing, another method", rpc("ping", "{}"), []string{modern}, 400},
		{"name missing", toolCall("a"), []string{modern, call}, 400},
		{"name missing, of a resource", rpc("resources/read", `{"uri":"a"}`), []string{modern, "Mcp-Method: resources/read"}, 400},
		{"name missing where none is required", rpc("tools/list", "{}"), []string{modern, "Mcp-Method: tools/list"}, 200},
		{"another method", toolCall("a"), []string{modern, "Mcp-Method: tools/list", "Mcp-Name: a"}, 400},
		{"another method, old", toolCall("a"), []string{old, "Mcp-Method: tools/list"}, 400},
		{"another method, no version", toolCall("a"), []string{"Mcp-Method: tools/list"}, 400},
		{"method in another case", toolCall("a"), []string{modern, "Mcp-Method: Tools/Call", "Mcp-Name: a"}, 400},
		{"another name", toolCall("a"), []string{modern, call, "Mcp-Name: b"}, 400},
		{"another name, old", toolCall("a"), []string{old, "Mcp-Name: b"}, 400},
		{"a name for a method without", rpc("ping", "{}"), []string{modern, "Mcp-Method: ping", "Mcp-Name: b"}, 400},
		{"two methods", toolCall("a"), []string{modern, call, call, "Mcp-Name: a"}, 400},
		{"two names", toolCall("a"), []string{modern, call, "Mcp-Name: a", "Mcp-Name: a"}, 400},
		{"two versions", toolCall("a"), []string{old, modern}, 400},
		{"name in Base64", toolCall("a é"), []string{modern, call, "Mcp-Name: " + sentinel("a é")}, 200},
		{"name in Base64 that needs none", toolCall("a"), []string{modern, call, "Mcp-Name: " + sentinel("a")}, 200},
		{"another name in Base64", toolCall("a"), []string{modern, call, "Mcp-Name: " + sentinel("b")}, 400},
		{"broken Base64", toolCall("a"), []string{modern, call, "Mcp-Name: =?base64?YQ?="}, 400},
		{"Base64 of the URL kind", toolCall("a"), []string{modern, call, "Mcp-Name: =?base64?_-8=?="}, 400},
		{"Base64 of no UTF-8", toolCall("a"), []string{modern, call, "Mcp-Name: " + sentinel("\xff")}, 400},
		{"a name that looks like Base64 and is not encoded", toolCall("=?base64?x?="), []string{modern, call, "Mcp-Name: =?base64?x?="}, 400},
		{"a name that looks like Base64", toolCall("=?base64?x?="), []string{modern, call, "Mcp-Name: " + sentinel("=?base64?x?=")}, 200},
		{"name that is not ASCII and not in Base64", toolCall("é"), []string{modern, call, "Mcp-Name: é"}, 200}, // go-sdk does so
		{"another name that is not ASCII", toolCall("é"), []string{modern, call, "Mcp-Name: è"}, 400},
		{"the name in Latin-1", toolCall("é"), []string{modern, call, "Mcp-Name: \xe9"}, 400},
		{"a method that is not ASCII", rpc("é", "{}"), []string{modern, "Mcp-Method: é"}, 400},
		{"task", rpc("tasks/get", `{"taskId":"t"}`), []string{modern, "Mcp-Method: tasks/get", "Mcp-Name: t"}, 200},
		{"another task", rpc("tasks/get", `{"taskId":"t"}`), []string{modern, "Mcp-Method: tasks/get", "Mcp-Name: u"}, 400},
		{"the task in place of the tool", rpc("tools/call", `{"name":"a","taskId":"t"}`), []string{modern, call, "Mcp-Name: t"}, 400},
		{"notification without headers", `{"jsonrpc":"2.0","method":"notifications/x"}`, []string{modern}, 200},
		{"notification with another method", `{"jsonrpc":"2.0","method":"notifications/x"}`, []string{modern, "Mcp-Method: ping"}, 400},
		{"response with a method", `{"jsonrpc":"2.0","id":1,"result":{}}`, []string{modern, call}, 400},
		{"batch, modern", batch, []string{modern, call, "Mcp-Name: a"}, 400},
		{"batch, old", batch, []string{old, call, "Mcp-Name: a"}, 200},
		{"batch, old, one differs", "[" + toolCall("a") + "," + toolCall("b") + "]", []string{old, call, "Mcp-Name: a"}, 400},
		{"no revision", toolCall("a"), []string{"Mcp-Protocol-Version: zzzz"}, 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := servePolicy(t, bearer.Policy{Tools: rules("secret", "mcp:secret")}, "mcp:read")
			got := server.post(t, row.body, row.headers...)
			if got.Status != row.status || got.Reached != (row.status == 200) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// As a server of that revision answers, so that clients know the error.
func TestHeaderMismatchIsJSONRPC(t *testing.T) {
	server := servePolicy(t, bearer.Policy{Tools: rules("secret", "mcp:secret")}, "mcp:read")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/mcp", strings.NewReader(toolCall("a")))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{
		"Authorization": {"Bearer good"}, "Content-Type": {"application/json"},
		"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"b"},
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"jsonrpc":"2.0","id":null,"error":{"code":-32020,"message":"The header Mcp-Name differs from the name or URI in the body"}}`
	if diff := cmp.Diff(want, string(got)); response.StatusCode != http.StatusBadRequest || diff != "" {
		t.Errorf("status %d, -want +got:\n%s", response.StatusCode, diff)
	}
}

func TestTrustedHeaders(t *testing.T) {
	const modern = "Mcp-Protocol-Version: 2026-07-28"
	call := "Mcp-Method: tools/call"
	trusting := bearer.Policy{Tools: rules("secret", "mcp:secret"), URIs: rules("secret:*", "mcp:secret"), TrustHeaders: true}
	lie := toolCall("secret")
	for _, row := range []struct {
		name    string
		body    string
		headers []string
		status  int
	}{
		// The server behind is to find out.
		{"the body is not read", lie, []string{modern, call, "Mcp-Name: open"}, 200},
		{"nor its type looked at", "?", []string{modern, call, "Mcp-Name: open", "Content-Type: text/plain"}, 200},
		{"the header's name counts", "?", []string{modern, call, "Mcp-Name: secret"}, 403},
		{"the header's URI counts", "?", []string{modern, "Mcp-Method: resources/read", "Mcp-Name: secret:x"}, 403},
		{"an old revision", lie, []string{"Mcp-Protocol-Version: 2025-11-25", call, "Mcp-Name: open"}, 400},
		{"no revision", lie, []string{call, "Mcp-Name: open"}, 400},
		{"what is no revision", lie, []string{"Mcp-Protocol-Version: 9", call, "Mcp-Name: open"}, 400},
		{"what sorts behind, but is no revision", lie, []string{"Mcp-Protocol-Version: 2026-07-28x", call, "Mcp-Name: open"}, 400},
		{"the method missing", lie, []string{modern, "Mcp-Name: open"}, 400},
		{"the name missing", lie, []string{modern, call}, 400},
		{"two names", lie, []string{modern, call, "Mcp-Name: open", "Mcp-Name: secret"}, 400},
		{"a name with a control character", lie, []string{modern, call, "Mcp-Name: " + sentinel("open\x00")}, 400},
		{"the name in another header for CGI", lie, []string{modern, call, "Mcp-Name: open", "Mcp_Name: secret"}, 400},
		{"the method in another header for CGI", lie, []string{modern, call, "Mcp-Name: open", "mcp.method: tools/call"}, 400},
		{"the version taken away on the way", lie, []string{modern, call, "Mcp-Name: open", "Connection: keep-alive, MCP-Protocol-Version"}, 400},
		{"a method whose URI has no header", rpc("resources/subscribe", `{"uri":"secret:x"}`), []string{modern, "Mcp-Method: resources/subscribe"}, 403},
		{"a name that is not ASCII is not trusted", lie, []string{modern, call, "Mcp-Name: öffnen"}, 400},
		{"it equals the body", toolCall("öffnen"), []string{modern, call, "Mcp-Name: öffnen"}, 200},
		{"parameters are not trusted", lie, []string{modern, call, "Mcp-Name: open", "Mcp-Param-Name: open"}, 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := servePolicy(t, trusting, "mcp:read")
			got := server.post(t, row.body, row.headers...)
			if got.Status != row.status {
				t.Errorf("%+v", got)
			}
			if bodies := server.take(); row.status == 200 && !slices.Equal(bodies, []string{row.body}) {
				t.Errorf("the server behind got %q", bodies)
			}
		})
	}
}

func TestTrustedHeadersDoNotHideArguments(t *testing.T) {
	policy := bearer.Policy{TrustHeaders: true, When: func(_ context.Context, call *bearer.Call) (bool, error) {
		return string(call.Arguments) == "{}", nil
	}}
	server := servePolicy(t, policy, "mcp:read")
	headers := []string{"Mcp-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: a"}
	if got := server.post(t, rpc("tools/call", `{"name":"a","arguments":{"x":1}}`), headers...); got.Status != 403 {
		t.Errorf("%+v", got)
	}
	if got := server.post(t, toolCall("a"), headers...); got.Status != 200 {
		t.Errorf("%+v", got)
	}
}
