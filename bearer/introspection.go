package bearer

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// maxCache is how long an answer may be believed at most: so long a revoked
	// token still works.
	maxCache = 30 * time.Second
	// refusalCache is how long the refusal of a token is remembered.
	refusalCache = 5 * time.Second
	// maxIntrospection bounds an introspection answer, in bytes, since answers
	// are kept in memory.
	maxIntrospection = 64 << 10
)

// IntrospectionConfig says how to ask an authorization server about tokens
// (RFC 7662). One of URL and Discovery, ClientID and ClientSecret are required.
type IntrospectionConfig struct {
	// URL is the introspection endpoint. If empty, the metadata held by
	// Discovery says it.
	URL       string
	Discovery *Discovery
	// ClientID and ClientSecret are our own credentials at that endpoint.
	ClientID     string
	ClientSecret string
	// AuthMethod is how they are sent: basic (default, RFC 6749 §2.3.1) or post.
	AuthMethod string
	// Issuer is what iss must be if the answer has one, and whose tokens they
	// are if it has none. Default: the issuer of Discovery.
	Issuer string
	// UserClaim is the member that identifies the user, a string or a whole number.
	// Default: sub, and in an answer without one username, which RFC 7662 §2.2 has
	// for people; then UserID is the name after "username:", so that nobody is
	// taken for somebody else by choosing a name that is that one's sub.
	UserClaim string
	// Skew is how far the issuer's clock may differ from ours, 60 s if 0, none
	// if below 0.
	Skew time.Duration
	// MaxCache is how long a good answer is believed by a TokenCache, at most and
	// by default 30 s, never beyond the token's exp. Below 0, not at all.
	MaxCache time.Duration
	// Client makes the requests; nil is a client bounded in time and size. Its
	// redirect policy is not used: redirects are never followed.
	Client *http.Client
	// Logger gets what the operator has to do something about; nil discards it.
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// IntrospectionVerifier is a Verifier that asks the authorization server about
// each token. Concurrent requests with one token share one question; a
// TokenCache, as the Guard has it, remembers the answer.
type IntrospectionVerifier struct {
	config    IntrospectionConfig
	client    *http.Client
	flights   singleflight.Group
	complaint rareLog
	oddity    rareLog
	nobody    sync.Once
}

// NewIntrospectionVerifier checks the configuration. It does no I/O.
func NewIntrospectionVerifier(c IntrospectionConfig) (*IntrospectionVerifier, error) {
	switch {
	case c.URL == "" && c.Discovery == nil:
		return nil, errors.New("an introspection verifier needs a URL or discovery")
	case c.ClientID == "" || c.ClientSecret == "":
		return nil, errors.New("an introspection verifier needs a client id and a client secret, for RFC 7662 endpoints answer nobody else")
	case c.URL != "":
		if err := checkURL("introspection URL", c.URL); err != nil {
			return nil, err
		}
	}
	switch c.AuthMethod {
	case "":
		c.AuthMethod = "basic"
	case "basic", "post":
	default:
		return nil, fmt.Errorf("%q is no client authentication method of introspection; use basic or post", c.AuthMethod)
	}
	if c.Issuer == "" && c.Discovery != nil {
		c.Issuer = c.Discovery.Issuer()
	}
	if c.MaxCache == 0 || c.MaxCache > maxCache {
		c.MaxCache = maxCache
	}
	c.Skew, c.Now, c.Logger = skewOr(c.Skew), clockOr(c.Now), loggerOr(c.Logger)
	return &IntrospectionVerifier{
		config: c, client: upstreamClient(c.Client),
		complaint: rareLog{now: c.Now, logger: c.Logger}, oddity: rareLog{now: c.Now, logger: c.Logger},
	}, nil
}

// VerifyAccessToken asks about the token. Errors are those that Verifier names.
func (v *IntrospectionVerifier) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	verdict, err := v.Verdict(ctx, token)
	return verdict.Info, err
}

// Verdict asks about the token.
func (v *IntrospectionVerifier) Verdict(ctx context.Context, token string) (Verdict, error) {
	if token == "" || len(token) > maxToken {
		return Verdict{}, refuse("Token is malformed", fmt.Errorf("it has %d bytes", len(token)))
	}
	return shareQuestion(ctx, &v.flights, token, v.introspect)
}

