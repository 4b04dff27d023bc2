package strictjson_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
)

// objectSeeds are documents on both sides of each rule.
var objectSeeds = []string{
	`{}`, ` {"a" : 1 , "b":[1,2,{"c":null}],"d":"x","e":true,"f":false} `, `{"a":"\u00e9\n","\u0061b":1}`, `{"a":1,"\u0061":2}`,
	`{"a":1,"a":2}`, `{"a":{"b":1,"b":2}}`, `[]`, `null`, `"x"`, `1`, ``, `{`, `{"a"`, `{"a":}`, `{"a":1,}`, `{"a":1}x`, `{"a":1} {}`,
	`{"a":-0.5e+3,"b":1E5,"c":0}`, `{"a":01}`, `{"a":+1}`, `{"a":1.}`, `{"a":nul}`, `{"a":"\ud800"}`, `{"a":"\ud83d\ude00"}`, `{a:1}`,
	"{\"a\":\"\xff\"}", "{\"a\":\"\x01\"}", `{"a":"😀"}`, `{"a":[]}`, `{"a":[1,]}`,
	strings.Repeat(`{"a":`, 32) + `1` + strings.Repeat(`}`, 32), strings.Repeat(`{"a":`, 33) + `1` + strings.Repeat(`}`, 33),
	strings.Repeat(`{"a":[`, 16) + strings.Repeat(`]}`, 16), strings.Repeat(`{"a":[`, 17) + strings.Repeat(`]}`, 17),
}

func TestObject(t *testing.T) {
	for _, document := range objectSeeds {
		checkObject(t, []byte(document))
	}
}

func FuzzObject(f *testing.F) {
	for _, document := range objectSeeds {
		f.Add([]byte(document))
	}
	f.Fuzz(checkObject)
}

// checkObject compares Object with Check and encoding/json.
func checkObject(t *testing.T, data []byte) {
	got, err := strictjson.Object(data)
	var want map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	valid := strictjson.Check(data) == nil && dec.Decode(&want) == nil && want != nil
	if valid != (err == nil) {
		t.Fatalf("%q: got %v, Check says %v", data, err, strictjson.Check(data))
	}
	if diff := cmp.Diff(want, got); valid && diff != "" {
		t.Fatalf("%q: (-encoding/json +Object)\n%s", data, diff)
	}
}
