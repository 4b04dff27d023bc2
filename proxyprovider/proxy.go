package proxyprovider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// Proxy is an authserver.Provider that relays to an upstream identity provider,
// made by NewProxy. Its value has the method RevokeToken, and its ClientStore
// the method RegisterClient, only if the configuration offers them, because
// the Server advertises an endpoint when it finds the method.
type Proxy interface {
	authserver.Provider
	// SkipPKCE returns true: the upstream checks the code verifier against the
	// challenge that it got (the SDK's skipLocalPkceValidation).
	authserver.PKCESkipper
	// SupportsIssParameter returns true with callback relay. With callback direct
	// the upstream redirects to the client itself, with its own iss parameter or
	// none. Where that depends on the upstream, ReviseMetadata and SendsIss tell.
	authserver.IssParameter
	authserver.ClientIssParameter
	authserver.MetadataReviser
	// Endpoints returns the handlers of the relay, which stand beside those of
	// authserver.Server, by their path below the base URL; nil with callback
	// direct.
	Endpoints() map[string]http.Handler
	// StripCookies removes the relay's cookies from a request that is passed on.
	StripCookies(*http.Request)
	// Run keeps the upstream's metadata fresh until ctx ends. It returns soon if
	// there is nothing to discover, or if ProxyConfig.Discovery was given, which
	// its owner runs. Without Run, metadata is fetched when it is needed.
	Run(ctx context.Context)
}

