package mcpauth

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzRequestID: whatever a caller sends, the answer has the id of a JSON-RPC
// request as it stands there, or there is none.
func FuzzRequestID(f *testing.F) {
	for _, seed := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, `{"id":"a","method":"initialize"}`, `{"id":null,"method":"x"}`,
		`{"method":"notifications/initialized"}`, `{"id":1,"result":{}}`, `[]`, `{`, ``, `{"id":{"a":1},"method":"x"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(body))
		id := requestID(r)
		if id != nil && (!json.Valid(id) || string(id) == "null" || !strings.Contains(body, "\"") || !strings.Contains(body, string(id))) {
			t.Errorf("id %s of %s", id, body)
		}
		resp := (&connectError{server: "https://mcp.example", link: "https://site.example/x"}).answer(httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(body)))
		var answer map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Error(err)
		}
		if (resp.StatusCode == 200) != (id != nil) {
			t.Errorf("status %d with the id %s", resp.StatusCode, id)
		}
	})
}
