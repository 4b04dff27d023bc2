package proxyprovider

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// GrantIDClaim is the claim of the broker's access tokens that names the grant.
// It is neither sid, which is OpenID Connect's for a session at the provider,
// nor one of the names that RFC 9068 gives a meaning to.
const GrantIDClaim = "grant_id"

const (
	// maxAccessToken bounds what is looked at, in bytes.
	maxAccessToken = 16 << 10
	// jtiSize is the size of a jti before base64url: generation and randomness.
	jtiSize = 4 + 12
)

// accessToken is a JWT of RFC 9068 that we signed.
type accessToken struct {
	header, payload, signature []byte
	expires                    time.Time
}

// String is the compact form (RFC 7515 §7.1).
func (t *accessToken) String() string {
	enc := base64.RawURLEncoding
	b := make([]byte, 0, enc.EncodedLen(len(t.header)+len(t.payload)+len(t.signature))+8)
	b = enc.AppendEncode(b, t.header)
	b = append(b, '.')
	b = enc.AppendEncode(b, t.payload)
	b = append(b, '.')
	return string(enc.AppendEncode(b, t.signature))
}

// signAccessToken makes the access token of a generation of the grant.
func (g *Grants) signAccessToken(ctx context.Context, id grantID, r *grantRecord, generation uint32, scope string, now time.Time) (*accessToken, error) {
	key, err := g.keys.signer(ctx)
	if err != nil {
		return nil, err
	}
	t := &accessToken{expires: time.Unix(now.Add(g.cfg.AccessTTL).Unix(), 0)}
	if end := g.absoluteEnd(r); r.refreshable && t.expires.After(end) {
		t.expires = time.Unix(end.Unix(), 0)
	}
	t.header = fmt.Appendf(nil, `{"alg":"%s","kid":"%s","typ":"at+jwt"}`, key.alg, key.id)
	t.payload, err = g.accessClaims(id, r, generation, scope, now, t.expires)
	if err != nil {
		return nil, err
	}
	enc := base64.RawURLEncoding
	signed := enc.AppendEncode(nil, t.header)
	signed = enc.AppendEncode(append(signed, '.'), t.payload)
	t.signature, err = key.method.Sign(string(signed), key.private)
	if err != nil {
		return nil, fmt.Errorf("signing an access token: %w", err)
	}
	return t, nil
}