// ProxyConfig configures NewProxy.
type ProxyConfig struct {
	// Issuer is our issuer, byte for byte. What is sealed is bound to it.
	Issuer string

	// UpstreamIssuer is the identity provider's issuer, from which the endpoints
	// are discovered (RFC 8414, OpenID Connect Discovery). It may be empty if
	// AuthorizationURL and TokenURL are given.
	UpstreamIssuer string
	// Discovery is the discovery of UpstreamIssuer if it is shared with others;
	// if nil, the Proxy makes its own.
	Discovery *bearer.Discovery
	// AuthorizationURL, TokenURL, RevocationURL and RegistrationURL are the
	// upstream's endpoints, https, or http on a loopback host. Each wins over
	// what is discovered. Their query parameters are kept.
	AuthorizationURL, TokenURL, RevocationURL, RegistrationURL string
	// AllowInsecureUpstream accepts http on any host.
	AllowInsecureUpstream bool

	// Register offers dynamic registration: each client is registered upstream
	// and becomes a client of its own there. nil means yes if RegistrationURL is
	// given or can be discovered. Discovery is lazy, so that the upstream may
	// turn out to have no such endpoint; then a registration is access_denied,
	// with one log line for the operator.
	Register *bool
	// Revoke offers revocation. nil means yes if RevocationURL is given or can be
	// discovered. If the upstream turns out to have no such endpoint, a
	// revocation is unsupported_token_type (RFC 7009 §2.2.1).
	Revoke *bool

	// Clients are the static clients. Each is registered upstream under the same
	// id, and with the same secret if it has one.
	Clients []oauth.Client
	// ClientAuth is how static clients that have a secret are authenticated
	// upstream: "basic", "post" or "none". "" means the client's own
	// TokenEndpointAuthMethod, or as the SDK "post" if it names none. With
	// "basic" or "post", a client whose own method is "none" may be public here
	// and still be sent upstream with the secret that only the operator knows.
	// Registered clients use the method that the upstream gave them.
	ClientAuth string

	// Callback is where the upstream sends its answers.
	//
	// With "direct", to the client's own redirect URI, as the SDK does: the
	// redirect URIs of every client are registered upstream, and so is what its
	// users consent to. An upstream that puts its iss into the answer (RFC 9207)
	// breaks clients that compare it to ours.
	//
	// With "relay", to our callback, BaseURL + EndpointPrefix + "/callback", which
	// is then the one redirect URI of every client upstream: those that register
	// through us get it by themselves, for static clients the operator registers
	// it. Users are asked for consent first, and the client gets a code of ours
	// with our iss. That code is good for 60 seconds, for its client, redirect URI
	// and verifier. Nothing is stored: replayed in that time it goes upstream
	// again, and is refused there.
	//
	// "" means relay for an upstream whose discovered metadata announces iss, and
	// direct otherwise. A client that registers through us keeps what held when it
	// registered. For static clients what the metadata says now decides, and a
	// warning tells what to register. While the metadata cannot be had, it counts
	// as announcing nothing.
	//
	// After a change of Callback from or to "direct" or "relay", and of the
	// callback's URL, clients for which something else is registered upstream are
	// unknown, and register again.
	Callback string
	// BaseURL is where our endpoints are; the Issuer if empty.
	BaseURL string
	// EndpointPrefix is the path of the relay's endpoints below BaseURL;
	// "/mcp-auth" if empty.
	EndpointPrefix string
	// Consent is about the relay's consent page. It is never remembered, whatever
	// Remember says: who signs in is known only after the client has the token, so
	// that it could not be compared to who consented.
	Consent ConsentConfig
	// Resources are those of the Server. The upstream is told of the default one
	// where a client names none, and the consent page names the one that is meant.
	Resources *oauth.ResourceSet
	// ResourceNames and ScopeDescriptions are for the consent page. The names are by
	// identifier; without one the page has its host.
	ResourceNames, ScopeDescriptions map[string]string
	// ClientIP returns the address of the user, for logs. Default: the host of
	// RemoteAddr.
	ClientIP func(*http.Request) string

	// OmitResource keeps the resource parameter (RFC 8707) from the upstream, for
	// one that refuses requests that have it, as Microsoft Entra does
	// (AADSTS901002, AADSTS9010010).
	OmitResource bool
	// DefaultScopes returns the scopes to ask for when a client names none, for
	// the resource that it names ("" if it names none). nil asks for none.
	DefaultScopes func(resource string) []string
	// RegistrationScopes are added to the scope of a registration that has one, so
	// that its client can step up to them later: an upstream may refuse what a
	// client is not registered for. If the upstream refuses the registration for
	// it, the client is registered for what it has asked for alone.
	RegistrationScopes []string
	// DropScopes are taken out of what clients ask for, for an upstream that
	// refuses them. offline_access is taken out by itself if the discovered
	// scopes_supported does not name it: it is we who advertise it.
	DropScopes []string

	// Verifier checks the access tokens that the upstream issues.
	Verifier bearer.Verifier
	// Keys returns the key ring, called on first use until it succeeds once. If
	// nil, a random key is made: registrations and relayed refresh tokens then
	// end with the process.
	Keys func() (*seal.Ring, error)
	// RedirectPolicy is applied to a registered client's redirect URIs each time
	// its id is used. nil is the default policy.
	RedirectPolicy *oauth.RedirectPolicy

	// Client makes the upstream calls; nil means one with sane bounds. Redirects
	// are never followed, whatever it says.
	Client *http.Client
	// Logger gets what only the operator may read; slog.Default() if nil.
	Logger *slog.Logger
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// NewProxy returns a Proxy. It does no I/O: endpoints are discovered and keys
// are opened on first use.
func NewProxy(cfg ProxyConfig) (Proxy, error) {
	if cfg.Issuer == "" {
		return nil, errors.New("the proxy needs the issuer that it works for")
	}
	if cfg.Verifier == nil {
		return nil, errors.New("the proxy needs a verifier for the access tokens of the upstream identity provider")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	up, err := newUpstream(&cfg)
	if err != nil {
		return nil, err
	}
	if err := cfg.RedirectPolicy.Validate(); err != nil {
		return nil, err
	}
	register, err := offered(cfg.Register, cfg.RegistrationURL, up.discovery, "registration")
	if err != nil {
		return nil, err
	}
	revoke, err := offered(cfg.Revoke, cfg.RevocationURL, up.discovery, "revocation")
	if err != nil {
		return nil, err
	}
	if len(cfg.Clients) == 0 && !register {
		return nil, errors.New("no client could use this proxy: add a client that is registered at the upstream identity provider under the same client_id, " +
			"or name an upstream that offers dynamic registration, or use the broker mode (upstream …), which lets all clients share one upstream client safely")
	}
	static, err := newStaticClients(cfg.Clients)
	if err != nil {
		return nil, err
	}
	p := &proxy{
		upstream: up,
		clients: clientStore{
			static: static,
			seals:  &sealers{issuer: cfg.Issuer, upstream: up.identity, open: cfg.Keys, log: cfg.Logger},
			policy: cfg.RedirectPolicy,
			auth:   cfg.ClientAuth,
			now:    cfg.Now,
		},
		verifier:     cfg.Verifier,
		omitResource: cfg.OmitResource,
		dropScopes:   cfg.DropScopes,
		defaults:     cfg.DefaultScopes,
	}
	if cfg.Resources != nil {
		p.onlyResource = len(cfg.Resources.All()) == 1
		if resource, err := cfg.Resources.Resolve(""); err == nil {
			p.defaultResource = resource
		}
	}
	p.store = &p.clients
	reg := &registrar{clientStore: &p.clients, upstream: up, seen: newSeenIDs(maxSeenIDs), scopes: cfg.RegistrationScopes, upstreamScope: p.scope}
	if register {
		p.store = reg
	}
	if p.relay, err = newRelay(&cfg, p); err != nil {
		return nil, err
	}
	reg.relay = p.relay
	p.clients.direct = p.relay == nil || !p.relay.always
	if p.relay != nil {
		p.clients.relayed = hashCallback(p.relay.callbackURL())
	}
	if revoke {
		return &revokingProxy{p}, nil
	}
	return p, nil
}

// offered decides whether an optional endpoint exists here.
func offered(wanted *bool, url string, d *bearer.Discovery, what string) (bool, error) {
	possible := url != "" || d != nil
	if wanted == nil {
		return possible, nil
	}
	if *wanted && !possible {
		return false, errors.New(what + " needs the upstream's " + what + " URL, or an upstream issuer to discover it from")
	}
	return *wanted, nil
}

// proxy is a Proxy without revocation.
type proxy struct {
	upstream     *upstream
	clients      clientStore
	store        authserver.ClientStore
	verifier     bearer.Verifier
	omitResource bool
	dropScopes   []string
	defaults     func(resource string) []string
	// defaultResource is what a client means that names none, "" if that cannot be
	// told; onlyResource that there is no other.
	defaultResource string
	onlyResource    bool
	relay           *relay // nil if the callback is direct
}

// Run implements Proxy.
func (p *proxy) Run(ctx context.Context) {
	if p.relay != nil && len(p.clients.static) > 0 {
		p.relay.wanted(ctx) // tells the operator before the first user comes
	}
	if p.upstream.ownsDiscovery {
		p.upstream.discovery.Run(ctx)
	}
}

// ReviseMetadata implements authserver.MetadataReviser: an endpoint that the
// upstream turns out not to have is not advertised, so that clients do not try
// to register in vain, offline_access is if the upstream knows it, since clients
// ask for a refresh token only then, and iss is if answers are relayed because
// the upstream announces it.
func (p *proxy) ReviseMetadata(ctx context.Context, m *oauth.Metadata) {
	d := p.upstream.discovery
	if d == nil {
		return
	}
	upstream, err := d.Metadata(ctx)
	if err != nil {
		return // it may have them
	}
	if p.relay != nil {
		m.AuthorizationResponseIssParameterSupported = p.relay.wanted(ctx)
	}
	if upstream.RegistrationEndpoint == "" && p.upstream.configured[registrationEndpoint] == "" {
		m.RegistrationEndpoint = ""
	}
	if upstream.RevocationEndpoint == "" && p.upstream.configured[revocationEndpoint] == "" {
		m.RevocationEndpoint, m.RevocationEndpointAuthMethodsSupported = "", nil
	}
	const offline = "offline_access"
	if slices.Contains(upstream.ScopesSupported, offline) && !slices.Contains(p.dropScopes, offline) && !slices.Contains(m.ScopesSupported, offline) {
		m.ScopesSupported = append(slices.Clone(m.ScopesSupported), offline)
	}
}

// Clients returns the static clients and those registered upstream.
func (p *proxy) Clients() authserver.ClientStore { return p.store }

// SkipPKCE implements authserver.PKCESkipper.
func (p *proxy) SkipPKCE() bool { return true }

// SupportsIssParameter implements authserver.IssParameter.
func (p *proxy) SupportsIssParameter() bool { return p.relay != nil && p.relay.always }

// ChallengeForCode returns "": only the upstream knows, and checks.
func (p *proxy) ChallengeForCode(context.Context, *oauth.Client, string) (string, error) {
	return "", nil
}

// VerifyAccessToken delegates to the configured verifier.
func (p *proxy) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	return p.verifier.VerifyAccessToken(ctx, token)
}

// hashID is how ids of clients appear in logs.
func hashID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:6])
}

// onceLog lets an operator's problem be logged once until it is gone.
type onceLog struct{ said atomic.Bool }

func (o *onceLog) first() bool { return !o.said.Swap(true) }
func (o *onceLog) gone()       { o.said.Store(false) }

// Interface guards
var (
	_ Proxy                = (*proxy)(nil)
	_ Proxy                = (*revokingProxy)(nil)
	_ authserver.Revoker   = (*revokingProxy)(nil)
	_ authserver.Registrar = (*registrar)(nil)

	_ authserver.PreregisteredStore = (*clientStore)(nil)
)
