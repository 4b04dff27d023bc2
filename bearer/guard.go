package bearer

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// GuardConfig configures a Guard.
type GuardConfig struct {
	// Resources are the protected resources, at least one. A request belongs to
	// the one with the longest path.
	Resources []Resource
	// AuthorizationServers are the issuers that clients are sent to, for all
	// resources that do not name their own.
	AuthorizationServers []string
	// Verifier checks the tokens. What a CacheableVerifier says is remembered in
	// Cache; a CachedVerifier has its own.
	Verifier Verifier
	// Cache remembers tokens; nil makes one of 64 MiB at most.
	Cache *TokenCache
	// AllowNoExpiry accepts tokens that do not tell when they expire. The SDK
	// and this package refuse them otherwise.
	AllowNoExpiry bool
	// SessionKey returns the key that binds MCP sessions to users (see Pass). It is
	// called for each request that has or begins a session, and must be quick; its
	// error is 503. nil makes a random key, which is for one process.
	SessionKey func() (SessionKey, error)
	// Successor returns the guard that has taken the place of this one (see
	// Successor); nil means that none ever does.
	Successor Successor
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger gets one line for each refusal; nil means none.
	Logger *slog.Logger
}

// Guard decides which requests may reach protected resources. It is safe for
// concurrent use.
type Guard struct {
	resources     []*guardedResource // longest path first
	documents     map[string]*metadataDocument
	verifier      Verifier
	allowNoExpiry bool
	now           func() time.Time
	logger        *slog.Logger
	sessionKey    func() (SessionKey, error)
	streams       *streams
	// warned is when trouble was last told, in ns since 1970.
	warned atomic.Int64
	// advised is set once the advice about an unlisted resource URL is logged.
	advised atomic.Bool
}

