package strictjson_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
)

func call(method, params string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, params)
}

func TestAppendMessages(t *testing.T) {
	for _, row := range []struct {
		name, data string
		want       []strictjson.Message
	}{
		{
			"tool", call("tools/call", `{"name":"a b","arguments":{"x":[1]}}`),
			[]strictjson.Message{{Method: "tools/call", Request: true, Name: "a b", Arguments: []byte(`{"x":[1]}`)}},
		},
		{
			"params before the method", `{"params":{"name":"a"},"id":1,"method":"tools/call","jsonrpc":"2.0"}`,
			[]strictjson.Message{{Method: "tools/call", Request: true, Name: "a"}},
		},
		{
			"escapes are decoded", `{"jsonrpc":"2.0","id":1,"\u006dethod":"tools\/call","p\u0061rams":{"n\u0061me":"\u00e9\ud83d\ude00"}}`,
			[]strictjson.Message{{Method: "tools/call", Request: true, Name: "é😀"}},
		},
		{
			"prompt", call("prompts/get", `{"name":"p"}`),
			[]strictjson.Message{{Method: "prompts/get", Request: true, Name: "p"}},
		},
		{
			"resource", call("resources/read", `{"uri":"file:///a"}`),
			[]strictjson.Message{{Method: "resources/read", Request: true, URI: "file:///a"}},
		},
		{
			"completion of a prompt", call("completion/complete", `{"ref":{"type":"ref/prompt","name":"p","title":"P"},"argument":{"name":"x","value":""}}`),
			[]strictjson.Message{{Method: "completion/complete", Request: true, Name: "p"}},
		},
		{
			"completion of a resource", call("completion/complete", `{"ref":{"type":"ref/resource","uri":"file:///{x}"}}`),
			[]strictjson.Message{{Method: "completion/complete", Request: true, URI: "file:///{x}"}},
		},
		{
			"subscriptions", call("subscriptions/listen", `{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:b", "c:d"]}}`),
			[]strictjson.Message{{Method: "subscriptions/listen", Request: true, Subscriptions: []string{"a:b", "c:d"}}},
		},
		{
			"task", call("tasks/get", `{"taskId":"t"}`),
			[]strictjson.Message{{Method: "tasks/get", Request: true, TaskID: "t"}},
		},
		{
			"another method with a name", call("x/y", `{"name":"n","uri":7}`),
			[]strictjson.Message{{Method: "x/y", Request: true, Name: "n"}},
		},
		{
			"notification", `{"jsonrpc":"2.0","method":"notifications/initialized"}`,
			[]strictjson.Message{{Method: "notifications/initialized"}},
		},
		{
			"null as an id and as params", `{"jsonrpc":"2.0","id":null,"method":"ping","params":null}`,
			[]strictjson.Message{{Method: "ping"}},
		},
		{"response", `{"jsonrpc":"2.0","id":1,"result":{"name":"a","NAME":"b"}}`, []strictjson.Message{{}}},
		{"error", `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}`, []strictjson.Message{{}}},
		{
			"batch", "[" + call("ping", "{}") + ` , {"jsonrpc":"2.0","id":2,"result":{}}` + "]",
			[]strictjson.Message{{Method: "ping", Request: true}, {}},
		},
		{
			"what no policy reads may be anything", call("tools/call", `{"name":"a","_meta":{"x":"\ud800","x":1,"X":{"X":1,"x":2}},"arguments":{"\udc00":1,"a":1,"a":2}}`),
			[]strictjson.Message{{Method: "tools/call", Request: true, Name: "a", Arguments: []byte(`{"\udc00":1,"a":1,"a":2}`)}},
		},
		{
			"names that only begin like others", call("ping", `{"names":1,"uris":2,"methodd":3}`),
			[]strictjson.Message{{Method: "ping", Request: true}},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, batch, err := strictjson.AppendMessages(nil, []byte(row.data), false)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
			if batch != (row.data[0] == '[') {
				t.Errorf("batch %t", batch)
			}
		})
	}
}

