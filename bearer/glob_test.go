package bearer

import (
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
