package idp_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/caddy-mcp/mcpauth/idp"
)

const own = "https://mcp.example.com"

func bcryptHash(password string) string {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 10)
	if err != nil {
		panic(err)
	}
	return string(hash)
}

func argonHash(password string) string {
	salt := []byte("0123456789abcdef")
	key := argon2.IDKey([]byte(password), salt, 5, 7<<10, 1, 32)
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=5,p=1$%s$%s", 7<<10,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

var (
	aliceHash = sync.OnceValue(func() string { return bcryptHash("alice's") })
	bobHash   = sync.OnceValue(func() string { return argonHash("bob's") })
	quickHash = sync.OnceValue(func() string { return argonHash("alice's") })
	longHash  = sync.OnceValue(func() string { return argonHash(strings.Repeat("x", 128)) })
	edgeHash  = sync.OnceValue(func() string { return bcryptHash(strings.Repeat("y", 72)) })
)

func newAccounts(t *testing.T, change func(c *idp.AccountsConfig)) *idp.Accounts {
	t.Helper()
	c := idp.AccountsConfig{Issuer: own, MaxConcurrent: 2, Accounts: []idp.Account{
		{Name: "alice", Hash: aliceHash(), Email: "alice@example.com", Groups: []string{"eng"}},
		{Name: "bob", Hash: bobHash()},
		{Name: "carol", Hash: aliceHash(), Disabled: true},
		{Name: "dave", Hash: base64.StdEncoding.EncodeToString([]byte(aliceHash()))},
		{Name: "long", Hash: longHash()},
		{Name: "edge", Hash: edgeHash()},
	}}
	if change != nil {
		change(&c)
	}
	a, err := idp.NewAccounts(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// quick is newAccounts without bcrypt, which the race detector makes slow.
func quick(t *testing.T) *idp.Accounts {
	return newAccounts(t, func(c *idp.AccountsConfig) {
		c.Accounts = []idp.Account{{Name: "alice", Hash: quickHash()}, {Name: "bob", Hash: bobHash()}}
	})
}

func TestAccountsVerify(t *testing.T) {
	a := newAccounts(t, nil)
	for _, test := range []struct {
		name, user, password string
		want                 error
	}{
		{"bcrypt", "alice", "alice's", nil},
		{"argon2id", "bob", "bob's", nil},
		{"bcrypt in base64", "dave", "alice's", nil},
		{"128 bytes for argon2id", "long", strings.Repeat("x", 128), nil},
		{"129 bytes", "long", strings.Repeat("x", 129), idp.ErrWrongPassword},
		{"72 bytes for bcrypt", "edge", strings.Repeat("y", 72), nil},
		{"73 bytes for bcrypt", "edge", strings.Repeat("y", 73), idp.ErrWrongPassword},
		{"wrong", "alice", "bob's", idp.ErrWrongPassword},
		{"wrong for argon2id", "bob", "alice's", idp.ErrWrongPassword},
		{"disabled", "carol", "alice's", idp.ErrWrongPassword},
		{"unknown", "mallory", "alice's", idp.ErrWrongPassword},
		{"another case", "Alice", "alice's", idp.ErrWrongPassword},
		{"no name", "", "alice's", idp.ErrWrongPassword},
		{"no password", "alice", "", idp.ErrWrongPassword},
		{"huge name", strings.Repeat("a", 1<<20), "alice's", idp.ErrWrongPassword},
	} {
		t.Run(test.name, func(t *testing.T) {
			id, err := a.Verify(t.Context(), test.user, test.password, "192.0.2.1")
			if !errors.Is(err, test.want) || (id == nil) != (err != nil) {
				t.Fatalf("%+v, %v", id, err)
			}
			if id != nil && (id.Subject != test.user || id.Issuer != own) {
				t.Errorf("%+v", id)
			}
		})
	}
}

func TestAccountsLookup(t *testing.T) {
	a := newAccounts(t, nil)
	id, ok := a.Lookup("alice")
	if diff := cmp.Diff(&idp.Identity{
		Issuer: own, Subject: "alice", Name: "alice", Email: "alice@example.com", EmailVerified: true, Groups: []string{"eng"},
		Claims: map[string]any{"preferred_username": "alice"},
	}, id); diff != "" || !ok {
		t.Error(diff)
	}
	for _, name := range []string{"carol", "mallory", "Alice", ""} {
		if id, ok := a.Lookup(name); ok || id != nil {
			t.Errorf("%s: %+v", name, id)
		}
	}
	if id, _ := a.Lookup("bob"); id.EmailVerified {
		t.Error("no address is verified")
	}
}

func TestNewAccountsChecks(t *testing.T) {
	argon := func(params string) string {
		return "$argon2id$v=19$" + params + "$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
	}
	cost := func(n string) string { return "$2a$" + n + "$" + aliceHash()[7:] }
	for _, test := range []struct {
		name    string
		account idp.Account
		want    string // "" is accepted
	}{
		{"caddy's argon2id", idp.Account{Name: "a", Hash: argon("m=47104,t=1,p=1")}, ""},
		{"caddy's bcrypt", idp.Account{Name: "a", Hash: cost("14")}, ""},
		{"2y", idp.Account{Name: "a", Hash: "$2y$" + aliceHash()[4:]}, ""},
		{"cheap bcrypt", idp.Account{Name: "a", Hash: cost("09")}, "cost 9"},
		{"dear bcrypt", idp.Account{Name: "a", Hash: cost("17")}, "cost 17"},
		{"cut bcrypt", idp.Account{Name: "a", Hash: aliceHash()[:50]}, "malformed"},
		{"long bcrypt", idp.Account{Name: "a", Hash: aliceHash() + "x"}, "malformed"},
		{"bcrypt with other characters", idp.Account{Name: "a", Hash: aliceHash()[:59] + "!"}, "malformed"},
		{"2x", idp.Account{Name: "a", Hash: "$2x$" + aliceHash()[4:]}, "not supported"},
		{"argon2i", idp.Account{Name: "a", Hash: "$argon2i$v=19$m=47104,t=1,p=1$c2FsdHNhbHQ$c2FsdHNhbHQ"}, "not supported"},
		{"another version", idp.Account{Name: "a", Hash: strings.Replace(argon("m=47104,t=1,p=1"), "19", "16", 1)}, "malformed"},
		{"another order", idp.Account{Name: "a", Hash: argon("t=1,m=47104,p=1")}, "malformed"},
		{"sign in a number", idp.Account{Name: "a", Hash: argon("m=+47104,t=1,p=1")}, "malformed"},
		{"cheap argon2id", idp.Account{Name: "a", Hash: argon("m=8192,t=1,p=1")}, "memory times time"},
		{"little memory", idp.Account{Name: "a", Hash: argon("m=64,t=16,p=1")}, "memory of 64"},
		{"4 GiB", idp.Account{Name: "a", Hash: argon("m=4194304,t=1,p=1")}, "memory of 4194304"},
		{"many passes", idp.Account{Name: "a", Hash: argon("m=47104,t=17,p=1")}, "time of 17"},
		{"much of both", idp.Account{Name: "a", Hash: argon("m=262144,t=5,p=1")}, "memory times time"},
		{"no threads", idp.Account{Name: "a", Hash: argon("m=47104,t=1,p=0")}, "parallelism"},
		{"256 threads", idp.Account{Name: "a", Hash: argon("m=47104,t=1,p=256")}, "parallelism"},
		{"short output", idp.Account{Name: "a", Hash: "$argon2id$v=19$m=47104,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEy"}, "output"},
		{"short salt", idp.Account{Name: "a", Hash: "$argon2id$v=19$m=47104,t=1,p=1$MDEy$MDEyMzQ1Njc4OWFiY2RlZg"}, "salt"},
		{"plain text", idp.Account{Name: "a", Hash: "hunter2"}, "caddy hash-password"},
		{"nothing", idp.Account{Name: "a"}, "caddy hash-password"},
		{"no name", idp.Account{Hash: aliceHash()}, "name"},
		{"name with a space", idp.Account{Name: "a b", Hash: aliceHash()}, "spaces"},
		{"name twice", idp.Account{Name: "Alice", Hash: aliceHash()}, "differ in case"},
		{"mail without domain", idp.Account{Name: "a", Hash: aliceHash(), Email: "a@"}, "mail"},
		{"empty group", idp.Account{Name: "a", Hash: aliceHash(), Groups: []string{""}}, "group"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := idp.NewAccounts(idp.AccountsConfig{Issuer: own, Accounts: []idp.Account{{Name: "alice", Hash: aliceHash()}, test.account}})
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if err != nil && test.account.Hash != "" && strings.Contains(err.Error(), test.account.Hash) {
				t.Errorf("error %v repeats the hash", err)
			}
		})
	}
	if _, err := idp.NewAccounts(idp.AccountsConfig{Issuer: own}); err == nil {
		t.Error("no account is accepted")
	}
}

// One address has ten failures in 15 minutes for one account, known or not; its
// owner elsewhere is not locked out.
func TestAccountsHardThrottle(t *testing.T) {
	for _, name := range []string{"alice", "mallory"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := quick(t)
				for i := range 10 {
					if _, err := a.Verify(t.Context(), name, "wrong", "192.0.2.1"); !errors.Is(err, idp.ErrWrongPassword) {
						t.Fatalf("failure %d: %v", i+1, err)
					}
				}
				_, err := a.Verify(t.Context(), name, "alice's", "192.0.2.1")
				var throttled *idp.ThrottledError
				if !errors.As(err, &throttled) || !errors.Is(err, idp.ErrThrottled) || throttled.RetryAfter <= 0 || throttled.RetryAfter > 15*time.Minute {
					t.Fatalf("error %v", err)
				}
				if _, err := a.Verify(t.Context(), name, "alice's", "::ffff:192.0.2.1"); !errors.Is(err, idp.ErrThrottled) {
					t.Errorf("the same address in IPv6: %v", err)
				}
				if name == "alice" {
					if _, err := a.Verify(t.Context(), name, "alice's", "192.0.2.2"); err != nil {
						t.Errorf("her other address: %v", err)
					}
				}
				if _, err := a.Verify(t.Context(), "bob", "bob's", "192.0.2.1"); err != nil {
					t.Errorf("another account from there: %v", err)
				}
				time.Sleep(throttled.RetryAfter)
				if _, err := a.Verify(t.Context(), name, "wrong", "192.0.2.1"); !errors.Is(err, idp.ErrWrongPassword) {
					t.Errorf("after the time it named: %v", err)
				}
			})
		})
	}
}