// shareQuestion lets concurrent callers with one token ask once. The question
// goes on if a caller leaves, for others may wait for it; its time is bounded.
func shareQuestion(ctx context.Context, flights *singleflight.Group, token string, ask func(context.Context, string) (Verdict, error)) (Verdict, error) {
	type outcome struct {
		verdict Verdict
		err     error
	}
	key := sha256.Sum256([]byte(token))
	answer := flights.DoChan(string(key[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), upstreamTimeout)
		defer cancel()
		verdict, err := ask(ctx, token)
		return outcome{verdict, err}, nil
	})
	select {
	case a := <-answer:
		o := a.Val.(outcome)
		return o.verdict, o.err
	case <-ctx.Done():
		return Verdict{}, unverifiable(ctx.Err())
	}
}

// introspect asks and judges.
func (v *IntrospectionVerifier) introspect(ctx context.Context, token string) (Verdict, error) {
	body, err := v.ask(ctx, token)
	if err != nil {
		return Verdict{}, unverifiable(err)
	}
	now := v.config.Now()
	info, err := v.judge(body, now)
	switch {
	case errors.Is(err, oauth.ErrInvalidToken):
		return Verdict{Until: now.Add(refusalCache)}, err
	case err != nil:
		return Verdict{}, unverifiable(err)
	}
	info.Token = token
	until := now.Add(v.config.MaxCache)
	if !info.ExpiresAt.IsZero() {
		// Beyond its expiry the server is asked again, skew or not.
		until = earlier(until, info.ExpiresAt.Add(-info.Leeway))
	}
	return Verdict{Info: info, Until: until}, nil
}

// ask returns the body of a 200 answer. An endpoint that is gone may have
// moved, if it was discovered.
func (v *IntrospectionVerifier) ask(ctx context.Context, token string) ([]byte, error) {
	endpoint, err := v.endpoint(ctx)
	if err != nil {
		return nil, err
	}
	body, err := v.post(ctx, endpoint, token)
	if !answered(err, http.StatusNotFound) || v.config.URL != "" {
		return body, err
	}
	if refreshErr := v.config.Discovery.Refresh(ctx); refreshErr != nil {
		return nil, errors.Join(err, refreshErr)
	}
	moved, endpointErr := v.endpoint(ctx)
	if endpointErr != nil || moved == endpoint {
		return nil, errors.Join(err, endpointErr)
	}
	return v.post(ctx, moved, token)
}

func (v *IntrospectionVerifier) endpoint(ctx context.Context) (string, error) {
	if v.config.URL != "" {
		return v.config.URL, nil
	}
	return v.config.Discovery.endpoint(ctx, "introspection_endpoint", func(m *oauth.Metadata) string { return m.IntrospectionEndpoint })
}

