package strictjson_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
)

// looseMessage is what encoding/json makes of a message: it takes member names in
// any case, and the last of two.
type looseMessage struct {
	Method *string
	Params json.RawMessage
	Result json.RawMessage
	Error  json.RawMessage
}

type looseParams struct {
	Name, URI any
	Arguments json.RawMessage
	Ref       struct{ Type, Name, URI string }
}

// FuzzAppendMessages holds that whatever is accepted means the same to readers
// that go by case and to those that do not.
func FuzzAppendMessages(f *testing.F) {
	for _, seed := range []string{
		call("tools/call", `{"name":"a","arguments":{"x":[1,"\u00e9"]}}`),
		call("prompts/get", `{"name":"a","Name":"b"}`),
		call("resources/read", `{"uri":"file:\/\/\/a"}`),
		call("completion/complete", `{"ref":{"type":"ref/prompt","name":"p"}}`),
		call("subscriptions/listen", `{"notifications":{"resourceSubscriptions":["a"]}}`),
		`[` + call("ping", "{}") + `,{"jsonrpc":"2.0","id":1,"result":{}}]`,
		`{"jsonrpc":"2.0","id":1,"\u006dethod":"ping","paramſ":{},"method":null}`,
		`{"jsonrpc":"2.0","id":1,"method":"ping"} {}`,
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, strictArguments bool) {
		messages, batch, err := strictjson.AppendMessages(nil, data, strictArguments)
		if err != nil {
			return
		}
		bodies := []json.RawMessage{data}
		if batch {
			bodies = nil
			if err := json.Unmarshal(data, &bodies); err != nil {
				t.Fatalf("encoding/json refuses the batch: %v", err)
			}
		}
		if len(bodies) != len(messages) {
			t.Fatalf("%d messages, encoding/json has %d", len(messages), len(bodies))
		}
		for i, m := range messages {
			compareMessage(t, m, bodies[i])
		}
	})
}

func compareMessage(t *testing.T, m strictjson.Message, body []byte) {
	t.Helper()
	var loose looseMessage
	if err := json.Unmarshal(body, &loose); err != nil {
		t.Fatalf("encoding/json refuses it: %v", err)
	}
	var exact map[string]json.RawMessage
	if err := json.Unmarshal(body, &exact); err != nil {
		t.Fatal(err)
	}
	if loose.Method == nil {
		if m.Method != "" {
			t.Fatalf("method %q, encoding/json has none", m.Method)
		}
		return
	}
	var method string
	if err := json.Unmarshal(exact["method"], &method); err != nil || method != m.Method || *loose.Method != m.Method {
		t.Fatalf("method %q, exactly %q, in any case %q", m.Method, method, *loose.Method)
	}
	if !bytes.Equal(loose.Params, exact["params"]) {
		t.Fatalf("params %s, in any case %s", exact["params"], loose.Params)
	}
	var inAnyCase looseParams
	params := map[string]json.RawMessage{}
	if loose.Params != nil {
		// ref may be of any type in methods that know none.
		_ = json.Unmarshal(loose.Params, &inAnyCase)
		if err := json.Unmarshal(loose.Params, &params); err != nil {
			t.Fatal(err)
		}
	}
	switch m.Method {
	case "tools/call", "prompts/get":
		same(t, "name", m.Name, params["name"], inAnyCase.Name)
	case "resources/read", "resources/subscribe", "resources/unsubscribe":
		same(t, "uri", m.URI, params["uri"], inAnyCase.URI)
	case "completion/complete":
		if m.Name != inAnyCase.Ref.Name || m.URI != inAnyCase.Ref.URI {
			t.Fatalf("ref %q %q, in any case %+v", m.Name, m.URI, inAnyCase.Ref)
		}
	}
	if diff := cmp.Diff(string(params["arguments"]), string(m.Arguments)); diff != "" {
		t.Fatal(diff)
	}
}

func same(t *testing.T, what, got string, exact json.RawMessage, inAnyCase any) {
	t.Helper()
	var want string
	if err := json.Unmarshal(exact, &want); err != nil || got != want || any(got) != inAnyCase {
		t.Fatalf("%s %q, exactly %s, in any case %v", what, got, exact, inAnyCase)
	}
}
