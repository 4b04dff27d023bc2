package bearer

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/maypok86/otter/v2"

	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	// AssertionType is the typ of an assertion. It is none that an access token
	// may have (RFC 8725 §3.11), so that the server behind cannot use what it is
	// told as a token here or elsewhere.
	AssertionType = "mcp-identity+jwt"
	// AssertionHeader carries the assertion. Clients cannot send it: see
	// StripIdentity.
	AssertionHeader = "X-Mcp-Identity"

	defaultAssertionTTL = 5 * time.Minute
	// maxAssertionCache bounds the assertions that are kept, in bytes.
	maxAssertionCache = 16 << 20
)

// AssertionConfig configures Assertions. Issuer, Audience and Keys are required.
type AssertionConfig struct {
	// Issuer and Audience are iss and aud of the assertions.
	Issuer, Audience string
	// Keys sign them.
	Keys *AssertionKeys
	// TTL is how long an assertion is good: 5 min if 0, 30 s to 1 h. It never
	// outlives the access token, whose Leeway does not count.
	TTL time.Duration
	// Fields are told besides user, client and scopes.
	Fields IdentityFields
	// InAuthorization sends the assertion as a bearer token in Authorization
	// instead of in AssertionHeader, for servers that check bearer tokens already.
	InAuthorization bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Assertions tell the server behind who is asking in a form that it can verify:
// a signed JWT with the claims
//
//   - iss, aud: as configured
//   - sub: the user; absent if the token has none
//   - client_id, scope: of the access token
//   - idp: the issuer that knows the user, where that is another than iss
//   - email, name, groups: if asked for and known
//   - iat, exp, jti
//
// An assertion is signed once for an access token and used again for most of its
// life. Safe for concurrent use.
type Assertions struct {
	config AssertionConfig
	cache  *otter.Cache[string, *assertion] // by access token
}

// assertion is one that was signed.
type assertion struct {
	info   *oauth.TokenInfo // that it was made of
	claims assertionClaims
	key    *assertionKey
	// renew is when the next one is signed, before this one ends.
	renew time.Time
	value string // of the header
}

// assertionClaims are the claims; those of the time are 0 in comparisons.
type assertionClaims struct {
	Issuer   string   `json:"iss"`
	Audience string   `json:"aud"`
	Subject  string   `json:"sub,omitempty"`
	ClientID string   `json:"client_id,omitempty"`
	Scope    string   `json:"scope"`
	IDP      string   `json:"idp,omitempty"`
	Email    string   `json:"email,omitempty"`
	Name     string   `json:"name,omitempty"`
	Groups   []string `json:"groups,omitempty"`
	IssuedAt int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	ID       string   `json:"jti"`
}

// NewAssertions checks the configuration. It does no I/O.
func NewAssertions(c AssertionConfig) (*Assertions, error) {
	switch {
	case c.Issuer == "" || c.Audience == "":
		return nil, errors.New("assertions need an issuer and an audience")
	case c.Keys == nil:
		return nil, errors.New("assertions need keys to be signed with")
	}
	c.TTL, c.Now = durationOr(c.TTL, defaultAssertionTTL), clockOr(c.Now)
	if c.TTL < 30*time.Second || c.TTL > time.Hour {
		return nil, errors.New("the life of assertions must be between 30s and 1h")
	}
	// No ExpiryCalculator: its goroutine would outlive the configuration.
	cache, err := otter.New(&otter.Options[string, *assertion]{
		MaximumWeight: maxAssertionCache,
		Weigher: func(token string, a *assertion) uint32 {
			return uint32(2*len(token) + 2*len(a.value) + 512) //nolint:gosec // both are bounded
		},
		Executor: func(task func()) { task() },
	})
	if err != nil {
		return nil, err
	}
	return &Assertions{config: c, cache: cache}, nil
}

// SetHeader tells the server behind who is asking. The error is
// ErrIdentityTooLarge, oauth.ErrInvalidToken for a token that has expired and is
// accepted only because clocks differ, or that no assertion could be signed; h is
// unchanged then.
func (a *Assertions) SetHeader(h http.Header, info *oauth.TokenInfo) error {
	value, err := a.value(info)
	if err != nil {
		return err
	}
	if a.config.InAuthorization {
		h["Authorization"] = []string{value}
	} else {
		h[AssertionHeader] = []string{value}
	}
	return nil
}

// value returns the header's value, a kept one if that is as a new one would be.
func (a *Assertions) value(info *oauth.TokenInfo) (string, error) {
	keys, err := a.config.Keys.current()
	if err != nil {
		return "", err
	}
	now := a.config.Now()
	known, ok := a.cache.GetIfPresent(info.Token)
	if ok && known.key == keys.signing && now.Before(known.renew) && known.info == info {
		return known.value, nil
	}
	claims := a.claims(info)
	// A verifier may say the same of a token again, or something new.
	if ok && known.key == keys.signing && now.Before(known.renew) && known.claims.equal(&claims) && known.info.ExpiresAt.Equal(info.ExpiresAt) && known.info.Leeway == info.Leeway {
		return known.value, nil
	}
	made, err := a.sign(info, claims, keys.signing, now)
	if err != nil {
		return "", err
	}
	if info.Token != "" {
		a.cache.Set(info.Token, made)
	}
	return made.value, nil
}

func (a *Assertions) claims(info *oauth.TokenInfo) assertionClaims {
	c := assertionClaims{
		Issuer: a.config.Issuer, Audience: a.config.Audience,
		Subject: info.UserID, ClientID: info.ClientID, Scope: oauth.JoinScope(info.Scopes),
	}
	if info.Issuer != a.config.Issuer {
		c.IDP = info.Issuer
	} else {
		c.IDP, _ = info.Extra["idp"].(string)
	}
	if a.config.Fields.Email {
		c.Email = emailClaim(info.Extra)
	}
	if a.config.Fields.Name {
		c.Name = nameClaim(info.Extra)
	}
	if a.config.Fields.Groups {
		c.Groups = groupsClaim(info.Extra)
	}
	return c
}

func (c *assertionClaims) equal(d *assertionClaims) bool {
	return c.Issuer == d.Issuer && c.Audience == d.Audience && c.Subject == d.Subject && c.ClientID == d.ClientID &&
		c.Scope == d.Scope && c.IDP == d.IDP && c.Email == d.Email && c.Name == d.Name && slices.Equal(c.Groups, d.Groups)
}

// sign makes an assertion of the claims.
func (a *Assertions) sign(info *oauth.TokenInfo, claims assertionClaims, key *assertionKey, now time.Time) (*assertion, error) {
	for _, text := range append([]string{claims.Subject, claims.ClientID, claims.Email, claims.Name}, claims.Groups...) {
		if !utf8.ValidString(text) { // JSON would make the same of different ones
			return nil, errors.New("what is known of the caller is not UTF-8 and cannot be put into a JWT")
		}
	}
	expires, renew := now.Add(a.config.TTL), now.Add(a.config.TTL-a.config.TTL/5)
	if !info.ExpiresAt.IsZero() {
		end := info.ExpiresAt.Add(-info.Leeway)
		if end.Unix() <= now.Unix() {
			// Only the difference of clocks lets it in, which is none of the server's
			// behind: an assertion could only be over, or outlive the token.
			return nil, refuse(expired, fmt.Errorf("it ended %s ago, and no assertion can be made of it", now.Sub(end)))
		}
		expires, renew = earlier(expires, end), earlier(renew, end)
	}
	signed := claims
	signed.IssuedAt, signed.Expires, signed.ID = now.Unix(), expires.Unix(), rand.Text()
	payload, err := json.Marshal(signed)
	if err != nil {
		return nil, err
	}
	value, err := key.sign(payload)
	switch {
	case err != nil:
		return nil, err
	case len(value) > maxIdentity:
		return nil, ErrIdentityTooLarge
	case a.config.InAuthorization:
		value = "Bearer " + value
	}
	return &assertion{info: info, claims: claims, key: key, renew: renew, value: value}, nil
}
