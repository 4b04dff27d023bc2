package strictjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
)

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name, document string
		want           string // part of the error, "" if it is accepted
	}{
		{"object", `{"a":1,"b":[true,false,null,-1.5e+3,"x"]}`, ""},
		{"scalar", `"x"`, ""},
		{"null", `null`, ""},
		{"white space around everything", " \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\" : { } } \n", ""},
		{"empty object and array", `{"a":{},"b":[]}`, ""},
		{"escapes", `"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00"`, ""},
		{"non-ASCII and DEL", "\"é😀\x7f\"", ""},
		{"noncharacter U+FFFF", `"\uffff"`, ""},
		{"one name in two objects", `{"a":{"a":1},"b":[{"a":1},{"a":2}]}`, ""},
		{"names that differ in case", `{"a":1,"A":2}`, ""},
		{"32 levels", nested(32), ""},
		{"a value in 32 levels", strings.Repeat("[", 32) + "1" + strings.Repeat("]", 32), ""},

		{"33 levels", nested(33), "deeper than 32"},
		{"33 levels of objects", strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33), "deeper than 32"},
		{"a million levels, no end", strings.Repeat("[", 1e6), "deeper than 32"},
		{"same name twice", `{"a":1,"b":2,"a":3}`, "same name at offset 13"},
		{"same name twice, further in", `[{"x":{"a":1,"a":1}}]`, "same name"},
		{"same name by escape", `{"a":1,"\u0061":2}`, "same name"},
		{"same name by surrogate pair", `{"😀":1,"\ud83d\ude00":2}`, "same name"},
		{"empty name twice", `{"":1,"":2}`, "same name"},
		{"lone high surrogate", `"\ud83d"`, "surrogate"},
		{"lone low surrogate", `"\ude00"`, "surrogate"},
		{"high surrogate and another escape", `"\ud83d\n"`, "surrogate"},
		{"high surrogate and another character", `"\ud83d\u0061"`, "surrogate"},
		{"two high surrogates", `"\ud83d\ud83d"`, "surrogate"},
		{"two low surrogates", `"\ude00\ude00"`, "surrogate"},
		{"surrogates in the wrong order", `"\ude00\ud83d"`, "surrogate"},
		{"lone surrogate in a name", `{"\ud83d":1}`, "surrogate"},
		{"invalid UTF-8", "\"\xff\"", "UTF-8"},
		{"surrogate in UTF-8", "\"\xed\xa0\x80\"", "UTF-8"},
		{"byte order mark", "\ufeff{}", "malformed at offset 0"},
		{"empty", "", "malformed"},
		{"only white space", " \n", "malformed"},
		{"data after the value", `{} {}`, "follows the JSON document at offset 3"},
		{"NUL after the value", "{}\x00", "follows"},
		{"NUL at the end of a literal", "nul\x00", "malformed"},
		{"two values", `1 2`, "follows"},
		{"comma at the end of an array", `[1,]`, "malformed"},
		{"comma at the end of an object", `{"a":1,}`, "malformed"},
		{"leading comma", `[,1]`, "malformed"},
		{"no comma", `[1 2]`, "malformed"},
		{"no colon", `{"a" 1}`, "malformed"},
		{"no value", `{"a":}`, "malformed"},
		{"name without quotes", `{a:1}`, "malformed"},
		{"number as a name", `{1:1}`, "malformed"},
		{"single quotes", `{'a':1}`, "malformed"},
		{"comment", `{}//`, "follows"},
		{"object without end", `{"a":1`, "malformed"},
		{"array without end", `[1`, "malformed"},
		{"string without end", `"a`, "malformed"},
		{"escape without end", `"\`, "malformed"},
		{"unicode escape without end", `"\u12`, "malformed"},
		{"unknown escape", `"\x41"`, "malformed"},
		{"control character in a string", "\"a\nb\"", "malformed"},
		{"NUL in a string", "\"a\x00b\"", "malformed"},
		{"wrong bracket", `[}`, "malformed"},
		{"leading zero", `01`, "follows"},
		{"plus sign", `+1`, "malformed"},
		{"minus alone", `-`, "malformed"},
		{"no digit after the point", `1.`, "malformed"},
		{"no digit before the point", `.5`, "malformed"},
		{"no digit in the exponent", `1e+`, "malformed"},
		{"NaN", `NaN`, "malformed"},
		{"literal in capitals", `True`, "malformed"},
		{"cut literal", `tru`, "malformed"},
		{"literal with more", `trues`, "follows"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := strictjson.Check([]byte(test.document))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestUnmarshal(t *testing.T) {
	var got map[string]any
	if err := strictjson.Unmarshal([]byte(`{"a":"\u0062"}`), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"a": "b"}, got); diff != "" {
		t.Error(diff)
	}
	got = nil
	if err := strictjson.Unmarshal([]byte(`{"a":1,"a":2}`), &got); err == nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	if err := strictjson.Unmarshal([]byte(`{"a":1}`), new([]int)); err == nil {
		t.Error("an object was decoded into a slice")
	}
}

func TestRead(t *testing.T) {
	broken := errors.New("connection reset")
	for _, test := range []struct {
		name  string
		r     io.Reader
		limit int64
		want  error
	}{
		{"below the limit", strings.NewReader(`[1]`), 4, nil},
		{"at the limit", strings.NewReader(`[1]`), 3, nil},
		{"over the limit", strings.NewReader(`[1]`), 2, strictjson.ErrTooLarge},
		{"over the limit by white space", strings.NewReader(`[1] `), 3, strictjson.ErrTooLarge},
		{"the largest limit", strings.NewReader(`[1]`), 1<<63 - 1, nil},
		{"broken reader", io.MultiReader(strings.NewReader(`[1`), iotest.ErrReader(broken)), 10, broken},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []int
			if err := strictjson.Read(test.r, test.limit, &got); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			} else if err == nil && len(got) != 1 {
				t.Errorf("got %v", got)
			}
		})
	}
	endless := &counter{}
	if err := strictjson.Read(endless, 1000, new(any)); !errors.Is(err, strictjson.ErrTooLarge) || endless.n > 10_000 {
		t.Errorf("error %v after %d bytes", err, endless.n)
	}
}