func TestAccountsThrottleCountsAnIPv6NetworkAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := quick(t)
		for i := range 10 {
			_, _ = a.Verify(t.Context(), "alice", "wrong", fmt.Sprintf("2001:db8:0:%d::1", i))
		}
		if _, err := a.Verify(t.Context(), "alice", "alice's", "2001:db8:0:ff::9"); !errors.Is(err, idp.ErrThrottled) {
			t.Errorf("same /56: %v", err)
		}
		if _, err := a.Verify(t.Context(), "alice", "alice's", "2001:db8:0:100::9"); err != nil {
			t.Errorf("next /56: %v", err)
		}
	})
}

// Guessing from many addresses slows an account down, for known and unknown
// names alike, but never locks it, and not at all where its owner was before.
func TestAccountsDelay(t *testing.T) {
	for _, name := range []string{"alice", "mallory"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := quick(t)
				took := func(password, addr string) time.Duration {
					began := time.Now()
					_, err := a.Verify(t.Context(), name, password, addr)
					if err != nil && !errors.Is(err, idp.ErrWrongPassword) {
						t.Fatal(err)
					}
					return time.Since(began)
				}
				took("alice's", "192.0.2.1")
				var delays []time.Duration
				for i := range 18 {
					delays = append(delays, took("wrong", fmt.Sprintf("198.51.100.%d", i)))
				}
				first := 10
				if name == "mallory" {
					first-- // the right password was a failure here
				}
				for i, d := range delays {
					want := time.Duration(0)
					if i >= first {
						want = min(250*time.Millisecond<<(i-first), 4*time.Second)
					}
					if d != want {
						t.Errorf("failure %d took %s, want %s", i+1, d, want)
					}
				}
				if d := took("alice's", "203.0.113.1"); d != 4*time.Second {
					t.Errorf("a new address waited %s", d)
				}
				if d := took("alice's", "192.0.2.1"); name == "alice" && d != 0 {
					t.Errorf("the owner's address waited %s", d)
				}
				time.Sleep(15 * time.Minute)
				if d := took("wrong", "203.0.113.2"); d != 0 {
					t.Errorf("after a quiet time: %s", d)
				}
			})
		})
	}
}

func TestAccountsDelayEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := quick(t)
		for i := range 12 {
			_, _ = a.Verify(t.Context(), "alice", "wrong", fmt.Sprintf("198.51.100.%d", i))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := a.Verify(ctx, "alice", "alice's", "192.0.2.1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

// Of a flood, a few are checked at a time, a few wait, and the rest is told so
// at once. The limit per address holds for attempts at the same time, too.
func TestAccountsAtOnce(t *testing.T) {
	a := newAccounts(t, func(c *idp.AccountsConfig) { c.MaxConcurrent = 1 })
	var mu sync.Mutex
	count := map[string]int{}
	var wait sync.WaitGroup
	for range 64 {
		wait.Go(func() {
			_, err := a.Verify(t.Context(), "bob", "wrong", "192.0.2.1")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, idp.ErrWrongPassword):
				count["checked"]++
			case errors.Is(err, idp.ErrBusy):
				count["busy"]++
			case errors.Is(err, idp.ErrThrottled):
				count["throttled"]++
			default:
				count[fmt.Sprint(err)]++
			}
		})
	}
	wait.Wait()
	if count["checked"] > 10 || count["checked"] == 0 || count["busy"] == 0 || count["checked"]+count["busy"]+count["throttled"] != 64 {
		t.Errorf("%v", count)
	}
}

