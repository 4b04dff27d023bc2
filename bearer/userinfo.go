package bearer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// userinfoCache is how long an answer about a user is believed unless
	// configured, maxUserinfoCache the most that can be: so long a revoked token
	// still works.
	userinfoCache    = 30 * time.Second
	maxUserinfoCache = 5 * time.Minute
)

// UserinfoConfig says how to find out about opaque tokens of a provider that has
// no introspection endpoint (RFC 7662) for us, by an endpoint that answers
// whoever holds the token.
//
// Such an endpoint answers for a token of any application: one that somebody
// else's application got from a user opens this server too, unless the client
// that it was issued to is checked. So ClientIDs, or AnyClient, is required.
type UserinfoConfig struct {
	// Provider is github, google, or "" for any other, which needs URL.
	Provider string
	// URL is the endpoint, which gets the token as a Bearer token and answers 200
	// with a JSON object. For github and google it replaces the base URL of the
	// API, for an Enterprise Server.
	URL string
	// Issuer is TokenInfo.Issuer. Default: the provider's, or the origin of URL.
	Issuer string

	// ClientIDs are the applications whose tokens are accepted; they are the
	// audience of the tokens too. For github it is one.
	ClientIDs []string
	// ClientSecret is that of the one client, for github.
	ClientSecret string
	// ClientClaim is the member of the answer that holds the client id, for other
	// providers.
	ClientClaim string
	// AnyClient accepts the tokens of all applications. Then the tokens have no
	// audience, and the resource must accept any.
	AnyClient bool

	// UserClaim is the member that identifies the user, a string or a whole
	// number: by default sub, for github id.
	UserClaim string
	// Scopes are those of every token. Otherwise they are what the provider says:
	// in ScopeClaim, by default scope; for github as it says them.
	Scopes     []string
	ScopeClaim string
	// Prefixes are how the tokens of the provider begin, for a Chain. None
	// recognises all but JWTs.
	Prefixes []string

	// MaxCache is how long a good answer is believed by a TokenCache, 30 s if 0,
	// at most 5 min, never beyond the token's expiry. Below 0, not at all.
	MaxCache time.Duration
	// Client makes the requests; nil is a client bounded in time and size. Its
	// redirect policy is not used: redirects are never followed.
	Client *http.Client
	// Logger gets what the operator has to do something about; nil discards it.
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// UserinfoVerifier is a Verifier that asks a provider whose a token is.
// Concurrent requests with one token share one question; a TokenCache, as the
// Guard has it, remembers the answer.
//
// Most such tokens do not tell when they expire: TokenInfo.ExpiresAt is zero
// then.
type UserinfoVerifier struct {
	config    UserinfoConfig
	provider  userinfoProvider
	client    *http.Client
	flights   singleflight.Group
	complaint rareLog
}

// userinfoProvider is what is different between providers.
type userinfoProvider interface {
	// request asks about the token.
	request(ctx context.Context, token string) (*http.Request, error)
	// refuses reports whether an answer that is not 200 is a definite no.
	refuses(answer *safehttp.Answer) bool
	// read gathers what a 200 answer says.
	read(answer claims, header http.Header) (*oauth.TokenInfo, error)
}

// NewUserinfoVerifier checks the configuration. It does no I/O.
func NewUserinfoVerifier(c UserinfoConfig) (*UserinfoVerifier, error) {
	switch {
	case c.AnyClient && len(c.ClientIDs) > 0:
		return nil, errors.New("client ids are given and tokens of any client are accepted; choose one")
	case !c.AnyClient && len(c.ClientIDs) == 0:
		return nil, errors.New("without a client id, a token that any other application got from a user would be accepted; write the client_id of your application, or any_client if that is meant")
	case slices.Contains(c.ClientIDs, ""):
		return nil, errors.New("a client id is empty")
	case slices.Contains(c.Prefixes, ""):
		return nil, errors.New("a token prefix is empty")
	}
	for _, scope := range c.Scopes {
		if !oauth.ValidScope(scope) {
			return nil, fmt.Errorf("%q is not a scope", scope)
		}
	}
	if c.URL != "" {
		if err := checkURL("userinfo URL", c.URL); err != nil {
			return nil, err
		}
		c.URL = strings.TrimSuffix(c.URL, "/")
	}
	if c.MaxCache == 0 {
		c.MaxCache = userinfoCache
	}
	c.MaxCache = min(c.MaxCache, maxUserinfoCache)
	c.Now, c.Logger = clockOr(c.Now), loggerOr(c.Logger)
	v := &UserinfoVerifier{client: upstreamClient(c.Client), complaint: rareLog{now: c.Now, logger: c.Logger}}
	var err error
	switch c.Provider {
	case "github":
		v.provider, err = newGitHubUserinfo(&c)
	case "google":
		v.provider, err = newGoogleUserinfo(&c)
	case "":
		v.provider, err = newPlainUserinfo(&c)
	default:
		err = fmt.Errorf("%q is no provider that is known; there are github and google, and any other by its URL", c.Provider)
	}
	v.config = c
	return v, err
}

// Recognizes reports whether the token looks like one of the provider.
func (v *UserinfoVerifier) Recognizes(token string) bool {
	if len(v.config.Prefixes) == 0 {
		return strings.Count(token, ".") != 2
	}
	return slices.ContainsFunc(v.config.Prefixes, func(prefix string) bool { return strings.HasPrefix(token, prefix) })
}

// VerifyAccessToken asks about the token. Errors are those that Verifier names.
func (v *UserinfoVerifier) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	verdict, err := v.Verdict(ctx, token)
	return verdict.Info, err
}

