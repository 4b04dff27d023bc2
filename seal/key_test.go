package seal_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/seal"
)

// rawKey has bytes that differ in the two base64 alphabets.
func rawKey() []byte { return bytes.Repeat([]byte{0xfb, 0xff, 0xbe, 0x01}, 8) }

func TestParseKey(t *testing.T) {
	want, err := seal.ParseKey(base64.RawURLEncoding.EncodeToString(rawKey()))
	if err != nil {
		t.Fatal(err)
	}
	if want.Encode() != base64.RawURLEncoding.EncodeToString(rawKey()) {
		t.Fatalf("Encode() = %q", want.Encode())
	}
	spellings := map[string]string{
		"standard, padded":     base64.StdEncoding.EncodeToString(rawKey()),
		"standard, not padded": base64.RawStdEncoding.EncodeToString(rawKey()),
		"URL, padded":          base64.URLEncoding.EncodeToString(rawKey()),
		"a file's newline":     base64.StdEncoding.EncodeToString(rawKey()) + "\n",
	}
	for name, s := range spellings {
		t.Run(name, func(t *testing.T) {
			k, err := seal.ParseKey(s)
			if err != nil || k.Encode() != want.Encode() {
				t.Errorf("ParseKey(%q) = %q, %v", s, k.Encode(), err)
			}
		})
	}
}

func TestParseKeyPassphrase(t *testing.T) {
	const phrase = "eleven grey whales sing below it" // 32 characters
	a, err := seal.ParseKey(phrase)
	if err != nil {
		t.Fatal(err)
	}
	b, err := seal.ParseKey(" " + phrase + "\n")
	if err != nil || a.Encode() != b.Encode() {
		t.Errorf("the same passphrase gives another key (%v)", err)
	}
	c, err := seal.ParseKey(phrase + "!")
	if err != nil || a.Encode() == c.Encode() {
		t.Errorf("another passphrase gives the same key (%v)", err)
	}
	// 32 characters count, not bytes.
	if _, err := seal.ParseKey(strings.Repeat("é", 32)); err != nil {
		t.Errorf("32 characters outside ASCII: %v", err)
	}
	// Derived once and for all: another result locks users out after an update.
	if got, want := a.Encode(), "FV8faR12qKsFAv9PWfybYcGIcnAoVjCWV9tTueWLCQE"; got != want {
		t.Errorf("passphrase key = %s, want %s", got, want)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"empty":                   "",
		"31 characters":           strings.Repeat("x", 31),
		"31 characters, 62 bytes": strings.Repeat("é", 31),
		"16 bytes of base64":      base64.StdEncoding.EncodeToString(make([]byte, 16)),
		"two lines":               strings.Repeat("x", 20) + "\n" + strings.Repeat("x", 23),
		"NUL":                     strings.Repeat("x", 40) + "\x00y",
		"not UTF-8":               strings.Repeat("x", 40) + "\xff",
		"blanks only":             strings.Repeat(" ", 40),
	} {
		t.Run(name, func(t *testing.T) {
			k, err := seal.ParseKey(s)
			if !errors.Is(err, seal.ErrKey) || k.Encode() != "" {
				t.Errorf("ParseKey = %q, %v, want ErrKey", k.Encode(), err)
			}
		})
	}
}

func TestGenerateKey(t *testing.T) {
	a, b := seal.GenerateKey(), seal.GenerateKey()
	if a.Encode() == b.Encode() {
		t.Error("two generated keys are equal")
	}
	again, err := seal.ParseKey(a.Encode())
	if err != nil || again.Encode() != a.Encode() {
		t.Errorf("a generated key does not survive Encode and ParseKey: %v", err)
	}
}

// TestKeyPrintsNoSecret prints keys in every usual way, also inside structs
// whose methods fmt does not see.
func TestKeyPrintsNoSecret(t *testing.T) {
	key, err := seal.ParseKey(base64.StdEncoding.EncodeToString(rawKey()))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := seal.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	sealer := ring.Sealer(seal.PurposeSession, "https://a.example")
	type config struct {
		key  seal.Key
		ring *seal.Ring
	}
	var out bytes.Buffer
	for _, v := range []any{key, &key, ring, sealer, config{key, ring}, &config{key, ring}, []seal.Key{key}} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %x %d\n", v, v, v, v, v, v, v)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("keys", "key", key, "ring", ring)
	slog.New(slog.NewTextHandler(&out, nil)).Info("keys", "key", key, "ring", ring)
	for name, secret := range map[string]string{
		"base64":  key.Encode(),
		"hex":     fmt.Sprintf("%x", rawKey()),
		"decimal": "251 255 190 1",
		"Go":      "0xfb, 0xff",
	} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the key was printed as %s", name)
		}
	}
	if !strings.Contains(out.String(), ring.Fingerprint()) {
		t.Error("the fingerprint was not printed")
	}
}

func TestNewRing(t *testing.T) {
	a, b := seal.GenerateKey(), seal.GenerateKey()
	for name, keys := range map[string][]seal.Key{
		"no key":        nil,
		"an empty key":  {a, {}},
		"one key twice": {a, b, a},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := seal.NewRing(keys...); err == nil {
				t.Error("no error")
			} else if strings.Contains(err.Error(), a.Encode()) {
				t.Error("the error holds the key")
			}
		})
	}
}

func TestFingerprint(t *testing.T) {
	a, b := seal.GenerateKey(), seal.GenerateKey()
	ringA, ringB, ringBA := newRing(t, a), newRing(t, b), newRing(t, b, a)
	if len(ringA.Fingerprint()) != 16 || ringA.Fingerprint() == ringB.Fingerprint() {
		t.Errorf("fingerprints %q and %q", ringA.Fingerprint(), ringB.Fingerprint())
	}
	if ringBA.Fingerprint() != ringB.Fingerprint() {
		t.Error("the fingerprint is not that of the key that seals")
	}
	if !ringBA.Knows(ringA.Fingerprint()) || !ringBA.Knows(ringB.Fingerprint()) || ringA.Knows(ringB.Fingerprint()) {
		t.Error("Knows does not tell whose keys the ring holds")
	}
}

func newRing(t interface {
	Helper()
	Fatal(args ...any)
}, keys ...seal.Key,
) *seal.Ring {
	t.Helper()
	ring, err := seal.NewRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}