func TestAppendMessagesRefuses(t *testing.T) {
	for _, row := range []struct{ name, data, want string }{
		{"nothing", "", "expected"},
		{"a string", `"tools/call"`, "a JSON object is expected"},
		{"byte order mark", "\ufeff" + call("ping", "{}"), "expected"},
		{"UTF-16", "{\x00\"\x00", "malformed"},
		{"invalid UTF-8", call("tools/call", "{\"name\":\"a\xff\"}"), "UTF-8"},
		{"data after it", call("ping", "{}") + call("tools/call", `{"name":"a"}`), "data follows"},
		{"empty batch", "[]", "empty"},
		{"batch in a batch", "[[" + call("ping", "{}") + "]]", "a JSON object is expected"},
		{"batch of strings", `["a"]`, "a JSON object is expected"},
		{"101 in a batch", "[" + strings.Repeat(call("ping", "{}")+",", 100) + call("ping", "{}") + "]", "more than 100"},
		{"batch with a comma at its end", "[" + call("ping", "{}") + ",]", "expected"},
		{"no jsonrpc", `{"id":1,"method":"ping"}`, "jsonrpc"},
		{"another jsonrpc", `{"jsonrpc":"1.0","id":1,"method":"ping"}`, "jsonrpc"},
		{"neither method nor answer", `{"jsonrpc":"2.0","id":1}`, "neither"},
		{"method is null", `{"jsonrpc":"2.0","id":1,"method":null}`, "method is not a string"},
		{"method is a number", `{"jsonrpc":"2.0","id":1,"method":7}`, "method is not a string"},
		{"method is empty", `{"jsonrpc":"2.0","id":1,"method":""}`, "method is empty"},
		{"params by position", call("tools/call", `["a"]`), "params is not an object"},
		{"no name", call("tools/call", `{}`), "params.name is missing"},
		{"no params", `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`, "params.name is missing"},
		{"name is a number", call("tools/call", `{"name":1}`), "params.name is not a string"},
		{"name is empty", call("prompts/get", `{"name":""}`), "params.name is empty"},
		{"no uri", call("resources/subscribe", `{"name":"a"}`), "params.uri is missing"},
		{"no ref", call("completion/complete", `{}`), "params.ref"},
		{"ref of another type", call("completion/complete", `{"ref":{"type":"ref/tool","name":"a"}}`), "params.ref"},
		{"ref with both", call("completion/complete", `{"ref":{"type":"ref/prompt","name":"a","uri":"b"}}`), "params.ref"},
		{"ref with two names", call("completion/complete", `{"ref":{"type":"ref/prompt","name":"a","name":"b"}}`), "twice"},
		{"subscription to no string", call("subscriptions/listen", `{"notifications":{"resourceSubscriptions":[1]}}`), "not a string"},
		{"1001 subscriptions", call("subscriptions/listen", `{"notifications":{"resourceSubscriptions":[`+strings.Repeat(`"a",`, 1000)+`"a"]}}`), "more than 1000"},
		{"subscriptions twice", call("subscriptions/listen", `{"notifications":{"resourceSubscriptions":[],"resourceSubscriptions":["a"]}}`), "twice"},

		{"two methods", `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}`, "method twice"},
		{"two methods, one escaped", `{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}`, "method twice"},
		{"two params", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{}}`, "params twice"},
		{"two ids", `{"jsonrpc":"2.0","id":1,"method":"ping","id":2}`, "id twice"},
		{"two versions", `{"jsonrpc":"2.0","id":1,"method":"ping","jsonrpc":"2.0"}`, "jsonrpc twice"},
		{"two names", call("tools/call", `{"name":"a","name":"b"}`), "name twice"},
		{"two names, the same", call("tools/call", `{"name":"a","name":"a"}`), "name twice"},
		{"two uris", call("resources/read", `{"uri":"a","uri":"b"}`), "uri twice"},
		{"two arguments", call("tools/call", `{"name":"a","arguments":{},"arguments":{}}`), "arguments twice"},
		{"Method", `{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}`, "as method"},
		{"METHOD alone", `{"jsonrpc":"2.0","id":1,"METHOD":"tools/call"}`, "as method"},
		{"Params", `{"jsonrpc":"2.0","id":1,"method":"ping","Params":{}}`, "as params"},
		{"params with a long s", `{"jsonrpc":"2.0","id":1,"method":"ping","paramſ":{}}`, "as params"},
		{"params with an escaped long s", `{"jsonrpc":"2.0","id":1,"method":"ping","param\u017f":{}}`, "as params"},
		{"uri with a dotless i", call("resources/read", `{"uri":"a","urı":"b"}`), "as uri"},
		{"URI with a dotted I", call("resources/read", `{"uri":"a","URİ":"b"}`), "as uri"},
		{"Name", call("tools/call", `{"name":"a","Name":"b"}`), "as name"},
		{"Id", call("ping", `{"Id":"a"}`), "as id"},
		{"a name of a member with NUL", call("tools/call", `{"name":"a","name\u0000":"b"}`), "control character"},
		{"half a surrogate pair in a member's name", `{"jsonrpc":"2.0","\ud800":1,"id":1,"method":"ping"}`, "surrogate"},
		{"half a surrogate pair in the tool's name", call("tools/call", `{"name":"a\ud800"}`), "surrogate"},
		{"half a surrogate pair in the method", `{"jsonrpc":"2.0","id":1,"method":"ping\udc00"}`, "surrogate"},
		{"NUL in the tool's name", call("tools/call", `{"name":"a\u0000b"}`), "control character"},
		{"DEL in the method", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\x7f\"}", "control character"},
		{"line feed in the uri", call("resources/read", `{"uri":"a\nb"}`), "control character"},
		{"deep", call("tools/call", `{"name":"a","arguments":`+nested(255)+`}`), "deeper than 256"},
		{"a million levels", call("tools/call", `{"name":"a","arguments":`+strings.Repeat("[", 1e6)), "deeper than 256"},
		{"no end", `{"jsonrpc":"2.0","id":1,"method":"ping"`, "malformed"},
		{"comment", `{"jsonrpc":"2.0",/**/"id":1,"method":"ping"}`, "malformed"},
		{"comma at the end", `{"jsonrpc":"2.0","id":1,"method":"ping",}`, "malformed"},
		{"NaN", call("tools/call", `{"name":"a","arguments":{"x":NaN}}`), "malformed"},
		{"no colon further in", call("ping", `{"x":{"a" 1}}`), "malformed"},
		{"wrong bracket further in", call("ping", `{"x":[1}}`), "malformed"},
		{"number as a name further in", call("ping", `{"x":{1:1}}`), "malformed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, _, err := strictjson.AppendMessages(nil, []byte(row.data), false)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%+v, error %v, want %q", got, err, row.want)
			}
		})
	}
}

func TestAppendMessagesWithStrictArguments(t *testing.T) {
	for _, row := range []struct{ name, arguments, want string }{
		{"plain", `{"a":{"a":[{"a":1},{"a":2}]}}`, ""},
		{"huge number", `{"a":1e999999}`, ""},
		{"a member twice", `{"a":1,"a":2}`, "same name"},
		{"a member twice, further in", `[{"b":{"a":1,"a":2}}]`, "same name"},
		{"a member twice, in another case", `{"path":"/ok","Path":"/etc"}`, "same name"},
		{"a member twice, with a Kelvin sign", `{"k":1,"K":2}`, "same name"},
		{"half a surrogate pair", `{"a":"\ud800"}`, "surrogate"},
		{"deep", nested(255), "deeper"},
	} {
		t.Run(row.name, func(t *testing.T) {
			data := []byte(call("tools/call", `{"name":"a","arguments":`+row.arguments+`}`))
			_, _, err := strictjson.AppendMessages(nil, data, true)
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}
