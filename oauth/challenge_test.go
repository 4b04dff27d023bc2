package oauth_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestParseChallenges(t *testing.T) {
	type params = map[string]string
	for _, test := range []struct {
		name    string
		headers []string
		want    []oauth.Challenge
	}{
		{"none", nil, nil},
		{"empty", []string{"", " , ,"}, nil},
		{"scheme alone", []string{"Bearer"}, []oauth.Challenge{{"Bearer", params{}}}},
		{
			"RFC 9110 §11.6.1 example",
			[]string{`Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\""`},
			[]oauth.Challenge{
				{"Basic", params{"realm": "simple"}},
				{"Newauth", params{"realm": "apps", "type": "1", "title": `Login to "apps"`}},
			},
		},
		{
			"several headers keep their order",
			[]string{`Basic realm="x"`, `DPoP algs="ES256"`, `Bearer`},
			[]oauth.Challenge{{"Basic", params{"realm": "x"}}, {"DPoP", params{"algs": "ES256"}}, {"Bearer", params{}}},
		},
		{"token68", []string{"Negotiate YII+/=="}, []oauth.Challenge{{"Negotiate", params{"": "YII+/=="}}}},
		{
			"token68, then another challenge",
			[]string{`Negotiate YII= , Bearer realm="x"`},
			[]oauth.Challenge{{"Negotiate", params{"": "YII="}}, {"Bearer", params{"realm": "x"}}},
		},
		{
			"schemes alone in a list",
			[]string{`Negotiate, NTLM, Bearer scope=a`},
			[]oauth.Challenge{{"Negotiate", params{}}, {"NTLM", params{}}, {"Bearer", params{"scope": "a"}}},
		},
		{
			"names are lower-cased, the scheme stays",
			[]string{`bEARER Resource_Metadata="u", SCOPE="A"`},
			[]oauth.Challenge{{"bEARER", params{"resource_metadata": "u", "scope": "A"}}},
		},
		{
			"unquoted URL",
			[]string{`Bearer resource_metadata=https://h.example:8443/.well-known/x?a=b&c=d, error=invalid_token`},
			[]oauth.Challenge{{"Bearer", params{"resource_metadata": "https://h.example:8443/.well-known/x?a=b&c=d", "error": "invalid_token"}}},
		},
		{
			"odd spacing",
			[]string{"\tBearer   realm = \"x\" ,, ,scope =a\t,error= b,"},
			[]oauth.Challenge{{"Bearer", params{"realm": "x", "scope": "a", "error": "b"}}},
		},
		{
			"parameters separated by spaces",
			[]string{`Bearer realm="x" error="y"`},
			[]oauth.Challenge{{"Bearer", params{"realm": "x", "error": "y"}}},
		},
		{
			"commas and schemes inside a quoted string",
			[]string{`Bearer error_description="a, Basic realm=b", scope="c"`},
			[]oauth.Challenge{{"Bearer", params{"error_description": "a, Basic realm=b", "scope": "c"}}},
		},
		{
			"the first of a repeated name counts",
			[]string{`Bearer scope="a", scope="b"`},
			[]oauth.Challenge{{"Bearer", params{"scope": "a"}}},
		},
		{
			"a quoted string without end is dropped",
			[]string{`Bearer scope="a", resource_metadata="https://h.example/`, `Basic realm=x`},
			[]oauth.Challenge{{"Bearer", params{"scope": "a"}}, {"Basic", params{"realm": "x"}}},
		},
		{"backslash at the end", []string{`Bearer scope="a\`}, []oauth.Challenge{{"Bearer", params{}}}},
		{
			"empty value",
			[]string{`Bearer scope="", error=x`},
			[]oauth.Challenge{{"Bearer", params{"scope": "", "error": "x"}}},
		},
		{
			"garbage is skipped",
			[]string{`="x", a=b, "quoted", Bearer scope=c, (:;), @=d, error=e`},
			[]oauth.Challenge{{"Bearer", params{"scope": "c", "error": "e"}}},
		},
		{
			"bytes above ASCII in a value",
			[]string{"Bearer error_description=\"caf\xc3\xa9\""},
			[]oauth.Challenge{{"Bearer", params{"error_description": "café"}}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, oauth.ParseChallenges(test.headers)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The rows of the SDK's table, §9.4, and what it misses.
func TestExtractChallengeParams(t *testing.T) {
	const u = "https://a.example/b"
	for _, test := range []struct {
		name    string
		headers []string
		want    oauth.ChallengeParams
	}{
		{"no header", nil, oauth.ChallengeParams{}},
		{"quoted", []string{`Bearer resource_metadata="` + u + `"`}, oauth.ChallengeParams{ResourceMetadataURL: u}},
		{"unquoted", []string{`Bearer resource_metadata=` + u}, oauth.ChallengeParams{ResourceMetadataURL: u}},
		{
			"all fields, lower-case scheme",
			[]string{`bearer error="invalid_token", error_description="it expired", resource_metadata="` + u + `", scope="x y"`},
			oauth.ChallengeParams{ResourceMetadataURL: u, Scope: "x y", Error: "invalid_token", ErrorDescription: "it expired"},
		},
		{"after another challenge", []string{`Basic realm="x", Bearer resource_metadata="` + u + `"`}, oauth.ChallengeParams{ResourceMetadataURL: u}},
		{"in the second header", []string{`Basic realm="x"`, `Bearer resource_metadata="` + u + `"`}, oauth.ChallengeParams{ResourceMetadataURL: u}},
		{"Bearer alone", []string{`Bearer`}, oauth.ChallengeParams{}},
		{"two spaces after the scheme", []string{`Bearer  resource_metadata="` + u + `"`}, oauth.ChallengeParams{ResourceMetadataURL: u}},
		{"DPoP", []string{`DPoP resource_metadata="` + u + `"`}, oauth.ChallengeParams{ResourceMetadataURL: u}},
		{"invalid URL: that field is omitted, others are kept", []string{`Bearer resource_metadata="invalid-url", scope="x"`}, oauth.ChallengeParams{Scope: "x"}},
		{"empty URL", []string{`Bearer resource_metadata="", error="x"`}, oauth.ChallengeParams{Error: "x"}},
		{"the first valid URL counts", []string{`Bearer resource_metadata="/b"`, `Bearer resource_metadata="` + u + `"`}, oauth.ChallengeParams{ResourceMetadataURL: u}},
		{"not Bearer", []string{`Basic realm="x", resource_metadata="` + u + `", scope="y"`}, oauth.ChallengeParams{}},
		{"name as the end of another name", []string{`Bearer x_resource_metadata="` + u + `", xscope="y"`}, oauth.ChallengeParams{}},
		{"name inside a value", []string{`Bearer error_description="scope=admin"`}, oauth.ChallengeParams{ErrorDescription: "scope=admin"}},
		{"escapes", []string{`Bearer error_description="say \"a\\b\""`}, oauth.ChallengeParams{ErrorDescription: `say "a\b"`}},
		{"javascript URL", []string{`Bearer resource_metadata="javascript:alert(1)"`}, oauth.ChallengeParams{}},
		{"file URL", []string{`Bearer resource_metadata="file:///etc/passwd"`}, oauth.ChallengeParams{}},
		{"URL with userinfo", []string{`Bearer resource_metadata="https://good.example@evil.example/"`}, oauth.ChallengeParams{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := http.Header{"Www-Authenticate": test.headers}
			if diff := cmp.Diff(test.want, oauth.ExtractChallengeParams(h)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got := oauth.ExtractResourceMetadataURL(h); got != test.want.ResourceMetadataURL {
				t.Errorf("ExtractResourceMetadataURL = %q", got)
			}
		})
	}
}

func TestFormatChallenge(t *testing.T) {
	for _, test := range []struct {
		name   string
		params [][2]string
		want   string
	}{
		{"no parameter", nil, "Bearer"},
		{"order is kept", [][2]string{{"scope", "b a"}, {"error", "x"}}, `Bearer scope="b a", error="x"`},
		{"empty values are left out", [][2]string{{"error", ""}, {"scope", "a"}, {"realm", ""}}, `Bearer scope="a"`},
		{"only empty values", [][2]string{{"error", ""}}, "Bearer"},
		{"quotes and backslashes", [][2]string{{"a", `x"y\z`}}, `Bearer a="x\"y\\z"`},
		{"CR and LF", [][2]string{{"a", "x\r\nSet-Cookie: y"}}, `Bearer a="x  Set-Cookie: y"`},
		{"NUL, DEL, non-ASCII", [][2]string{{"a", "\x00\x7fé"}}, `Bearer a="    "`},
		{"a name that is no token", [][2]string{{"a\r\n", "x"}, {"b", "y"}}, `Bearer b="y"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := oauth.FormatChallenge("Bearer", test.params...); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A parser that looks ahead for token68 at every word must not look far: these
// take far longer if it is quadratic.
func TestParseChallengesIsLinear(t *testing.T) {
	for _, piece := range []string{"a ", "a", " ", ",", `"`, `a="`, "a=", "a b,", `\`, "a  =", "a=="} {
		start := time.Now()
		oauth.ParseChallenges([]string{"Bearer " + strings.Repeat(piece, 1<<18)})
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("2^18 times %q took %s", piece, took)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\""`)
	f.Add(`Negotiate YII=, Bearer resource_metadata=https://h.example/x?a=b, scope = "a b"`)
	f.Add(`Bearer a="\`)
	f.Add("=,\"\\")
	f.Fuzz(func(t *testing.T, header string) {
		challenges := oauth.ParseChallenges([]string{header})
		total := 0
		for _, c := range challenges {
			if c.Scheme == "" || c.Params == nil {
				t.Fatalf("incomplete challenge %#v", c)
			}
			total += len(c.Scheme)
			for name, value := range c.Params {
				if name != strings.ToLower(name) {
					t.Errorf("name %q is not in lower case", name)
				}
				total += len(name) + len(value)
			}
		}
		if total > len(header) {
			t.Errorf("%d bytes came out of %d", total, len(header))
		}

		// What the writer writes, the parser reads, whatever the value is.
		written := oauth.FormatChallenge("Bearer", [2]string{"a", header}, [2]string{"scope", "b"})
		if strings.ContainsAny(written, "\r\n\x00") {
			t.Errorf("unsafe header %q", written)
		}
		want := map[string]string{"scope": "b"}
		if header != "" {
			want["a"] = printable(header)
		}
		if diff := cmp.Diff([]oauth.Challenge{{Scheme: "Bearer", Params: want}}, oauth.ParseChallenges([]string{written})); diff != "" {
			t.Errorf("round trip of %q, -want +got:\n%s", written, diff)
		}
	})
}

func printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = ' '
		}
	}
	return string(b)
}

func ExampleParseChallenges() {
	for _, c := range oauth.ParseChallenges([]string{`Basic realm="x", Bearer error="invalid_token", scope="a b"`}) {
		fmt.Printf("%s %q\n", c.Scheme, c.Params["scope"])
	}
	// Output:
	// Basic ""
	// Bearer "a b"
}

func ExampleFormatChallenge() {
	fmt.Println(oauth.FormatChallenge("Bearer",
		[2]string{"error", ""},
		[2]string{"scope", "mcp:read"},
		[2]string{"resource_metadata", "https://h.example/.well-known/oauth-protected-resource/mcp"}))
	// Output:
	// Bearer scope="mcp:read", resource_metadata="https://h.example/.well-known/oauth-protected-resource/mcp"
}
