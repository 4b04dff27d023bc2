package idp

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// OIDCOptions configure any OpenID Connect provider that publishes its
// metadata. Issuer and ClientID are required.
type OIDCOptions struct {
	Common
	// Issuer is the provider's issuer, byte for byte as in its metadata.
	Issuer string
	// GroupsClaim is where the groups are, groups if empty. Dots lead into
	// objects.
	GroupsClaim string
}

// NewOIDC returns a provider for an issuer. Scopes are openid profile email
// unless configured; offline_access is added to this default if the provider
// lists it. It does no I/O.
func NewOIDC(o OIDCOptions) (Upstream, error) {
	return newOIDC(o.Common, o.Issuer, o.GroupsClaim, quirks{name: hostOf(o.Issuer)}, "openid", "profile", "email")
}

// quirks are what sets a provider apart from OpenID Connect as written.
type quirks struct {
	name string
	open bool // everybody can have an account there
	// acceptsIssuer judges the issuer of the metadata document; nil wants the
	// configured one.
	acceptsIssuer func(string) error
	// tokenIssuer is the issuer that an id_token must have; nil is that of the
	// document.
	tokenIssuer func(documentIssuer string, c claims) (string, error)
	// authParams changes the parameters of an authorization request. prompt is
	// set already if the request has one.
	authParams func(r AuthRequest, q url.Values)
	// refreshScope sends the scopes at refresh.
	refreshScope bool
	noUserInfo   bool
	noRevocation bool
	// neverScopes are dropped before they are sent.
	neverScopes []string
	// identity changes what was made of the claims, or refuses it with ErrDenied.
	identity func(id *Identity, c claims) error
	// groups returns the groups; nil takes GroupsClaim.
	groups func(ctx context.Context, u *oidcUpstream, c claims, accessToken string) ([]string, error)
}

type oidcUpstream struct {
	*caller
	quirks
	issuer        string
	groupsClaim   string
	defaultScopes bool
	keys          *signingKeys
}

func newOIDC(c Common, issuer, groupsClaim string, q quirks, scopes ...string) (Upstream, error) {
	// An unconfigured provider is recognised by what it lacks first.
	if err := oauth.CheckIssuer(issuer, c.Insecure); err != nil {
		return nil, err
	}
	u := &oidcUpstream{quirks: q, issuer: issuer, groupsClaim: groupsClaim, defaultScopes: c.Scopes == nil}
	if err := c.prepare(scopes...); err != nil {
		return nil, err
	}
	if u.groupsClaim == "" {
		u.groupsClaim = "groups"
	}
	if !slices.Contains(c.Scopes, "openid") {
		c.Scopes = append([]string{"openid"}, c.Scopes...)
	}
	c.Scopes = slices.DeleteFunc(c.Scopes, func(s string) bool { return slices.Contains(q.neverScopes, s) })
	c.Logger = c.Logger.With("upstream", issuer)
	u.caller = &caller{Common: c}
	u.discovery = newDiscovery(&u.Common, issuer, q.acceptsIssuer)
	u.keys = newSigningKeys(u.caller)
	return u, nil
}

func (u *oidcUpstream) Name() string    { return u.name }
func (u *oidcUpstream) Issuer() string  { return u.issuer }
func (u *oidcUpstream) openToAll() bool { return u.open }

func (u *oidcUpstream) Capabilities() Capabilities {
	return Capabilities{Refresh: true, UserInfo: !u.noUserInfo, Revoke: !u.noRevocation}
}

func (u *oidcUpstream) Run(ctx context.Context) {
	var wait sync.WaitGroup
	wait.Go(func() { u.caller.run(ctx) })
	wait.Go(func() { u.keys.run(ctx) })
	wait.Wait()
}

// identityScopes are what MinimalScope leaves.
var identityScopes = [...]string{"openid", "profile", "email", "groups", "roles"}

