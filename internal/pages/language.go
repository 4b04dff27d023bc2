package pages

import (
	"encoding/json"
	"html/template"
	"maps"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// fallback is the language of those for whom there is no better one.
const fallback = "en"

// maxLanguages bounds how many wishes of a browser are looked at.
const maxLanguages = 32

// Language is a message catalogue. It is read only.
type Language struct {
	// Tag is its BCP 47 tag.
	Tag   string
	texts map[string]string
}

// languages are the catalogues by tag, read at start so that a broken one
// cannot ship. What a catalogue lacks is there in English.
var languages = func() map[string]*Language {
	entries, err := files.ReadDir("messages")
	if err != nil {
		panic(err)
	}
	read := make(map[string]map[string]string)
	for _, entry := range entries {
		data, err := files.ReadFile("messages/" + entry.Name())
		if err != nil {
			panic(err)
		}
		var texts map[string]string
		if err := json.Unmarshal(data, &texts); err != nil {
			panic("messages/" + entry.Name() + ": " + err.Error())
		}
		read[strings.TrimSuffix(entry.Name(), path.Ext(entry.Name()))] = texts
	}
	all := make(map[string]*Language, len(read))
	for tag, texts := range read {
		full := maps.Clone(read[fallback])
		maps.Copy(full, texts)
		all[tag] = &Language{Tag: tag, texts: full}
	}
	return all
}()

// Speak returns the language to answer in: the first of uiLocales that there is
// (OpenID Connect Core §3.1.2.1, tags separated by spaces), or else the one that
// the browser likes best (RFC 9110 §12.5.4).
func Speak(r *http.Request, uiLocales string) *Language {
	for i, tag := range strings.Fields(uiLocales) {
		if i == maxLanguages {
			break
		}
		if l := find(tag); l != nil {
			return l
		}
	}
	best, bestQ := languages[fallback], 0.0
	seen := 0
	for _, header := range r.Header.Values("Accept-Language") {
		for part := range strings.SplitSeq(header, ",") {
			if seen++; seen > maxLanguages {
				return best
			}
			tag, params, _ := strings.Cut(part, ";")
			q := 1.0
			if value, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
				parsed, err := strconv.ParseFloat(value, 64)
				if err != nil || parsed != parsed {
					continue
				}
				q = parsed
			}
			if l := find(strings.TrimSpace(tag)); l != nil && q > bestQ {
				best, bestQ = l, q
			}
		}
	}
	return best
}

// find returns the language of the tag or of the longest part of it that there
// is (RFC 4647 §3.4), nil if there is none.
func find(tag string) *Language {
	tag = strings.ToLower(tag)
	for {
		if l := languages[tag]; l != nil {
			return l
		}
		i := strings.LastIndexByte(tag, '-')
		if i < 0 {
			return nil
		}
		tag = tag[:i]
	}
}

// Text returns the text of the key with its placeholders filled in: pairs are
// names and values in turn. It is plain text, to be escaped.
func (l *Language) Text(key string, pairs ...string) string {
	return l.fill(key, pairs, func(s string) string { return s }, func(s string) string { return s })
}

// HTML is Text with the values set apart: emphasised, and isolated so that
// right-to-left text in one does not turn the sentence around it.
func (l *Language) HTML(key string, pairs ...string) template.HTML {
	value := func(s string) string { return "<bdi><strong>" + template.HTMLEscapeString(s) + "</strong></bdi>" }
	return template.HTML(l.fill(key, pairs, template.HTMLEscapeString, value)) //nolint:gosec // all of it is escaped
}

// Date returns the day in the usual form of the language.
func (l *Language) Date(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format(l.texts["format.date"])
}

// fill takes the text apart at its placeholders once, so that a value that
// looks like a placeholder stays what it is.
func (l *Language) fill(key string, pairs []string, text, value func(string) string) string {
	rest, ok := l.texts[key]
	if !ok {
		return text(key)
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(rest, "{")
		b.WriteString(text(before))
		if !found {
			return b.String()
		}
		name, after, _ := strings.Cut(after, "}")
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i] == name {
				b.WriteString(value(pairs[i+1]))
			}
		}
		rest = after
	}
}
