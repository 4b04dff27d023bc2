package strictjson

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// foldRune maps all characters that some parser takes for the same in another
// case to one: the orbit of Unicode's simple folding, which encoding/json goes
// by, and the i with and without a dot of Turkish.
func foldRune(r rune) rune {
	switch {
	case 'A' <= r && r <= 'Z':
		return r + 'a' - 'A'
	case r < utf8.RuneSelf:
		return r
	case r == 'İ' || r == 'ı':
		return 'i'
	}
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	if 'A' <= least && least <= 'Z' {
		return least + 'a' - 'A'
	}
	return least
}

// foldName maps names that differ in case only to one.
func foldName(name string) string { return strings.Map(foldRune, name) }

// equalFold reports whether name differs from an ASCII name in case at most.
func equalFold(name []byte, ascii string) bool {
	if len(name) < len(ascii) {
		return false
	}
	for i := range len(ascii) {
		r, size := utf8.DecodeRune(name)
		if size == 0 || foldRune(r) != foldRune(rune(ascii[i])) {
			return false
		}
		name = name[size:]
	}
	return len(name) == 0
}
