package seal_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-mcp/mcpauth/seal"
)

const issuer = "https://mcp.example.com"

func now() time.Time { return time.Unix(1_900_000_000, 0) }

func mustSeal(t *testing.T, s *seal.Sealer, plaintext string, expiry time.Time, ad ...string) string {
	t.Helper()
	sealed, err := s.Seal([]byte(plaintext), expiry, ad...)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestSealOpens(t *testing.T) {
	s := newRing(t, seal.GenerateKey()).Sealer(seal.PurposeClientID, issuer)
	for name, plaintext := range map[string]string{"empty": "", "text": "hello", "NUL": "\x00", "long": strings.Repeat("x", 40_000)} {
		for _, expiry := range []time.Time{{}, now().Add(time.Second)} {
			t.Run(fmt.Sprintf("%s until %v", name, expiry), func(t *testing.T) {
				sealed := mustSeal(t, s, plaintext, expiry, "a", "b")
				got, err := s.Open(sealed, now(), "a", "b")
				if err != nil || string(got) != plaintext {
					t.Errorf("Open = %q, %v", got, err)
				}
				raw, err := s.SealBytes([]byte(plaintext), expiry, "a", "b")
				if err != nil {
					t.Fatal(err)
				}
				if len(raw) != len(plaintext)+seal.Overhead {
					t.Errorf("%d bytes more than the plaintext, want %d", len(raw)-len(plaintext), seal.Overhead)
				}
				got, err = s.OpenBytes(raw, now(), "a", "b")
				if err != nil || string(got) != plaintext {
					t.Errorf("OpenBytes = %q, %v", got, err)
				}
			})
		}
	}
}

// TestOpenRefuses opens a value where it does not belong. The error never tells
// why.
func TestOpenRefuses(t *testing.T) {
	ring := newRing(t, seal.GenerateKey())
	s := ring.Sealer(seal.PurposeClientID, issuer)
	sealed := mustSeal(t, s, "secret", time.Time{}, "ab", "c")
	rows := []struct {
		name   string
		sealer *seal.Sealer
		ad     []string
	}{
		{"another purpose", ring.Sealer(seal.PurposeProxyID, issuer), []string{"ab", "c"}},
		{"another issuer", ring.Sealer(seal.PurposeClientID, issuer+"/"), []string{"ab", "c"}},
		{"purpose and issuer shifted", ring.Sealer(seal.PurposeClientID+"h", issuer[1:]), []string{"ab", "c"}},
		{"another key", newRing(t, seal.GenerateKey()).Sealer(seal.PurposeClientID, issuer), []string{"ab", "c"}},
		{"other data", s, []string{"ab", "d"}},
		{"data shifted", s, []string{"a", "bc"}},
		{"data joined", s, []string{"abc"}},
		{"data and an empty part", s, []string{"ab", "c", ""}},
		{"no data", s, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := row.sealer.Open(sealed, now(), row.ad...)
			if got != nil || !errors.Is(err, seal.ErrInvalid) || errors.Is(err, seal.ErrExpired) {
				t.Errorf("Open = %q, %v, want ErrInvalid", got, err)
			}
		})
	}
	if _, err := s.Open(sealed, now(), "ab", "c"); err != nil {
		t.Errorf("the value does not open where it belongs: %v", err)
	}
}

// TestPurposesDiffer: two purposes of one name would share a key.
func TestPurposesDiffer(t *testing.T) {
	ring := newRing(t, seal.GenerateKey())
	purposes := []seal.Purpose{
		seal.PurposeClientID, seal.PurposeClientSecret, seal.PurposeConsentForm, seal.PurposeTransaction, seal.PurposeConsentMemory,
		seal.PurposeStoreValue, seal.PurposeRefreshMAC, seal.PurposeProxyID, seal.PurposeProxyRefresh, seal.PurposeRelayCode, seal.PurposeSession, seal.PurposeAssertion,
	}
	for _, from := range purposes {
		sealed := mustSeal(t, ring.Sealer(from, issuer), "x", time.Time{})
		mac := ring.Sealer(from, issuer).MAC([]byte("x"))
		for _, to := range purposes {
			_, err := ring.Sealer(to, issuer).Open(sealed, now())
			if (err == nil) != (from == to) {
				t.Errorf("sealed as %q, opened as %q: %v", from, to, err)
			}
			if ok := ring.Sealer(to, issuer).VerifyMAC(mac[:], []byte("x")); ok != (from == to) {
				t.Errorf("MAC of %q verified as %q: %v", from, to, ok)
			}
		}
	}
}

