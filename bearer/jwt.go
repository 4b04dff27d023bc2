package bearer

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// JWTConfig says how to verify access tokens that are JWTs (RFC 9068, RFC 8725).
// Issuer, or AnyIssuer, and one of JWKSURI and Discovery are required.
type JWTConfig struct {
	// Issuer is what iss must be, byte for byte.
	Issuer string
	// AnyIssuer accepts any iss: the keys at JWKSURI alone decide. Identity
	// providers that share keys between tenants make this dangerous.
	AnyIssuer bool
	// JWKSURI is where the signing keys are published. If empty, the metadata
	// held by Discovery says it.
	JWKSURI   string
	Discovery *Discovery
	// Algorithms are the signature algorithms that are accepted, by default all
	// that are known: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384,
	// ES512 and EdDSA (Ed25519). Symmetric ones and none are refused.
	Algorithms []string
	// RequireType is the only typ that the header may have; application/ before
	// it and case do not count (RFC 7515 §4.1.9). If empty, at+jwt, JWT and none
	// are accepted, since most identity providers do not follow RFC 9068 §2.1.
	RequireType string
	// Skew is how far the issuer's clock may differ from ours, 60 s if 0, none
	// if below 0.
	Skew time.Duration
	// ClientIDs are the ids of OAuth clients that tokens may name as audience.
	// Such a token needs a scope and must have been issued to the client that it
	// names, and one with a nonce is an id_token.
	ClientIDs []string
	// ScopeClaims are the claims that may hold the scopes, as a string or an
	// array; the first that holds any counts. Default scope, then scp (Okta,
	// Entra).
	ScopeClaims []string
	// UserClaim is the claim that identifies the user, by default sub.
	UserClaim string
	// RefreshInterval is the age at which the keys are loaded anew, 15 min if 0.
	RefreshInterval time.Duration
	// RefetchInterval is the least time between two loads for tokens whose key
	// is not known, 30 s if 0.
	RefetchInterval time.Duration
	// Client makes the requests; nil is a client bounded in time and size. Its
	// redirect policy is not used: redirects are never followed.
	Client *http.Client
	// Logger gets what happens in the background; nil discards it.
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// JWTVerifier is a Verifier of JWT access tokens. It does not check that the
// token is for this resource (TokenInfo.Audience, the Guard's part), nor that
// it has an expiry (TokenInfo.ExpiresAt is zero then), nor whether it was
// revoked: a JWT ends at its exp.
type JWTVerifier struct {
	config     JWTConfig
	algorithms map[string]jwt.SigningMethod
	keys       *keySource
	lastHeader atomic.Pointer[joseHeader]
	warnClient sync.Once
}

// NewJWTVerifier checks the configuration. It does no I/O: keys are loaded on
// first use or by Run.
func NewJWTVerifier(c JWTConfig) (*JWTVerifier, error) {
	switch {
	case c.Issuer == "" && !c.AnyIssuer:
		return nil, errors.New("a JWT verifier needs an issuer")
	case c.AnyIssuer && (c.Issuer != "" || c.JWKSURI == ""):
		return nil, errors.New("a JWT verifier for any issuer has a JWKS URI and no issuer")
	case c.JWKSURI == "" && c.Discovery == nil:
		return nil, errors.New("a JWT verifier needs a JWKS URI or discovery")
	case c.JWKSURI == "" && c.Discovery.Issuer() != c.Issuer:
		return nil, fmt.Errorf("the JWT verifier is for issuer %q, its discovery for %q", c.Issuer, c.Discovery.Issuer())
	case c.JWKSURI != "":
		if err := checkURL("JWKS URI", c.JWKSURI); err != nil {
			return nil, err
		}
	}
	v := &JWTVerifier{algorithms: algorithms()}
	if len(c.Algorithms) > 0 {
		known := v.algorithms
		v.algorithms = make(map[string]jwt.SigningMethod, len(c.Algorithms))
		for _, name := range c.Algorithms {
			method, ok := known[name]
			if !ok {
				return nil, fmt.Errorf("%q is no asymmetric signature algorithm that is known here; use RS256, ES256, EdDSA or the like", name)
			}
			v.algorithms[name] = method
		}
	}
	if slices.Contains(c.ClientIDs, "") {
		return nil, errors.New("a client id of the JWT verifier is empty")
	}
	c.Skew = skewOr(c.Skew)
	c.RefreshInterval = durationOr(c.RefreshInterval, 15*time.Minute)
	c.RefetchInterval = durationOr(c.RefetchInterval, 30*time.Second)
	if len(c.ScopeClaims) == 0 {
		c.ScopeClaims = []string{"scope", "scp"}
	}
	if c.UserClaim == "" {
		c.UserClaim = "sub"
	}
	c.Now, c.Logger = clockOr(c.Now), loggerOr(c.Logger)
	v.config, v.keys = c, newKeySource(c)
	return v, nil
}

// Run loads the keys and keeps them fresh until ctx ends. After a failure it
// tries again after 1 s, doubling to 1 min.
func (v *JWTVerifier) Run(ctx context.Context) { v.keys.document.run(ctx) }

// Recognizes reports whether the token looks like a JWT of the issuer. Nothing
// is verified.
func (v *JWTVerifier) Recognizes(token string) bool {
	issuer, ok := claimedIssuer(token)
	return ok && (v.config.AnyIssuer || issuer == v.config.Issuer)
}

// claimedIssuer returns what a JWT says its issuer is, "" for nothing, and
// whether the token looks like a JWT at all. Nothing is verified.
func claimedIssuer(token string) (issuer string, ok bool) {
	t, err := splitJWT(token)
	if err != nil {
		return "", false
	}
	payload, err := t.claims(t.payload)
	if err != nil {
		return "", false
	}
	issuer, err = payload.text("iss")
	return issuer, err == nil
}

// VerifyAccessToken verifies a JWT. What costs little is checked first, and
// whatever would refuse a token with a good signature refuses it before one is
// looked at: so expired and foreign tokens cause no load of keys. Errors are
// those that Verifier names.
func (v *JWTVerifier) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	verdict, err := v.Verdict(ctx, token)
	return verdict.Info, err
}

