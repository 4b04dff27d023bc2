package idp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Account is a local account.
type Account struct {
	// Name is the user's name, exactly; it is the subject.
	Name string
	// Hash is a bcrypt or argon2id hash as caddy hash-password prints it.
	Hash string
	// Email counts as verified: the operator wrote it.
	Email  string
	Groups []string
	// Disabled accounts sign in no more and are not found by Lookup.
	Disabled bool
}

// AccountsConfig configures local accounts. Issuer and one account are
// required.
type AccountsConfig struct {
	// Issuer is the namespace of the subjects, this server's own issuer.
	Issuer   string
	Accounts []Account
	// MaxConcurrent is how many hashes are checked at once, the number of CPUs
	// if 0.
	MaxConcurrent int
	// Logger gets what the operator should know; nil discards it.
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Accounts are local accounts. They are safe for concurrent use and need no
// Close.
type Accounts struct {
	issuer   string
	accounts map[string]*account
	costly   *passwordHash // for names that do not exist
	checks   chan struct{} // holds a token for each check under way
	waiting  chan struct{} // holds a token for each that wants to
	throttle *throttle
}

type account struct {
	Account
	hash *passwordHash
}

const (
	maxAccountName = 128 // bytes
	// queuePerCheck is how many wait for each check under way, queueTime how
	// long at most.
	queuePerCheck = 8
	queueTime     = 3 * time.Second
)

// NewAccounts checks the accounts and their hashes. It does no I/O.
func NewAccounts(c AccountsConfig) (*Accounts, error) {
	if c.Issuer == "" {
		return nil, errors.New("accounts need an issuer")
	}
	if len(c.Accounts) == 0 {
		return nil, errors.New("write at least one account: a name and a hash made with caddy hash-password")
	}
	if c.MaxConcurrent <= 0 {
		c.MaxConcurrent = runtime.NumCPU()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	a := &Accounts{
		issuer:   c.Issuer,
		accounts: make(map[string]*account, len(c.Accounts)),
		checks:   make(chan struct{}, c.MaxConcurrent),
		waiting:  make(chan struct{}, c.MaxConcurrent*(1+queuePerCheck)),
	}
	folded := make(map[string]string, len(c.Accounts))
	var names []string
	cheapest := int64(0)
	for _, one := range c.Accounts {
		hash, err := checkAccount(&one)
		if err != nil {
			return nil, err
		}
		if other, twice := folded[strings.ToLower(one.Name)]; twice {
			return nil, fmt.Errorf("the accounts %q and %q differ in case at most: drop or rename one", other, one.Name)
		}
		folded[strings.ToLower(one.Name)] = one.Name
		a.accounts[one.Name] = &account{Account: one, hash: hash}
		names = append(names, one.Name)
		if a.costly == nil || hash.work() > a.costly.work() {
			a.costly = hash
		}
		if cheapest == 0 || hash.work() < cheapest {
			cheapest = hash.work()
		}
	}
	if cheapest*3/2 < a.costly.work() {
		c.Logger.Warn("the accounts' hashes differ in cost, so the time of a sign-in tells which names exist; make all hashes with the same parameters")
	}
	a.throttle = newThrottle(names, c.Now)
	return a, nil
}

func checkAccount(a *Account) (*passwordHash, error) {
	switch {
	case a.Name == "" || len(a.Name) > maxAccountName || !utf8.ValidString(a.Name):
		return nil, fmt.Errorf("account %.40q: a name has 1 to %d bytes", a.Name, maxAccountName)
	case strings.ContainsFunc(a.Name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return nil, fmt.Errorf("account %q: a name has no spaces", a.Name)
	case a.Email != "" && cleanEmail(a.Email) == "":
		return nil, fmt.Errorf("account %q: %q is no mail address", a.Name, a.Email)
	}
	if _, dropped := cleanGroups(a.Groups); dropped > 0 {
		return nil, fmt.Errorf("account %q: a group is empty, longer than %d bytes or has control characters, or there are more than %d", a.Name, maxGroup, maxGroups)
	}
	hash, err := parseHash(a.Hash)
	if err != nil {
		return nil, fmt.Errorf("account %q: %w", a.Name, err)
	}
	return hash, nil
}

// Issuer is the namespace of the subjects.
func (a *Accounts) Issuer() string { return a.issuer }

// Verify checks a user's password. addr is the user's IP address, for the
// throttle. Errors are ErrWrongPassword, ErrThrottled, ErrBusy, and that of ctx
// if it ends first. It takes as long for a name that does not exist as for one
// that does. After many failures for an account it takes longer, but the right
// password is always good in the end.
func (a *Accounts) Verify(ctx context.Context, name, password, addr string) (*Identity, error) {
	if len(name) > maxAccountName || len(password) > maxPassword || name == "" || password == "" {
		// Nobody's, and it depends on the input alone: no time has to be wasted.
		return nil, ErrWrongPassword
	}
	key := a.throttle.key(name, addr)
	if err := a.throttle.admit(key); err != nil {
		return nil, err
	}
	if err := a.throttle.delay(ctx, name, key); err != nil {
		return nil, err
	}
	release, err := a.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	// Again, for others were checked while this one waited; from here on the
	// attempt counts until it proves to be good.
	if err := a.throttle.begin(name, key); err != nil {
		return nil, err
	}
	one, found := a.accounts[name]
	hash := a.costly
	if found {
		hash = one.hash
	}
	if !hash.matches(password) || !found || one.Disabled {
		return nil, ErrWrongPassword
	}
	a.throttle.succeed(name, key)
	return a.identity(one), nil
}

// turn waits for one of the few checks at a time. A hash is meant to be
// expensive, so without it a flood of sign-ins would take all CPUs and memory.
func (a *Accounts) turn(ctx context.Context) (release func(), err error) {
	select {
	case a.waiting <- struct{}{}:
	default:
		return nil, ErrBusy
	}
	timer := time.NewTimer(queueTime)
	defer timer.Stop()
	select {
	case a.checks <- struct{}{}:
		return func() { <-a.checks; <-a.waiting }, nil
	case <-timer.C:
		err = ErrBusy
	case <-ctx.Done():
		err = ctx.Err()
	}
	<-a.waiting
	return nil, err
}

// Lookup returns the identity of an account that exists and is not disabled.
func (a *Accounts) Lookup(name string) (*Identity, bool) {
	one, ok := a.accounts[name]
	if !ok || one.Disabled {
		return nil, false
	}
	return a.identity(one), true
}

func (a *Accounts) identity(one *account) *Identity {
	groups, _ := cleanGroups(one.Groups)
	return &Identity{
		Issuer: a.issuer, Subject: one.Name, Name: one.Name,
		Email: one.Email, EmailVerified: one.Email != "", Groups: groups,
		Claims: map[string]any{"preferred_username": one.Name},
	}
}