// accessClaims is the payload (RFC 9068 §2.2).
func (g *Grants) accessClaims(id grantID, r *grantRecord, generation uint32, scope string, now, expires time.Time) ([]byte, error) {
	var jti [jtiSize]byte
	binary.BigEndian.PutUint32(jti[:], generation)
	if err := g.random(jti[4:]); err != nil {
		return nil, err
	}
	b := make([]byte, 0, 512)
	b = append(b, `{"iss":"`...)
	b = append(b, jsonText(g.cfg.Issuer)...)
	b = append(b, `","sub":"`...)
	b = append(b, jsonText(r.identity.Subject)...)
	b = append(b, `","aud":"`...)
	b = append(b, jsonText(r.resource)...)
	b = append(b, `","client_id":"`...)
	b = append(b, jsonText(r.clientID)...)
	b = append(b, `","scope":"`...)
	b = append(b, jsonText(scope)...)
	b = append(b, `","iat":`...)
	b = strconv.AppendInt(b, now.Unix(), 10)
	b = append(b, `,"exp":`...)
	b = strconv.AppendInt(b, expires.Unix(), 10)
	b = append(b, `,"jti":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, jti[:])
	b = append(b, `","`+GrantIDClaim+`":"`...)
	b = append(b, id.String()...)
	b = append(b, '"')
	for _, name := range g.cfg.Claims {
		value := g.identityClaim(r, name)
		if value == nil {
			continue
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		b = append(b, `,"`+jsonText(name)+`":`...)
		b = append(b, encoded...)
	}
	return append(b, '}'), nil
}

// identityClaim is the value of a claim that was asked for, nil if there is none.
func (g *Grants) identityClaim(r *grantRecord, name string) any {
	switch id := &r.identity; name {
	case "email":
		if id.Email != "" {
			return id.Email
		}
	case "email_verified":
		if id.Email != "" {
			return id.EmailVerified
		}
	case "name":
		if id.Name != "" {
			return id.Name
		}
	case "hd":
		if id.HostedDomain != "" {
			return id.HostedDomain
		}
	case "groups":
		if len(id.Groups) > 0 {
			return id.Groups
		}
	case upstreamIssuerClaim:
		// The namespace of sub, where the upstream has many (Entra's tenants).
		return id.Issuer
	default:
		return id.Claims[name]
	}
	return nil
}

// upstreamIssuerClaim can be asked for in GrantsConfig.Claims.
const upstreamIssuerClaim = "idp"

// reservedClaims are those that GrantsConfig.Claims cannot set.
func reservedClaims() []string {
	return []string{
		"iss", "sub", "aud", "client_id", "scope", "iat", "exp", "nbf", "jti", "cnf", "act", "nonce", "at_hash", "c_hash",
		"auth_time", "azp", "scp", "token_use", "typ", GrantIDClaim,
	}
}

// jsonText is s as the inside of a JSON string.
func jsonText(s string) string {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string never fails
			return string(quoted[1 : len(quoted)-1])
		}
	}
	return s
}

// verifiedToken is what a genuine access token says.
type verifiedToken struct {
	info       *oauth.TokenInfo
	grant      grantID
	generation uint32
	keyID      string
}

func refuseToken(description string, cause error) error {
	return oauth.ErrInvalidToken.Describe(description).Because(cause)
}

// VerifyAccessToken implements bearer.Verifier. What costs little is checked
// before the signature; then the grant must be alive, as this node knows it at
// once and every other within 5 s. A store that does not answer is
// temporarily_unavailable as soon as what is known is older than 30 s.
func (g *Grants) VerifyAccessToken(ctx context.Context, token string) (*oauth.TokenInfo, error) {
	verdict, err := g.Verdict(ctx, token)
	return verdict.Info, err
}

// Verdict implements bearer.CacheableVerifier. A good token is to be remembered
// until it expires, and whether its grant is alive is checked at each use.
func (g *Grants) Verdict(ctx context.Context, token string) (bearer.Verdict, error) {
	t, err := g.verifyToken(ctx, token)
	switch {
	case errors.Is(err, errSignature):
		return bearer.Verdict{Until: g.cfg.Now().Add(refusalMemory)}, err
	case err != nil:
		return bearer.Verdict{}, err
	}
	if err := g.checkGrant(ctx, t); err != nil {
		// A grant never comes back; trouble is not remembered anyway.
		return bearer.Verdict{Until: g.cfg.Now().Add(refusalMemory)}, err
	}
	return bearer.Verdict{Info: t.info, Until: t.info.ExpiresAt, Recheck: func(ctx context.Context) error {
		keys, err := g.keys.current(ctx)
		switch {
		case err != nil:
			return err
		case keys.byID[t.keyID] == nil:
			return bearer.ErrVerifyAnew
		}
		return g.checkGrant(ctx, t)
	}}, nil
}

// refusalMemory is how long a bad signature and a revocation are remembered.
const refusalMemory = 10 * time.Second

// checkGrant checks that the grant of a genuine token is alive.
func (g *Grants) checkGrant(ctx context.Context, t *verifiedToken) error {
	status, err := g.status(ctx, t.grant)
	if err != nil {
		return err
	}
	if status.revoked || t.generation <= status.accessRevoked {
		return refuseToken("Token has been revoked", errors.New("its grant is over"))
	}
	if g.cfg.Refresh != nil { // SECURITY §2: a disabled local account ends at once
		if err := g.checkAccount(ctx, t.info.UserID); err != nil {
			return err
		}
	}
	g.noteUse(t.grant, status)
	return nil
}

// checkAccount asks for the local account behind a token.
func (g *Grants) checkAccount(ctx context.Context, subject string) error {
	id, err := g.cfg.Refresh(ctx, subject)
	switch {
	case err == nil && id != nil && id.Subject == subject:
		return nil
	case err == nil || definiteNo(err):
		return refuseToken("The account has been disabled", err)
	}
	return oauth.ErrTemporarilyUnavailable.Describe("The account cannot be checked now, try again").Because(err)
}

// errSignature is the cause of a refusal for the signature.
var errSignature = errors.New("the signature is not ours")

// verifyToken checks all of a token but whether its grant is alive.
func (g *Grants) verifyToken(ctx context.Context, token string) (*verifiedToken, error) {
	if len(token) > maxAccessToken || strings.Count(token, ".") != 2 {
		return nil, refuseToken("Token is malformed", errors.New("it is too long or has not three segments"))
	}
	last := strings.LastIndexByte(token, '.')
	signed, signature := token[:last], token[last+1:]
	headerPart, payloadPart, _ := strings.Cut(signed, ".")
	header, err := parseTokenHeader(headerPart)
	if err != nil {
		return nil, refuseToken("Token is malformed", err)
	}
	t, err := g.parseTokenPayload(payloadPart, g.cfg.Now())
	if err != nil {
		return nil, err
	}
	key, err := g.keys.find(ctx, header.KeyID)
	if err != nil {
		return nil, err
	}
	// RFC 8725 §3.1: the algorithm is the key's, whatever the token says.
	if key == nil || key.alg != header.Algorithm {
		return nil, refuseToken("Token is signed with a key that is not ours, or not any more", nil)
	}
	raw, err := decodeSegment(signature)
	if err != nil {
		return nil, refuseToken("Token is malformed", err)
	}
	if err := key.method.Verify(signed, raw, key.public); err != nil {
		return nil, refuseToken("Token has an invalid signature", errSignature)
	}
	t.info.Token, t.keyID = token, key.id
	return t, nil
}

// tokenHeader is the JOSE header of our tokens; no other member is allowed.
type tokenHeader struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

func parseTokenHeader(segment string) (h tokenHeader, err error) {
	raw, err := decodeSegment(segment)
	if err != nil {
		return h, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h); err != nil {
		return h, errors.New("the header is not one of ours")
	}
	if h.Type != "at+jwt" || h.KeyID == "" || h.Algorithm == "" {
		return h, errors.New("the header is not that of an access token of ours")
	}
	return h, nil
}

// decodeSegment decodes base64url without padding, of which there is one
// spelling only.
func decodeSegment(segment string) ([]byte, error) {
	raw := make([]byte, base64.RawURLEncoding.DecodedLen(len(segment)))
	if !decodeExactly(raw, segment) {
		return nil, errors.New("a segment is not base64url")
	}
	return raw, nil
}

// parseTokenPayload reads the claims and checks those that need no key.
func (g *Grants) parseTokenPayload(segment string, now time.Time) (*verifiedToken, error) {
	raw, err := decodeSegment(segment)
	if err != nil {
		return nil, refuseToken("Token is malformed", err)
	}
	if err := strictjson.Check(raw); err != nil {
		return nil, refuseToken("Token is malformed", err)
	}
	var claims map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&claims); err != nil || claims == nil {
		return nil, refuseToken("Token is malformed", errors.New("the payload is not an object"))
	}
	if iss, _ := claims["iss"].(string); iss != g.cfg.Issuer {
		return nil, refuseToken("Token was not issued by the expected authorization server", nil)
	}
	exp, err1 := unixClaim(claims, "exp")
	_, err2 := unixClaim(claims, "iat")
	if err := errors.Join(err1, err2); err != nil {
		return nil, refuseToken("Token is malformed", err)
	}
	if !now.Before(exp) {
		return nil, refuseToken("Token has expired", fmt.Errorf("it expired %s ago", now.Sub(exp)))
	}
	t := &verifiedToken{}
	var jti [jtiSize]byte
	gid, _ := claims[GrantIDClaim].(string)
	id, ok := parseGrantID(gid)
	text, _ := claims["jti"].(string)
	if !ok || !decodeExactly(jti[:], text) {
		return nil, refuseToken("Token is malformed", errors.New("it names no grant"))
	}
	t.grant, t.generation = id, binary.BigEndian.Uint32(jti[:])
	subject, _ := claims["sub"].(string)
	audience, _ := claims["aud"].(string)
	clientID, _ := claims["client_id"].(string)
	scope, _ := claims["scope"].(string)
	scopes, err := oauth.ParseScope(scope)
	if err != nil || subject == "" || audience == "" || clientID == "" {
		return nil, refuseToken("Token is malformed", errors.New("a claim of RFC 9068 is missing"))
	}
	t.info = &oauth.TokenInfo{
		ClientID: clientID, Scopes: scopes, UserID: subject, ExpiresAt: exp,
		Audience: []string{audience}, Resource: audience, Issuer: g.cfg.Issuer,
	}
	for _, name := range []string{"iss", "sub", "aud", "client_id", "scope", "exp"} {
		delete(claims, name)
	}
	t.info.Extra = claims
	return t, nil
}

func unixClaim(claims map[string]any, name string) (time.Time, error) {
	number, ok := claims[name].(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("%s is not a number", name)
	}
	seconds, err := number.Int64()
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return time.Time{}, fmt.Errorf("%s is not a time in seconds", name)
	}
	return time.Unix(seconds, 0), nil
}

// checkClaims is for NewGrants.
func checkClaims(names []string) error {
	for i, name := range names {
		switch {
		case name == "":
			return errors.New("the name of a claim for access tokens is empty")
		case slices.Contains(reservedClaims(), name):
			return fmt.Errorf("claim %q of the access token is set by the server itself", name)
		case slices.Contains(names[:i], name):
			return fmt.Errorf("claim %q for access tokens is named twice", name)
		}
	}
	return nil
}