// maxVerdict is how long a JWT without an expiry is remembered.
const maxVerdict = time.Hour

// refuseShape refuses what has not the shape of a JWT.
func (v *JWTVerifier) refuseShape(token string) error {
	_, err := splitJWT(token)
	return err
}

// Verdict is VerifyAccessToken. A good token is to be remembered until it
// expires, as long as the issuer publishes the same keys: when they change, all
// tokens are verified anew. Of the refusals, those of a signature are.
func (v *JWTVerifier) Verdict(ctx context.Context, token string) (Verdict, error) {
	t, err := splitJWT(token)
	if err != nil {
		return Verdict{}, err
	}
	header, err := v.readHeader(t.header)
	if err != nil {
		return Verdict{}, err
	}
	payload, err := t.claims(t.payload)
	if err != nil {
		return Verdict{}, refuse("Token is malformed", fmt.Errorf("payload: %w", err))
	}
	info, named, err := v.checkPayload(payload)
	if err != nil {
		return Verdict{}, err
	}
	signature, err := decodeSegment(t.signature)
	if err != nil {
		return Verdict{}, refuse("Token is malformed", fmt.Errorf("signature: %w", err))
	}
	until := v.config.Now().Add(maxVerdict)
	keys, err := v.keys.verify(ctx, header.keyID, header.method, v.issued(payload), func(key any) error {
		return header.method.Verify(t.signed, signature, key)
	})
	switch {
	case err != nil && keys == nil:
		return Verdict{}, err // the key may be published in a moment
	case err != nil:
		return Verdict{Until: until}, err
	}
	if slices.ContainsFunc(info.Audience, v.isClientID) {
		v.warnClient.Do(func() {
			v.config.Logger.Warn("the issuer puts a client id into the audience of access tokens; let it put the resource there",
				slog.String("issuer", v.config.Issuer))
		})
	}
	info.Token = token
	info.Extra = payload.rest(named[:]...)
	if !info.ExpiresAt.IsZero() {
		until = info.ExpiresAt
	}
	return Verdict{Info: info, Until: until, Recheck: func(ctx context.Context) error {
		if !v.keys.current(ctx, keys) {
			return ErrVerifyAnew
		}
		return nil
	}}, nil
}