// A name that does not exist must not be told by the time. What is compared is
// far apart: without the check it takes microseconds.
func TestAccountsUnknownNamesTakeTime(t *testing.T) {
	a := quick(t)
	took := func(name string) time.Duration {
		best := time.Hour
		for i := range 3 {
			began := time.Now()
			_, _ = a.Verify(t.Context(), name, "wrong", fmt.Sprintf("192.0.2.%d", i))
			best = min(best, time.Since(began))
		}
		return best
	}
	if known, unknown := took("alice"), took("mallory"); unknown < known/3 || known < unknown/3 {
		t.Errorf("known %s, unknown %s", known, unknown)
	}
}

func TestAccountsWarnOfUnequalHashes(t *testing.T) {
	w := newWorld(t)
	newAccounts(t, func(c *idp.AccountsConfig) {
		c.Logger = w.logger
		c.Accounts = []idp.Account{{Name: "a", Hash: aliceHash()}, {Name: "b", Hash: "$2a$14$" + aliceHash()[7:]}}
	})
	if !strings.Contains(w.logged(), "differ in cost") {
		t.Errorf("log %q", w.logged())
	}
}

func FuzzHash(f *testing.F) {
	f.Add(aliceHash())
	f.Add(bobHash())
	f.Add(base64.StdEncoding.EncodeToString([]byte(aliceHash())))
	f.Add("$argon2id$v=19$m=47104,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, hash string) {
		a, err := idp.NewAccounts(idp.AccountsConfig{Issuer: own, Accounts: []idp.Account{{Name: "a", Hash: hash}}})
		if (a == nil) == (err == nil) {
			t.Errorf("%v, %v", a, err)
		}
	})
}
