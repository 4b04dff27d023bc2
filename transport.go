package mcpauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func init() {
	caddy.RegisterModule(Transport{})
}

// Transport is the transport of a reverse proxy in front of a remote MCP server
// that OAuth protects: this Caddy is the client, gets tokens and adds them to
// what it passes on. Callers never see one, and whatever Authorization they
// send ends here.
//
// It has all settings of Caddy's `http` transport besides its own.
//
// A request that the server refuses is repeated once with a new token, before
// the caller sees anything. What the caller may get besides the server's answers
// is 502, if the server does not accept this proxy, and 503, if a token cannot
// be had at the moment; the log says why.
type Transport struct {
	reverseproxy.HTTPTransport
	RemoteServer

	app    *App
	logger *zap.Logger
	// origin is that of the resource: no token goes anywhere else.
	origin string
	// special tells that the usual HTTP client could not reach the server.
	special bool
	source  tokenSource
}

// RemoteServer is a protected MCP server elsewhere, and how to get tokens for it.
type RemoteServer struct {
	// Resource is the URL of the MCP server. Its origin has to be that of the
	// proxy's upstream. Default: /mcp at the upstream.
	Resource string `json:"resource,omitempty"`

	// AuthorizationServer is the only issuer whose tokens are used and that is
	// sent a credential. Required with a secret or key that is configured here;
	// otherwise the one that the server names when the user signs in.
	AuthorizationServer string `json:"authorization_server,omitempty"`

	// Credentials are how this Caddy gets tokens. Required.
	Credentials *RemoteCredentials `json:"credentials,omitempty"`

	// Scopes to ask for. Default: those that the server's challenge or metadata
	// name.
	Scopes []string `json:"scopes,omitempty"`

	// StepUpOff does not ask for further scopes when the server wants more than
	// the token has.
	StepUpOff bool `json:"step_up_off,omitempty"`

	// AllowOrigins are origins of the authorization server that may be http or
	// have private addresses, and of an MCP server with http.
	AllowOrigins []string `json:"allow_origins,omitempty"`

	// ReplayLimit is up to how many bytes the body of a request is kept so that the
	// request can be repeated with a new token; a longer body is passed on as it
	// comes. Default: 1 MiB; negative: none is kept.
	ReplayLimit int64 `json:"replay_limit,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.mcp_oauth", New: func() caddy.Module { return new(Transport) }}
}

// Provision checks the configuration. It asks for no token and opens nothing.
func (t *Transport) Provision(ctx caddy.Context) error {
	t.logger = ctx.Logger()
	if t.ProxyProtocolEnabled() {
		return errors.New("transport mcp_oauth: proxy_protocol is for servers of one's own: it has no place before a TLS connection to somebody else's")
	}
	t.special = isSpecial(&t.HTTPTransport) // before Caddy clears what it has loaded
	if err := t.HTTPTransport.Provision(ctx); err != nil {
		return err
	}
	r, err := resolved(&t.RemoteServer)
	if err != nil {
		return fmt.Errorf("transport mcp_oauth: %w", err)
	}
	if err := t.findServer(ctx, r); err != nil {
		return fmt.Errorf("transport mcp_oauth: %w", err)
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("transport mcp_oauth: %w", err)
	}
	if t.app, err = appOf(ctx); err != nil {
		return err
	}
	if t.source, err = t.newSource(r); err != nil {
		return fmt.Errorf("transport mcp_oauth: %w", err)
	}
	return nil
}

// Cleanup closes connections that are not in use. What is under way goes on.
func (t *Transport) Cleanup() error {
	if t.source != nil {
		t.source.closeIdle()
	}
	return t.HTTPTransport.Cleanup()
}

// findServer decides which server tokens are for, and makes sure that the proxy
// sends requests to no other.
func (t *Transport) findServer(ctx caddy.Context, r *RemoteServer) error {
	dials, err := dialAddresses(ctx)
	if err != nil {
		return err
	}
	if r.Resource == "" {
		if len(dials) != 1 {
			return errors.New("write the URL of the MCP server: resource https://mcp.example.com/mcp")
		}
		origin, err := oauth.Origin(t.scheme() + "://" + dials[0])
		if err != nil {
			return fmt.Errorf("the upstream %s is no host: %w; write resource with the URL of the MCP server", dials[0], err)
		}
		r.Resource = origin + "/mcp"
	}
	if r.Resource, err = authclient.ResourceURLFromServerURL(r.Resource); err != nil {
		return fmt.Errorf("resource: %w; write a full URL such as https://mcp.example.com/mcp", err)
	}
	if t.origin, err = oauth.Origin(r.Resource); err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	for _, dial := range dials {
		if origin, err := oauth.Origin(t.scheme() + "://" + dial); err != nil || origin != t.origin {
			return fmt.Errorf("the proxy's upstream is %s://%s and the resource is at %s: a token for the one must not be sent to the other; write the origin of the resource as the upstream, with https:// if it has that", t.scheme(), dial, t.origin)
		}
	}
	return nil
}

// scheme is that of requests to the upstream.
func (t *Transport) scheme() string {
	if t.TLSEnabled() {
		return "https"
	}
	return "http"
}

// dialAddresses returns the addresses (host:port) of the upstreams of the proxy
// that has this transport, as far as they are known before a request.
func dialAddresses(ctx caddy.Context) ([]string, error) {
	var proxy *reverseproxy.Handler
	for _, module := range slices.Backward(ctx.Modules()) {
		if h, ok := module.(*reverseproxy.Handler); ok {
			proxy = h
			break
		}
	}
	if proxy == nil {
		return nil, nil
	}
	if proxy.DynamicUpstreamsRaw != nil {
		return nil, errors.New("dynamic upstreams are addresses that anybody may answer for: write the origin of the MCP server as the upstream")
	}
	var dials []string
	repl := caddy.NewReplacer()
	for _, upstream := range proxy.Upstreams {
		dial := repl.ReplaceKnown(upstream.Dial, "")
		if hasPlaceholder(dial) {
			continue // each request is looked at
		}
		address, err := caddy.ParseNetworkAddress(dial)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", upstream.Dial, err)
		}
		if address.Network != "tcp" || address.PortRangeSize() != 1 {
			return nil, fmt.Errorf("upstream %s: a server elsewhere has a host name and one port", upstream.Dial)
		}
		dials = append(dials, address.JoinHostPort(0))
	}
	return dials, nil
}

// check holds the rules that need nothing but the settings themselves.
func (r *RemoteServer) check() error {
	if u, err := url.Parse(r.Resource); err == nil && u.Scheme == "http" && !oauth.IsLoopbackHost(u.Hostname()) && !r.allows(u) {
		return fmt.Errorf("resource %s: tokens need https: write the upstream as https://…; or add allow_origins %s://%s if nobody can listen on that network", r.Resource, u.Scheme, u.Host)
	}
	for _, origin := range r.AllowOrigins {
		if u, err := url.Parse(origin); !hasPlaceholder(origin) && (err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "") {
			return fmt.Errorf("allow_origins: %q is no origin: write one such as https://idp.internal.example", origin)
		}
	}
	if r.AuthorizationServer != "" && !hasPlaceholder(r.AuthorizationServer) {
		if u, err := url.Parse(r.AuthorizationServer); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return fmt.Errorf("authorization_server: %q is no issuer: write one such as https://auth.example.com", r.AuthorizationServer)
		}
	}
	if err := checkScopes("scopes", r.Scopes); err != nil {
		return err
	}
	return r.checkCredentials()
}

// allows reports whether allow_origins has the origin of u.
func (r *RemoteServer) allows(u *url.URL) bool {
	origin, err := oauth.Origin(u.String())
	return err == nil && slices.ContainsFunc(r.AllowOrigins, func(allowed string) bool {
		o, err := oauth.Origin(allowed)
		return err == nil && o == origin
	})
}

// RequestHeaderOps sends the server its own name as Host, also without TLS.
func (t *Transport) RequestHeaderOps() *headers.HeaderOps {
	return &headers.HeaderOps{Set: http.Header{"Host": {"{http.reverse_proxy.upstream.hostport}"}}}
}

// RoundTrip sends the request with a token, and once more with a new one if the
// server refuses that.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	out, err := t.outgoing(r)
	if err != nil {
		return nil, err
	}
	client, err := t.source.client(r)
	if err != nil {
		response := t.explain(r, err)
		if out.Body != nil {
			_ = out.Body.Close()
		}
		return response, nil
	}
	var body *keptBody
	if _, users := t.source.(*userGrants); users { // who may have to be told
		body = keepBody(out)
	}
	trip := &trip{context: r.Context()}
	resp, err := client.RoundTrip(out.WithContext(trip.alone()))
	switch {
	case err == nil:
		return t.checked(r, resp), nil
	case trip.err != nil: // the server could not be reached
		return nil, trip.err
	case r.Context().Err() != nil:
		return nil, err
	}
	if trip.scope && (errors.Is(err, oauth.ErrInvalidScope) || errors.Is(err, oauth.ErrAccessDenied)) {
		// What this caller needs is not to be had; the others have what they need.
		err = fmt.Errorf("%w: %w", authclient.ErrInsufficientScope, err)
	}
	err = client.failed(r.Context(), err)
	if !trip.sent { // the proxy, whose body it is, keeps it open
		return t.explain(r, err), nil
	}
	bare := *r
	bare.Body = body.again() // that of r may be under way still
	return t.explain(&bare, err), nil
}

// outgoing returns the request as it leaves this Caddy but for the token.
func (t *Transport) outgoing(r *http.Request) (*http.Request, error) {
	out := new(http.Request)
	*out = *r
	u := *r.URL
	out.URL = &u
	t.SetScheme(out)
	if err := t.direct(out); err != nil {
		return nil, err
	}
	out.Header = r.Header.Clone()
	for _, name := range []string{"Authorization", "Proxy-Authorization", "Dpop"} {
		delete(out.Header, name)
	}
	removeQueryToken(out.URL)
	return out, nil
}

// direct refuses a request for another origin than the resource's.
func (t *Transport) direct(out *http.Request) error {
	address := out.URL.Host
	if dial, ok := reverseproxy.GetDialInfo(out.Context()); ok {
		if dial.Network != "tcp" {
			return fmt.Errorf("the upstream %s is not at %s, so it gets no token", dial, t.origin)
		}
		address = dial.Address
	}
	if origin, err := oauth.Origin(out.URL.Scheme + "://" + address); err != nil || origin != t.origin {
		return fmt.Errorf("the upstream %s is not at %s, so it gets no token", address, t.origin)
	}
	out.URL.Host = strings.TrimPrefix(t.origin, out.URL.Scheme+"://")
	return nil
}

// removeQueryToken takes a token that the caller put into the URL.
func removeQueryToken(u *url.URL) {
	if !queryHoldsToken(u) {
		return
	}
	query := u.Query()
	query.Del("access_token")
	u.RawQuery = query.Encode()
}

// trip is one way of a request through the client. Getting a token is not part
// of the caller's request: it must not see its connection, its trace or its
// placeholders.
type trip struct {
	context context.Context
	// sent tells that the request was on its way to the server, and err how that
	// ended.
	sent bool
	err  error
	// scope tells that the server wanted more scope.
	scope bool
}

type tripKey struct{}

// alone is the request's context without its values.
func (t *trip) alone() context.Context { return bareContext{t.context, t} }

type bareContext struct {
	context.Context
	trip *trip
}

func (c bareContext) Value(key any) any {
	if key == (tripKey{}) {
		return c.trip
	}
	return nil
}

// fullContext has the values of a request again.
type fullContext struct {
	context.Context
	values context.Context
}

func (c fullContext) Value(key any) any { return c.values.Value(key) }

// server sends requests to the server, with the values that the dialer needs.
type server struct{ http.RoundTripper }

func (s server) RoundTrip(r *http.Request) (*http.Response, error) {
	trip, ok := r.Context().Value(tripKey{}).(*trip)
	if !ok {
		return nil, errors.New("the request did not come through the proxy")
	}
	trip.sent = true
	resp, err := s.RoundTripper.RoundTrip(r.WithContext(fullContext{r.Context(), trip.context}))
	trip.err = err
	if err == nil && resp.StatusCode == http.StatusForbidden && oauth.ExtractChallengeParams(resp.Header).Error == oauth.ErrInsufficientScope.Code {
		trip.scope = true
	}
	return resp, err
}

// tokenSource finds the client in whose name a request is sent.
type tokenSource interface {
	client(r *http.Request) (remoteClient, error)
	// closeIdle closes connections that are not in use.
	closeIdle()
}

// remoteClient sends requests with a token.
type remoteClient interface {
	http.RoundTripper
	// failed is told that there was no token for a request, whose context ctx is.
	// It returns what there is to say about that.
	failed(ctx context.Context, err error) error
}

// oneSource is the source of a proxy that has one grant for all callers. It is
// opened when it is first needed; a failure is not remembered.
type oneSource struct {
	open func() (*grantClient, error)
	got  atomic.Pointer[grantClient]
}

// opened is a source whose client needs no opening.
func opened(c *grantClient) *oneSource {
	s := new(oneSource)
	s.got.Store(c)
	return s
}

func (s *oneSource) client(*http.Request) (remoteClient, error) {
	if c := s.got.Load(); c != nil {
		return c, nil
	}
	c, err := s.open()
	if err != nil {
		return nil, err
	}
	if !s.got.CompareAndSwap(nil, c) {
		c = s.got.Load()
	}
	return c, nil
}

func (s *oneSource) closeIdle() {
	if c := s.got.Load(); c != nil {
		c.CloseIdleConnections()
	}
}

// Interface guards
var (
	_ caddy.Provisioner                      = (*Transport)(nil)
	_ caddy.CleanerUpper                     = (*Transport)(nil)
	_ http.RoundTripper                      = (*Transport)(nil)
	_ reverseproxy.TLSTransport              = (*Transport)(nil)
	_ reverseproxy.H2CTransport              = (*Transport)(nil)
	_ reverseproxy.ProxyProtocolTransport    = (*Transport)(nil)
	_ reverseproxy.RequestHeaderOpsTransport = (*Transport)(nil)
)