func (u *oidcUpstream) scopes(m *metadata, minimal bool) []string {
	if minimal {
		return slices.DeleteFunc(slices.Clone(u.Scopes), func(s string) bool { return !slices.Contains(identityScopes[:], s) })
	}
	// The provider lists offline_access: without asking for it there may be no
	// refresh token (https://github.com/supabase/auth/issues/2628). One that
	// does not list it may refuse the whole request, so nobody else is asked.
	if u.defaultScopes && slices.Contains(m.scopes, "offline_access") &&
		!slices.Contains(u.Scopes, "offline_access") && !slices.Contains(u.neverScopes, "offline_access") {
		return append(slices.Clone(u.Scopes), "offline_access")
	}
	return u.Scopes
}

func (u *oidcUpstream) AuthorizationURL(ctx context.Context, r AuthRequest) (string, error) {
	if r.Nonce == "" {
		return "", trouble(nil, "the authorization request lacks its nonce")
	}
	m, err := u.metadata(ctx)
	if err != nil {
		return "", err
	}
	q := url.Values{"nonce": {r.Nonce}}
	if u.authParams != nil {
		u.authParams(r, q)
	}
	return u.authorizationURL(ctx, r, u.scopes(m, r.MinimalScope), q)
}

func (u *oidcUpstream) Exchange(ctx context.Context, cb Callback) (*Identity, *Tokens, error) {
	if cb.Nonce == "" {
		return nil, nil, trouble(nil, "the nonce of the authorization request is lost")
	}
	m, err := u.metadata(ctx)
	if err != nil {
		return nil, nil, err
	}
	issuers := []string{m.issuer}
	if u.tokenIssuer != nil {
		issuers = nil // depends on the tenant; the id_token tells
	}
	code, err := u.code(cb.Query, issuers, m.announcesIss)
	if err != nil {
		return nil, nil, err
	}
	answer, err := u.token(ctx, codeGrant, u.redeem(cb, code))
	if err != nil {
		return nil, nil, err
	}
	if answer.idToken == "" {
		return nil, nil, trouble(nil, "its token endpoint gave no id_token; is openid among the scopes, and is it an OpenID provider?")
	}
	id, err := u.identify(ctx, answer, cb.Nonce)
	if err != nil {
		return nil, nil, err
	}
	if iss := cb.Query.Get("iss"); iss != "" && u.tokenIssuer != nil && iss != id.Issuer && iss != m.issuer {
		return nil, nil, trouble(nil, "the callback comes from another issuer, %.200q", iss)
	}
	return id, answer.tokens(Tokens{}, u.Now()), nil
}

func (u *oidcUpstream) Refresh(ctx context.Context, t Tokens) (*Identity, *Tokens, error) {
	var scopes []string
	if u.refreshScope {
		scopes = u.Scopes
	}
	answer, tokens, err := u.refresh(ctx, t, scopes)
	if err != nil {
		return nil, nil, err
	}
	if answer.idToken == "" { // OpenID Connect Core §12.2: it might not be there
		return nil, tokens, nil
	}
	id, err := u.identify(ctx, answer, "")
	return id, tokens, definite(err)
}

// definite is err for a session that began earlier: to be refused now is to be
// dead.
func definite(err error) error {
	var e *Error
	if errors.As(err, &e) && e.kind == ErrDenied {
		return &Error{Code: e.Code, kind: ErrDead, text: e.text, cause: e.cause}
	}
	return err
}

// identify makes an identity of the id_token, and of userinfo for what that
// lacks.
func (u *oidcUpstream) identify(ctx context.Context, answer *tokenAnswer, nonce string) (*Identity, error) {
	c, err := u.verifyIDToken(ctx, answer.idToken, answer.accessToken, nonce)
	if err != nil {
		return nil, err
	}
	lacks := slices.Contains(u.Scopes, "email") && c.str("email") == "" || u.Groups && u.groups == nil && c.at(u.groupsClaim) == nil
	if lacks && !u.noUserInfo {
		more, err := u.userinfo(ctx, answer.accessToken)
		if err != nil {
			return nil, err
		}
		if more != nil {
			// OpenID Connect Core §5.3.2: or it must not be used.
			if more.str("sub") != c.str("sub") {
				return nil, trouble(nil, "its userinfo is about another subject than its id_token")
			}
			c.add(more)
		}
	}
	return u.fromClaims(ctx, c, c.str("iss"), answer.accessToken)
}

