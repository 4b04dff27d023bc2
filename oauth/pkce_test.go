package oauth_test

import (
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// The example of RFC 7636 appendix B.
const (
	rfcVerifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	rfcChallenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

func TestPKCE(t *testing.T) {
	if got := oauth.ChallengeS256(rfcVerifier); got != rfcChallenge {
		t.Errorf("ChallengeS256 = %q", got)
	}
	for _, test := range []struct {
		name, verifier, challenge string
		want                      bool
	}{
		{"RFC 7636 appendix B", rfcVerifier, rfcChallenge, true},
		{"other verifier", strings.Replace(rfcVerifier, "d", "e", 1), rfcChallenge, false},
		{"plain", rfcVerifier, rfcVerifier, false},
		{"padded challenge", rfcVerifier, rfcChallenge + "=", false},
		{"empty challenge", rfcVerifier, "", false},
		{"empty verifier", "", oauth.ChallengeS256(""), false},
		{"verifier too short, though its hash fits", "short", oauth.ChallengeS256("short"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := oauth.VerifyS256(test.verifier, test.challenge); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestValidVerifierAndChallenge(t *testing.T) {
	a := func(n int) string { return strings.Repeat("a", n) }
	for _, test := range []struct {
		s                   string
		verifier, challenge bool
	}{
		{"", false, false},
		{a(42), false, false},
		{a(43), true, true},
		{a(44), true, false},
		{a(128), true, false},
		{a(129), false, false},
		{a(39) + "-_Z9", true, true},
		{a(41) + ".~", true, false},
		{a(42) + "+", false, false},
		{a(42) + "/", false, false},
		{a(42) + "=", false, false},
		{a(42) + " ", false, false},
		{a(41) + "é", false, false},
		{a(42) + "\x00", false, false},
	} {
		if got := oauth.ValidVerifier(test.s); got != test.verifier {
			t.Errorf("ValidVerifier(%q) = %t", test.s, got)
		}
		if got := oauth.ValidChallenge(test.s); got != test.challenge {
			t.Errorf("ValidChallenge(%q) = %t", test.s, got)
		}
	}
}
