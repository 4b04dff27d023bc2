package authclient

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// ClientInformation is the client at one authorization server.
type ClientInformation struct {
	oauth.ClientInformationFull
	// Issuer is the authorization server that knows the client, and the only one
	// to which it is presented. "" means that it is not known yet.
	Issuer string
}

// Tokens are what one authorization server has issued.
type Tokens struct {
	oauth.Tokens
	// Issuer is the authorization server that issued the tokens, and the only
	// one to which the refresh token is presented.
	Issuer string
	// ExpiresAt is when the access token expires by the clock of this machine,
	// counted from its arrival; zero if the server did not say.
	ExpiresAt time.Time
}

// The members that stored credentials have beyond those on the wire.
const (
	memberIssuer    = "issuer"
	memberExpiresAt = "expires_at"
)

// MarshalJSON writes the registration with the member issuer.
func (c ClientInformation) MarshalJSON() ([]byte, error) {
	full := c.ClientInformationFull
	extra, err := withMembers(full.Extra, map[string]any{memberIssuer: c.Issuer})
	if err != nil {
		return nil, err
	}
	full.Extra = extra
	return full.MarshalJSON()
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *ClientInformation) UnmarshalJSON(data []byte) error {
	*c = ClientInformation{}
	if err := c.ClientInformationFull.UnmarshalJSON(data); err != nil {
		return err
	}
	return takeMember(c.Extra, memberIssuer, &c.Issuer)
}

// MarshalJSON writes the token response with the members issuer and, if the
// expiry is known, expires_at, in seconds since 1970.
func (t Tokens) MarshalJSON() ([]byte, error) {
	tokens := t.Tokens
	added := map[string]any{memberIssuer: t.Issuer}
	if !t.ExpiresAt.IsZero() {
		added[memberExpiresAt] = t.ExpiresAt.Unix()
	}
	extra, err := withMembers(tokens.Extra, added)
	if err != nil {
		return nil, err
	}
	tokens.Extra = extra
	return tokens.MarshalJSON()
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *Tokens) UnmarshalJSON(data []byte) error {
	*t = Tokens{}
	if err := t.Tokens.UnmarshalJSON(data); err != nil {
		return err
	}
	var seconds int64
	if err := takeMember(t.Extra, memberExpiresAt, &seconds); err != nil {
		return err
	}
	if seconds != 0 {
		t.ExpiresAt = time.Unix(seconds, 0)
	}
	return takeMember(t.Extra, memberIssuer, &t.Issuer)
}

// Expired reports whether the access token has expired at now. One whose expiry
// is not known has not.
func (t *Tokens) Expired(now time.Time) bool {
	return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt)
}

func withMembers(extra map[string]json.RawMessage, added map[string]any) (map[string]json.RawMessage, error) {
	all := make(map[string]json.RawMessage, len(extra)+len(added))
	maps.Copy(all, extra)
	for name, value := range added {
		encoded, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		all[name] = encoded
	}
	return all, nil
}

func takeMember(extra map[string]json.RawMessage, name string, into any) error {
	raw, ok := extra[name]
	if !ok {
		return nil
	}
	delete(extra, name)
	if err := json.Unmarshal(raw, into); err != nil {
		return errors.New("member " + name + " is malformed")
	}
	return nil
}

// sameIssuer compares issuers byte for byte, but for one slash at the end: an
// authorization server that is found at the origin of the MCP server has one
// in its URL, whatever its metadata say.
func sameIssuer(a, b string) bool {
	return a == b || strings.TrimSuffix(a, "/") == b || strings.TrimSuffix(b, "/") == a
}
