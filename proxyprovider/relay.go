package proxyprovider

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// The values of ProxyConfig.Callback.
const (
	callbackDirect = "direct"
	callbackRelay  = "relay"
)

// relay has the upstream answer to us, and hands the answer on to the client as
// our own: with a code of ours around the upstream's, and our iss. Since all
// clients then have one redirect URI upstream, it is we who have to make sure
// that a user's answer ends where the user wants it: the consent page comes
// first, and only the browser that it was shown in may bring the answer.
//
// It stores nothing, like the rest of the Proxy.
type relay struct {
	*browserFlow
	proxy *proxy
	// always is set if the operator chose the relay; otherwise it is for upstreams
	// that announce iss.
	always bool
	// untold is for the line that tells the operator what to register.
	untold onceLog
}

// newRelay returns the relay of the proxy, nil if its callback is direct.
func newRelay(cfg *ProxyConfig, p *proxy) (*relay, error) {
	switch cfg.Callback {
	case callbackRelay:
	case callbackDirect:
		return nil, nil
	case "":
		if p.upstream.discovery == nil {
			return nil, nil
		}
	default:
		return nil, errors.New("the callback is relay or direct")
	}
	flow := &BrokerConfig{
		Issuer:            cfg.Issuer,
		BaseURL:           cfg.BaseURL,
		EndpointPrefix:    cfg.EndpointPrefix,
		ClientStore:       p.store,
		Keys:              p.clients.seals.ring,
		ResourceNames:     cfg.ResourceNames,
		ScopeDescriptions: cfg.ScopeDescriptions,
		Consent:           cfg.Consent,
		ClientIP:          cfg.ClientIP,
		Logger:            cfg.Logger,
		Now:               cfg.Now,
	}
	// Who signs in is only known once the client has the token. So an earlier
	// consent may be somebody else's, and nothing would show it.
	flow.Consent.Remember = -1
	if err := flow.setFlowDefaults(); err != nil {
		return nil, err
	}
	browser, err := newBrowserFlow(flow, cfg.Issuer+" relay "+p.upstream.identity)
	if err != nil {
		return nil, err
	}
	browser.provider = shownHost(p.upstream.identity)
	browser.unnamed = cfg.Issuer
	if cfg.Resources != nil {
		if resource, err := cfg.Resources.Resolve(""); err == nil {
			browser.unnamed = resource
		}
	}
	y := &relay{browserFlow: browser, proxy: p, always: cfg.Callback == callbackRelay}
	if y.always {
		y.tellOperator()
	}
	return y, nil
}

// tellOperator says what the operator has to do for the clients that are not
// registered by us.
func (y *relay) tellOperator() {
	if len(y.proxy.clients.static) == 0 || !y.untold.first() {
		return
	}
	const what = "the upstream identity provider sends its answers to this server, which hands them on (callback relay): register the redirect_uri there for every configured client"
	attrs := []any{"redirect_uri", y.callbackURL(), "upstream", y.proxy.upstream.identity}
	if y.always {
		y.cfg.Logger.Info(what, attrs...)
		return
	}
	y.cfg.Logger.Warn(what+", or write callback direct; it was chosen because its metadata announce iss (RFC 9207), which strict clients refuse unless it is this server's", attrs...)
}

// wanted reports whether a client that registers now, or that the operator
// registered, is relayed. An upstream whose metadata cannot be had announces
// nothing.
func (y *relay) wanted(ctx context.Context) bool {
	if y.always {
		return true
	}
	metadata, err := y.proxy.upstream.discovery.Metadata(ctx)
	if err != nil || !metadata.AuthorizationResponseIssParameterSupported {
		return false
	}
	y.tellOperator()
	return true
}

// relays reports whether the client's answers are relayed. For a client that
// registered here that was decided when its redirect URI was registered
// upstream.
func (p *proxy) relays(ctx context.Context, c *oauth.Client) bool {
	switch {
	case p.relay == nil:
		return false
	case p.relay.always, p.clients.static[c.ClientID] != nil:
		return p.relay.wanted(ctx)
	}
	sealed, err := p.clients.open(c.ClientID)
	return err == nil && sealed.callback != callbackHash{}
}

// SendsIss implements authserver.ClientIssParameter.
func (p *proxy) SendsIss(ctx context.Context, c *oauth.Client) bool { return p.relays(ctx, c) }

// Endpoints implements Proxy.
func (p *proxy) Endpoints() map[string]http.Handler {
	if p.relay == nil {
		return nil
	}
	y := p.relay
	return map[string]http.Handler{
		y.cfg.EndpointPrefix + consentPath:  y.browserEndpoint(y.serveConsent, http.MethodPost),
		y.cfg.EndpointPrefix + callbackPath: y.browserEndpoint(y.serveCallback, http.MethodGet),
	}
}

