package oauth

import (
	"encoding/json"
	"fmt"
	"time"
)

// Tokens is a successful token response (RFC 6749 §5.1), the SDK's OAuthTokens.
type Tokens struct {
	AccessToken string
	// IDToken is set when an upstream that is also an OpenID provider returns one.
	IDToken   string
	TokenType string
	// ExpiresIn is the remaining life of the access token; nil if the server
	// did not say. A pointer, because 0 means expired and not "unknown".
	ExpiresIn *time.Duration
	// Scope is the granted scope, space-separated.
	Scope        string
	RefreshToken string

	// Extra holds the members that this type does not name.
	Extra map[string]json.RawMessage
}

func (t *Tokens) members(expiresIn *json.RawMessage) []member {
	return []member{
		{name: "access_token", field: &t.AccessToken, required: true, always: true},
		{name: "id_token", field: &t.IDToken},
		{name: "token_type", field: &t.TokenType, required: true, always: true},
		{name: "expires_in", field: expiresIn},
		{name: "scope", field: &t.Scope},
		{name: "refresh_token", field: &t.RefreshToken},
	}
}

// MarshalJSON writes the members in the SDK's order.
func (t Tokens) MarshalJSON() ([]byte, error) {
	var seconds json.RawMessage
	if t.ExpiresIn != nil {
		seconds = fmt.Appendf(nil, "%d", int64(*t.ExpiresIn/time.Second))
	}
	return marshalMembers(t.members(&seconds), t.Extra)
}

// UnmarshalJSON reads a token response. access_token and token_type are
// required; expires_in may be a number or, as some servers send it, a string of
// digits.
func (t *Tokens) UnmarshalJSON(data []byte) (err error) {
	*t = Tokens{}
	var expiresIn json.RawMessage
	t.Extra, err = unmarshalMembers(data, t.members(&expiresIn))
	if err != nil || expiresIn == nil {
		return err
	}
	d, err := parseSeconds(expiresIn)
	if err != nil {
		return fmt.Errorf("member expires_in: %w", err)
	}
	t.ExpiresIn = &d
	return nil
}

// maxSeconds is the longest life that is believed, ten years: it keeps
// arithmetic with durations far from overflow.
const maxSeconds = 10 * 365 * 24 * 3600

// parseSeconds reads a number of seconds, or a string that holds one.
func parseSeconds(raw json.RawMessage) (time.Duration, error) {
	var number json.Number
	if err := json.Unmarshal(raw, &number); err != nil {
		return 0, fmt.Errorf("must be a number of seconds")
	}
	seconds, err := number.Float64()
	if err != nil || seconds != seconds || seconds < 0 {
		return 0, fmt.Errorf("must be a number of seconds, not below 0")
	}
	return time.Duration(min(seconds, maxSeconds)) * time.Second, nil
}

// TokenInfo is what is known of an access token after its verification, the
// SDK's AuthInfo.
type TokenInfo struct {
	// Token is the access token itself. It is never logged.
	Token string
	// ClientID is the client that the token was issued to; "" if unknown.
	ClientID string
	// Scopes are the granted scopes.
	Scopes []string
	// UserID identifies the user within the issuer (the sub claim). It equals
	// ClientID or is empty for a machine's token.
	UserID string
	// ExpiresAt is until when the token is accepted: its expiry, and after it the
	// difference of clocks that the verifier allows for. It is zero if the token
	// does not tell.
	ExpiresAt time.Time
	// Leeway is the difference of clocks in ExpiresAt: the token itself says that it
	// expires so much earlier.
	Leeway time.Duration
	// Audience are the audiences that the token names (RFC 7519 §4.1.3,
	// RFC 7662 §2.2), as it spells them.
	Audience []string
	// Resource is the one resource that the token is for (RFC 8707), if the
	// verifier knows; it counts as an audience.
	Resource string
	// Issuer is who issued the token; "" if unknown.
	Issuer string
	// Extra holds further claims, as JSON values. Readers must not change it:
	// a verifier may hand the same value to many requests.
	Extra map[string]any
}
