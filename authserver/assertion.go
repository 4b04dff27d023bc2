package authserver

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// assertionType is the client_assertion_type of RFC 7523 §2.2.
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

const (
	maxAssertion = 8 << 10 // bytes
	maxJTI       = 256     // bytes
	// assertionLife is how far ahead exp may be.
	assertionLife = 5 * time.Minute
	// assertionAge is how far back iat may be.
	assertionAge = 10 * time.Minute
	// assertionSkew is how far the client's clock may differ from ours.
	assertionSkew = 30 * time.Second
)

// assertionAlgorithms are the signature algorithms of client assertions.
func assertionAlgorithms() []string { return []string{"RS256", "ES256", "EdDSA"} }

// assertion is a client assertion (RFC 7523 §3) that has been read but not
// verified.
type assertion struct {
	alg, keyID       string
	issuer, subject  string
	audience         []string
	expires          time.Time
	issued, earliest time.Time // zero if absent
	id               string

	signed    string
	signature []byte
}

// parseAssertion reads a JWS in compact form (RFC 7515 §3.1). Keys that it
// carries or names (jwk, jku, x5c, x5u) are not looked at.
func parseAssertion(compact string) (*assertion, error) {
	if len(compact) > maxAssertion {
		return nil, fmt.Errorf("it is longer than %d bytes", maxAssertion)
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return nil, errors.New("it is not a signed JWT")
	}
	header, err := decodePart(parts[0])
	if err != nil {
		return nil, err
	}
	claims, err := decodePart(parts[1])
	if err != nil {
		return nil, err
	}
	a := &assertion{signed: parts[0] + "." + parts[1]}
	if a.signature, err = base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil || strings.ContainsAny(parts[2], "\r\n") {
		return nil, errors.New("its signature is not base64url")
	}
	if err := a.readHeader(header); err != nil {
		return nil, err
	}
	return a, a.readClaims(claims)
}

// decodePart decodes a JSON object in base64url.
func decodePart(part string) (jsonObject, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil || strings.ContainsAny(part, "\r\n") {
		return nil, errors.New("it is not base64url")
	}
	if err := strictjson.Check(data); err != nil {
		return nil, err
	}
	var o jsonObject
	if err := json.Unmarshal(data, &o); err != nil || o == nil {
		return nil, errors.New("it does not hold JSON objects")
	}
	return o, nil
}

// jsonObject has members that are matched by exact name.
type jsonObject map[string]json.RawMessage

func (o jsonObject) text(name string) (string, error) {
	raw, ok := o[name]
	if !ok {
		return "", nil
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return "", fmt.Errorf("%s is not a string", name)
	}
	return *s, nil
}

// time reads a NumericDate (RFC 7519 §2).
func (o jsonObject) time(name string) (time.Time, error) {
	raw, ok := o[name]
	if !ok {
		return time.Time{}, nil
	}
	var seconds *float64
	if err := json.Unmarshal(raw, &seconds); err != nil || seconds == nil || *seconds < 0 || *seconds > 1<<40 {
		return time.Time{}, fmt.Errorf("%s is not a time in seconds", name)
	}
	whole, fraction := math.Modf(*seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

func (a *assertion) readHeader(header jsonObject) (err error) {
	if a.alg, err = header.text("alg"); err != nil {
		return err
	}
	if !slices.Contains(assertionAlgorithms(), a.alg) {
		return fmt.Errorf("its alg is not one of %s", strings.Join(assertionAlgorithms(), ", "))
	}
	if _, ok := header["crit"]; ok {
		return errors.New("it has a crit header, of which nothing is understood here")
	}
	// RFC 7523bis names a type; most clients send JWT. Another type is another
	// kind of token, which must not pass for an assertion (RFC 8725 §3.11).
	kind, err := header.text("typ")
	if err != nil {
		return err
	}
	switch strings.TrimPrefix(strings.ToLower(kind), "application/") {
	case "", "jwt", "client-authentication+jwt":
	default:
		return errors.New("its typ is not JWT or client-authentication+jwt")
	}
	a.keyID, err = header.text("kid")
	return err
}

func (a *assertion) readClaims(claims jsonObject) error {
	for _, member := range []struct {
		name string
		into *string
	}{{"iss", &a.issuer}, {"sub", &a.subject}, {"jti", &a.id}} {
		text, err := claims.text(member.name)
		if err != nil {
			return err
		}
		*member.into = text
	}
	for _, member := range []struct {
		name string
		into *time.Time
	}{{"exp", &a.expires}, {"iat", &a.issued}, {"nbf", &a.earliest}} {
		at, err := claims.time(member.name)
		if err != nil {
			return err
		}
		*member.into = at
	}
	raw, ok := claims["aud"]
	if !ok {
		return errors.New("it has no aud")
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		a.audience = []string{one}
		return nil
	}
	if err := json.Unmarshal(raw, &a.audience); err != nil {
		return errors.New("aud is neither a string nor an array of strings")
	}
	return nil
}

// check holds the claims to RFC 7523 §3 for the client.
func (a *assertion) check(clientID string, audiences []string, now time.Time) error {
	switch {
	case a.subject == "" || a.issuer != a.subject:
		return errors.New("iss and sub must both be the client_id")
	case clientID != "" && a.subject != clientID:
		return errors.New("its sub is not the client_id of the request")
	case len(a.audience) == 0:
		return errors.New("it has no aud")
	case a.id == "" || len(a.id) > maxJTI:
		return fmt.Errorf("it needs a jti of at most %d bytes", maxJTI)
	case a.expires.IsZero():
		return errors.New("it has no exp")
	case !now.Before(a.expires.Add(assertionSkew)):
		return errors.New("it has expired")
	case a.expires.After(now.Add(assertionLife + assertionSkew)):
		return fmt.Errorf("its exp is more than %s ahead", assertionLife)
	case !a.issued.IsZero() && a.issued.After(now.Add(assertionSkew)):
		return errors.New("its iat is in the future")
	case !a.issued.IsZero() && a.issued.Before(now.Add(-assertionAge)):
		return fmt.Errorf("its iat is more than %s ago", assertionAge)
	case a.earliest.After(now.Add(assertionSkew)):
		return errors.New("its nbf is in the future")
	}
	// All of them must be ours: who is named beside us could replay it here, and
	// we there.
	for _, audience := range a.audience {
		if !slices.Contains(audiences, audience) {
			return errors.New("its aud must be the issuer of this server or its token endpoint, nothing else")
		}
	}
	return nil
}

// verify reports whether the signature is by one of the keys.
func (a *assertion) verify(keys *clientKeys) (valid, known bool) {
	fitting, known := keys.find(a.keyID, a.alg)
	method := jwt.GetSigningMethod(a.alg)
	for _, key := range fitting {
		if method.Verify(a.signed, a.signature, key) == nil {
			return true, true
		}
	}
	return false, known
}

func errAssertion(why string) *oauth.Error {
	return oauth.ErrInvalidClient.Describe("The client assertion is not valid: " + why)
}
