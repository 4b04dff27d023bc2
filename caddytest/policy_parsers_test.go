package caddytest_test

import (
	"fmt"
	"testing"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
)

// npmMessage is what the TypeScript SDK takes a message for. Name and URI are
// whatever they are there.
type npmMessage struct {
	Method string `json:"method"`
	Name   any    `json:"name"`
	URI    any    `json:"uri"`
}

// parserCorpus are calls in which one member is written in ways that parsers may
// read differently.
func parserCorpus() []string {
	values := []string{`"echo"`, `"delete_note"`, `"\u0064elete_note"`, `"delete\u005fnote"`, `"delete_note\u0000"`, `"\ud83d\ude00"`, `"\ud800"`, `null`, `1`, `["echo"]`, `""`, "\"é\"", "\"e\u0301\""}
	spellings := func(name string) []string {
		upper := string(name[0]-'a'+'A') + name[1:]
		return []string{
			`"` + name + `"`, fmt.Sprintf(`"\u%04x%s"`, name[0], name[1:]), fmt.Sprintf(`"\u%04X%s"`, name[0], name[1:]),
			`"` + upper + `"`, `"` + name + ` "`, `"` + name + `\u0000"`, `"__proto__"`, "\"\ufeff" + name + `"`,
		}
	}
	var corpus []string
	for _, value := range values {
		for _, spelling := range spellings("name") {
			corpus = append(corpus,
				fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{%s:%s}}`, spelling, value),
				fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo",%s:%s}}`, spelling, value),
				fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{%s:%s,"name":"echo"}}`, spelling, value))
		}
		for _, spelling := range spellings("uri") {
			corpus = append(corpus, fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a:b",%s:%s}}`, spelling, value))
		}
		for _, spelling := range spellings("method") {
			corpus = append(corpus, fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"ping",%s:%s,"params":{"name":"echo"}}`, spelling, value))
		}
	}
	for _, spelling := range spellings("params") {
		corpus = append(corpus, fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"},%s:{"name":"delete_note"}}`, spelling))
	}
	return append(corpus, deleting, "["+reading+","+deleting+"]", "\ufeff"+deleting, deleting+deleting, "[]", "[["+deleting+"]]",
		`{"jsonrpc":"2.0","id":1,"result":{},"method":"tools/call","params":{"name":"echo"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"__proto__":{"name":"delete_note"},"name":"echo"}}`,
		`{"__proto__":{"method":"tools/call"},"jsonrpc":"2.0","id":1,"method":"ping"}`,
		`{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"echo"},"argument":{"name":"x","value":"y"}}}`)
}

// TestNPMSeesTheSameCalls: whatever the guard lets pass, the TypeScript SDK's
// server refuses, or takes for the same method, name and URI.
func TestNPMSeesTheSameCalls(t *testing.T) {
	corpus := parserCorpus()
	var parsed [][]npmMessage
	if stderr, err := runNode(t, "parse.mjs", corpus, &parsed); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	if len(parsed) != len(corpus) {
		t.Fatalf("%d answers for %d bodies", len(parsed), len(corpus))
	}
	compared := 0
	for i, body := range corpus {
		messages, _, err := strictjson.AppendMessages(nil, []byte(body), false)
		if err != nil || parsed[i] == nil {
			continue
		}
		if len(messages) != len(parsed[i]) {
			t.Errorf("%q: %d messages, the SDK has %d", body, len(messages), len(parsed[i]))
			continue
		}
		for j, m := range messages {
			compared++
			sdk := parsed[i][j]
			if m.Method != sdk.Method || m.Name != "" && sdk.Name != any(m.Name) || m.URI != "" && sdk.URI != any(m.URI) {
				t.Errorf("%q: %+v, the SDK has %+v", body, m, sdk)
			}
		}
	}
	if compared < 50 {
		t.Errorf("only %d messages were compared", compared)
	}
}
