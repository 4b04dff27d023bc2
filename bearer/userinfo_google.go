package bearer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// googleUserinfo asks Google's tokeninfo endpoint, which unlike its userinfo
// endpoint tells the client, the scopes and the expiry. Whoever is to be known
// there needs the scope openid or one for the mail address.
// https://developers.google.com/identity/protocols/oauth2/openid-connect
type googleUserinfo struct{ config UserinfoConfig }

func newGoogleUserinfo(c *UserinfoConfig) (userinfoProvider, error) {
	switch {
	case c.ClientSecret != "":
		return nil, errors.New("google: no client secret is needed")
	case c.ClientClaim != "" || c.UserClaim != "" || c.ScopeClaim != "":
		return nil, errors.New("google: the claims are known; drop user_claim, client_claim and scope_claim")
	}
	if c.URL == "" {
		c.URL = "https://oauth2.googleapis.com"
	}
	if c.Issuer == "" {
		c.Issuer = "https://accounts.google.com"
	}
	if c.Prefixes == nil {
		c.Prefixes = []string{"ya29."}
	}
	return &googleUserinfo{*c}, nil
}

// request sends the token in the body: URLs end up in logs.
func (g *googleUserinfo) request(ctx context.Context, token string) (*http.Request, error) {
	body := strings.NewReader(url.Values{"access_token": {token}}.Encode())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.config.URL+"/tokeninfo", body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r, nil
}

// refuses: 400 with an error code is what a token gets that is no good.
func (g *googleUserinfo) refuses(answer *safehttp.Answer) bool {
	if answer.Status != http.StatusBadRequest {
		return false
	}
	body, err := parseClaims(answer.Body)
	if err != nil {
		return false
	}
	code, _ := body.text("error")
	description, _ := body.text("error_description")
	return code == "invalid_token" || code == "" && description == "Invalid Value"
}

func (g *googleUserinfo) read(answer claims, _ http.Header) (*oauth.TokenInfo, error) {
	info := &oauth.TokenInfo{}
	var problems []error
	text := func(field *string, name string) {
		value, err := answer.text(name)
		*field = value
		problems = append(problems, err)
	}
	var audience string
	text(&info.UserID, "sub")
	text(&audience, "aud")
	text(&info.ClientID, "azp")
	var err error
	info.Scopes, _, err = answer.scopes("scope")
	problems = append(problems, err)
	expires, err := answer.seconds("exp")
	problems = append(problems, err)
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("the answer of Google: %w", err)
	}
	if expires.IsZero() {
		return nil, errors.New("the answer of Google has no exp")
	}
	info.ExpiresAt = expires
	// azp is who got the token, aud whom it is for; they differ between the apps
	// of one project. Both have to be known.
	if info.ClientID == "" {
		info.ClientID = audience
	}
	if !g.config.AnyClient && !slices.Contains(g.config.ClientIDs, audience) {
		return nil, refuse("Token was issued to another application", fmt.Errorf("its aud is %.200q", audience))
	}
	info.Extra = answer.rest("sub", "aud", "azp", "scope", "exp", "expires_in", "access_type")
	return info, nil
}

// seconds is time for a member that may be a string of digits, as Google has it.
func (c claims) seconds(name string) (time.Time, error) {
	if digits, ok := c[name].(string); ok {
		seconds, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || seconds < 0 || seconds > maxTime {
			return time.Time{}, fmt.Errorf("%s is not a time in seconds", name)
		}
		return time.Unix(seconds, 0), nil
	}
	return c.time(name)
}
