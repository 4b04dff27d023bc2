package authserver

import (
	"crypto/sha256"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// RateLimit allows Count events in a Window. Unused capacity comes back evenly
// over the window.
type RateLimit struct {
	Count  int
	Window time.Duration
	// Off turns this one limit off, the SDK's rateLimit: false.
	Off bool
}

// RateLimits are the limits per network address (IPv6: per /56). A nil one is
// the default.
//
// Authorize and Register count requests, since each costs only a little CPU.
// Token and Revoke count requests that failed, for each client at the address,
// and twenty times as many for the address in all. Beyond the limit only
// requests that fail are told 429: hosted clients share a few addresses, and
// what one of them does wrong must not lock out the others.
type RateLimits struct {
	Authorize *RateLimit // default 600 in 15 minutes
	Token     *RateLimit // default 50 in 15 minutes
	Register  *RateLimit // default 300 in 15 minutes
	Revoke    *RateLimit // default 50 in 15 minutes
	// Off turns all of them off, that of Config.HardLimitClient included.
	Off bool
}

// check returns an error if a limit makes no sense.
func (l RateLimits) check() error {
	for _, limit := range []*RateLimit{l.Authorize, l.Token, l.Register, l.Revoke} {
		if limit != nil && !limit.Off && (limit.Count < 1 || limit.Window < time.Second) {
			return fmt.Errorf("a rate limit needs a count of at least 1 and a window of at least 1s, not %d in %s", limit.Count, limit.Window)
		}
	}
	return nil
}

const (
	// addressFactor is how many times the limit of one client all clients of an
	// address may fail together.
	addressFactor = 20
	// Buckets kept in memory, 64k in all. What is counted for different ends is
	// kept apart, so that a flood of one kind does not wash out the others.
	requestBuckets = 24 << 10
	failureBuckets = 24 << 10
	hardBuckets    = 16 << 10
)

// limiter holds the counters of all endpoints.
type limiter struct {
	off       bool
	now       func() time.Time
	clientIP  func(*http.Request) string
	limits    map[string]RateLimit // by endpoint path
	hardLimit RateLimit
	requests  *bucketSet
	failures  *bucketSet
	hard      *bucketSet
}

func newLimiter(c Config) *limiter {
	orDefault := func(l *RateLimit, count int) RateLimit {
		if l != nil {
			return *l
		}
		return RateLimit{Count: count, Window: 15 * time.Minute}
	}
	return &limiter{
		off:      c.RateLimits.Off,
		now:      c.Now,
		clientIP: c.ClientIP,
		limits: map[string]RateLimit{
			authorizePath: orDefault(c.RateLimits.Authorize, 600),
			tokenPath:     orDefault(c.RateLimits.Token, 50),
			registerPath:  orDefault(c.RateLimits.Register, 300),
			revokePath:    orDefault(c.RateLimits.Revoke, 50),
		},
		hardLimit: RateLimit{Count: 10, Window: 15 * time.Minute},
		requests:  newBucketSet(requestBuckets),
		failures:  newBucketSet(failureBuckets),
		hard:      newBucketSet(hardBuckets),
	}
}

// countRequest counts a request and returns too_many_requests if it is one too
// many. It sets the RateLimit headers.
func (l *limiter) countRequest(h http.Header, r *http.Request, endpoint string) error {
	if l.off || l.limits[endpoint].Off {
		return nil
	}
	q := l.requests.take(bucketKey{endpoint: endpoint, network: network(l.clientIP(r))}, l.limits[endpoint], l.now())
	return q.report(h, endpoint)
}

// countFailure counts a failed request and returns too_many_requests if it is
// one too many. It sets the RateLimit headers.
func (l *limiter) countFailure(h http.Header, r *http.Request, endpoint, clientID string) error {
	if l.off || l.limits[endpoint].Off {
		return nil
	}
	limit, now := l.limits[endpoint], l.now()
	key := bucketKey{endpoint: endpoint, network: network(l.clientIP(r))}
	// The address comes first: once it is spent, no more buckets are made for
	// client ids, which the caller invents as it likes.
	whole := l.failures.take(key, RateLimit{Count: addressFactor * limit.Count, Window: limit.Window}, now)
	if whole.exceeded {
		return whole.report(h, endpoint)
	}
	key.client, key.perClient = sha256.Sum256([]byte(clientID)), true
	return l.failures.take(key, limit, now).report(h, endpoint)
}

// attempt counts a try at a guessable secret. It returns too_many_requests if
// there have been too many; else succeeded takes the count back.
func (l *limiter) attempt(h http.Header, r *http.Request, endpoint, clientID string) (succeeded func(), err error) {
	if l.off {
		return func() {}, nil
	}
	now := l.now()
	key := bucketKey{network: network(l.clientIP(r)), client: sha256.Sum256([]byte(clientID)), perClient: true}
	bucket := l.hard.get(key, l.hardLimit)
	// Counted before the secret is looked at, so that many tries at the same
	// time do not slip through together.
	reservation := bucket.ReserveN(now, 1)
	if reservation.DelayFrom(now) > 0 {
		reservation.CancelAt(now)
		q := quotaOf(bucket, l.hardLimit, now)
		q.exceeded = true
		return nil, q.report(h, endpoint)
	}
	return func() { reservation.CancelAt(now) }, nil
}

// network returns what an address is counted as: itself, for IPv6 its /56,
// which is what one customer commonly has. What is no address shares a bucket.
func network(address string) netip.Addr {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	prefix, err := a.Prefix(56)
	if err != nil {
		return netip.Addr{}
	}
	return prefix.Addr()
}

// quota is the state of a bucket, as told to the client.
type quota struct {
	limit     RateLimit
	remaining int
	reset     time.Duration // until the bucket is full again
	next      time.Duration // until one more is allowed
	exceeded  bool
}

func quotaOf(bucket *rate.Limiter, limit RateLimit, now time.Time) quota {
	tokens := bucket.TokensAt(now)
	perToken := limit.Window.Seconds() / float64(limit.Count)
	seconds := func(tokens float64) time.Duration {
		return time.Duration(math.Ceil(max(0, tokens)*perToken)) * time.Second
	}
	return quota{
		limit:     limit,
		remaining: max(0, int(tokens)),
		reset:     seconds(float64(limit.Count) - tokens),
		next:      max(time.Second, seconds(1-tokens)),
	}
}

// report sets the headers of draft-ietf-httpapi-ratelimit-headers-06, in the
// SDK's form, and returns too_many_requests if the quota is exceeded.
func (q quota) report(h http.Header, endpoint string) error {
	seconds := func(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
	count := strconv.Itoa(q.limit.Count)
	h.Set("Ratelimit-Policy", count+";w="+seconds(q.limit.Window))
	h.Set("Ratelimit-Limit", count)
	h.Set("Ratelimit-Remaining", strconv.Itoa(q.remaining))
	h.Set("Ratelimit-Reset", seconds(q.reset))
	if !q.exceeded {
		return nil
	}
	h.Set("Retry-After", seconds(q.next))
	what := map[string]string{
		authorizePath: "authorization requests",
		tokenPath:     "token requests",
		registerPath:  "client registration requests",
		revokePath:    "token revocation requests",
	}[endpoint]
	return oauth.ErrTooManyRequests.Describe("You have exceeded the rate limit for " + what)
}
