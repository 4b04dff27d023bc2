package proxyprovider

import (
	"bytes"
	"crypto/rand"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/seal"
)

var allUnexported = cmp.AllowUnexported(transaction{}, authRequest{}, browserForm{}, memory{})

func fullTransaction(t testing.TB) *transaction {
	t.Helper()
	tx := &transaction{
		purpose: forClient, approval: remembered, asUser: userHash{1, 2, 3}, asksAlways: true, challenged: true,
		request: authRequest{
			clientID: "client", metadataHash: digest{9}, redirectURI: "https://client.example/cb", redirectOmitted: true, state: "st&te",
			challenge: strings.Repeat("c", 43), scopes: []string{"a", "b"}, resource: "https://mcp.example.com/mcp",
			prompt: "login", loginHint: "alice@example.com", locales: "de en", nonce: "n-1", maxAge: "60", acrValues: "gold",
		},
	}
	if err := tx.start(rand.Reader, time.Date(2026, 7, 28, 12, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	return tx
}

func TestTransactionCodec(t *testing.T) {
	for name, tx := range map[string]*transaction{"full": fullTransaction(t), "empty": {purpose: forConnections}} {
		got, err := decodeTransaction(tx.encode())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tx, got, allUnexported); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		f := &browserForm{browser: browserID{7}, account: "alice", tx: tx}
		form, err := decodeBrowserForm(f.encode())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(f, form, allUnexported); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	full := fullTransaction(t).encode()
	for i := range full {
		if _, err := decodeTransaction(full[:i]); err == nil {
			t.Errorf("%d bytes of %d are a transaction", i, len(full))
		}
	}
	if _, err := decodeTransaction(append(full, 0)); err == nil {
		t.Error("a byte more is a transaction")
	}
}

// TestTransactionFits: the largest request that is accepted fits into two
// cookies, whatever comes to it later.
func TestTransactionFits(t *testing.T) {
	ring, err := seal.NewRing(seal.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	tx := &transaction{purpose: forClient}
	tx.request.state = strings.Repeat("s", maxTransaction-len(tx.encode())-1)
	if n := len(tx.encode()); n != maxTransaction {
		t.Fatalf("%d bytes", n)
	}
	tx.request.loginHint = strings.Repeat("h", maxLoginHint)
	if err := tx.start(rand.Reader, time.Now()); err != nil {
		t.Fatal(err)
	}
	sealed, err := ring.Sealer(seal.PurposeTransaction, "x").Seal(tx.encode(), time.Now())
	if err != nil || len(sealed) > 2*cookiePart {
		t.Errorf("%d characters of %d, %v", len(sealed), 2*cookiePart, err)
	}
}

// TestMemoryFits: any list of memories is cut to one cookie.
func TestMemoryFits(t *testing.T) {
	if n := (maxMemory + seal.Overhead) * 4 / 3; n > cookiePart {
		t.Errorf("%d characters", n)
	}
}

func FuzzTransactionCookie(f *testing.F) {
	f.Add(fullTransaction(f).encode())
	f.Add((&transaction{purpose: forConnections}).encode())
	f.Add([]byte{transactionFormat})
	f.Fuzz(func(t *testing.T, data []byte) {
		tx, err := decodeTransaction(data)
		if err != nil {
			return
		}
		if tx.purpose != forClient && tx.purpose != forConnections || tx.approval > skipped {
			t.Fatalf("purpose %d, approval %d", tx.purpose, tx.approval)
		}
		if !bytes.Equal(tx.encode(), data) {
			t.Fatalf("two spellings of one transaction:\n%x\n%x", data, tx.encode())
		}
	})
}

func FuzzRememberedConsent(f *testing.F) {
	f.Add(encodeMemories(nil))
	f.Add(encodeMemories([]memory{{about: [16]byte{1}, expires: 1000, scopes: []scopeMAC{{1}, {2}}}, {expires: 2000}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		memories, err := decodeMemories(data)
		if err != nil {
			return
		}
		if len(memories) > maxMemories {
			t.Fatalf("%d memories", len(memories))
		}
		if !bytes.Equal(encodeMemories(memories), data) {
			t.Fatalf("two spellings of one memory:\n%x\n%x", data, encodeMemories(memories))
		}
	})
}

func FuzzBrowserForm(f *testing.F) {
	f.Add((&browserForm{account: "alice", tx: fullTransaction(f)}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		form, err := decodeBrowserForm(data)
		if err == nil && !bytes.Equal(form.encode(), data) {
			t.Fatalf("two spellings of one form:\n%x\n%x", data, form.encode())
		}
	})
}

// TestMemoryCovers against its meaning: every scope that is asked for is among
// those allowed.
func TestMemoryCovers(t *testing.T) {
	ring, err := seal.NewRing(seal.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	seals := &brokerSeals{memory: ring.Sealer(seal.PurposeConsentMemory, "x")}
	random := mathrand.New(mathrand.NewPCG(1, 2)) //nolint:gosec // a test
	pick := func() (scopes []string) {
		for _, s := range []string{"a", "b", "c", "d"} {
			if random.IntN(2) == 0 {
				scopes = append(scopes, s)
			}
		}
		return scopes
	}
	for range 500 {
		have, want := pick(), pick()
		m := seals.newMemory(&authRequest{clientID: "c", scopes: have})
		n := seals.newMemory(&authRequest{clientID: "c", scopes: want})
		all := !slices.ContainsFunc(want, func(s string) bool { return !slices.Contains(have, s) })
		if m.covers(&n) != all {
			t.Fatalf("%v covers %v: %v", have, want, m.covers(&n))
		}
		other := seals.newMemory(&authRequest{clientID: "d", scopes: want})
		if m.covers(&other) {
			t.Fatal("of another client")
		}
	}
}

func TestStampOfMemoryIsBounded(t *testing.T) {
	if _, err := decodeMemories(append(append([]byte{memoryFormat}, make([]byte, 24)...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0)); err == nil {
		t.Errorf("an expiry of %d", uint64(math.MaxInt64))
	}
}
