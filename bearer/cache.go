package bearer

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/maypok86/otter/v2"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// defaultCacheBytes is TokenCacheConfig.MaxBytes if that is 0.
	defaultCacheBytes = 64 << 20
	// minCacheBytes is the least size that makes sense: some dozens of tokens.
	minCacheBytes = 64 << 10
	// maxRefusal is how long a refusal is remembered at most.
	maxRefusal = 10 * time.Second
	// Refusals have their own part of the memory, so that a flood of bad tokens
	// drives out no good one: one in refusalShare bytes, refusalSize for each.
	refusalShare = 16
	refusalSize  = 1 << 10
	// There is a recent token for every recentShare bytes, maxRecent at most.
	recentShare = 1 << 10
	maxRecent   = 1 << 16
	// recallShare is how many uses of a recent token the cache counts as one.
	recallShare = 16
)

// TokenCacheConfig configures a TokenCache. Its zero value works.
type TokenCacheConfig struct {
	// MaxBytes bounds the memory of what is remembered, 64 MiB if 0.
	MaxBytes int64
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// TokenCache remembers what verifiers found out about tokens, by SHA-256 of the
// token. Several verifiers can share one: what one of them said is never given
// for another.
//
// A good token is remembered until it expires or its verifier wants to be asked
// again, whichever is sooner, or until there is no room; a refusal for 10 s at
// most. Trouble is not remembered.
type TokenCache struct {
	now       func() time.Time
	good      *otter.Cache[cacheKey, *verified]
	refused   *otter.Cache[cacheKey, rememberedRefusal]
	verifiers atomic.Uint64

	// recent are good tokens in use, by a quicker hash. They are in good as well,
	// and leave with what is there.
	recent []atomic.Pointer[verified]
	seed   maphash.Seed
}

// cacheKey names a token of a verifier.
type cacheKey struct {
	token    [sha256.Size]byte
	verifier uint64
}

// verified is a token that was found good, with what each request with it needs.
type verified struct {
	info     *oauth.TokenInfo
	identity Identity
	// issuedFor is the id of a resource that the token was issued for, 0 if none
	// has found out.
	issuedFor atomic.Uint64
	recheck   func(context.Context) error // may be nil
	until     time.Time

	token string
	key   cacheKey
	// dropped tells that the cache does not have it any more.
	dropped atomic.Bool
}

type rememberedRefusal struct {
	err   error
	until time.Time
}

// NewTokenCache returns an empty cache. It has no goroutine and needs no end.
func NewTokenCache(config TokenCacheConfig) (*TokenCache, error) {
	if config.MaxBytes == 0 {
		config.MaxBytes = defaultCacheBytes
	}
	if config.MaxBytes < minCacheBytes {
		return nil, errors.New("a token cache needs at least 64 KiB")
	}
	c := &TokenCache{now: clockOr(config.Now)}
	// No ExpiryCalculator: its goroutine would outlive the cache. The executor
	// keeps maintenance on the caller's goroutine.
	executor := func(task func()) { task() }
	forRefusals := config.MaxBytes / refusalShare
	c.seed = maphash.MakeSeed()
	c.recent = make([]atomic.Pointer[verified], 1<<(bits.Len64(uint64(min(config.MaxBytes/recentShare, maxRecent)))-1)) //nolint:gosec // not negative
	forRecent := int64(len(c.recent)) * int64(unsafe.Sizeof(c.recent[0]))
	var err error
	c.good, err = otter.New(&otter.Options[cacheKey, *verified]{
		MaximumWeight: uint64(config.MaxBytes - forRefusals - forRecent), //nolint:gosec // not negative
		Weigher:       func(_ cacheKey, t *verified) uint32 { return t.weight() },
		Executor:      executor,
		OnAtomicDeletion: func(e otter.DeletionEvent[cacheKey, *verified]) {
			e.Value.dropped.Store(true)
			c.slot(e.Value.token).CompareAndSwap(e.Value, nil)
		},
	})
	if err != nil {
		return nil, err
	}
	c.refused, err = otter.New(&otter.Options[cacheKey, rememberedRefusal]{
		MaximumSize: int(forRefusals / refusalSize),
		Executor:    executor,
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// slot is where a token may be among the recent ones.
func (c *TokenCache) slot(token string) *atomic.Pointer[verified] {
	return &c.recent[maphash.String(c.seed, token)&uint64(len(c.recent)-1)]
}

// weight estimates the memory of an entry, in bytes, rather too high.
func (t *verified) weight() uint32 {
	// The key, the value, what the cache keeps about them, TokenInfo, and the
	// function that checks again.
	const fixed = 768
	info := t.info
	size := fixed + len(info.Token) + len(info.ClientID) + len(info.UserID) + len(info.Resource) + len(info.Issuer) +
		listWeight(info.Scopes) + listWeight(info.Audience) + t.identity.size() + valueWeight(info.Extra)
	if t.token != info.Token {
		size += len(t.token)
	}
	return uint32(min(size, 1<<30)) //nolint:gosec // bounded
}

func listWeight(list []string) int {
	size := 0
	for _, s := range list {
		size += 16 + len(s)
	}
	return size
}

// valueWeight estimates the memory behind a JSON value.
func valueWeight(value any) int {
	switch value := value.(type) {
	case string:
		return 16 + len(value)
	case []string:
		return listWeight(value)
	case []any:
		size := 24
		for _, element := range value {
			size += 16 + valueWeight(element)
		}
		return size
	case map[string]any:
		if value == nil {
			return 0
		}
		// A map has room for 8 members, and beyond that for up to twice as many as
		// it holds.
		size := 48 + 272
		if len(value) > 8 {
			size = 48 + 80*len(value)
		}
		for name, member := range value {
			size += len(name) + valueWeight(member)
		}
		return size
	case nil, bool:
		return 0
	}
	return 16
}

// CachedVerifier is a Verifier in front of another one whose answers it
// remembers. Many requests with one token that is not known yet make the other
// one verify it once.
type CachedVerifier struct {
	verifier CacheableVerifier
	cache    *TokenCache
	id       uint64

	mu      sync.Mutex
	flights map[cacheKey]*flight
}

// flight is a verification under way.
type flight struct {
	done chan struct{} // closed when the rest is set; nil if nobody waits
	// abandoned tells that the request that led the way has left, so that nothing
	// is known.
	abandoned bool
	token     *verified
	err       error
}

// NewCachedVerifier returns a verifier that remembers in cache what v says.
func NewCachedVerifier(v CacheableVerifier, cache *TokenCache) *CachedVerifier {
	return &CachedVerifier{verifier: v, cache: cache, id: cache.verifiers.Add(1), flights: make(map[cacheKey]*flight)}
}

// Forget drops what is remembered of the verifier's tokens. It belongs at the
// end of a verifier whose cache goes on, which would otherwise keep it alive.
func (v *CachedVerifier) Forget() {
	for key := range v.cache.good.Keys() {
		if key.verifier == v.id {
			v.cache.good.Invalidate(key)
		}
	}
}

// Recognizes reports whether the verifier behind recognises the token.
func (v *CachedVerifier) Recognizes(token string) bool {
	r, ok := v.verifier.(Recognizer)
	return !ok || r.Recognizes(token)
}

// VerifyAccessToken answers from memory, or asks.
func (v *CachedVerifier) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	if t := v.recall(ctx, token); t != nil {
		return t.info, nil
	}
	t, err := v.verify(ctx, token, v.key(token))
	if err != nil {
		return nil, err
	}
	return t.info, nil
}

func (v *CachedVerifier) verify(ctx context.Context, token string, key cacheKey) (*verified, error) {
	if token == "" || len(token) > maxToken {
		return nil, refuse("Token is malformed", errors.New("it is empty or longer than 16 KiB"))
	}
	if t, err := v.known(ctx, key); t != nil || err != nil {
		return t, err
	}
	return v.first(ctx, key, token)
}

// key is the zero key for what is too long to be hashed for anybody who asks.
func (v *CachedVerifier) key(token string) cacheKey {
	if len(token) > maxToken {
		return cacheKey{}
	}
	// Without a copy of the token, which is read only.
	return cacheKey{sha256.Sum256(unsafe.Slice(unsafe.StringData(token), len(token))), v.id} //nolint:gosec // not changed
}

// recall is the quick way to a token that was used lately. nil says nothing.
func (v *CachedVerifier) recall(ctx context.Context, token string) *verified {
	t := v.cache.slot(token).Load()
	if t == nil || t.key.verifier != v.id || t.token != token || t.dropped.Load() || t.confirm(ctx, v.cache.now()) != nil {
		return nil
	}
	if rand.Uint32N(recallShare) == 0 { //nolint:gosec // saves time, no secret
		v.cache.good.GetIfPresent(t.key) // what is in use is kept
	}
	return t
}

// known returns a token that is remembered as good, and an error if it is not
// good any more or nobody can tell; both are nil for one that is to be verified.
func (v *CachedVerifier) known(ctx context.Context, key cacheKey) (*verified, error) {
	t, ok := v.cache.good.GetIfPresent(key)
	if !ok {
		return nil, nil
	}
	err := t.confirm(ctx, v.cache.now())
	if err == nil {
		v.cache.slot(t.token).Store(t)
		return t, nil
	}
	again := errors.Is(err, ErrVerifyAnew)
	if again || errors.Is(err, oauth.ErrInvalidToken) {
		v.cache.good.Invalidate(key)
	}
	if again {
		err = nil
	}
	return nil, err
}

// confirm reports whether what is remembered still holds.
func (t *verified) confirm(ctx context.Context, now time.Time) error {
	if !now.Before(t.until) {
		return ErrVerifyAnew
	}
	if t.recheck != nil {
		return t.recheck(ctx)
	}
	return nil
}

// first verifies a token that is not known to be good, once for all requests
// that come meanwhile. One of them leads; if it leaves, another one does.
func (v *CachedVerifier) first(ctx context.Context, key cacheKey, token string) (*verified, error) {
	if shaped, ok := v.verifier.(interface{ refuseShape(token string) error }); ok {
		if err := shaped.refuseShape(token); err != nil {
			return nil, err // quicker than to remember it
		}
	}
	if known, ok := v.cache.refused.GetIfPresent(key); ok && v.cache.now().Before(known.until) {
		return nil, known.err
	}
	for {
		f, leads := v.join(key)
		if leads {
			return v.lead(ctx, f, key, token)
		}
		select {
		case <-f.done:
			if !f.abandoned {
				return f.token, f.err
			}
		case <-ctx.Done():
			return nil, unverifiable(ctx.Err())
		}
	}
}

func (v *CachedVerifier) join(key cacheKey) (f *flight, leads bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if f, ok := v.flights[key]; ok {
		if f.done == nil {
			f.done = make(chan struct{})
		}
		return f, false
	}
	f = &flight{abandoned: true}
	v.flights[key] = f
	return f, true
}

func (v *CachedVerifier) lead(ctx context.Context, f *flight, key cacheKey, token string) (*verified, error) {
	defer func() { // also when the verifier panics
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.flights, key)
		if f.done != nil {
			close(f.done)
		}
	}()
	if t, ok := v.cache.good.GetIfPresent(key); ok && t.confirm(ctx, v.cache.now()) == nil {
		f.token, f.abandoned = t, false // another flight has just landed
		return t, nil
	}
	f.token, f.err = v.ask(ctx, key, token)
	f.abandoned = f.err != nil && ctx.Err() != nil
	return f.token, f.err
}

// ask lets the verifier decide, and remembers what it says.
func (v *CachedVerifier) ask(ctx context.Context, key cacheKey, token string) (*verified, error) {
	verdict, err := v.verifier.Verdict(ctx, token)
	now := v.cache.now()
	if err != nil {
		if until := earlier(verdict.Until, now.Add(maxRefusal)); now.Before(until) && errors.Is(err, oauth.ErrInvalidToken) {
			v.cache.refused.Set(key, rememberedRefusal{err, until})
		}
		return nil, err
	}
	if verdict.Info == nil {
		return nil, errNoVerdict
	}
	t := &verified{info: verdict.Info, recheck: verdict.Recheck, until: verdict.Until, key: key, token: token}
	if t.info.Token == token {
		t.token = t.info.Token // one copy is enough
	}
	t.identity.fill(t.info)
	if expires := t.info.ExpiresAt; !expires.IsZero() {
		t.until = earlier(t.until, expires)
	}
	if now.Before(t.until) {
		v.cache.good.Set(key, t)
	}
	return t, nil
}

// errNoVerdict is a mistake of a verifier, and ends as 500.
var errNoVerdict = errors.New("the verifier returned neither a token nor an error")

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// cached is the verifier for a guard: it remembers if it can and does not yet.
func cached(v Verifier, cache *TokenCache, now func() time.Time) (Verifier, error) {
	cacheable, ok := v.(CacheableVerifier)
	if !ok {
		return v, nil
	}
	if cache == nil {
		var err error
		if cache, err = NewTokenCache(TokenCacheConfig{Now: now}); err != nil {
			return nil, err
		}
	}
	return NewCachedVerifier(cacheable, cache), nil
}
