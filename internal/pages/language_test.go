package pages

import (
	"encoding/json"
	"io/fs"
	"maps"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func catalogue(t *testing.T, name string) map[string]string {
	t.Helper()
	data, err := files.ReadFile("messages/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var texts map[string]string
	if err := json.Unmarshal(data, &texts); err != nil {
		t.Fatal(err)
	}
	return texts
}

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

// TestCataloguesAgree: the same keys everywhere, each with the same
// placeholders, none empty.
func TestCataloguesAgree(t *testing.T) {
	english := catalogue(t, "en.json")
	entries, err := fs.ReadDir(files, "messages")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) < 2 {
		t.Fatal("there is one catalogue")
	}
	for _, entry := range entries {
		texts := catalogue(t, entry.Name())
		if diff := cmp.Diff(slices.Sorted(maps.Keys(english)), slices.Sorted(maps.Keys(texts))); diff != "" {
			t.Errorf("%s: keys (-en +this):\n%s", entry.Name(), diff)
		}
		for key, text := range texts {
			want, got := placeholder.FindAllString(english[key], -1), placeholder.FindAllString(text, -1)
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(want, got) {
				t.Errorf("%s: %s has the placeholders %v, want %v", entry.Name(), key, got, want)
			}
			if strings.TrimSpace(text) == "" || strings.ContainsAny(text, "<>") {
				t.Errorf("%s: %s is %q", entry.Name(), key, text)
			}
		}
	}
}

// TestKeysOfTemplatesExist: a template asks for no text that there is not, and no
// text is there for nobody.
func TestKeysOfTemplatesExist(t *testing.T) {
	english := catalogue(t, "en.json")
	asked := regexp.MustCompile(`\$l\.(?:Text|HTML) "([^"]+)"((?: "[a-z]+" [^ "}]+)*)`)
	entries, err := fs.Glob(files, "*.html")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range entries {
		data, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range asked.FindAllStringSubmatch(string(data), -1) {
			found++
			text, ok := english[m[1]]
			if !ok {
				t.Errorf("%s asks for %s", name, m[1])
			}
			for _, p := range placeholder.FindAllString(text, -1) {
				if !strings.Contains(m[2], `"`+strings.Trim(p, "{}")+`"`) {
					t.Errorf("%s: %s is not given %s", name, m[1], p)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d texts found", found)
	}
}

func TestMissingTextsAreEnglish(t *testing.T) {
	l := &Language{Tag: "xx", texts: maps.Clone(languages[fallback].texts)}
	if got := l.Text("consent.allow"); got != "Allow" {
		t.Errorf("%q", got)
	}
	for tag, l := range languages {
		for key := range languages[fallback].texts {
			if l.texts[key] == "" {
				t.Errorf("%s lacks %s", tag, key)
			}
		}
	}
}

func TestSpeak(t *testing.T) {
	rows := []struct{ locales, header, want string }{
		{"", "", "en"},
		{"", "de", "de"},
		{"", "fr-CA,fr;q=0.9,en;q=0.8", "fr"},
		{"", "es-419", "es"},
		{"ja-JP", "de", "ja"},
		{"", "DE-at", "de"},
		{"", "xx, de;q=0.2, en;q=0.1", "de"},
		{"", "de;q=0.2, en;q=0.9", "en"},
		{"", "de;q=0, en;q=0", "en"},
		{"", "de;q=x", "en"},
		{"", "de;q=NaN", "en"},
		{"", "*", "en"},
		{"", ",;,-,--", "en"},
		{"", strings.Repeat("xx,", 1000) + "de", "en"},
		{"de", "en", "de"},
		{"xx-YY de-CH-1996", "en", "de"},
		{strings.Repeat("xx ", 1000) + "de", "en", "en"},
	}
	for _, row := range rows {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Language", row.header)
		if got := Speak(r, row.locales).Tag; got != row.want {
			t.Errorf("%.40q, %.40q: %s, want %s", row.locales, row.header, got, row.want)
		}
	}
}

func TestTextsKeepValuesApart(t *testing.T) {
	l := languages[fallback]
	const bad = `{resource}</strong><script>`
	if got, want := l.Text("consent.heading", "client", bad, "resource", "R"), bad+" wants to use R"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	want := "<bdi><strong>{resource}&lt;/strong&gt;&lt;script&gt;</strong></bdi> wants to use <bdi><strong>R</strong></bdi>"
	if got := string(l.HTML("consent.heading", "client", bad, "resource", "R")); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := l.Text("no.such.key"); got != "no.such.key" {
		t.Errorf("%q", got)
	}
	day := time.Date(2026, 7, 28, 23, 0, 0, 0, time.UTC)
	if got := l.Date(day) + " " + languages["de"].Date(day) + " " + l.Date(time.Time{}); got != "2026-07-28 28.07.2026 –" {
		t.Errorf("%q", got)
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"Claude", "a\u202eb", "\xff\x00", "e" + strings.Repeat("\u0301", 50), strings.Repeat("x", 100), "👩‍👩‍👧"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s, 20)
		if n := len([]rune(got)); n > 20 {
			t.Fatalf("%q has %d characters", got, n)
		}
		if again := Clean(got, 20); again != got {
			t.Fatalf("%q becomes %q", got, again)
		}
		if strings.ContainsAny(got, "\n\r\t\x00\u202e\u2066\u200b\ufeff") {
			t.Fatalf("%q", got)
		}
	})
}

func TestClean(t *testing.T) {
	rows := []struct{ name, in, want string }{
		{"plain", "Claude Code", "Claude Code"},
		{"other scripts stay", "Übersicht 東京 עברית", "Übersicht 東京 עברית"},
		{"joined emoji stay", "👩‍👩‍👧", "👩‍👩‍👧"},
		{"bidi overrides go", "safe\u202egnp.exe\u2066", "safegnp.exe"},
		{"lines become spaces", "a\r\nb\u2028c\td", "a b c d"},
		{"invisible characters go", "Git\u200bHub\u2060\ufeff", "GitHub"},
		{"fillers are spaces", "a\u3164\u2800b", "a b"},
		{"invalid UTF-8 goes", "a\xff\xfeb", "ab"},
		{"towers of marks are cut", "e" + strings.Repeat("\u0301", 9), "e" + strings.Repeat("\u0301", 4)},
		{"and cannot be hidden by what shows nothing", "e" + strings.Repeat("\u0301\u200b\u200d", 5), "e" + strings.Repeat("\u0301\u200d", 4) + "\u200d"},
		{"nothing to see is nothing", " \u200d\u200b ", ""},
		{"long", strings.Repeat("abcde ", 10), "abcde abcde abcde a…"},
	}
	for _, row := range rows {
		if got := Clean(row.in, 20); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

// TestBrandColorsAreReadable: text on the button has a contrast of 4.5 at least
// (WCAG 2.2 AA), for every color.
func TestBrandColorsAreReadable(t *testing.T) {
	for color, want := range map[string]string{
		"#000000": "#ffffff", "#ffffff": "#000000", "#ffff00": "#000000", "#0b7a5b": "#ffffff", "#FF0000": "#000000", "#7f7f7f": "#000000",
		"0b7a5b": "#ffffff", "#ff0": "#000000", "000": "#ffffff",
	} {
		css, err := colorStyle(color)
		if err != nil || !strings.Contains(string(css), "--on-accent: "+want+";") {
			t.Errorf("%s: %s, %v", color, css, err)
		}
	}
	for _, bad := range []string{"red", "#ffff", "#12345g", "12345", "#1234567", "#+12345", "#123456;}", "#", "##12345", "0x1234", "+12"} {
		if css, err := colorStyle(bad); err == nil {
			t.Errorf("%s: %s", bad, css)
		}
	}
}
