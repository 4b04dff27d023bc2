package idp

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxFailures a window and (account, address): then no more are let in.
	maxFailures   = 10
	failureWindow = 15 * time.Minute
	// freeFailures of an account, from all addresses, go without a delay; each
	// further one doubles it, from firstDelay to lastDelay. A window without a
	// failure forgets them.
	freeFailures = 10
	firstDelay   = 250 * time.Millisecond
	lastDelay    = 4 * time.Second
	// maxDelayed sign-ins are kept waiting at a time, for one account.
	maxDelayed = 32
	// Bounds of memory, in entries.
	maxBuckets  = 1 << 15
	maxUnknown  = 1 << 10
	maxFamiliar = 1 << 12
	// familiarTime is how long an address from which an account has signed in
	// waits for no delay that others caused.
	familiarTime = 30 * 24 * time.Hour
)

// pair is an account and an address, hashed: names that do not exist come from
// outside and may be long.
type pair [16]byte

// throttle slows down guessing. A (account, address) has a hard limit. An
// account has none, since that would let anybody lock out its owner: it has a
// delay, which an address from which its owner has signed in does not wait for.
type throttle struct {
	now func() time.Time

	mu       sync.Mutex
	buckets  map[pair]*bucket
	known    map[string]*pace // of the accounts that exist
	unknown  map[pair]*pace   // of names that do not, so that they behave alike
	familiar map[pair]time.Time
}

// bucket counts the failures of a window.
type bucket struct {
	failures int
	since    time.Time
}

// pace is what an account's failures lead to.
type pace struct {
	failures, delayed int
	last              time.Time
}

func newThrottle(names []string, now func() time.Time) *throttle {
	t := &throttle{
		now: now, buckets: make(map[pair]*bucket), known: make(map[string]*pace, len(names)),
		unknown: make(map[pair]*pace), familiar: make(map[pair]time.Time),
	}
	for _, name := range names {
		t.known[name] = &pace{}
	}
	return t
}

// key hashes an account and an address. Of an IPv6 address, the /56 counts: a
// customer has that many.
func (t *throttle) key(name, addr string) pair {
	if ip, err := netip.ParseAddr(addr); err == nil {
		ip = ip.Unmap().WithZone("")
		if ip.Is6() {
			if prefix, err := ip.Prefix(56); err == nil {
				ip = prefix.Addr()
			}
		}
		addr = ip.String()
	}
	sum := sha256.Sum256([]byte(name + "\x00" + addr))
	return pair(sum[:16])
}

// admit refuses a (account, address) that is over its limit.
func (t *throttle) admit(key pair) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.check(key)
}

func (t *throttle) check(key pair) error {
	b := t.buckets[key]
	if b == nil {
		return nil
	}
	left := b.since.Add(failureWindow).Sub(t.now())
	if left <= 0 {
		delete(t.buckets, key)
		return nil
	}
	if b.failures >= maxFailures {
		return &ThrottledError{RetryAfter: left}
	}
	return nil
}

// begin counts the attempt as a failure, which succeed takes back: attempts at
// the same time must not all see a count below the limit.
func (t *throttle) begin(name string, key pair) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(key); err != nil {
		return err
	}
	b := t.buckets[key]
	if b == nil {
		makeRoom(t.buckets, maxBuckets)
		b = &bucket{since: t.now()}
		t.buckets[key] = b
	}
	b.failures++
	p := t.pace(name)
	p.failures++
	p.last = t.now()
	return nil
}

func (t *throttle) succeed(name string, key pair) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.buckets, key)
	// The failures of others stay: they may go on guessing.
	if p := t.pace(name); p.failures > 0 {
		p.failures--
	}
	makeRoom(t.familiar, maxFamiliar)
	t.familiar[key] = t.now()
}

// pace returns that of an account, whether it exists or not, with t.mu held.
func (t *throttle) pace(name string) *pace {
	p := t.known[name]
	if p == nil {
		sum := sha256.Sum256([]byte(name))
		key := pair(sum[:16])
		if p = t.unknown[key]; p == nil {
			makeRoom(t.unknown, maxUnknown)
			p = &pace{}
			t.unknown[key] = p
		}
	}
	if p.failures > 0 && t.now().Sub(p.last) >= failureWindow {
		p.failures = 0
	}
	return p
}

// delay waits as long as the account's failures ask for.
func (t *throttle) delay(ctx context.Context, name string, key pair) error {
	t.mu.Lock()
	p := t.pace(name)
	wait := delayAfter(p.failures)
	if last, ok := t.familiar[key]; ok && t.now().Sub(last) < familiarTime {
		wait = 0
	}
	if wait == 0 {
		t.mu.Unlock()
		return nil
	}
	if p.delayed >= maxDelayed {
		t.mu.Unlock()
		return ErrBusy
	}
	p.delayed++
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		p.delayed--
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func delayAfter(failures int) time.Duration {
	if failures < freeFailures {
		return 0
	}
	return min(firstDelay<<min(failures-freeFailures, 10), lastDelay)
}

// makeRoom drops any entry of a full map. Which one is left to the order of
// iteration, which nobody outside can steer.
func makeRoom[K comparable, V any](m map[K]V, limit int) {
	if len(m) < limit {
		return
	}
	for k := range m {
		delete(m, k)
		return
	}
}
