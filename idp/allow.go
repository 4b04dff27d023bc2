package idp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Rule says who may sign in. Exactly one field is set.
type Rule struct {
	// Any is everybody whom the provider signs in.
	Any bool
	// Email is an address, or *@domain for all of a domain. Only mail that the
	// provider vouches for counts. The domain is compared without regard to
	// case, the part before the @ exactly.
	Email string
	// Group is a group's name, exactly.
	Group string
	// Subject is the provider's id of the user, exactly.
	Subject string
	// Org is a GitHub organization, compared as GitHub does: in any case.
	Org string
	// HostedDomain is a Google Workspace domain (hd), in any case.
	HostedDomain string
}

// Rules allow what one of them allows. What no rules at all mean is for the
// caller to decide: Allows refuses then.
type Rules []Rule

// Validate returns an error that says what to write instead.
func (rs Rules) Validate() error {
	for i, r := range rs {
		if err := r.validate(); err != nil {
			return fmt.Errorf("allow rule %d: %w", i+1, err)
		}
		if r.Any && len(rs) > 1 {
			return errors.New("allow any beside other rules makes them void: write one or the other")
		}
	}
	return nil
}

func (r Rule) validate() error {
	set := 0
	for _, s := range []string{r.Email, r.Group, r.Subject, r.Org, r.HostedDomain} {
		if s != "" {
			set++
		}
	}
	if r.Any {
		set++
	}
	if set != 1 {
		return errors.New("write exactly one of any, email, group, subject, org, hosted_domain")
	}
	if r.Email != "" {
		return checkEmailPattern(r.Email)
	}
	if r.HostedDomain != "" && !isDomain(r.HostedDomain) {
		return fmt.Errorf("hosted domain %q is not a domain such as example.com", r.HostedDomain)
	}
	if strings.Contains(r.Org, "/") {
		return fmt.Errorf("org %q has a slash: write a team as group %q", r.Org, r.Org)
	}
	return nil
}

func checkEmailPattern(pattern string) error {
	local, domain, ok := splitEmail(pattern)
	switch {
	case !ok:
		return fmt.Errorf("email %q is no address: write alice@example.com, or *@example.com for a whole domain", pattern)
	case !isDomain(domain):
		return fmt.Errorf("email %q: write the domain as in example.com, in ASCII and without wildcards", pattern)
	case local != "*" && strings.Contains(local, "*"):
		return fmt.Errorf("email %q: a * stands for the whole part before the @, as in *@%s", pattern, domain)
	}
	return nil
}

// Allows reports whether somebody may sign in, and if not the reason, for the
// operator's log. A nil identity is nobody.
func (rs Rules) Allows(id *Identity) (ok bool, reason string) {
	if id == nil {
		return false, "the user is not known"
	}
	if len(rs) == 0 {
		return false, "no allow rule is configured"
	}
	var reasons []string
	for _, r := range rs {
		ok, why := r.allows(id)
		if ok {
			return true, ""
		}
		if why != "" && len(reasons) < 4 {
			reasons = append(reasons, why)
		}
	}
	if len(reasons) == 0 {
		return false, "no allow rule matches"
	}
	return false, "no allow rule matches: " + strings.Join(reasons, "; ")
}

// allows gives a reason only where the mismatch may surprise.
func (r Rule) allows(id *Identity) (ok bool, reason string) {
	switch {
	case r.Any:
		return true, ""
	case r.Email != "":
		return allowsEmail(r.Email, id)
	case r.Group != "":
		if slices.Contains(id.Groups, r.Group) {
			return true, ""
		}
	case r.Subject != "":
		return id.Subject == r.Subject, ""
	case r.Org != "":
		for _, g := range id.Groups {
			if strings.EqualFold(g, r.Org) && isASCII(g) {
				return true, ""
			}
		}
	case r.HostedDomain != "":
		return id.HostedDomain != "" && equalDomain(id.HostedDomain, r.HostedDomain), ""
	}
	return false, ""
}

func allowsEmail(pattern string, id *Identity) (ok bool, reason string) {
	local, domain, ok := splitEmail(id.Email)
	if !ok {
		return false, "the provider gave no mail address"
	}
	wantLocal, wantDomain, ok := splitEmail(pattern)
	if !ok || !equalDomain(domain, wantDomain) {
		return false, ""
	}
	if wantLocal != "*" && wantLocal != local {
		return false, ""
	}
	if !id.EmailVerified {
		return false, "the mail address would match, but the provider does not vouch for it"
	}
	// Google: mail of a domain is that domain's only if it manages the account
	// (https://developers.google.com/identity/openid-connect/openid-connect#an-id-tokens-payload).
	if wantLocal == "*" && id.HostedDomain != "" && !equalDomain(id.HostedDomain, wantDomain) {
		return false, "the mail address would match, but the account belongs to another hosted domain"
	}
	return true, ""
}

// splitEmail cuts an address at its only @. Quoted local parts, which could
// hold another, are not supported.
func splitEmail(s string) (local, domain string, ok bool) {
	if len(s) > maxEmail {
		return "", "", false
	}
	for i := range len(s) {
		// A space or control character has no place in either part; bytes of
		// other scripts may stand in the local part (RFC 6531).
		if c := s[i]; c <= 0x20 || c == 0x7f || c == '"' {
			return "", "", false
		}
	}
	local, domain, ok = strings.Cut(s, "@")
	if !ok || local == "" || domain == "" || strings.Contains(domain, "@") {
		return "", "", false
	}
	return local, domain, true
}

// isDomain reports whether s is a host name of two or more labels, in ASCII.
func isDomain(s string) bool {
	labels := strings.Split(s, ".")
	if len(labels) < 2 || len(s) > 253 {
		return false
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20
			if (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

// equalDomain compares without regard to the case of ASCII letters. Nothing
// else is folded: strings.EqualFold takes the Kelvin sign for a k.
func equalDomain(a, b string) bool {
	return isASCII(a) && isASCII(b) && strings.EqualFold(a, b)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// RequiresAllow reports whether everybody in the world can have an account at
// the provider, so that signing in there alone says nothing.
func RequiresAllow(u Upstream) bool {
	open, ok := u.(interface{ openToAll() bool })
	return ok && open.openToAll()
}
