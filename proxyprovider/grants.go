package proxyprovider

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
	"github.com/caddy-mcp/mcpauth/store"
)

// GrantsConfig configures NewGrants. Issuer, Store, Keys and one of Upstream and
// Refresh are required.
type GrantsConfig struct {
	// Issuer is our issuer, byte for byte.
	Issuer string
	// Store returns the store of this issuer, sealed (store.Sealed). It is called
	// on first use until it succeeds once. Grants does not close it.
	Store func() (store.Store, error)
	// Keys returns the key ring, for the MAC of refresh tokens. It is called on
	// first use until it succeeds once.
	Keys func() (*seal.Ring, error)

	// Upstream is where people signed in; nil for local accounts.
	Upstream idp.Upstream
	// Refresh returns the local account with this subject as it is now, an
	// idp.ErrDead if it is gone or disabled. It is asked at every refresh and for
	// every access token, so it must be quick. Only without Upstream.
	Refresh func(ctx context.Context, subject string) (*idp.Identity, error)
	// Allow says who may have access, and if not the reason, for the log. It is
	// asked at every refresh. nil allows everybody who could sign in.
	Allow func(*idp.Identity) (bool, string)

	// AccessTTL is the life of access tokens: 15 min if 0, 1 min to 24 h.
	AccessTTL time.Duration
	// RefreshTTL is how long a grant lasts at most: 30 days if 0. A grant whose
	// user cannot be asked for again upstream, for want of a refresh token and of
	// an access token good for userinfo, lasts 24 h at most.
	RefreshTTL time.Duration
	// RefreshIdle is how long a grant lasts without a refresh: 14 days if 0.
	RefreshIdle time.Duration
	// Grace is how long the previous refresh token yields the same answer again:
	// 30 s if 0, none below 0, 10 min at most.
	Grace time.Duration
	// RotateKeys is how long a signing key is used: 90 days if 0, 1 h at least.
	RotateKeys time.Duration
	// UpstreamCheck is how old the upstream's word on a user may be at a refresh:
	// 1 h if 0, asked each time below 0.
	UpstreamCheck time.Duration

	// SigningAlg is ES256 (default), EdDSA or RS256.
	SigningAlg string
	// Claims are put into access tokens besides those of RFC 9068: email,
	// email_verified, name, groups, idp (the issuer of sub) and the names of
	// idp.Identity.Claims. Default none: tokens pass through many hands.
	Claims []string
	// MaxPerUserAndClient is how many grants a user may have for one client: 50 if
	// 0. The longest idle one gives way to a new one.
	MaxPerUserAndClient int

	// Logger gets what only the operator may read; slog.Default() if nil.
	Logger *slog.Logger
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Rand is where codes, refresh tokens and names of tokens come from;
	// crypto/rand if nil. Keys and signatures always use crypto/rand.
	Rand io.Reader
}

// Grants keeps the broker's grants: what a user allowed a client, the one-time
// code, the refresh tokens, the access tokens and their keys. It has those
// methods of authserver.Provider that need no browser. One record holds all of
// a grant, so that any number of nodes can share a store.
//
// sub of an access token is the upstream's subject verbatim: there is one
// upstream to an issuer. Where that one has many namespaces of its own, as
// Entra's tenants are, the claim idp tells them apart.
type Grants struct {
	cfg      GrantsConfig
	backend  *firstSuccess[*grantBackend]
	keys     *signingKeys
	statuses *statusCache
	flights  flightGroup
	used     usedGrants
	// upstreamTokens are those that were handed out lately.
	upstreamTokens *boundedMap[grantID, upstreamToken]
}

// grantBackend is what is opened on first use.
type grantBackend struct {
	store store.Store
	mac   *seal.Sealer
}

// The prefixes of keys in the store.
const (
	grantPrefix   = "grant/"
	subjectPrefix = "subject/"
	leasePrefix   = "lease/"
)

// ErrGrantExists is returned by Create if the id is taken, also by a grant that
// was revoked: its transaction was used before.
var ErrGrantExists = errors.New("a grant with this id exists or existed")

// ErrGrantNotFound is returned by RevokeGrant if the subject has no such grant.
var ErrGrantNotFound = errors.New("no such grant")