func TestExpiry(t *testing.T) {
	s := newRing(t, seal.GenerateKey()).Sealer(seal.PurposeConsentForm, issuer)
	rows := []struct {
		name    string
		expiry  time.Time
		expired bool
	}{
		{"never", time.Time{}, false},
		{"a second ahead", now().Add(time.Second), false},
		{"now", now(), true},
		{"within this second", now().Add(time.Millisecond), true},
		{"past", now().Add(-time.Hour), true},
		{"1970 is not never", time.Unix(0, 0), true},
		{"before 1970 is not never", time.Unix(-5, 0), true},
		{"further than 40 bits", time.Unix(1<<41, 0), false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := s.Open(mustSeal(t, s, "x", row.expiry), now())
			if errors.Is(err, seal.ErrExpired) != row.expired || (err == nil) == row.expired {
				t.Fatalf("Open: %v", err)
			}
			if err != nil && (!errors.Is(err, seal.ErrInvalid) || err.Error() != seal.ErrInvalid.Error()) {
				t.Errorf("%q can be told from ErrInvalid", err)
			}
		})
	}
	t.Run("expired for another issuer is not told", func(t *testing.T) {
		ring := newRing(t, seal.GenerateKey())
		sealed := mustSeal(t, ring.Sealer(seal.PurposeSession, "a"), "x", now().Add(-time.Hour))
		if _, err := ring.Sealer(seal.PurposeSession, "b").Open(sealed, now()); errors.Is(err, seal.ErrExpired) {
			t.Error("the expiry was believed before it was authenticated")
		}
	})
}

func TestEveryTruncation(t *testing.T) {
	s := newRing(t, seal.GenerateKey()).Sealer(seal.PurposeTransaction, issuer)
	sealed := mustSeal(t, s, "some text", now().Add(time.Hour))
	for n := range len(sealed) {
		if _, err := s.Open(sealed[:n], now()); !errors.Is(err, seal.ErrInvalid) {
			t.Errorf("%d of %d characters: %v", n, len(sealed), err)
		}
		if _, err := s.Open(sealed[n+1:], now()); !errors.Is(err, seal.ErrInvalid) {
			t.Errorf("without the first %d of %d characters: %v", n+1, len(sealed), err)
		}
	}
}

func TestEveryBitFlip(t *testing.T) {
	s := newRing(t, seal.GenerateKey()).Sealer(seal.PurposeTransaction, issuer)
	raw, err := s.SealBytes([]byte("some text"), now().Add(time.Hour), "ad")
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(raw) * 8 {
		raw[i/8] ^= 1 << (i % 8)
		if _, err := s.OpenBytes(raw, now(), "ad"); !errors.Is(err, seal.ErrInvalid) || errors.Is(err, seal.ErrExpired) {
			t.Errorf("bit %d flipped: %v", i, err)
		}
		raw[i/8] ^= 1 << (i % 8)
	}
	if _, err := s.OpenBytes(raw, now(), "ad"); err != nil {
		t.Errorf("all bits restored: %v", err)
	}
}

// TestOneSpelling: what opens is only the string that was handed out, though
// base64 has more than one spelling of most values.
func TestOneSpelling(t *testing.T) {
	s := newRing(t, seal.GenerateKey()).Sealer(seal.PurposeClientID, issuer)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for size := range 3 { // 0, 1 and 2 bytes in the last group
		sealed := mustSeal(t, s, strings.Repeat("x", size), time.Time{})
		for _, last := range alphabet {
			other := sealed[:len(sealed)-1] + string(last)
			if _, err := s.Open(other, now()); (err == nil) != (other == sealed) {
				t.Errorf("last character %q instead of %q: %v", last, sealed[len(sealed)-1], err)
			}
		}
		for _, other := range []string{
			sealed + "=", sealed + "==", sealed + "\n", "\r\n" + sealed, sealed[:7] + "\n" + sealed[7:], sealed + " ", " " + sealed, sealed + "A", sealed + "AAAA",
		} {
			if _, err := s.Open(other, now()); !errors.Is(err, seal.ErrInvalid) {
				t.Errorf("%q opens: %v", other, err)
			}
		}
	}
}