// NewGuard checks the configuration. Error texts say what to write.
func NewGuard(config GuardConfig) (*Guard, error) {
	if config.Verifier == nil {
		return nil, errors.New("a verifier is needed; without one no token could be accepted")
	}
	if len(config.Resources) == 0 {
		return nil, errors.New("at least one resource is needed; for the whole site give one with the path /")
	}
	verifier, err := cached(config.Verifier, config.Cache, config.Now)
	if err != nil {
		return nil, err
	}
	g := &Guard{
		verifier:      verifier,
		allowNoExpiry: config.AllowNoExpiry,
		now:           config.Now,
		logger:        config.Logger,
		sessionKey:    config.SessionKey,
	}
	if g.now == nil {
		g.now = time.Now
	}
	if g.logger == nil {
		g.logger = slog.New(slog.DiscardHandler)
	}
	if g.sessionKey == nil {
		g.sessionKey = randomSessionKey()
	}
	g.streams = &streams{guard: g, successor: config.Successor, now: g.now, logger: g.logger}
	for _, r := range config.Resources {
		if r.AuthorizationServers == nil {
			r.AuthorizationServers = config.AuthorizationServers
		}
		resource, err := newGuardedResource(r)
		if err != nil {
			return nil, err
		}
		g.resources = append(g.resources, resource)
	}
	if err := g.checkTogether(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(g.resources, func(a, b *guardedResource) int { return cmp.Compare(len(b.path), len(a.path)) })
	if err := g.publishMetadata(); err != nil {
		return nil, err
	}
	return g, nil
}

// Decision is what Check found out about a request.
type Decision struct {
	// Guarded is false if the request belongs to no resource: it goes on
	// untouched, and the other fields are zero.
	Guarded bool
	// Resource is the resource that the request belongs to, that of the path
	// before rewrites if there are two. It must not be changed.
	Resource *Resource
	// Also is the resource of the path after rewrites if that is another one, nil
	// otherwise: what is done for one of them must be right for both.
	Also *Resource
	// Info is what the token says; nil if the request was refused or was a
	// preflight. It may be shared between requests and must not be changed.
	Info *oauth.TokenInfo
	// Identity is what SetIdentity sends, nil if it has yet to be made.
	Identity *Identity
	// guarded and also belong to Resource and Also.
	guarded, also *guardedResource
	// asked is for Pass, which may have to refuse what Check admitted.
	asked asked
	// Writer, if not nil, must be used for the answer in place of the one given
	// to Check: it puts the CORS headers on it.
	Writer http.ResponseWriter
}

// Check decides about one request. original is the URL before rewrites; nil
// means r.URL. If the result is false, the request was answered (a refusal, or
// a CORS preflight) and must not go on.
//
// Check does not touch the headers of the request, but for what StripIdentity
// removes and an offer of HTTP/2 in Upgrade; see also RemoveAuthorization. Where a
// Policy reads the body, the request has a copy of it afterwards.
func (g *Guard) Check(w http.ResponseWriter, r *http.Request, original *url.URL) (Decision, bool) {
	c := check{guard: g, request: r, writer: w, oddSession: strip(r)}
	if !c.findResource(original) {
		return Decision{}, true
	}
	c.admitted = c.pathIsClear() &&
		c.originIsAllowed() &&
		c.isNoPreflight() &&
		c.hasToken() &&
		c.tokenIsGenuine() &&
		c.tokenIsForUs() &&
		c.tokenIsFresh() &&
		c.callerIsAllowed() &&
		c.callsAreClear() &&
		c.scopesSuffice() &&
		c.callsArePermitted()
	c.handOn()
	return c.decide(w), c.admitted
}

// check is one run of Guard.Check. Each step returns whether the next one may
// follow, and if not has set refused or preflight.
type check struct {
	guard   *Guard
	request *http.Request
	writer  http.ResponseWriter

	// resource decides about the token; other is the resource of the rewritten
	// path if that is another one, nil otherwise.
	resource, other *guardedResource
	ambiguous       bool
	// needed are the scopes that the request needs at resource, otherNeeded those
	// that it needs at other besides. Both are shared, not to be changed.
	needed, otherNeeded []string

	origin string // of the web page that asks, once it is allowed
	token  string
	info   *oauth.TokenInfo
	// known is nil if the verifier remembers nothing. key is that of the token,
	// zero if it has to be computed yet.
	known *verified
	key   cacheKey

	// calls are those of the body, once they are clear; nil if none matters.
	calls *callBuffer
	// readBody is set once the client has been asked for the body.
	readBody bool

	refused    *refusal
	preflight  bool
	admitted   bool
	isFresh    bool // the token has an end, and it is not over
	oddSession bool // see strip
}

// findResource finds the resource by the path before and the path after
// rewrites (SECURITY §7); false if neither touches one.
func (c *check) findResource(original *url.URL) bool {
	current := c.request.URL
	if original == nil {
		original = current
	}
	p := readPath(original)
	c.resource, c.ambiguous = c.guard.locate(&p)
	if c.resource != nil {
		c.needed = c.resource.needs(&p)
	}
	if current == original || current.Path == original.Path && current.RawPath == original.RawPath && current.Opaque == original.Opaque {
		return c.resource != nil
	}
	p = readPath(current)
	rewritten, ambiguous := c.guard.locate(&p)
	c.ambiguous = c.ambiguous || ambiguous
	switch {
	case rewritten == nil:
	case c.resource == nil:
		c.resource, c.needed = rewritten, rewritten.needs(&p)
	case rewritten == c.resource:
		c.needed = unionScopes(slices.Clip(c.needed), rewritten.needs(&p))
	default:
		c.other, c.otherNeeded = rewritten, rewritten.needs(&p)
	}
	return c.resource != nil
}

// locate returns the resource that a path belongs to, nil if none in any of
// its readings, and whether the path is too unclear to be let through. Longest
// path wins.
func (g *Guard) locate(p *sitePath) (_ *guardedResource, ambiguous bool) {
	if p.plain != "" {
		return g.owner(p.plain), false
	}
	var found *guardedResource
	for i, reading := range p.readings {
		owner := g.owner(reading)
		ambiguous = ambiguous || i > 0 && owner != found
		if found == nil || owner != nil && len(owner.path) > len(found.path) {
			found = owner
		}
	}
	if p.endless && found == nil {
		found = g.resources[0] // whatever it is, it is refused
	}
	return found, found != nil && (ambiguous || p.odd || p.endless)
}

// owner returns the resource that one reading of a path lies in.
func (g *Guard) owner(reading string) *guardedResource {
	for _, res := range g.resources {
		if res.contains(reading) {
			return res
		}
	}
	return nil
}

// Guards reports whether u lies in a resource, in any reading of its path.
func (g *Guard) Guards(u *url.URL) bool {
	p := readPath(u)
	found, _ := g.locate(&p)
	return found != nil
}

func (c *check) pathIsClear() bool {
	if c.ambiguous {
		return c.refuse(oauth.ErrInvalidRequest.Describe(
			"The path can be read in more than one way; send it without dot segments, doubled slashes, backslashes, semicolons and encoded slashes"))
	}
	return true
}

// originIsAllowed is the check against pages that reach the server through a
// browser, DNS rebinding included (MCP transports, "Security Warning").
func (c *check) originIsAllowed() bool {
	origins := c.request.Header["Origin"]
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 || !c.resource.allowsOrigin(origins[0]) || c.other != nil && !c.other.allowsOrigin(origins[0]) {
		return c.refuse(oauth.ErrAccessDenied.Describe("The web origin of this request may not call this resource"))
	}
	c.origin = origins[0]
	return true
}

// isNoPreflight is false for a CORS preflight, which carries no token.
func (c *check) isNoPreflight() bool {
	c.preflight = c.origin != "" && isPreflight(c.request)
	return !c.preflight
}

func (c *check) hasToken() bool {
	if c.isKnown(plainBearer(c.request.Header)) {
		return true
	}
	token, err := accessToken(c.request.Header)
	if err != nil {
		return c.refuse(err)
	}
	if token == "" {
		c.adviseResourceLine()
		c.refuse(oauth.ErrInvalidToken.Describe(missingAuthorization))
		c.refused.noCredentials = true
		return false
	}
	c.token = token
	return true
}

// isKnown reports whether the verifier remembers the token as good. Whatever else
// is the matter with it is found out in the following steps.
func (c *check) isKnown(token string) bool {
	v, ok := chosen(c.guard.verifier).(*CachedVerifier)
	if !ok || token == "" {
		return false
	}
	ctx := c.request.Context()
	t := v.recall(ctx, token)
	if t == nil {
		c.key = v.key(token)
		if t, _ = v.known(ctx, c.key); t == nil {
			return false
		}
	}
	c.token, c.info, c.known = token, t.info, t
	c.isFresh = !t.info.ExpiresAt.IsZero()
	return true
}

func (c *check) tokenIsGenuine() bool {
	if c.info != nil {
		return true // known
	}
	info, known, err := verifyToken(c.request.Context(), c.guard.verifier, c.token, c.key)
	if err != nil {
		return c.refuse(err)
	}
	c.info, c.known = info, known
	return true
}

// tokenIsForUs is the audience check (RFC 8707 §2, MCP "Token Handling").
func (c *check) tokenIsForUs() bool {
	if c.known != nil && c.known.issuedFor.Load() == c.resource.id {
		return true // found out before
	}
	if !c.resource.isAudienceOf(c.info) {
		return c.refuse(oauth.ErrInvalidToken.Describe(notForThisResource))
	}
	if c.known != nil {
		c.known.issuedFor.Store(c.resource.id)
	}
	return true
}

func (c *check) tokenIsFresh() bool {
	if c.isFresh {
		return true // nothing is remembered for longer than the token lives
	}
	if err := checkExpiry(c.info, c.guard.now(), c.guard.allowNoExpiry); err != nil {
		return c.refuse(err)
	}
	return true
}

// scopesSuffice comes after the expiry: a client whose token has expired is to
// refresh it, not to ask for more scopes.
func (c *check) scopesSuffice() bool {
	if !c.resource.grants(c.info.Scopes, c.needed) || c.other != nil && !c.other.grants(c.info.Scopes, c.otherNeeded) {
		description := insufficientScope
		if call := c.lackingCall(); call != "" {
			description += " for " + call
		}
		return c.refuse(oauth.ErrInsufficientScope.Describe(description))
	}
	return true
}

// refuse notes why the request is refused.
func (c *check) refuse(err *oauth.Error) bool {
	scopes := unionScopes(slices.Clip(c.needed), c.otherNeeded)
	c.refused = &refusal{err: err, scopes: scopes, metadataURL: c.resource.metadataURL, last: &c.resource.lastRefusal}
	if err.Code == oauth.ErrInsufficientScope.Code {
		c.refused.scopes = c.stepUpScopes(scopes)
	}
	return false
}

// stepUpScopes are the scopes of a 403 challenge: the needed ones, and those
// already granted that mean something here. Clients of 2025-11-25 ask for what
// is named and would lose the others.
func (c *check) stepUpScopes(needed []string) []string {
	if c.info == nil {
		return needed // the verifier refused, nothing is known of the token
	}
	scopes := slices.Clip(needed)
	for _, scope := range slices.Sorted(slices.Values(c.info.Scopes)) {
		if c.resource.grantable[scope] || c.other != nil && c.other.grantable[scope] {
			scopes = unionScopes(scopes, []string{scope})
		}
	}
	return scopes
}

// decide answers the request if it was refused or is a preflight.
func (c *check) decide(w http.ResponseWriter) Decision {
	d := Decision{Guarded: true, Resource: &c.resource.Resource, guarded: c.resource, also: c.other}
	if c.other != nil {
		d.Also = &c.other.Resource
	}
	if c.admitted {
		d.Info, d.asked = c.info, asked{c.token, c.needed, c.oddSession}
		if c.known != nil {
			d.Identity = &c.known.identity
		}
		if c.origin != "" {
			d.Writer = CORSWriter(w, c.origin)
		}
		return d
	}
	if c.preflight {
		writePreflight(w, c.request, c.origin)
		return d
	}
	if c.origin != "" {
		setCORS(w.Header(), c.origin)
	}
	c.logRefusal()
	if !c.readBody {
		safehttp.RefuseBody(w, c.request)
	}
	c.refused.write(w, c.request)
	return d
}

// logRefusal writes the line for the operator. What went wrong with us or with
// an upstream is told louder than what clients do wrong.
func (c *check) logRefusal() {
	level := slog.LevelDebug
	switch status := c.refused.err.HTTPStatus(); {
	case c.request.Context().Err() != nil: // the client went away
	case status == http.StatusServiceUnavailable && c.guard.warns(c.guard.now()):
		level = slog.LevelWarn
	case status == http.StatusServiceUnavailable: // which clients can cause in numbers
	case status >= http.StatusInternalServerError:
		level = slog.LevelError
	}
	logger, ctx := c.guard.logger, c.request.Context()
	if !logger.Enabled(ctx, level) {
		return
	}
	logger.LogAttrs(ctx, level, "request refused",
		slog.String("resource", c.resource.Identifier),
		slog.Int("status", c.refused.err.HTTPStatus()),
		slog.String("error", c.refused.err.Code),
		slog.String("reason", c.refused.err.Error()))
}

// warnGap is the least time between two warnings about trouble.
const warnGap = 10 * time.Second

func (g *Guard) warns(now time.Time) bool {
	last := g.warned.Load()
	return now.UnixNano()-last >= int64(warnGap) && g.warned.CompareAndSwap(last, now.UnixNano())
}

// adviseResourceLine logs once that a client knocks at a path that no
// identifier stands for: strict clients then refuse our metadata (SECURITY §8).
func (c *check) adviseResourceLine() {
	if c.resource.path != "/" || c.guard.advised.Load() {
		return
	}
	identifier, err := url.Parse(c.resource.Identifier)
	if err != nil || liesBelow(c.request.URL.Path, strings.ToLower(cmp.Or(strings.TrimSuffix(identifier.Path, "/"), "/"))) {
		return
	}
	if c.guard.advised.CompareAndSwap(false, true) {
		c.guard.logger.LogAttrs(c.request.Context(), slog.LevelWarn,
			"a client without a token asked for a path that is no resource URL; if MCP is served there, add a resource line with that path",
			slog.String("path", c.request.URL.Path[:min(len(c.request.URL.Path), 256)]), slog.String("resource", c.resource.Identifier))
	}
}

// checkExpiry compares the expiry with now. Clock skew is the verifier's part.
func checkExpiry(info *oauth.TokenInfo, now time.Time, allowNone bool) *oauth.Error {
	switch {
	case info.ExpiresAt.IsZero() && !allowNone:
		return oauth.ErrInvalidToken.Describe(noExpiry)
	case !info.ExpiresAt.IsZero() && !now.Before(info.ExpiresAt):
		return oauth.ErrInvalidToken.Describe(expired)
	}
	return nil
}
