package authclient

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// assertionTypeJWT is the client_assertion_type of RFC 7523 §2.2.
const assertionTypeJWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// Lifetimes of a client assertion. Servers commonly refuse more than five
// minutes; the default leaves room for a clock that differs.
const (
	defaultAssertionLife = 2 * time.Minute
	maxAssertionLife     = 5 * time.Minute
)

// maxAssertion bounds an assertion that comes from elsewhere, in bytes.
const maxAssertion = 64 << 10

// clientAssertion makes client assertions (RFC 7523 §3).
type clientAssertion struct {
	key      SigningKey
	clientID string
	audience string // "" for the issuer
	life     time.Duration
	claims   map[string]any
	now      func() time.Time
}

// reservedClaims are those that clientAssertion sets itself.
func reservedClaims() []string { return []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti"} }

func (a *clientAssertion) check() error {
	if err := a.key.check(); err != nil {
		return err
	}
	switch {
	case a.life == 0:
		a.life = defaultAssertionLife
	case a.life < time.Second || a.life > maxAssertionLife:
		return fmt.Errorf("a client assertion lives from 1 second to %s, not %s", maxAssertionLife, a.life)
	}
	for name := range a.claims {
		if slices.Contains(reservedClaims(), name) {
			return fmt.Errorf("the claim %s is set by this provider: drop it from Claims", name)
		}
	}
	a.claims = maps.Clone(a.claims)
	if a.now == nil {
		a.now = time.Now
	}
	return nil
}

// add authenticates the request. The audience is the issuer
// (draft-ietf-oauth-rfc7523bis §4), so that no other server can use the
// assertion; without metadata it is the token endpoint (RFC 7523 §3).
func (a *clientAssertion) add(r *TokenRequest) error {
	audience := a.audience
	if audience == "" {
		audience = r.URL
		if r.Metadata != nil {
			audience = r.Issuer
		}
	}
	now := a.now()
	claims := map[string]any{
		"iss": a.clientID, "sub": a.clientID, "aud": audience,
		"iat": now.Unix(), "exp": now.Add(a.life).Unix(), "jti": newJTI(),
	}
	maps.Copy(claims, a.claims)
	signed, err := a.key.sign(map[string]any{"typ": "JWT"}, claims)
	if err != nil {
		return fmt.Errorf("the client assertion could not be signed: %w", err)
	}
	addAssertion(r, a.clientID, signed)
	return nil
}

// addAssertion puts a client assertion into the request. The client_id is
// optional beside it (RFC 7521 §4.2), and Entra ID insists on it.
func addAssertion(r *TokenRequest, clientID, assertion string) {
	r.Form.Set("client_assertion_type", assertionTypeJWT)
	r.Form.Set("client_assertion", assertion)
	if clientID != "" {
		r.Form.Set("client_id", clientID)
	}
}

// newJTI is the id of a JWT, 128 random bits.
func newJTI() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// trimAssertion checks an assertion that comes from elsewhere: a JWS in compact
// form. What it says is between its issuer and the authorization server. The
// error holds nothing of it.
func trimAssertion(what, assertion string) (string, error) {
	assertion = strings.TrimSpace(assertion)
	switch parts := strings.Split(assertion, "."); {
	case assertion == "":
		return "", errors.New(what + " is empty")
	case len(assertion) > maxAssertion:
		return "", fmt.Errorf("%s is longer than %d bytes", what, maxAssertion)
	case len(parts) != 3 || slices.ContainsFunc(parts, func(p string) bool { return !isBase64URL(p) }):
		return "", errors.New(what + " is not a signed JWT: three parts in base64url, with dots between them")
	}
	return assertion, nil
}

func isBase64URL(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}
