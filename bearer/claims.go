package bearer

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/strictjson"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// maxTime is the last second of the year 9999. A claim beyond it is no time:
// most often somebody wrote milliseconds, and the token would live for ever.
const maxTime = 253402300799

// claims are the members of a JWT's header or payload, or of an introspection
// answer. Names are matched exactly; numbers are json.Number.
type claims map[string]any

// parseClaims reads a JSON object by the rules of strictjson.
func parseClaims(data []byte) (claims, error) { return strictjson.Object(data) }

// text returns a member that is a string, "" if it is absent.
func (c claims) text(name string) (string, error) {
	value, ok := c[name]
	if !ok {
		return "", nil
	}
	s, ok := value.(string)
	if !ok {
		return "", fmt.Errorf("%s is not a string", name)
	}
	return s, nil
}

// firstText returns the first of the members that is neither absent nor empty,
// and its name.
func (c claims) firstText(names ...string) (value, name string, err error) {
	for _, name := range names {
		if value, err := c.text(name); value != "" || err != nil {
			return value, name, err
		}
	}
	return "", "", nil
}

// dropNulls removes the named members that are null, which many servers write for
// what they do not know.
func (c claims) dropNulls(names ...string) {
	for _, name := range names {
		if value, ok := c[name]; ok && value == nil {
			delete(c, name)
		}
	}
}

// list returns a member that is a string or an array of strings (RFC 7519
// §4.1.3), nil if it is absent.
func (c claims) list(name string) ([]string, error) {
	switch value := c[name].(type) {
	case nil:
		if _, ok := c[name]; !ok {
			return nil, nil
		}
	case string:
		return []string{value}, nil
	case []any:
		list := make([]string, len(value))
		for i, element := range value {
			s, ok := element.(string)
			if !ok {
				return nil, fmt.Errorf("%s holds something else than strings", name)
			}
			list[i] = s
		}
		return list, nil
	}
	return nil, fmt.Errorf("%s is neither a string nor an array of strings", name)
}

// scopes returns the scopes of the first of the members that holds any: a
// space-separated string (RFC 9068 §2.2.3, RFC 7662 §2.2) or an array.
func (c claims) scopes(names ...string) (scopes []string, name string, err error) {
	for _, name := range names {
		list, err := c.list(name)
		if err != nil {
			return nil, "", err
		}
		scopes, err := oauth.ParseScope(strings.Join(list, " "))
		if err != nil {
			return nil, "", fmt.Errorf("%s: %v", name, err) // not %w: it is no invalid_scope of the caller
		}
		if len(scopes) > 0 {
			return scopes, name, nil
		}
	}
	return nil, "", nil
}

// time returns a member that is a NumericDate (RFC 7519 §2), the zero time if
// it is absent.
func (c claims) time(name string) (time.Time, error) {
	value, ok := c[name]
	if !ok {
		return time.Time{}, nil
	}
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("%s is not a number", name)
	}
	if whole, err := number.Int64(); err == nil && whole >= -maxTime && whole <= maxTime {
		return time.Unix(whole, 0), nil
	}
	seconds, err := number.Float64()
	if err != nil || math.Abs(seconds) > maxTime {
		return time.Time{}, fmt.Errorf("%s is not a time in seconds", name)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

// lifetime checks exp, nbf and iat against the clock and returns exp, the zero
// time if there is none. exp counts as passed skew after it, nbf and iat as
// reached skew before them.
func (c claims) lifetime(now time.Time, skew time.Duration) (expires time.Time, err error) {
	var dates [3]time.Time
	for i, name := range []string{"exp", "nbf", "iat"} {
		if dates[i], err = c.time(name); err != nil {
			return time.Time{}, refuse("Token is malformed", err)
		}
	}
	expires = dates[0]
	if _, ok := c["exp"]; ok && !now.Before(expires.Add(skew)) { // RFC 7519 §4.1.4
		return time.Time{}, refuse("Token has expired", fmt.Errorf("it expired %s ago", now.Sub(expires)))
	}
	for i, name := range []string{"nbf", "iat"} {
		if date := dates[i+1]; date.After(now.Add(skew)) { // RFC 7519 §4.1.5
			return time.Time{}, refuse("Token is not valid yet", fmt.Errorf("%s is %s ahead of our clock", name, date.Sub(now)))
		}
	}
	return expires, nil
}

// setExpiry says when the token expires, if it does: the Guard compares without a
// skew of its own.
func setExpiry(info *oauth.TokenInfo, expires time.Time, skew time.Duration) {
	if !expires.IsZero() {
		info.ExpiresAt, info.Leeway = expires.Add(skew), skew
	}
}

// accessToken refuses what is not an access token, or not one for Bearer.
func (c claims) accessToken() error {
	// RFC 7800: a token with cnf belongs to whoever holds a key. Taken as
	// Bearer, a stolen one would be worth something (RFC 9449 §7.2, RFC 8705 §3).
	if _, ok := c["cnf"]; ok {
		return refuse("Token is bound to a key and cannot be used as a Bearer token", errors.New("it has a cnf claim"))
	}
	// Amazon Cognito and Ory Hydra say in token_use what a token is for.
	// https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html
	// https://www.ory.sh/docs/reference/api#tag/oAuth2/operation/introspectOAuth2Token
	if use, _ := c["token_use"].(string); use != "" && use != "access" && use != "access_token" {
		return refuse("Token is not an access token", fmt.Errorf("its token_use is %.40q", use))
	}
	// Keycloak does so in typ, in the payload and in introspection answers.
	// https://github.com/keycloak/keycloak/blob/main/core/src/main/java/org/keycloak/util/TokenUtil.java
	if use, _ := c["typ"].(string); slices.Contains([]string{"ID", "Refresh", "Offline", "Logout"}, use) {
		return refuse("Token is not an access token", fmt.Errorf("its typ claim is %q", use))
	}
	return nil
}

// rest returns the members that are not named, with numbers as int64 if they are
// whole and float64 otherwise; nil if there is none. The map is as small as it can
// be, since it is kept.
func (c claims) rest(names ...string) map[string]any {
	for _, name := range names {
		delete(c, name)
	}
	if len(c) == 0 {
		return nil
	}
	rest := make(map[string]any, len(c))
	for name, value := range c {
		rest[name] = plainNumbers(value)
	}
	return rest
}

func plainNumbers(value any) any {
	switch value := value.(type) {
	case json.Number:
		if whole, err := value.Int64(); err == nil {
			return whole
		}
		if float, err := value.Float64(); err == nil {
			return float
		}
		return value.String()
	case []any:
		for i := range value {
			value[i] = plainNumbers(value[i])
		}
	case map[string]any:
		for name := range value {
			value[name] = plainNumbers(value[name])
		}
	}
	return value
}

// refuse is the refusal of a token: description for the client's developer,
// cause for the operator.
func refuse(description string, cause error) error {
	return oauth.ErrInvalidToken.Describe(description).Because(cause)
}