// issued is the latest time at which the token was made, by our clock, zero if it
// does not tell. Its dates have been checked.
func (v *JWTVerifier) issued(payload claims) time.Time {
	if at, err := payload.time("iat"); err == nil && !at.IsZero() {
		return at.Add(v.config.Skew)
	}
	return time.Time{}
}

// joseHeader is what counts of a JOSE header that was found good.
type joseHeader struct {
	segment string // encoded
	method  jwt.SigningMethod
	keyID   string
}

// readHeader decodes and checks the header. Nearly all tokens have the same one,
// so the last good one is kept.
func (v *JWTVerifier) readHeader(segment string) (*joseHeader, error) {
	if last := v.lastHeader.Load(); last != nil && last.segment == segment {
		return last, nil
	}
	header, err := compactJWT{}.claims(segment)
	if err != nil {
		return nil, refuse("Token is malformed", fmt.Errorf("header: %w", err))
	}
	h := &joseHeader{segment: strings.Clone(segment)}
	if h.method, h.keyID, err = v.checkHeader(header); err != nil {
		return nil, err
	}
	v.lastHeader.Store(h)
	return h, nil
}

// checkHeader checks the JOSE header (RFC 7515 §4). Keys and the URLs of keys
// that it may hold (jwk, jku, x5c, x5u) are not looked at: they come from
// whoever made the token.
func (v *JWTVerifier) checkHeader(header claims) (method jwt.SigningMethod, keyID string, err error) {
	alg, err := header.text("alg")
	if err != nil {
		return nil, "", refuse("Token is malformed", err)
	}
	// RFC 8725 §3.1: only algorithms that were configured.
	method, ok := v.algorithms[alg]
	if !ok {
		return nil, "", refuse("Token is signed with an algorithm that is not accepted", fmt.Errorf("alg is %.40q", alg))
	}
	typ, err := header.text("typ")
	if err != nil {
		return nil, "", refuse("Token is malformed", err)
	}
	if !v.acceptsType(typ) { // RFC 8725 §3.11
		return nil, "", refuse("Token is not an access token", fmt.Errorf("typ is %.40q", typ))
	}
	// RFC 7515 §4.1.11: extensions that are not understood. None is.
	if _, ok := header["crit"]; ok {
		return nil, "", refuse("Token uses an extension that is not supported", errors.New("it has a crit header"))
	}
	keyID, err = header.text("kid")
	if err != nil {
		return nil, "", refuse("Token is malformed", err)
	}
	return method, keyID, nil
}

func (v *JWTVerifier) acceptsType(typ string) bool {
	typ = mediaType(typ)
	if v.config.RequireType != "" {
		return typ == mediaType(v.config.RequireType)
	}
	return typ == "" || typ == "jwt" || typ == "at+jwt"
}

// mediaType folds the spellings of a typ (RFC 7515 §4.1.9).
func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