func TestSizes(t *testing.T) {
	s := newRing(t, seal.GenerateKey()).Sealer(seal.PurposeStoreValue, issuer)
	fits := base64.RawURLEncoding.DecodedLen(seal.MaxString) - seal.Overhead
	sealed, err := s.Seal(make([]byte, fits), time.Time{})
	if err != nil || len(sealed) != seal.MaxString {
		t.Fatalf("%d characters, %v", len(sealed), err)
	}
	if _, err := s.Open(sealed, now()); err != nil {
		t.Errorf("the longest string does not open: %v", err)
	}
	if _, err := s.Seal(make([]byte, fits+1), time.Time{}); !errors.Is(err, seal.ErrTooLarge) {
		t.Errorf("a byte more: %v", err)
	}
	if _, err := s.Open(strings.Repeat("A", seal.MaxString+1), now()); !errors.Is(err, seal.ErrInvalid) {
		t.Errorf("a string that is too long: %v", err)
	}
	raw, err := s.SealBytes(make([]byte, seal.MaxBytes-seal.Overhead), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenBytes(raw, now()); err != nil {
		t.Errorf("the longest value does not open: %v", err)
	}
	if _, err := s.SealBytes(make([]byte, seal.MaxBytes-seal.Overhead+1), time.Time{}); !errors.Is(err, seal.ErrTooLarge) {
		t.Errorf("a byte more: %v", err)
	}
	if _, err := s.OpenBytes(make([]byte, seal.MaxBytes+1), now()); !errors.Is(err, seal.ErrInvalid) {
		t.Errorf("a value that is too long: %v", err)
	}
}

func TestKeyRotation(t *testing.T) {
	oldKey, newKey := seal.GenerateKey(), seal.GenerateKey()
	before := newRing(t, oldKey).Sealer(seal.PurposeClientID, issuer)
	during := newRing(t, newKey, oldKey).Sealer(seal.PurposeClientID, issuer)
	after := newRing(t, newKey).Sealer(seal.PurposeClientID, issuer)

	sealedBefore := mustSeal(t, before, "old", time.Time{})
	sealedDuring := mustSeal(t, during, "new", time.Time{})
	macBefore, macDuring := before.MAC([]byte("m")), during.MAC([]byte("m"))
	rows := []struct {
		name                 string
		s                    *seal.Sealer
		opensBefore, opensIn bool
	}{
		{"the old key alone", before, true, false},
		{"both keys", during, true, true},
		{"the old key dropped", after, false, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if _, err := row.s.Open(sealedBefore, now()); (err == nil) != row.opensBefore {
				t.Errorf("sealed before the rotation: %v", err)
			}
			if _, err := row.s.Open(sealedDuring, now()); (err == nil) != row.opensIn {
				t.Errorf("sealed during the rotation: %v", err)
			}
			if row.s.VerifyMAC(macBefore[:], []byte("m")) != row.opensBefore {
				t.Error("MAC from before the rotation")
			}
			if row.s.VerifyMAC(macDuring[:], []byte("m")) != row.opensIn {
				t.Error("MAC from during the rotation")
			}
		})
	}
}

func TestDeterministic(t *testing.T) {
	key := seal.GenerateKey()
	s := newRing(t, key).Sealer(seal.PurposeClientID, issuer)
	twin := newRing(t, key, seal.GenerateKey()).Sealer(seal.PurposeClientID, issuer)
	det := func(s *seal.Sealer, plaintext string, expiry time.Time, ad ...string) string {
		t.Helper()
		sealed, err := s.SealDeterministic([]byte(plaintext), expiry, ad...)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	first := det(s, "text", time.Time{}, "a")
	if got, err := s.Open(first, now(), "a"); err != nil || string(got) != "text" {
		t.Errorf("Open = %q, %v", got, err)
	}
	if det(s, "text", time.Time{}, "a") != first || det(twin, "text", time.Time{}, "a") != first {
		t.Error("the same input does not give the same string, on this node and on another")
	}
	nonce := func(sealed string) string {
		raw, err := base64.RawURLEncoding.DecodeString(sealed)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw[10:34])
	}
	// No nonce may serve twice with one key.
	others := map[string]string{
		"another plaintext":        det(s, "texu", time.Time{}, "a"),
		"another expiry":           det(s, "text", now(), "a"),
		"other data":               det(s, "text", time.Time{}, "b"),
		"data moved into the text": det(s, "atext", time.Time{}, ""),
		"a random one":             mustSeal(t, s, "text", time.Time{}, "a"),
		"a second random one":      mustSeal(t, s, "text", time.Time{}, "a"),
	}
	seen := map[string]string{nonce(first): "the first"}
	for name, sealed := range others {
		if other, twice := seen[nonce(sealed)]; twice {
			t.Errorf("%s has the nonce of %s", name, other)
		}
		seen[nonce(sealed)] = name
	}
}

