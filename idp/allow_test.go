package idp_test

import (
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/idp"
)

func TestRulesAllow(t *testing.T) {
	verified := func(email string) *idp.Identity { return &idp.Identity{Email: email, EmailVerified: true} }
	for _, test := range []struct {
		name  string
		rules idp.Rules
		id    *idp.Identity
		want  bool
	}{
		{"any", idp.Rules{{Any: true}}, &idp.Identity{}, true},
		{"nobody at all", idp.Rules{{Any: true}}, nil, false},
		{"no rules", nil, verified("a@example.com"), false},
		{"address", idp.Rules{{Email: "a@example.com"}}, verified("a@example.com"), true},
		{"address, domain in another case", idp.Rules{{Email: "a@Example.com"}}, verified("a@eXample.COM"), true},
		{"address, local part in another case", idp.Rules{{Email: "a@example.com"}}, verified("A@example.com"), false},
		{"unverified address", idp.Rules{{Email: "a@example.com"}}, &idp.Identity{Email: "a@example.com"}, false},
		{"domain", idp.Rules{{Email: "*@example.com"}}, verified("b@EXAMPLE.com"), true},
		{"unverified domain", idp.Rules{{Email: "*@example.com"}}, &idp.Identity{Email: "b@example.com"}, false},
		{"subdomain", idp.Rules{{Email: "*@example.com"}}, verified("b@sub.example.com"), false},
		{"domain that ends alike", idp.Rules{{Email: "*@example.com"}}, verified("b@notexample.com"), false},
		{"two @", idp.Rules{{Email: "*@example.com"}}, verified("b@evil.com@example.com"), false},
		{"two @, the other way", idp.Rules{{Email: "*@example.com"}}, verified("b@example.com@evil.com"), false},
		{"quoted @", idp.Rules{{Email: "*@example.com"}}, verified(`"b@evil.com"@example.com`), false},
		{"trailing dot", idp.Rules{{Email: "*@example.com"}}, verified("b@example.com."), false},
		{"NUL", idp.Rules{{Email: "*@example.com"}}, verified("b@example.com\x00"), false},
		{"white space", idp.Rules{{Email: "*@example.com"}}, verified("b@example.com "), false},
		{"Kelvin sign for k", idp.Rules{{Email: "*@kiosk.com"}}, verified("b@\u212aiosk.com"), false},
		{"a star in the address is a star", idp.Rules{{Email: "a@example.com"}}, verified("*@example.com"), false},
		{"no address", idp.Rules{{Email: "*@example.com"}}, verified(""), false},
		{"Google: managed by the domain", idp.Rules{{Email: "*@example.com"}}, &idp.Identity{Email: "b@example.com", EmailVerified: true, HostedDomain: "example.com"}, true},
		{"Google: managed by another", idp.Rules{{Email: "*@example.com"}}, &idp.Identity{Email: "b@example.com", EmailVerified: true, HostedDomain: "evil.com"}, false},
		{"hosted domain", idp.Rules{{HostedDomain: "Example.com"}}, &idp.Identity{HostedDomain: "example.com"}, true},
		{"other hosted domain", idp.Rules{{HostedDomain: "example.com"}}, &idp.Identity{HostedDomain: "evil.com"}, false},
		{"no hosted domain", idp.Rules{{HostedDomain: "example.com"}}, verified("a@example.com"), false},
		{"group", idp.Rules{{Group: "eng"}}, &idp.Identity{Groups: []string{"ops", "eng"}}, true},
		{"group in another case", idp.Rules{{Group: "eng"}}, &idp.Identity{Groups: []string{"Eng"}}, false},
		{"part of a group", idp.Rules{{Group: "eng"}}, &idp.Identity{Groups: []string{"eng/ops", "engineering"}}, false},
		{"org in any case", idp.Rules{{Org: "Example"}}, &idp.Identity{Groups: []string{"example"}}, true},
		{"team is no org", idp.Rules{{Org: "example"}}, &idp.Identity{Groups: []string{"example/team"}}, false},
		{"subject", idp.Rules{{Subject: "u-1"}}, &idp.Identity{Subject: "u-1"}, true},
		{"other subject", idp.Rules{{Subject: "u-1"}}, &idp.Identity{Subject: "u-10", Name: "u-1", Email: "u-1"}, false},
		{"one of several", idp.Rules{{Group: "eng"}, {Email: "a@example.com"}}, verified("a@example.com"), true},
		{"none of several", idp.Rules{{Group: "eng"}, {Email: "a@example.com"}}, verified("b@example.com"), false},
		{"an empty rule allows nobody", idp.Rules{{}}, &idp.Identity{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, reason := test.rules.Allows(test.id)
			if got != test.want || got != (reason == "") {
				t.Errorf("%t, reason %q, want %t", got, reason, test.want)
			}
		})
	}
}

