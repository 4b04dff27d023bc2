package bearer

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

func TestGlob(t *testing.T) {
	for _, row := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true},
		{"a", "A", false},
		{"a", "ab", false},
		{"a", "", false},
		{"*", "", true},
		{"*", "a/b", true},
		{"a*", "a", true},
		{"a*", "ba", false},
		{"*a", "ba", true},
		{"*a", "ab", false},
		{"a*b*c", "axbxbxc", true},
		{"a*b*c", "acb", false},
		{"**a**", "xax", true},
		{"?", "a", false},
		{"[a]", "a", false},
		{"é*", "éa", true},
	} {
		if got := glob(row.pattern).matches(row.name); got != row.want {
			t.Errorf("%s matches %s: %t", row.pattern, row.name, got)
		}
	}
}

func TestGlobTakesNoTimeToRefuse(t *testing.T) {
	start := time.Now()
	if glob(strings.Repeat("a*", 20) + "b").matches(strings.Repeat("a", 1<<14)) {
		t.Error("matches")
	}
	if took := time.Since(start); took > 5*time.Second { // an exponential one would not end
		t.Errorf("took %s", took)
	}
}

// TestURIReadings holds that a resource has no spelling that dodges its rule.
func TestURIReadings(t *testing.T) {
	private := newURIGlob("file:///Private/*")
	exact := newURIGlob("db://Main/users")
	for _, row := range []struct {
		glob uriGlob
		uri  string
		want bool
	}{
		{private, "file:///Private/a", true},
		{private, "file:///private/a", true},
		{private, "FILE:///PRIVATE/a", true},
		{private, "file:/private/a", true},
		{private, "file://localhost/private/a", true},
		{private, "file:///open/../private/a", true},
		{private, "file:///./private/a", true},
		{private, "file:////private//a", true},
		{private, `file:///open\..\private\a`, true},
		{private, "file:///%70rivate/a", true},
		{private, "file:///%2570rivate/a", true},
		{private, "file:///open/%2e%2e/private/a", true},
		{private, "file:///open%2f..%2fprivate/a", true},
		{private, "file:///open/%252e%252e/private/a", true},
		{private, "file:///%25252525252570rivate/a", true}, // too often to tell
		{private, " file:///private/a ", true},
		{private, "\x01%20file:///private/a", true},
		{private, "file://127.0.0.1/private/a", true},
		{private, "file://user@localhost/private/a", true},
		{private, "file://LOCALHOST:80/private/a", true},
		{private, "file:private/a", true},
		{private, "//private/a", true},
		{newURIGlob("file://Host/private/*"), "file://host/open/../private/a", true},
		{private, "file:///open/a", false},
		{private, "file:///open/private/a", false},
		{private, "http:///private/a", false},
		{private, "file:///100%/private", false},
		{exact, "db://main/users", true},
		{exact, "db://main/users/", true},
		{exact, "db://main/users?x=1", true},
		{exact, "db://main/users#x", true},
		{exact, "db://main/x/../users?x", true},
		{exact, "db://main/user", false},
	} {
		readings, endless := readURI(row.uri)
		if got := endless || row.glob.matches(readings); got != row.want {
			t.Errorf("%s: %t; readings %q", row.uri, got, readings)
		}
	}
}

func FuzzReadURI(f *testing.F) {
	for _, seed := range []string{"file:///a/../b", "FILE:%2f%2f%2e", `a:\b?c#d`, "%25%32%35", "://", "", "note:///x//y/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		readings, endless := readURI(uri)
		if readings[0] != uri || len(readings) > 2+10*maxURIEscapes {
			t.Fatalf("%d readings, the first %q", len(readings), readings[0])
		}
		if !endless && !newURIGlob(uri).matches(readings) && !strings.Contains(uri, "*") {
			t.Errorf("%q does not match itself", uri)
		}
	})
}

func FuzzDecodeHeaderValue(f *testing.F) {
	for _, seed := range []string{"a", "=?base64?YQ==?=", "=?base64??=", "=?base64?=", "=?base64?/w==?="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		decoded, ok := decodeHeaderValue(value)
		switch encoded := strings.HasPrefix(value, "=?base64?") && strings.HasSuffix(value, "?=") && len(value) >= 11; {
		case !encoded && (!ok || decoded != value):
			t.Errorf("%q became %q, %t", value, decoded, ok)
		case encoded && ok && "=?base64?"+base64.StdEncoding.EncodeToString([]byte(decoded))+"?=" != value:
			t.Errorf("%q became %q, which has another form", value, decoded)
		}
	})
}
