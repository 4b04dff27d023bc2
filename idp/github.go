package idp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// GitHubOptions configure GitHub or a GitHub Enterprise Server.
type GitHubOptions struct {
	Common
	// BaseURL is https://github.com if empty, or that of an Enterprise Server,
	// whose API is then below /api/v3.
	BaseURL string
}

const (
	githubURL = "https://github.com"
	// githubPage is the most that GitHub puts on a page of a list, githubPages
	// how many of them are read.
	githubPage  = 100
	githubPages = 10
)

// NewGitHub returns GitHub: an OAuth app, whose tokens do not expire, or a
// GitHub App. Scopes are read:user user:email unless configured, and read:org
// if groups are needed. GitHub Apps ignore scopes; they need the account
// permission Email addresses and the organization permission Members, both to
// read.
//
// The subject is the numeric id, since logins change hands. Groups are the
// organizations, org, and teams, org/team, in lower case. Mail is the primary
// address if it is verified.
func NewGitHub(o GitHubOptions) (Upstream, error) {
	base := strings.TrimSuffix(o.BaseURL, "/")
	if base == "" {
		base = githubURL
	}
	if err := oauth.CheckEndpoint(base, o.Insecure); err != nil {
		return nil, fmt.Errorf("base URL %q: %w", o.BaseURL, err)
	}
	origin, err := oauth.Origin(base)
	if err != nil || origin != strings.ToLower(base) {
		return nil, fmt.Errorf("base URL %q: write scheme and host only, such as https://github.example.com", o.BaseURL)
	}
	scopes := []string{"read:user", "user:email"}
	if o.Groups {
		scopes = append(scopes, "read:org")
	}
	if err := o.prepare(scopes...); err != nil {
		return nil, err
	}
	if o.ClientSecret == "" {
		return nil, errors.New("client_secret is missing: GitHub signs nobody in without one (is the environment variable set?)")
	}
	g := &github{api: origin + "/api/v3", origin: origin}
	if origin == githubURL {
		g.api = "https://api.github.com"
	}
	o.Logger = o.Logger.With("upstream", origin)
	g.caller = &caller{Common: o.Common, fixed: &metadata{
		issuer:                origin,
		authorizationEndpoint: origin + "/login/oauth/authorize",
		tokenEndpoint:         origin + "/login/oauth/access_token",
		tokenAuthMethods:      []string{"client_secret_post"}, // basic is not documented
		// https://docs.github.com/en/apps/oauth-apps/maintaining-oauth-apps/troubleshooting-oauth-app-access-token-request-errors
		dialect: map[string]string{
			"bad_verification_code":        "invalid_grant",
			"bad_refresh_token":            "invalid_grant",
			"incorrect_client_credentials": "invalid_client",
		},
	}}
	return &oauth2Upstream{
		caller: g.caller, name: "GitHub", issuer: origin, open: origin == githubURL,
		// RFC 9207: not announced today; these would be its issuer.
		callbackIss:  []string{origin, origin + "/login/oauth"},
		capabilities: Capabilities{Refresh: true, UserInfo: true, Revoke: true},
		who:          g.who,
		end:          g.revoke,
	}, nil
}

type github struct {
	*caller
	api, origin string
}

func (g *github) header() http.Header {
	return http.Header{
		"Accept":               {"application/vnd.github+json"},
		"X-Github-Api-Version": {"2022-11-28"},
		"User-Agent":           {"mcpauth"}, // without one GitHub answers 403
	}
}

func (g *github) who(ctx context.Context, accessToken string) (*Identity, error) {
	var user claims
	if err := g.getJSON(ctx, "user", g.api+"/user", accessToken, g.header(), &user); err != nil {
		return nil, err
	}
	id := &Identity{Issuer: g.origin, Name: cleanName(user.str("name"))}
	if n, ok := user["id"].(json.Number); ok {
		id.Subject = n.String()
	}
	if strings.Trim(id.Subject, "0123456789") != "" || id.Subject == "" {
		return nil, trouble(nil, "its user endpoint gave no numeric id")
	}
	login := user.str("login")
	if id.Name == "" {
		id.Name = cleanName(login)
	}
	user["preferred_username"] = login
	id.Claims = user.keep(g.Claims)
	if err := g.email(ctx, accessToken, id); err != nil {
		return nil, err
	}
	if !g.Groups {
		return id, nil
	}
	groups, err := g.groups(ctx, accessToken)
	if err != nil {
		return nil, err
	}
	g.setGroups(id, groups)
	return id, nil
}

// email takes the primary address, if GitHub has seen the user receive mail
// there. The one of the profile may be anybody's.
func (g *github) email(ctx context.Context, accessToken string, id *Identity) error {
	err := g.list(ctx, "/user/emails", accessToken, func(e claims) {
		if e.is("primary") && e.is("verified") {
			id.Email = cleanEmail(e.str("email"))
			id.EmailVerified = id.Email != ""
		}
	})
	if answered(err, http.StatusNotFound) { // GitHub's way to say that the scope is missing
		if g.complaints.due("emails", g.Now()) {
			g.Logger.Warn("GitHub does not let this app see mail addresses, so none counts; add the scope user:email, or for a GitHub App the permission Email addresses")
		}
		return nil
	}
	return err
}

func (g *github) groups(ctx context.Context, accessToken string) ([]string, error) {
	var groups []string
	err := g.list(ctx, "/user/orgs", accessToken, func(o claims) {
		groups = append(groups, strings.ToLower(o.str("login")))
	})
	if err != nil {
		return nil, err
	}
	err = g.list(ctx, "/user/teams", accessToken, func(t claims) {
		if org, team := t.str("organization.login"), t.str("slug"); org != "" && team != "" {
			groups = append(groups, strings.ToLower(org+"/"+team))
		}
	})
	return groups, err
}

// list reads a list page by page. The Link header is not followed, since it
// could lead anywhere with the user's token: a full page has a next one.
func (g *github) list(ctx context.Context, path, accessToken string, each func(claims)) error {
	for page := 1; page <= githubPages; page++ {
		address := g.api + path + "?" + url.Values{"per_page": {strconv.Itoa(githubPage)}, "page": {strconv.Itoa(page)}}.Encode()
		var entries []claims
		if err := g.getJSON(ctx, strings.TrimPrefix(path, "/"), address, accessToken, g.header(), &entries); err != nil {
			return err
		}
		for _, e := range entries {
			each(e)
		}
		if len(entries) < githubPage {
			return nil
		}
	}
	if g.complaints.due(path, g.Now()) {
		g.Logger.Warn("a user has more entries than are read; rules see only the first",
			"list", path, "read", githubPage*githubPages)
	}
	return nil
}

// revoke deletes this one token; deleting the grant would end the user's other
// ones (https://docs.github.com/en/rest/apps/oauth-applications).
func (g *github) revoke(ctx context.Context, t Tokens) error {
	if t.AccessToken == "" {
		return nil
	}
	body, err := json.Marshal(map[string]string{"access_token": t.AccessToken})
	if err != nil {
		return trouble(err, "the request cannot be written")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, g.api+"/applications/"+url.PathEscape(g.ClientID)+"/token", bytes.NewReader(body))
	if err != nil {
		return trouble(nil, "the URL of its API is not valid")
	}
	req.Header = g.header()
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(g.ClientID, g.ClientSecret)
	answer, err := g.do(ctx, "revocation", req)
	if err != nil {
		return err
	}
	switch answer.Status {
	case http.StatusNoContent, http.StatusNotFound, http.StatusUnprocessableEntity: // gone, or was
		return nil
	}
	return trouble(nil, "its revocation endpoint answered %d", answer.Status)
}
