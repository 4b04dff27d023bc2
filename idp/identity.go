package idp

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Identity is who somebody is, as a provider says.
type Identity struct {
	// Issuer is the provider's issuer, the namespace of Subject. The two
	// together are the user; nothing else is.
	Issuer, Subject string
	// Email is empty if the provider named none. It counts for rules only if
	// EmailVerified is true, that is if the provider vouches for it.
	Email         string
	EmailVerified bool
	// Name is for display.
	Name string
	// Groups in the provider's own spelling, except where a preset says so.
	Groups []string
	// Claims are further claims worth keeping, of JSON's types.
	Claims map[string]any
	// HostedDomain is Google's hd: the Workspace domain that manages the
	// account, in lower case.
	HostedDomain string
}

// Bounds of what is taken over from a provider, in bytes unless said otherwise.
const (
	maxSubject = 255 // OpenID Connect Core §2
	maxEmail   = 320
	maxName    = 256
	maxGroup   = 256
	maxGroups  = 500 // groups
	maxClaim   = 1 << 10
	maxClaims  = 32 // claims
)

// defaultClaims are kept unless the options name others.
var defaultClaims = [...]string{"preferred_username", "given_name", "family_name", "locale"}

// checkSubject refuses what is not fit to be compared and logged.
func checkSubject(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("the subject is missing")
	case len(s) > maxSubject:
		return fmt.Errorf("the subject has %d bytes, more than %d", len(s), maxSubject)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("the subject holds control characters")
	}
	return nil
}

// claims are the members of an id_token or a userinfo answer. Numbers are
// json.Number.
type claims map[string]any

// str is a string claim, "" if it is absent or something else.
func (c claims) str(name string) string {
	s, _ := c.at(name).(string)
	return s
}

// id is a claim that identifies: a string, or an integer in its own digits.
func (c claims) id(name string) string {
	switch v := c.at(name).(type) {
	case string:
		return v
	case json.Number:
		if s := v.String(); strings.Trim(s, "0123456789") == "" {
			return s
		}
	}
	return ""
}

// is reports whether a claim is true. Amazon Cognito's userinfo, for one, says
// "true" (https://docs.aws.amazon.com/cognito/latest/developerguide/userinfo-endpoint.html).
func (c claims) is(name string) bool {
	switch v := c.at(name).(type) {
	case bool:
		return v
	case string:
		return v == "true"
	}
	return false
}

// list is a claim of strings: an array, or one string alone.
func (c claims) list(name string) []string {
	switch v := c.at(name).(type) {
	case string:
		if v != "" {
			return []string{v}
		}
	case []any:
		list := make([]string, 0, len(v))
		for _, e := range v {
			if s, ok := e.(string); ok && s != "" {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}

// at is the member of that name, or else the one that the name leads to, its
// dots taken as steps: realm_access.roles.
func (c claims) at(name string) any {
	if v, ok := c[name]; ok {
		return v
	}
	first, rest, dotted := strings.Cut(name, ".")
	if inner, ok := c[first].(map[string]any); ok && dotted {
		return claims(inner).at(rest)
	}
	return nil
}

// cleanEmail is the address if it is one for our purposes: one @ with something
// on both sides, no white space or control characters.
func cleanEmail(s string) string {
	if _, _, ok := splitEmail(s); !ok {
		return ""
	}
	return s
}

// cleanName is the name on one line, bounded.
func cleanName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == utf8.RuneError:
			return -1
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	for len(s) > maxName {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// cleanGroups drops what is over the bounds, and doubles. What is dropped only
// takes rights away.
func cleanGroups(groups []string) (kept []string, dropped int) {
	seen := make(map[string]struct{}, min(len(groups), maxGroups))
	for _, g := range groups {
		if _, twice := seen[g]; twice {
			continue
		}
		if g == "" || len(g) > maxGroup || !utf8.ValidString(g) || strings.ContainsFunc(g, unicode.IsControl) || len(kept) == maxGroups {
			dropped++
			continue
		}
		seen[g] = struct{}{}
		kept = append(kept, g)
	}
	return kept, dropped
}

// keep returns the named claims that are there and not too large.
func (c claims) keep(names []string) map[string]any {
	kept := make(map[string]any)
	for _, name := range names {
		v := c.at(name)
		if v == nil || len(kept) == maxClaims {
			continue
		}
		if data, err := json.Marshal(v); err != nil || len(data) > maxClaim {
			continue
		}
		kept[name] = v
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}
