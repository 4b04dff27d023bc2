package caddytest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// Requests that carry no call pass rules on calls, also where the length of an
// empty body is not known before its end, as over HTTP/3.
func TestCallRulesOnEveryWire(t *testing.T) {
	b := newBackend(t)
	_, _, wires := loadWires(t, "tool delete_* mcp:admin\n\t\t\twhen `method != \"prompts/get\"`", b.addr())
	unknown := func(body string) io.Reader { return struct{ io.Reader }{strings.NewReader(body)} }
	for _, wire := range wires {
		for _, row := range []struct {
			rule, method string
			body         io.Reader
			status       int
		}{
			{"a stream", http.MethodGet, nil, 200},
			{"its header", http.MethodHead, nil, 200},
			{"the end of a session", http.MethodDelete, nil, 200},
			{"an empty body of unknown length", http.MethodDelete, unknown(""), 200},
			{"a body of unknown length", http.MethodDelete, unknown(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_all"}}`), 400},
			{"a call", http.MethodPost, unknown(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}`), 200},
			{"a call that is not granted", http.MethodPost, unknown(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_all"}}`), 403},
		} {
			r, err := http.NewRequest(row.method, wire.origin+"/mcp", row.body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+wire.token)
			r.Header.Set("Content-Type", "application/json")
			resp, err := wire.client.Do(r)
			if err != nil {
				t.Fatalf("%s, %s: %v", wire.name, row.rule, err)
			}
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if reached := len(b.take()); resp.StatusCode != row.status || resp.Proto != wire.name || (reached == 1) != (row.status == 200) {
				t.Errorf("%s, %s: %s %d %s, want %d; %d requests reached the server", wire.name, row.rule, resp.Proto, resp.StatusCode, text, row.status, reached)
			}
		}
	}
}
