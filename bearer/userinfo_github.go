package bearer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// gitHubUserinfo asks GitHub about tokens of an OAuth app or GitHub App.
//
// With a client id it uses POST /applications/{client_id}/token, which knows the
// tokens of that application only and answers 404 for all others:
// https://docs.github.com/en/rest/apps/oauth-applications#check-a-token
// For any client it uses GET /user, whose answer names the scopes in
// X-OAuth-Scopes; that of an app's fine-grained token names none.
//
// No mail address is taken over: GET /user has the one that the user chose to
// show, which says nothing about who it is.
type gitHubUserinfo struct {
	api, id, secret string
}

func newGitHubUserinfo(c *UserinfoConfig) (userinfoProvider, error) {
	switch {
	case len(c.ClientIDs) > 1:
		return nil, errors.New("github: one client id, for each has a secret of its own; chain two verifiers for two")
	case len(c.ClientIDs) == 1 && c.ClientSecret == "":
		return nil, errors.New("github: the check that a token was issued to your application needs its client_secret")
	case c.AnyClient && c.ClientSecret != "":
		return nil, errors.New("github: a client secret is of no use with any_client")
	case c.ClientClaim != "" || c.UserClaim != "" || c.ScopeClaim != "":
		return nil, errors.New("github: the claims are known; drop user_claim, client_claim and scope_claim")
	}
	g := &gitHubUserinfo{api: c.URL, secret: c.ClientSecret}
	if g.api == "" {
		g.api = "https://api.github.com"
	}
	if len(c.ClientIDs) == 1 {
		g.id = c.ClientIDs[0]
	}
	if c.Issuer == "" {
		c.Issuer = "https://github.com"
	}
	if c.Prefixes == nil {
		// https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/
		c.Prefixes = []string{"gho_", "ghu_"}
		if c.AnyClient {
			c.Prefixes = append(c.Prefixes, "ghp_", "github_pat_")
		}
	}
	return g, nil
}

func (g *gitHubUserinfo) request(ctx context.Context, token string) (*http.Request, error) {
	if g.id == "" {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.api+"/user", nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		return r, nil
	}
	body, err := json.Marshal(map[string]string{"access_token": token})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.api+"/applications/"+url.PathEscape(g.id)+"/token", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(g.id, g.secret)
	return r, nil
}

// refuses: a token of another application, or none, is 404, and what cannot be
// a token 422. 401 is about our own credentials there.
func (g *gitHubUserinfo) refuses(answer *safehttp.Answer) bool {
	if g.id == "" {
		return answer.Status == http.StatusUnauthorized
	}
	return answer.Status == http.StatusNotFound || answer.Status == http.StatusUnprocessableEntity
}

func (g *gitHubUserinfo) read(answer claims, header http.Header) (*oauth.TokenInfo, error) {
	info := &oauth.TokenInfo{}
	user, scopes := answer, strings.FieldsFunc(header.Get("X-Oauth-Scopes"), func(r rune) bool { return r == ',' || r == ' ' })
	if g.id != "" {
		object, ok := answer["user"].(map[string]any)
		app, okApp := answer["app"].(map[string]any)
		if !ok || !okApp {
			return nil, errors.New("the answer of GitHub has no user or no app")
		}
		user = object
		var err error
		if info.ClientID, err = claims(app).text("client_id"); err != nil {
			return nil, fmt.Errorf("the answer of GitHub: %w", err)
		}
		if scopes, err = gitHubScopes(answer); err != nil {
			return nil, fmt.Errorf("the answer of GitHub: %w", err)
		}
		if info.ExpiresAt, err = gitHubExpiry(answer); err != nil {
			return nil, fmt.Errorf("the answer of GitHub: %w", err)
		}
	}
	if slices.ContainsFunc(scopes, func(s string) bool { return !oauth.ValidScope(s) }) {
		return nil, errors.New("the answer of GitHub holds something else than scopes")
	}
	if len(scopes) > 0 {
		info.Scopes = scopes
	}
	id, err := user.id("id") // login names change hands
	if err != nil {
		return nil, fmt.Errorf("the answer of GitHub: %w", err)
	}
	info.UserID = id
	info.Extra = map[string]any{}
	for claim, member := range map[string]string{"preferred_username": "login", "name": "name"} {
		if text, _ := user[member].(string); text != "" {
			info.Extra[claim] = text
		}
	}
	return info, nil
}

// gitHubScopes are absent, null or empty for a GitHub App.
func gitHubScopes(answer claims) ([]string, error) {
	if answer["scopes"] == nil {
		return nil, nil
	}
	return answer.list("scopes")
}

// gitHubExpiry is null for tokens of OAuth apps, which end when they are revoked
// or have not been used for a year.
func gitHubExpiry(answer claims) (time.Time, error) {
	if answer["expires_at"] == nil {
		return time.Time{}, nil
	}
	text, err := answer.text("expires_at")
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339, text)
}
