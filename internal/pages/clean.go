package pages

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMarks is how many combining marks a character may carry. Real writing needs
// few; towers of them spill over the text around.
const maxMarks = 4

// Clean makes text that a stranger chose fit for a page: one line, without
// invisible characters and those that turn the direction of text, at most limit
// characters, which an ellipsis ends if something is cut. The joiners stay, which
// some scripts and emoji need.
func Clean(s string, limit int) string {
	if len(s) > 8*limit { // a bound for what follows
		s = s[:8*limit]
	}
	marks := 0
	s = strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r) {
			if marks++; marks > maxMarks {
				return -1
			}
			return r
		}
		switch {
		case r == '\u200c' || r == '\u200d':
			return r
		case r == utf8.RuneError, unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs):
			return -1
		}
		marks = 0 // only here: what shows nothing does not part the marks of a character
		switch {
		case r == '\u115f' || r == '\u1160' || r == '\u3164' || r == '\uffa0' || r == '\u2800':
			return ' ' // letters by category that show nothing
		case unicode.IsControl(r), unicode.In(r, unicode.Zs, unicode.Zl, unicode.Zp):
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if strings.Trim(s, "\u200c\u200d ") == "" {
		return ""
	}
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit-1]) + "…"
}