// StripCookies implements Proxy.
func (p *proxy) StripCookies(r *http.Request) {
	if p.relay != nil {
		p.relay.StripCookies(r)
	}
}

// authorize shows the consent page, or goes on at once for a client for which
// the operator skips it.
func (y *relay) authorize(w http.ResponseWriter, r *http.Request, c *oauth.Client, x authserver.AuthorizationParams) error {
	seals, err := y.seals.get()
	if err != nil {
		return err
	}
	request, err := y.request(r.Context(), c, x)
	if err != nil {
		return err
	}
	prompts := strings.Fields(x.Prompt)
	tx := &transaction{purpose: forClient, request: *request, asksAlways: slices.Contains(prompts, "consent")}
	if !tx.asksAlways {
		tx.approval = y.silentApproval(seals, r, c, request)
	}
	switch {
	case tx.approval != notYet:
		return y.sendUpstream(w, r, seals, tx)
	case slices.Contains(prompts, "none"):
		return oauth.NewError("interaction_required", "This server always asks the user")
	}
	return y.askConsent(w, r, seals, c, tx, nil)
}

// request is what travels in the browser.
func (y *relay) request(ctx context.Context, c *oauth.Client, x authserver.AuthorizationParams) (*authRequest, error) {
	to, err := y.proxy.upstream.requiredURL(ctx, authorizationEndpoint)
	if err != nil {
		return nil, err
	}
	hash, err := metadataHash(c)
	if err != nil {
		return nil, err
	}
	scopes := strings.Fields(y.proxy.scope(ctx, y.proxy.orDefaultScopes(to, x)))
	if u, err := url.Parse(to); err == nil && len(scopes) == 0 {
		scopes = strings.Fields(u.Query().Get("scope")) // what is asked for then
	}
	request := &authRequest{
		clientID:        c.ClientID,
		metadataHash:    hash,
		redirectURI:     x.RedirectURI,
		redirectOmitted: x.RedirectURIOmitted,
		state:           x.State,
		challenge:       x.CodeChallenge,
		scopes:          scopes,
		resource:        x.Resource,
		prompt:          x.Prompt,
		nonce:           x.Nonce,
		loginHint:       x.LoginHint,
		maxAge:          x.MaxAge,
		locales:         x.UILocales,
		acrValues:       x.ACRValues,
	}
	return request, request.checkSize()
}

// serveConsent takes the user's answer.
func (y *relay) serveConsent(w http.ResponseWriter, r *http.Request) error {
	seals, form, err := y.consentAnswer(w, r)
	if err != nil || form == nil {
		return err
	}
	form.tx.approval = clicked
	if err := y.sendUpstream(w, r, seals, form.tx); err != nil {
		return y.tellClient(w, r, &form.tx.request, err)
	}
	return nil
}

// sendUpstream takes the user to the upstream, once the client is approved.
func (y *relay) sendUpstream(w http.ResponseWriter, r *http.Request, seals *brokerSeals, tx *transaction) error {
	ctx, q := r.Context(), &tx.request
	c, err := y.cfg.ClientStore.GetClient(ctx, q.clientID)
	if err != nil {
		return err
	}
	client, err := y.proxy.clients.upstreamClient(c)
	if err != nil {
		return err
	}
	to, err := y.proxy.upstream.requiredURL(ctx, authorizationEndpoint)
	if err != nil {
		return err
	}
	if err := tx.start(y.cfg.Rand, y.cfg.Now()); err != nil {
		return err
	}
	tx.nonce, tx.verifier = "", "" // those are the client's
	x := authserver.AuthorizationParams{
		RedirectURI: y.callbackURL(), State: tx.state(), Scopes: q.scopes, Resource: y.proxy.orDefaultResource(to, q.resource), Prompt: q.prompt, Nonce: q.nonce,
		LoginHint: q.loginHint, MaxAge: q.maxAge, UILocales: q.locales, ACRValues: q.acrValues,
	}
	if tx.challenged = y.proxy.upstream.takesS256(ctx); tx.challenged {
		x.CodeChallenge = q.challenge
	}
	if err := y.setTransaction(w, r, seals, tx); err != nil {
		return err
	}
	return seeOther(w, withQuery(to, y.proxy.authorizationQuery(client, x, oauth.JoinScope(q.scopes))))
}

// takesS256 reports whether the upstream may be sent a PKCE challenge (RFC 7636).
// Many know PKCE and do not say so; those who do not know it ignore it. One that
// names other methods only would refuse the request.
func (u *upstream) takesS256(ctx context.Context) bool {
	if u.discovery == nil {
		return true
	}
	metadata, err := u.discovery.Metadata(ctx)
	return err != nil || len(metadata.CodeChallengeMethodsSupported) == 0 || slices.Contains(metadata.CodeChallengeMethodsSupported, "S256")
}
