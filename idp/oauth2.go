package idp

import (
	"context"
	"fmt"
	"net/url"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// OAuth2Options configure a provider that has no OpenID Connect: its endpoints
// are named, and its userinfo tells who the user is.
type OAuth2Options struct {
	Common
	// AuthorizationURL, TokenURL and UserInfoURL are required.
	AuthorizationURL, TokenURL, UserInfoURL string
	// RevocationURL is an endpoint of RFC 7009, if there is one.
	RevocationURL string
	// Issuer is the namespace of the subjects, which must not change; the origin
	// of TokenURL if empty. If it is set, an iss in the callback must equal it.
	Issuer string
	// SubjectClaim of userinfo identifies the user for ever: a string or an
	// integer. sub if empty. Dots lead into objects, here and below.
	SubjectClaim string
	// EmailClaim is email if empty, EmailVerifiedClaim email_verified, NameClaim
	// name, GroupsClaim groups.
	EmailClaim, EmailVerifiedClaim, NameClaim, GroupsClaim string
}

// oauth2Upstream is a provider without id_token: who the user is, an API tells.
type oauth2Upstream struct {
	*caller
	name, issuer string
	callbackIss  []string
	open         bool
	capabilities Capabilities
	who          func(ctx context.Context, accessToken string) (*Identity, error)
	end          func(ctx context.Context, t Tokens) error
}

// NewOAuth2 returns a provider whose endpoints are named. There is no default
// scope.
func NewOAuth2(o OAuth2Options) (Upstream, error) {
	for name, address := range map[string]string{
		"authorization_url": o.AuthorizationURL, "token_url": o.TokenURL, "userinfo_url": o.UserInfoURL, "revocation_url": o.RevocationURL,
	} {
		if address == "" && name == "revocation_url" {
			continue
		}
		if err := oauth.CheckEndpoint(address, o.Insecure); err != nil {
			return nil, fmt.Errorf("%s %q: %w", name, address, err)
		}
	}
	if err := o.prepare(); err != nil {
		return nil, err
	}
	u := &oauth2Upstream{name: hostOf(o.TokenURL), issuer: o.Issuer}
	if o.Issuer != "" {
		if err := oauth.CheckIssuer(o.Issuer, o.Insecure); err != nil {
			return nil, err
		}
		u.callbackIss = []string{o.Issuer}
	} else {
		origin, err := oauth.Origin(o.TokenURL)
		if err != nil {
			return nil, fmt.Errorf("token_url: %w", err)
		}
		u.issuer = origin
	}
	for claim, otherwise := range map[*string]string{
		&o.SubjectClaim: "sub", &o.EmailClaim: "email", &o.EmailVerifiedClaim: "email_verified", &o.NameClaim: "name", &o.GroupsClaim: "groups",
	} {
		if *claim == "" {
			*claim = otherwise
		}
	}
	o.Logger = o.Logger.With("upstream", u.issuer)
	u.caller = &caller{Common: o.Common, fixed: &metadata{
		issuer: u.issuer, authorizationEndpoint: o.AuthorizationURL, tokenEndpoint: o.TokenURL,
		userinfoEndpoint: o.UserInfoURL, revocationEndpoint: o.RevocationURL,
	}}
	u.capabilities = Capabilities{Refresh: true, UserInfo: true, Revoke: o.RevocationURL != ""}
	u.who = func(ctx context.Context, accessToken string) (*Identity, error) {
		return u.userinfo(ctx, &o, accessToken)
	}
	u.end = u.revoke
	return u, nil
}

func (u *oauth2Upstream) userinfo(ctx context.Context, o *OAuth2Options, accessToken string) (*Identity, error) {
	var c claims
	if err := u.getJSON(ctx, "userinfo", o.UserInfoURL, accessToken, nil, &c); err != nil {
		return nil, err
	}
	id := &Identity{
		Issuer: u.issuer, Subject: c.id(o.SubjectClaim),
		Email: cleanEmail(c.str(o.EmailClaim)), Name: cleanName(c.str(o.NameClaim)), Claims: c.keep(u.Claims),
	}
	if err := checkSubject(id.Subject); err != nil {
		return nil, trouble(err, "its userinfo has no usable %s; configure subject_claim", shorten(o.SubjectClaim, 60))
	}
	id.EmailVerified = id.Email != "" && c.is(o.EmailVerifiedClaim)
	u.setGroups(id, c.list(o.GroupsClaim))
	return id, nil
}

func (u *oauth2Upstream) Name() string               { return u.name }
func (u *oauth2Upstream) Issuer() string             { return u.issuer }
func (u *oauth2Upstream) openToAll() bool            { return u.open }
func (u *oauth2Upstream) Capabilities() Capabilities { return u.capabilities }
func (u *oauth2Upstream) Run(ctx context.Context)    { u.run(ctx) }

func (u *oauth2Upstream) AuthorizationURL(ctx context.Context, r AuthRequest) (string, error) {
	return u.authorizationURL(ctx, r, u.Scopes, url.Values{})
}

func (u *oauth2Upstream) Exchange(ctx context.Context, cb Callback) (*Identity, *Tokens, error) {
	code, err := u.code(cb.Query, u.callbackIss, false)
	if err != nil {
		return nil, nil, err
	}
	answer, err := u.token(ctx, codeGrant, u.redeem(cb, code))
	if err != nil {
		return nil, nil, err
	}
	id, err := u.who(ctx, answer.accessToken)
	if err != nil {
		return nil, nil, err
	}
	return id, answer.tokens(Tokens{}, u.Now()), nil
}

// Refresh asks who the user is as well, for the token endpoint does not say.
func (u *oauth2Upstream) Refresh(ctx context.Context, t Tokens) (*Identity, *Tokens, error) {
	answer, tokens, err := u.refresh(ctx, t, nil)
	if err != nil {
		return nil, nil, err
	}
	id, err := u.who(ctx, answer.accessToken)
	return id, tokens, definite(err)
}

func (u *oauth2Upstream) UserInfo(ctx context.Context, t Tokens) (*Identity, error) {
	if err := u.usable(t); err != nil {
		return nil, err
	}
	id, err := u.who(ctx, t.AccessToken)
	return id, definite(err)
}

func (u *oauth2Upstream) Revoke(ctx context.Context, t Tokens) error {
	if u.end == nil {
		return nil
	}
	return u.end(ctx, t)
}