// Verdict asks about the token.
func (v *UserinfoVerifier) Verdict(ctx context.Context, token string) (Verdict, error) {
	if token == "" || len(token) > maxToken {
		return Verdict{}, refuse("Token is malformed", fmt.Errorf("it has %d bytes", len(token)))
	}
	if !v.Recognizes(token) {
		// Somebody else's token is no business of this provider.
		return Verdict{}, refuse("Token was not issued by an authorization server that is accepted here", errors.New("it does not look like one of the provider"))
	}
	return shareQuestion(ctx, &v.flights, token, v.ask)
}

func (v *UserinfoVerifier) ask(ctx context.Context, token string) (Verdict, error) {
	request, err := v.provider.request(ctx, token)
	if err != nil {
		return Verdict{}, unverifiable(errors.New("the userinfo URL is not valid"))
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "mcpauth") // GitHub refuses requests without one
	answer, err := safehttp.Do(v.client, request, maxIntrospection)
	if err != nil {
		return Verdict{}, unverifiable(err)
	}
	now := v.config.Now()
	if answer.Status != http.StatusOK {
		status := &statusError{url: request.URL.Scheme + "://" + request.URL.Host + request.URL.Path, status: answer.Status}
		if v.provider.refuses(answer) {
			return Verdict{Until: now.Add(maxRefusal)}, refuse("Token is not valid", status)
		}
		v.complaint.error("the userinfo endpoint does not answer, so that no token can be verified; if the status is 401 or 403, check client_id and client_secret, or whether the provider limits how often one may ask", status)
		return Verdict{}, unverifiable(status)
	}
	info, err := v.judge(answer, now)
	switch {
	case errors.Is(err, oauth.ErrInvalidToken):
		return Verdict{Until: now.Add(maxRefusal)}, err
	case err != nil:
		return Verdict{}, unverifiable(err)
	}
	info.Token = token
	until := now.Add(v.config.MaxCache)
	if !info.ExpiresAt.IsZero() {
		until = earlier(until, info.ExpiresAt)
	}
	return Verdict{Info: info, Until: until}, nil
}