// add takes over what c lacks: the signed claims win. An address goes with its
// own email_verified.
func (c claims) add(more claims) {
	mail := more
	if c.str("email") == "" {
		mail = c
	}
	delete(mail, "email")
	delete(mail, "email_verified")
	for name, value := range more {
		if _, there := c[name]; !there {
			c[name] = value
		}
	}
}

func (u *oidcUpstream) UserInfo(ctx context.Context, t Tokens) (*Identity, error) {
	if err := u.usable(t); err != nil {
		return nil, err
	}
	if u.noUserInfo {
		return nil, trouble(nil, "its userinfo is not used")
	}
	m, err := u.metadata(ctx)
	if err != nil {
		return nil, err
	}
	c, err := u.userinfo(ctx, t.AccessToken)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, trouble(nil, "its metadata names no userinfo endpoint")
	}
	id, err := u.fromClaims(ctx, c, m.issuer, t.AccessToken)
	return id, definite(err)
}

// usable refuses to ask with a token whose refusal would tell nothing.
func (c *caller) usable(t Tokens) error {
	switch {
	case t.AccessToken == "":
		return trouble(nil, "there is no access token")
	case !t.Expired(c.Now()):
		return nil
	case t.RefreshToken != "":
		return trouble(nil, "the access token has expired: refresh it first")
	}
	return dead("", "the access token has expired, and the provider gave no refresh token")
}

// userinfo asks the endpoint of OpenID Connect Core §5.3; nil if there is none.
func (u *oidcUpstream) userinfo(ctx context.Context, accessToken string) (claims, error) {
	m, err := u.metadata(ctx)
	if err != nil || m.userinfoEndpoint == "" {
		return nil, err
	}
	var c claims
	if err := u.getJSON(ctx, "userinfo", m.userinfoEndpoint, accessToken, nil, &c); err != nil {
		return nil, err
	}
	if err := checkSubject(c.str("sub")); err != nil {
		return nil, trouble(err, "its userinfo cannot be accepted")
	}
	return c, nil
}

func (u *oidcUpstream) fromClaims(ctx context.Context, c claims, issuer, accessToken string) (*Identity, error) {
	id := &Identity{
		Issuer:  issuer,
		Subject: c.str("sub"),
		Email:   cleanEmail(c.str("email")),
		Name:    cleanName(c.str("name")),
		Claims:  c.keep(u.Claims),
	}
	id.EmailVerified = id.Email != "" && c.is("email_verified")
	groups := c.list(u.groupsClaim)
	if u.groups != nil {
		var err error
		if groups, err = u.groups(ctx, u, c, accessToken); err != nil {
			return nil, err
		}
	}
	u.setGroups(id, groups)
	if u.identity != nil {
		if err := u.identity(id, c); err != nil {
			return nil, err
		}
	}
	return id, nil
}

// setGroups takes over what is within the bounds.
func (c *caller) setGroups(id *Identity, groups []string) {
	kept, dropped := cleanGroups(groups)
	id.Groups = kept
	if dropped > 0 && c.complaints.due("groups", c.Now()) {
		c.Logger.Warn("a user has more or longer groups than are kept; rules see only the first",
			"dropped", dropped, "kept", len(kept))
	}
}

func (u *oidcUpstream) expectedIssuer(m *metadata, c claims) (string, error) {
	if u.tokenIssuer == nil {
		return m.issuer, nil
	}
	return u.tokenIssuer(m.issuer, c)
}

func (u *oidcUpstream) Revoke(ctx context.Context, t Tokens) error {
	if u.noRevocation {
		return nil
	}
	return u.revoke(ctx, t)
}

// issuerOfHost is https://host with the path, for presets that take a domain.
func issuerOfHost(name, host, path, example string) (string, error) {
	if err := checkHost(name, host, example); err != nil {
		return "", err
	}
	return fmt.Sprintf("https://%s%s", strings.ToLower(host), path), nil
}