// checkPayload checks the claims (RFC 9068 §4, RFC 7519 §4.1) and gathers what
// they say, to be believed once the signature is verified. named are the claims
// that stand in the fields of the result.
func (v *JWTVerifier) checkPayload(payload claims) (info *oauth.TokenInfo, named [6]string, err error) {
	issuer, err := payload.text("iss")
	if err != nil {
		return nil, named, refuse("Token is malformed", err)
	}
	if !v.config.AnyIssuer && issuer != v.config.Issuer {
		return nil, named, refuse("Token was not issued by the expected authorization server",
			fmt.Errorf("iss is %.200q, expected is %q", issuer, v.config.Issuer))
	}
	expires, err := payload.lifetime(v.config.Now(), v.config.Skew)
	if err != nil {
		return nil, named, err
	}
	info = &oauth.TokenInfo{Issuer: issuer}
	setExpiry(info, expires, v.config.Skew)
	if info.Audience, err = payload.list("aud"); err != nil {
		return nil, named, refuse("Token is malformed", err)
	}
	scopes, scopeClaim, err := payload.scopes(v.config.ScopeClaims...)
	if err != nil {
		return nil, named, refuse("Token is malformed", err)
	}
	info.Scopes = scopes
	// RFC 9068 §2.2; azp is Keycloak's, Auth0's, Google's and Entra's, cid Okta's.
	clientID, clientClaim, err := payload.firstText("client_id", "azp", "cid")
	if err != nil {
		return nil, named, refuse("Token is malformed", err)
	}
	info.ClientID = clientID
	if info.UserID, err = payload.text(v.config.UserClaim); err != nil {
		return nil, named, refuse("Token is malformed", err)
	}
	if err := payload.accessToken(); err != nil {
		return nil, named, err
	}
	if err := v.refuseIDToken(payload, info); err != nil {
		return nil, named, err
	}
	return info, [...]string{"iss", "exp", "aud", scopeClaim, clientClaim, v.config.UserClaim}, nil
}

// refuseIDToken refuses id_tokens, which are signed with the same keys and say
// who somebody is, not what a client may do (RFC 8725 §2.7).
func (v *JWTVerifier) refuseIDToken(payload claims, info *oauth.TokenInfo) error {
	for _, name := range []string{"at_hash", "c_hash"} { // OpenID Connect Core §3.1.3.6, §3.3.2.11
		if _, ok := payload[name]; ok {
			return refuse("Token is an id_token, send the access token", fmt.Errorf("it has %s", name))
		}
	}
	_, hasNonce := payload["nonce"]
	for _, audience := range info.Audience {
		switch {
		case !v.isClientID(audience) && audience != info.ClientID:
		case hasNonce: // OpenID Connect Core §2
			return refuse("Token is an id_token, send the access token", errors.New("it has a nonce and a client as audience"))
		}
		switch {
		case !v.isClientID(audience):
		case len(info.Scopes) == 0:
			return refuse("Token has no scope and a client as audience, which makes it no access token",
				fmt.Errorf("aud is client %q", audience))
		case info.ClientID != audience:
			return refuse("Token was issued to another client than its audience",
				fmt.Errorf("aud is client %q, the token is for client %.200q", audience, info.ClientID))
		}
	}
	return nil
}

func (v *JWTVerifier) isClientID(audience string) bool {
	return slices.Contains(v.config.ClientIDs, audience)
}

// compactJWT is a JWS in its compact form (RFC 7515 §7.1), not decoded.
type compactJWT struct{ header, payload, signature, signed string }

var (
	errLongToken        = refuse("Token is malformed", fmt.Errorf("it has more than %d bytes", maxToken))
	errNotThreeSegments = refuse("Token is malformed", errors.New("it has not three segments"))
)

// splitJWT takes a token apart. Its errors are refusals.
func splitJWT(token string) (compactJWT, error) {
	if len(token) > maxToken {
		return compactJWT{}, errLongToken
	}
	if strings.Count(token, ".") != 2 {
		return compactJWT{}, errNotThreeSegments
	}
	last := strings.LastIndexByte(token, '.')
	t := compactJWT{signed: token[:last], signature: token[last+1:]}
	t.header, t.payload, _ = strings.Cut(t.signed, ".")
	return t, nil
}

func (compactJWT) claims(segment string) (claims, error) {
	data, err := decodeSegment(segment)
	if err != nil {
		return nil, err
	}
	return parseClaims(data)
}

// decodeSegment decodes base64url without padding (RFC 7515 §2) of which there
// is one spelling only: no line breaks, no bits beyond the last byte.
func decodeSegment(segment string) ([]byte, error) {
	if strings.ContainsAny(segment, "\r\n") { // encoding/base64 ignores them
		return nil, errors.New("not base64url")
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	return data, nil
}
