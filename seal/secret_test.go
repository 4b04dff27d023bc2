package seal_test

import (
	"slices"
	"testing"

	"github.com/caddy-mcp/mcpauth/seal"
)

// TestSecrets: the same for the same key, purpose and issuer, and for nothing
// else.
func TestSecrets(t *testing.T) {
	older, newer := seal.GenerateKey(), seal.GenerateKey()
	want := newRing(t, older).Secrets(seal.PurposeAssertion, issuer)
	if len(want) != 1 {
		t.Fatalf("%d secrets of one key", len(want))
	}
	if got := newRing(t, newer, older).Secrets(seal.PurposeAssertion, issuer); len(got) != 2 || got[1] != want[0] {
		t.Error("a key yields another secret beside another key")
	}
	for what, other := range map[string][][seal.KeySize]byte{
		"another key":     newRing(t, newer).Secrets(seal.PurposeAssertion, issuer),
		"another purpose": newRing(t, older).Secrets(seal.PurposeSession, issuer),
		"another issuer":  newRing(t, older).Secrets(seal.PurposeAssertion, issuer+"/"),
	} {
		if slices.Equal(other, want) {
			t.Errorf("%s yields the same secret", what)
		}
	}
}