// counter is an endless body that counts what is read of it.
type counter struct{ n int }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	c.n += len(p)
	return len(p), nil
}

// Check agrees with encoding/json except for the rules of this package, each of
// which is found here in another way.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-0.5e+3,true,false,null],"b":{"c":"\ud83d\ude00"}}`, `{"a":1,"\u0061":2}`, `"\ud83d"`, `"\ud83d\\ude00"`,
		nested(32), nested(33), `[1,]`, `01`, "\"\xff\"", `"\u00`, `{} x`, " [ ] ", "-", "1e", `{"":{"":1},"x":""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := strictjson.Check(data)
		if !json.Valid(data) {
			if err == nil {
				t.Errorf("%q is accepted and is not JSON", data)
			}
			return
		}
		own := !utf8.Valid(data) || depth(data) > strictjson.MaxDepth || halfPair(data) || sameName(data)
		if own != (err != nil) {
			t.Errorf("%q: %v", data, err)
		}
	})
}

func depth(data []byte) (deepest int) {
	dec := json.NewDecoder(bytes.NewReader(data))
	now := 0
	for {
		token, err := dec.Token()
		if err != nil {
			return deepest
		}
		switch token {
		case json.Delim('['), json.Delim('{'):
			now++
			deepest = max(deepest, now)
		case json.Delim(']'), json.Delim('}'):
			now--
		}
	}
}

// halfPair reports whether a string of the valid document has an escape that
// encoding/json replaces by U+FFFD without it being spelled so.
func halfPair(data []byte) bool {
	s := strings.ReplaceAll(string(data), `\\`, "")
	for i := 0; i+6 <= len(s); i++ {
		if s[i:i+2] != `\u` {
			continue
		}
		var decoded string
		end := min(i+12, len(s))
		if end == i+12 && json.Unmarshal([]byte(`"`+s[i:end]+`"`), &decoded) == nil && utf8.RuneCountInString(decoded) == 1 {
			i += 11 // a pair
			continue
		}
		if json.Unmarshal([]byte(`"`+s[i:i+6]+`"`), &decoded) == nil && decoded == "\ufffd" && !strings.EqualFold(s[i:i+6], `\ufffd`) {
			return true
		}
		i += 5
	}
	return false
}

// sameName decodes the valid document token by token.
func sameName(data []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(data))
	var walk func() bool
	walk = func() bool {
		token, _ := dec.Token()
		found := false
		switch token {
		case json.Delim('['):
			for dec.More() {
				found = walk() || found
			}
		case json.Delim('{'):
			seen := map[any]bool{}
			for dec.More() {
				name, _ := dec.Token()
				found = seen[name] || found
				seen[name] = true
				found = walk() || found
			}
		default:
			return false
		}
		dec.Token()
		return found
	}
	return walk()
}