// post sends the question of RFC 7662 §2.1.
func (v *IntrospectionVerifier) post(ctx context.Context, endpoint, token string) ([]byte, error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	if v.config.AuthMethod == "post" {
		form.Set("client_id", v.config.ClientID)
		form.Set("client_secret", v.config.ClientSecret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("the introspection URL is not valid")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if v.config.AuthMethod == "basic" {
		// RFC 6749 §2.3.1: both are form-encoded before they are joined.
		pair := url.QueryEscape(v.config.ClientID) + ":" + url.QueryEscape(v.config.ClientSecret)
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	}
	answer, err := safehttp.Do(v.client, req, maxIntrospection)
	if err != nil {
		return nil, err
	}
	if answer.Status == http.StatusOK {
		return answer.Body, nil
	}
	err = &statusError{url: endpoint, status: answer.Status}
	if refusesCredentials(answer) {
		// RFC 7662 §2.3: this is about us, not about the token.
		v.complaint.error("the introspection endpoint refuses our credentials, so that no token can be verified; "+
			"check client_id, client_secret and the authentication method",
			err, slog.String("client_id", v.config.ClientID), slog.String("auth_method", v.config.AuthMethod))
	}
	return nil, err
}

// refusesCredentials reports whether the answer refuses the client: 401 or 403,
// or a 400 that says so.
func refusesCredentials(answer *safehttp.Answer) bool {
	switch answer.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return true
	case http.StatusBadRequest:
		body, err := parseClaims(answer.Body)
		if err != nil {
			return false
		}
		code, _ := body.text("error")
		return code == "invalid_client" || code == "unauthorized_client"
	}
	return false
}

// judge reads an answer (RFC 7662 §2.2). An error that is not
// oauth.ErrInvalidToken means that the answer makes no sense. What is odd about one
// token only is a refusal of that one: to ask again would change nothing.
func (v *IntrospectionVerifier) judge(body []byte, now time.Time) (*oauth.TokenInfo, error) {
	answer, err := parseClaims(body)
	if err != nil {
		return nil, fmt.Errorf("the introspection answer: %w", err)
	}
	switch active, present := answer["active"]; {
	case active == true:
	case active == false, !present:
		return nil, refuse("Token is not active", errors.New("the introspection endpoint says so"))
	default:
		return nil, errors.New("the introspection answer: active is neither true nor false")
	}
	info, named, err := v.read(answer)
	if err != nil {
		v.oddity.warn("the introspection endpoint says something about a token that cannot be understood; the token is refused", err)
		return nil, refuse("Token is malformed", fmt.Errorf("the introspection answer: %w", err))
	}
	if info.Issuer == "" {
		info.Issuer = v.config.Issuer
	}
	if v.config.Issuer != "" && info.Issuer != v.config.Issuer {
		return nil, refuse("Token was not issued by the expected authorization server",
			fmt.Errorf("iss is %.200q, expected is %q", info.Issuer, v.config.Issuer))
	}
	expires, err := answer.lifetime(now, v.config.Skew)
	if err != nil {
		return nil, err
	}
	setExpiry(info, expires, v.config.Skew)
	if tokenType, err := answer.text("token_type"); err != nil || !isBearerType(tokenType) {
		return nil, refuse("Token cannot be used as a Bearer token", fmt.Errorf("its token_type is %.40q", tokenType))
	}
	if err := answer.accessToken(); err != nil {
		return nil, err
	}
	info.Extra = answer.rest(named...)
	if info.UserID == "" && !isMachines(info) {
		v.nobody.Do(func() {
			v.config.Logger.Warn("the introspection endpoint does not say whose a token is, so that MCP sessions end with their access token; if another member of the answer does, write it as user_claim",
				slog.String("user_claim", cmp.Or(v.config.UserClaim, "sub")))
		})
	}
	return info, nil
}

// read gathers what an answer says of a token, and the members that need not be
// repeated among the others.
func (v *IntrospectionVerifier) read(answer claims) (info *oauth.TokenInfo, named []string, err error) {
	answer.dropNulls("iss", "sub", "username", v.config.UserClaim, "client_id", "azp", "cid", "aud", "scope", "scp", "token_type", "exp", "nbf", "iat")
	info = &oauth.TokenInfo{}
	var problems [5]error
	var scopeMember, clientMember, userMember string
	info.Issuer, problems[0] = answer.text("iss")
	info.Audience, problems[1] = answer.list("aud")
	info.Scopes, scopeMember, problems[2] = answer.scopes("scope", "scp")
	info.ClientID, clientMember, problems[3] = answer.firstText("client_id", "azp", "cid")
	info.UserID, userMember, problems[4] = v.user(answer)
	return info, []string{"active", "iss", userMember, clientMember, "aud", "scope", scopeMember, "exp", "token_type"}, errors.Join(problems[:]...)
}

// usernamePrefix begins the UserID that a username makes where there is no sub.
const usernamePrefix = "username:"

// user returns whose the token is, "" if the answer does not tell, and the member
// that says so.
func (v *IntrospectionVerifier) user(answer claims) (user, member string, err error) {
	if v.config.UserClaim != "" {
		user, err = answer.id(v.config.UserClaim)
		return user, v.config.UserClaim, err
	}
	if user, err = answer.id("sub"); user != "" || err != nil {
		if strings.HasPrefix(user, usernamePrefix) {
			return "", "sub", fmt.Errorf("sub begins with %s, as the users of answers without sub do; write user_claim sub if all answers have one", usernamePrefix)
		}
		return user, "sub", err
	}
	name, err := answer.id("username")
	if name != "" {
		name = usernamePrefix + name
	}
	return name, "", err
}

// isBearerType reports whether a token of this token_type may come as Bearer.
// What is refused is listed, since servers put many names for an ordinary token
// there: DPoP (RFC 9449 §6.2), N_A for what is no access token (RFC 8693
// §2.2.1), and their like.
func isBearerType(tokenType string) bool {
	switch strings.ToLower(tokenType) {
	case "dpop", "n_a", "pop", "mac", "refresh_token", "id_token",
		"urn:ietf:params:oauth:token-type:refresh_token", "urn:ietf:params:oauth:token-type:id_token":
		return false
	}
	return true
}

// unverifiable is the error for a token about which nothing is known just now.
func unverifiable(cause error) error {
	return oauth.ErrTemporarilyUnavailable.
		Describe("The token cannot be verified at the moment. Try again later.").Because(cause)
}
