package oauth

import (
	"fmt"
	"strings"
)

// maxScope bounds a scope parameter, in bytes.
const maxScope = 4096

// ParseScope splits a scope parameter at runs of spaces (clients send leading
// and doubled ones) and drops repetitions, keeping the order. Anything but the
// characters of RFC 6749 §3.3 is invalid_scope.
func ParseScope(s string) ([]string, error) {
	if len(s) > maxScope {
		return nil, ErrInvalidScope.Describe(fmt.Sprintf("scope is longer than %d bytes", maxScope))
	}
	var scopes []string
	seen := make(map[string]bool)
	for scope := range strings.SplitSeq(s, " ") {
		if scope == "" || seen[scope] {
			continue
		}
		if !ValidScope(scope) {
			return nil, ErrInvalidScope.Describe("scope holds a character that RFC 6749 section 3.3 does not allow")
		}
		seen[scope] = true
		scopes = append(scopes, scope)
	}
	return scopes, nil
}

// ValidScope reports whether s is a scope-token of RFC 6749 §3.3: at least one
// printable ASCII character, none of them space, quote or backslash.
func ValidScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// JoinScope is the inverse of ParseScope.
func JoinScope(scopes []string) string { return strings.Join(scopes, " ") }