// errNewerGrant is in the way of a node that was not updated.
var errNewerGrant = errors.New("a grant was written by a newer version of this program: update this node")

// NewGrants checks the configuration. It does no I/O.
func NewGrants(cfg GrantsConfig) (*Grants, error) {
	switch {
	case cfg.Issuer == "":
		return nil, errors.New("grants need the issuer that they belong to")
	case cfg.Store == nil:
		return nil, errors.New("grants need a store")
	case cfg.Keys == nil:
		return nil, errors.New("grants need encryption keys")
	case (cfg.Upstream == nil) == (cfg.Refresh == nil):
		return nil, errors.New("grants need an upstream or local accounts, and not both")
	}
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	g := &Grants{cfg: cfg, statuses: newStatusCache(maxStatuses)}
	g.keys = &signingKeys{g: g, alg: cfg.SigningAlg}
	g.upstreamTokens = newBoundedMap[grantID, upstreamToken](maxUpstreamTokens)
	g.backend = newFirstSuccess(g.openBackend)
	return g, nil
}

func (cfg *GrantsConfig) setDefaults() error {
	for _, d := range []struct {
		name                string
		value               *time.Duration
		preset, least, most time.Duration
		zeroBelow           bool
	}{
		{name: "access_ttl", value: &cfg.AccessTTL, preset: 15 * time.Minute, least: time.Minute, most: 24 * time.Hour},
		{name: "refresh_ttl", value: &cfg.RefreshTTL, preset: 30 * 24 * time.Hour, least: time.Minute, most: 10 * 365 * 24 * time.Hour},
		{name: "refresh_idle", value: &cfg.RefreshIdle, preset: 14 * 24 * time.Hour, least: time.Minute, most: 10 * 365 * 24 * time.Hour},
		{name: "grace", value: &cfg.Grace, preset: 30 * time.Second, most: 10 * time.Minute, zeroBelow: true},
		{name: "rotate_keys", value: &cfg.RotateKeys, preset: 90 * 24 * time.Hour, least: time.Hour, most: 10 * 365 * 24 * time.Hour},
		{name: "upstream_check", value: &cfg.UpstreamCheck, preset: time.Hour, most: 30 * 24 * time.Hour, zeroBelow: true},
	} {
		switch {
		case *d.value == 0:
			*d.value = d.preset
		case *d.value < 0 && d.zeroBelow:
			*d.value = 0
		case *d.value < d.least || *d.value > d.most:
			return fmt.Errorf("%s must be between %s and %s", d.name, d.least, d.most)
		}
	}
	if cfg.RefreshIdle < cfg.AccessTTL || cfg.RefreshTTL < cfg.AccessTTL {
		return errors.New("refresh_ttl and refresh_idle must not be shorter than access_ttl")
	}
	if cfg.SigningAlg == "" {
		cfg.SigningAlg = "ES256"
	}
	if _, ok := signingMethod(cfg.SigningAlg); !ok {
		return fmt.Errorf("signing_alg %q is not supported: use ES256, EdDSA or RS256", cfg.SigningAlg)
	}
	if err := checkClaims(cfg.Claims); err != nil {
		return err
	}
	switch {
	case cfg.MaxPerUserAndClient == 0:
		cfg.MaxPerUserAndClient = 50
	case cfg.MaxPerUserAndClient < 0 || cfg.MaxPerUserAndClient > maxIndexed/2:
		return fmt.Errorf("a user can have between 1 and %d grants for a client", maxIndexed/2)
	}
	if cfg.Allow == nil {
		cfg.Allow = func(*idp.Identity) (bool, string) { return true, "" }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	return nil
}

// open returns the store and what else is opened on first use.
func (g *Grants) open() (*grantBackend, error) { return g.backend.get() }

func (g *Grants) openBackend() (*grantBackend, error) {
	ring, err := g.cfg.Keys()
	if err != nil {
		return nil, temporarily("The server cannot open its encryption keys", err)
	}
	st, err := g.cfg.Store()
	if err != nil {
		return nil, temporarily("The server cannot open its store", err)
	}
	return &grantBackend{store: st, mac: ring.Sealer(seal.PurposeRefreshMAC, g.cfg.Issuer)}, nil
}

// random fills b.
func (g *Grants) random(b []byte) error {
	if _, err := io.ReadFull(g.cfg.Rand, b); err != nil {
		return fmt.Errorf("no randomness: %w", err)
	}
	return nil
}

func temporarily(description string, cause error) *oauth.Error {
	return oauth.ErrTemporarilyUnavailable.Describe(description).Because(cause)
}

// storeTrouble is what an error of the store becomes.
func storeTrouble(err error) error {
	return temporarily("The server cannot reach its store, try again", err)
}

// SubjectKey names a user in the index and in sessions: a hash of the issuer
// that knows the user, idp.Identity.Issuer, and the subject there, 43 characters
// of base64url.
func SubjectKey(issuer, subject string) string {
	sum := sha256.Sum256([]byte(issuer + "\x00" + subject))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (r *grantRecord) subjectKey() string {
	return SubjectKey(r.identity.Issuer, r.identity.Subject)
}

// provable reports whether the upstream can be asked about the user again.
func (g *Grants) provable(r *grantRecord, now time.Time) bool {
	if g.cfg.Upstream == nil {
		return true
	}
	able := g.cfg.Upstream.Capabilities()
	return able.Refresh && r.upstream.RefreshToken != "" ||
		able.UserInfo && r.upstream.AccessToken != "" && !r.upstream.Expired(now)
}

// absoluteEnd is when the grant is over however much it is used.
func (g *Grants) absoluteEnd(r *grantRecord) time.Time {
	ttl := g.cfg.RefreshTTL
	if !g.provable(r, g.cfg.Now()) {
		ttl = min(ttl, unprovenTTL)
	}
	return r.created.time().Add(ttl)
}

// unprovenTTL is SECURITY §2: how long the word of an upstream counts that
// cannot be asked again.
const unprovenTTL = 24 * time.Hour

// end is when the record is of no use any more.
func (g *Grants) end(r *grantRecord) time.Time {
	if r.generation == 0 {
		if r.code == nil {
			return time.Time{}
		}
		return r.code.expires.time()
	}
	end := r.accessUntil.time()
	if refresh := g.refreshEnd(r); r.hasRefresh() && refresh.After(end) {
		end = refresh
	}
	return end
}

// refreshEnd is when the current refresh token expires.
func (g *Grants) refreshEnd(r *grantRecord) time.Time {
	end := g.absoluteEnd(r)
	if len(r.rotations) > 0 {
		if idle := r.rotations[0].time().Add(g.cfg.RefreshIdle); idle.Before(end) {
			end = idle
		}
	}
	return end
}

// ttl is the record's life in the store from now on; negative if it is over.
func (g *Grants) ttl(r *grantRecord, now time.Time) time.Duration {
	if r.revoked {
		return tombstoneTTL
	}
	if left := g.end(r).Sub(now); left > 0 {
		return left
	}
	return -1
}

// firstSuccess calls open until it succeeds once. One attempt runs at a time,
// outside the lock, and those who came meanwhile share its result.
type firstSuccess[T any] struct {
	open func() (T, error)

	mu      sync.Mutex
	opening *attemptToOpen[T] // stays once it succeeded
}

type attemptToOpen[T any] struct {
	over  chan struct{}
	value T
	err   error
}

func newFirstSuccess[T any](open func() (T, error)) *firstSuccess[T] {
	return &firstSuccess[T]{open: open}
}

func (f *firstSuccess[T]) get() (T, error) {
	f.mu.Lock()
	a, mine := f.opening, false
	if a == nil {
		a, mine = &attemptToOpen[T]{over: make(chan struct{}), err: errors.New("opening failed")}, true
		f.opening = a
	}
	f.mu.Unlock()
	if mine {
		defer func() { // also after a panic
			f.mu.Lock()
			if a.err != nil {
				f.opening = nil
			}
			f.mu.Unlock()
			close(a.over)
		}()
		a.value, a.err = f.open()
		return a.value, a.err
	}
	<-a.over
	return a.value, a.err
}

// Interface guards
var (
	_ bearer.Verifier    = (*Grants)(nil)
	_ authserver.Revoker = (*Grants)(nil)
)