// judge reads a 200 answer. An error that is not oauth.ErrInvalidToken means
// that the answer makes no sense.
func (v *UserinfoVerifier) judge(answer *safehttp.Answer, now time.Time) (*oauth.TokenInfo, error) {
	body, err := parseClaims(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("the userinfo answer: %w", err)
	}
	if err := body.accessToken(); err != nil {
		return nil, err
	}
	if tokenType, err := body.text("token_type"); err != nil || !isBearerType(tokenType) {
		return nil, refuse("Token cannot be used as a Bearer token", fmt.Errorf("its token_type is %.40q", tokenType))
	}
	info, err := v.provider.read(body, answer.Header)
	if err != nil {
		return nil, err
	}
	if info.UserID == "" {
		return nil, errors.New("the userinfo answer does not say who the user is")
	}
	if !v.config.AnyClient {
		if !slices.Contains(v.config.ClientIDs, info.ClientID) {
			return nil, refuse("Token was issued to another application",
				fmt.Errorf("it is for client %.200q", info.ClientID))
		}
		info.Audience = []string{info.ClientID}
	}
	if !info.ExpiresAt.IsZero() && !now.Before(info.ExpiresAt) {
		return nil, refuse("Token has expired", fmt.Errorf("it expired %s ago", now.Sub(info.ExpiresAt)))
	}
	if v.config.Scopes != nil {
		info.Scopes = slices.Clone(v.config.Scopes)
	}
	info.Issuer = v.config.Issuer
	return info, nil
}

// id returns a member that is a string or a whole number, "" if it is absent.
func (c claims) id(name string) (string, error) {
	if number, ok := c[name].(json.Number); ok {
		if whole, err := number.Int64(); err == nil {
			return fmt.Sprint(whole), nil
		}
		return "", fmt.Errorf("%s is not a whole number", name)
	}
	return c.text(name)
}

// plainUserinfo is an endpoint as OpenID Connect Core §5.3 has it, or one like
// it.
type plainUserinfo struct{ config UserinfoConfig }

func newPlainUserinfo(c *UserinfoConfig) (userinfoProvider, error) {
	switch {
	case c.URL == "":
		return nil, errors.New("write the url of the userinfo endpoint")
	case !c.AnyClient && c.ClientClaim == "":
		return nil, errors.New("write which member of the answer names the client that the token was issued to, as client_claim; if there is none, everybody's tokens are accepted, which any_client says")
	case c.ClientSecret != "":
		return nil, errors.New("a client secret is for github")
	}
	if c.Issuer == "" {
		origin, err := oauth.Origin(c.URL)
		if err != nil {
			return nil, err
		}
		c.Issuer = origin
	}
	if c.UserClaim == "" {
		c.UserClaim = "sub"
	}
	if c.ScopeClaim == "" {
		c.ScopeClaim = "scope"
	}
	return &plainUserinfo{*c}, nil
}

func (p *plainUserinfo) request(ctx context.Context, token string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.config.URL, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return r, nil
}

// refuses follows RFC 6750 §3.1. A 403 may as well be a limit on requests,
// unless it is a challenge.
func (p *plainUserinfo) refuses(answer *safehttp.Answer) bool {
	return answer.Status == http.StatusUnauthorized ||
		answer.Status == http.StatusForbidden && strings.Contains(answer.Header.Get("Www-Authenticate"), "insufficient_scope")
}

func (p *plainUserinfo) read(answer claims, _ http.Header) (_ *oauth.TokenInfo, err error) {
	info := &oauth.TokenInfo{}
	if info.UserID, err = answer.id(p.config.UserClaim); err != nil {
		return nil, fmt.Errorf("the userinfo answer: %w", err)
	}
	if p.config.ClientClaim != "" {
		if info.ClientID, err = answer.text(p.config.ClientClaim); err != nil {
			return nil, fmt.Errorf("the userinfo answer: %w", err)
		}
	}
	if info.Scopes, _, err = answer.scopes(p.config.ScopeClaim); err != nil {
		return nil, fmt.Errorf("the userinfo answer: %w", err)
	}
	if expires, err := answer.time("exp"); err != nil {
		return nil, fmt.Errorf("the userinfo answer: %w", err)
	} else if !expires.IsZero() {
		info.ExpiresAt = expires
	}
	info.Extra = answer.rest(p.config.UserClaim, p.config.ClientClaim, p.config.ScopeClaim, "exp", "token_type")
	return info, nil
}
