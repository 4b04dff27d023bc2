package authclient

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzTrimAssertion: what passes is one value of a form and quotes nothing.
func FuzzTrimAssertion(f *testing.F) {
	for _, seed := range []string{"a.b.c", " a.b.c\n", "a.b", "a..c", "a.b.c.d", "a.b.c&x=y", "ä.b.c", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := trimAssertion("it", s)
		if err != nil {
			if trimmed := strings.TrimSpace(s); len(trimmed) > 40 && strings.Contains(err.Error(), trimmed) {
				t.Error("the error quotes the assertion")
			}
			return
		}
		if url.QueryEscape(got) != got || strings.Count(got, ".") != 2 || len(got) > maxAssertion {
			t.Errorf("%q passes", got)
		}
	})
}

// FuzzNonce: what passes can stand in a JSON string and a header as it is.
func FuzzNonce(f *testing.F) {
	for _, seed := range []string{"n", "eyJ7S_zG.eyJH0-Z.HX4w-7v", `a"b`, "a b", "", "\x7f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if isNonce(s) && (strings.ContainsAny(s, "\"\\ \r\n\x00") || s == "" || len(s) > maxNonce) {
			t.Errorf("%q passes", s)
		}
	})
}