func TestRulesSayWhyMailDoesNotCount(t *testing.T) {
	_, reason := idp.Rules{{Group: "eng"}, {Email: "*@example.com"}}.Allows(&idp.Identity{Email: "a@example.com"})
	if !strings.Contains(reason, "does not vouch") {
		t.Errorf("reason %q", reason)
	}
}

func TestRulesValidate(t *testing.T) {
	for _, test := range []struct {
		name  string
		rules idp.Rules
		want  string // "" is accepted
	}{
		{"none", nil, ""},
		{"address", idp.Rules{{Email: "a.b+c@example.com"}}, ""},
		{"domain", idp.Rules{{Email: "*@example.co.uk"}}, ""},
		{"any alone", idp.Rules{{Any: true}}, ""},
		{"any and more", idp.Rules{{Any: true}, {Group: "eng"}}, "void"},
		{"empty rule", idp.Rules{{}}, "exactly one"},
		{"two in one", idp.Rules{{Group: "eng", Subject: "a"}}, "exactly one"},
		{"no @", idp.Rules{{Email: "example.com"}}, "*@example.com"},
		{"@ alone", idp.Rules{{Email: "@example.com"}}, "no address"},
		{"two @", idp.Rules{{Email: "a@b@example.com"}}, "no address"},
		{"star in the domain", idp.Rules{{Email: "*@*.example.com"}}, "without wildcards"},
		{"star in the local part", idp.Rules{{Email: "a*@example.com"}}, "a * stands for"},
		{"one label", idp.Rules{{Email: "*@com"}}, "domain"},
		{"trailing dot", idp.Rules{{Email: "*@example.com."}}, "domain"},
		{"not ASCII", idp.Rules{{Email: "*@exämple.com"}}, "ASCII"},
		{"team as org", idp.Rules{{Org: "a/b"}}, "as group"},
		{"hosted domain", idp.Rules{{HostedDomain: "*.example.com"}}, "domain"},
		{"the second one is named", idp.Rules{{Group: "eng"}, {Email: "x"}}, "rule 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.rules.Validate()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// Whatever the pattern and the address, a rule that is valid allows nothing but
// an address that ends in the pattern's domain.
func FuzzEmailRule(f *testing.F) {
	for _, seed := range [][2]string{
		{"*@example.com", "a@example.com"},
		{"a@example.com", "a@EXAMPLE.com"},
		{"*@example.com", "a@b@example.com"},
		{"*@kiosk.com", "a@\u212aiosk.com"},
		{"*@example.com", "\"@\"@example.com"},
		{"*@a.b", "\x00@a.b"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, email string) {
		rules := idp.Rules{{Email: pattern}}
		valid := rules.Validate() == nil
		id := &idp.Identity{Email: email, EmailVerified: true}
		ok, _ := rules.Allows(id)
		if id.EmailVerified = false; ok {
			if unvouched, _ := rules.Allows(id); unvouched {
				t.Errorf("%q allows %q, for which nobody vouches", pattern, email)
			}
		}
		if !ok || !valid {
			return
		}
		local, domain, _ := strings.Cut(pattern, "@")
		gotLocal, gotDomain, _ := strings.Cut(email, "@")
		if strings.Count(email, "@") != 1 || lower(gotDomain) != lower(domain) || local != "*" && local != gotLocal {
			t.Errorf("%q allows %q", pattern, email)
		}
	})
}

// lower folds ASCII only.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