func TestMAC(t *testing.T) {
	s := newRing(t, seal.GenerateKey()).Sealer(seal.PurposeRefreshMAC, issuer)
	mac := s.MAC([]byte("ab"), []byte("c"))
	if !s.VerifyMAC(mac[:], []byte("ab"), []byte("c")) || !s.VerifyMAC(mac[:seal.MinMAC], []byte("ab"), []byte("c")) {
		t.Error("the MAC, or its first 16 bytes, is refused")
	}
	flipped := mac
	flipped[15] ^= 1
	for name, ok := range map[string]bool{
		"parts shifted": s.VerifyMAC(mac[:], []byte("a"), []byte("bc")),
		"parts joined":  s.VerifyMAC(mac[:], []byte("abc")),
		"a part more":   s.VerifyMAC(mac[:], []byte("ab"), []byte("c"), nil),
		"15 bytes":      s.VerifyMAC(mac[:15], []byte("ab"), []byte("c")),
		"empty":         s.VerifyMAC(nil, []byte("ab"), []byte("c")),
		"a byte more":   s.VerifyMAC(append(mac[:], 0), []byte("ab"), []byte("c")),
		"a bit flipped": s.VerifyMAC(flipped[:16], []byte("ab"), []byte("c")),
	} {
		if ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestFormat pins the format: values outlive the program that made them.
func TestFormat(t *testing.T) {
	key, err := seal.ParseKey(base64.StdEncoding.EncodeToString(rawKey()))
	if err != nil {
		t.Fatal(err)
	}
	s := newRing(t, key).Sealer(seal.PurposeClientID, issuer)
	sealed, err := s.SealDeterministic([]byte("text"), time.Unix(2_000_000_000, 0), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if want := "AUo_AzsAdzWUACCz5P4N5IViTInP2GyFcZdvagnLRB-CwtEwW3cELylp3lNoEqQ63Wqvjc3Q"; sealed != want {
		t.Errorf("sealed = %s, want %s", sealed, want)
	}
	mac := s.MAC([]byte("x"))
	if got, want := base64.RawURLEncoding.EncodeToString(mac[:]), "-f6nYksqbe5Bb4jpWwKOy8KlNs9IunD_mIDdcK9C6kU"; got != want {
		t.Errorf("MAC = %s, want %s", got, want)
	}
}

func TestProperties(t *testing.T) {
	key := seal.GenerateKey()
	rapid.Check(t, func(t *rapid.T) {
		s := newRing(t, key).Sealer(seal.Purpose(rapid.String().Draw(t, "purpose")), rapid.String().Draw(t, "issuer"))
		plaintext := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "plaintext")
		ad := rapid.SliceOfN(rapid.String(), 0, 4).Draw(t, "ad")
		life := rapid.Int64Range(-1000, 1000).Draw(t, "life")
		expiry := now().Add(time.Duration(life) * time.Second)
		sealAs := s.Seal
		if rapid.Bool().Draw(t, "deterministic") {
			sealAs = s.SealDeterministic
		}
		sealed, err := sealAs(plaintext, expiry, ad...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Open(sealed, now(), ad...)
		switch {
		case life > 0 && (err != nil || !bytes.Equal(got, plaintext)):
			t.Fatalf("alive: %q, %v", got, err)
		case life <= 0 && !errors.Is(err, seal.ErrExpired):
			t.Fatalf("expired: %v", err)
		}
		otherAD := rapid.SliceOfN(rapid.String(), 0, 4).Draw(t, "other ad")
		if fmt.Sprintf("%q", otherAD) != fmt.Sprintf("%q", ad) {
			if _, err := s.Open(sealed, now(), otherAD...); !errors.Is(err, seal.ErrInvalid) || errors.Is(err, seal.ErrExpired) {
				t.Fatalf("opens with %q, sealed with %q: %v", otherAD, ad, err)
			}
		}
		i := rapid.IntRange(0, len(sealed)-1).Draw(t, "position")
		c := rapid.Byte().Draw(t, "character")
		if c != sealed[i] {
			if _, err := s.Open(sealed[:i]+string([]byte{c})+sealed[i+1:], now(), ad...); !errors.Is(err, seal.ErrInvalid) || errors.Is(err, seal.ErrExpired) {
				t.Fatalf("opens with character %d changed: %v", i, err)
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	key, err := seal.ParseKey(base64.StdEncoding.EncodeToString(rawKey()))
	if err != nil {
		f.Fatal(err)
	}
	s := newRing(f, key).Sealer(seal.PurposeClientID, issuer)
	handedOut := make(map[string]bool)
	for _, text := range []string{"", "x", "some text"} {
		sealed, err := s.SealDeterministic([]byte(text), time.Time{})
		if err != nil {
			f.Fatal(err)
		}
		handedOut[sealed] = true
		f.Add(sealed)
		f.Add(sealed[:len(sealed)-1])
		f.Add(sealed + "=")
	}
	f.Add("")
	f.Add(strings.Repeat("A", 100))
	f.Fuzz(func(t *testing.T, sealed string) {
		plaintext, err := s.Open(sealed, now())
		if (err == nil) != handedOut[sealed] {
			t.Errorf("Open(%q) = %q, %v", sealed, plaintext, err)
		}
		if err != nil && !errors.Is(err, seal.ErrInvalid) {
			t.Errorf("Open(%q): %v is no ErrInvalid", sealed, err)
		}
	})
}
