package oauth_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestParseScope(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     []string
		invalid  bool
	}{
		{name: "empty", in: ""},
		{name: "only spaces", in: "   "},
		{name: "one", in: "mcp:read", want: []string{"mcp:read"}},
		{name: "order is kept", in: "b a", want: []string{"b", "a"}},
		{name: "the SDK makes an empty scope of doubled spaces", in: "a  b", want: []string{"a", "b"}},
		{name: "a client sends a leading space", in: " offline_access", want: []string{"offline_access"}},
		{name: "repetitions are dropped", in: "a b a", want: []string{"a", "b"}},
		{name: "case matters", in: "a A", want: []string{"a", "A"}},
		{name: "URL as a scope", in: "api://x/y.z https://graph.example/.default", want: []string{"api://x/y.z", "https://graph.example/.default"}},
		{name: "quote", in: `a"b`, invalid: true},
		{name: "backslash", in: `a\b`, invalid: true},
		{name: "tab", in: "a\tb", invalid: true},
		{name: "line break", in: "a\r\nb", invalid: true},
		{name: "NUL", in: "a\x00", invalid: true},
		{name: "non-ASCII", in: "é", invalid: true},
		{name: "4096 bytes", in: strings.Repeat("a", 4096), want: []string{strings.Repeat("a", 4096)}},
		{name: "4097 bytes", in: strings.Repeat("a", 4097), invalid: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := oauth.ParseScope(test.in)
			if test.invalid != errors.Is(err, oauth.ErrInvalidScope) || !test.invalid && err != nil {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzParseScope(f *testing.F) {
	f.Add("mcp:read mcp:write")
	f.Add("  a  a\t")
	f.Add(`"`)
	f.Fuzz(func(t *testing.T, s string) {
		scopes, err := oauth.ParseScope(s)
		if err != nil {
			if !errors.Is(err, oauth.ErrInvalidScope) || scopes != nil {
				t.Errorf("%v with %v", scopes, err)
			}
			return
		}
		for i, scope := range scopes {
			if !oauth.ValidScope(scope) || slices.Contains(scopes[:i], scope) {
				t.Errorf("%q at %d of %q", scope, i, scopes)
			}
		}
		again, err := oauth.ParseScope(oauth.JoinScope(scopes))
		if err != nil || !slices.Equal(scopes, again) {
			t.Errorf("%q came back as %q, %v", scopes, again, err)
		}
	})
}

func ExampleParseScope() {
	scopes, err := oauth.ParseScope(" mcp:read  offline_access mcp:read")
	fmt.Printf("%q %v\n", scopes, err)
	// Output:
	// ["mcp:read" "offline_access"] <nil>
}
