package bearer_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const (
	userinfoPath    = "/userinfo"
	gitHubCheckPath = "/applications/app/token"
	gitHubUserPath  = "/user"
	tokeninfoPath   = "/tokeninfo"
)

func newUserinfo(t testing.TB, i *issuer, c bearer.UserinfoConfig) *bearer.UserinfoVerifier {
	t.Helper()
	if c.URL = i.URL; c.Provider == "" {
		c.URL += userinfoPath
	}
	c.Client = client(t)
	v, err := bearer.NewUserinfoVerifier(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// gitHub is a configuration for tokens of the client app.
func gitHub() bearer.UserinfoConfig {
	return bearer.UserinfoConfig{Provider: "github", ClientIDs: []string{"app"}, ClientSecret: "s3cret"}
}

// checked is GitHub's answer for a token of the client app, changed by more.
func checked(more object) string {
	text, _ := json.Marshal(with(object{
		"id": 1, "url": "https://api.github.com/authorizations/1", "scopes": []string{"repo", "read:user"}, "token": "gho_x",
		"token_last_eight": "x", "hashed_token": "y", "app": object{"url": "u", "name": "n", "client_id": "app"},
		"note": nil, "note_url": nil, "updated_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z",
		"fingerprint": nil, "expires_at": nil, "user": object{"login": "Octocat", "id": 583231123456789012, "name": "Mona", "email": "mona@evil.example"},
	}, more))
	return string(text)
}

func tokeninfo(more object) string {
	text, _ := json.Marshal(with(object{
		"azp": "app", "aud": "app", "sub": "1234", "scope": "openid https://www.googleapis.com/auth/userinfo.email",
		"exp": "4000000000", "expires_in": "3599", "email": "a@example.com", "email_verified": "true", "access_type": "online",
	}, more))
	return string(text)
}

func TestUserinfoAccepts(t *testing.T) {
	i := newIssuer(t)
	for _, test := range []struct {
		name, path, token, answer string
		header                    string
		config                    bearer.UserinfoConfig
		want                      oauth.TokenInfo
	}{
		{
			"GitHub, a token of our app", gitHubCheckPath, "gho_x", checked(nil), "", gitHub(),
			oauth.TokenInfo{
				ClientID: "app", Audience: []string{"app"}, UserID: "583231123456789012", Scopes: []string{"repo", "read:user"},
				Issuer: "https://github.com", Extra: map[string]any{"preferred_username": "Octocat", "name": "Mona"},
			},
		},
		{
			"GitHub App, with expiry and without scopes", gitHubCheckPath, "ghu_x", checked(object{"scopes": nil, "expires_at": "2099-01-01T00:00:00Z"}), "", gitHub(),
			oauth.TokenInfo{
				ClientID: "app", Audience: []string{"app"}, UserID: "583231123456789012", Issuer: "https://github.com",
				ExpiresAt: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), Extra: map[string]any{"preferred_username": "Octocat", "name": "Mona"},
			},
		},
		{
			"GitHub, any client", gitHubUserPath, "ghp_x", `{"login":"Octocat","id":7,"name":null,"email":"x@evil.example"}`, "repo, read:org",
			bearer.UserinfoConfig{Provider: "github", AnyClient: true},
			oauth.TokenInfo{UserID: "7", Scopes: []string{"repo", "read:org"}, Issuer: "https://github.com", Extra: map[string]any{"preferred_username": "Octocat"}},
		},
		{
			"Google", tokeninfoPath, "ya29.x", tokeninfo(nil), "",
			bearer.UserinfoConfig{Provider: "google", ClientIDs: []string{"other", "app"}},
			oauth.TokenInfo{
				ClientID: "app", Audience: []string{"app"}, UserID: "1234", Scopes: []string{"openid", "https://www.googleapis.com/auth/userinfo.email"},
				Issuer: "https://accounts.google.com", ExpiresAt: time.Unix(4000000000, 0),
				Extra: map[string]any{"email": "a@example.com", "email_verified": "true"},
			},
		},
		{
			"any other, with a client claim", userinfoPath, "opaque", `{"sub":"alice","client":"app","scope":"a b","exp":4000000000,"email":"a@b.c"}`, "",
			bearer.UserinfoConfig{ClientIDs: []string{"app"}, ClientClaim: "client", Issuer: "https://idp.example"},
			oauth.TokenInfo{
				ClientID: "app", Audience: []string{"app"}, UserID: "alice", Scopes: []string{"a", "b"}, Issuer: "https://idp.example",
				ExpiresAt: time.Unix(4000000000, 0), Extra: map[string]any{"email": "a@b.c"},
			},
		},
		{
			"any other, any client, fixed scopes, numeric user", userinfoPath, "opaque", `{"id":5}`, "",
			bearer.UserinfoConfig{AnyClient: true, UserClaim: "id", Scopes: []string{"mcp:read"}},
			oauth.TokenInfo{UserID: "5", Scopes: []string{"mcp:read"}, Issuer: i.URL},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			i.handle(test.path, func(w http.ResponseWriter, r *http.Request) {
				if test.header != "" {
					w.Header().Set("X-Oauth-Scopes", test.header)
				}
				_, _ = io.WriteString(w, test.answer)
			})
			info, err := newUserinfo(t, i, test.config).VerifyAccessToken(t.Context(), test.token)
			if err != nil {
				t.Fatal(err)
			}
			test.want.Token = test.token
			if diff := cmp.Diff(&test.want, info); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The token travels where no log sees it, and our credentials go to GitHub only.
func TestUserinfoAsks(t *testing.T) {
	i := newIssuer(t)
	for _, test := range []struct {
		name, path, token, answer string
		config                    bearer.UserinfoConfig
		want                      []string // method, Authorization, body
	}{
		{
			"GitHub", gitHubCheckPath, "gho_x", checked(nil), gitHub(),
			[]string{"POST", "Basic " + base64.StdEncoding.EncodeToString([]byte("app:s3cret")), `{"access_token":"gho_x"}`},
		},
		{"GitHub, any client", gitHubUserPath, "gho_x", `{"id":1}`, bearer.UserinfoConfig{Provider: "github", AnyClient: true}, []string{"GET", "Bearer gho_x", ""}},
		{"Google", tokeninfoPath, "ya29.x", tokeninfo(nil), bearer.UserinfoConfig{Provider: "google", ClientIDs: []string{"app"}}, []string{"POST", "", "access_token=ya29.x"}},
		{"any other", userinfoPath, "opaque", `{"sub":"a"}`, bearer.UserinfoConfig{AnyClient: true}, []string{"GET", "Bearer opaque", ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			i.handle(test.path, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if diff := cmp.Diff(test.want, []string{r.Method, r.Header.Get("Authorization"), string(body)}); diff != "" || r.URL.RawQuery != "" {
					t.Errorf("%s %s", diff, r.URL.RawQuery)
				}
				_, _ = io.WriteString(w, test.answer)
			})
			if _, err := newUserinfo(t, i, test.config).VerifyAccessToken(t.Context(), test.token); err != nil {
				t.Error(err)
			}
		})
	}
}

// Tokens that another application got from a user do not open this server, and
// neither does anything else that is not one of ours.
func TestUserinfoRefuses(t *testing.T) {
	i := newIssuer(t)
	google := bearer.UserinfoConfig{Provider: "google", ClientIDs: []string{"app"}}
	plain := bearer.UserinfoConfig{ClientIDs: []string{"app"}, ClientClaim: "client"}
	for _, test := range []struct {
		name, path, token string
		status            int
		answer            string
		config            bearer.UserinfoConfig
		want              string
	}{
		{"GitHub: another app's token is 404", gitHubCheckPath, "gho_x", 404, `{"message":"Not Found"}`, gitHub(), "Token is not valid"},
		{"GitHub: no token", gitHubCheckPath, "gho_x", 422, `{}`, gitHub(), "Token is not valid"},
		{"GitHub: an answer about another app", gitHubCheckPath, "gho_x", 200, checked(object{"app": object{"client_id": "evil"}}), gitHub(), "Token was issued to another application"},
		{"GitHub: expired", gitHubCheckPath, "gho_x", 200, checked(object{"expires_at": "2020-01-01T00:00:00Z"}), gitHub(), "Token has expired"},
		{"GitHub, any client: revoked", gitHubUserPath, "gho_x", 401, `{}`, bearer.UserinfoConfig{Provider: "github", AnyClient: true}, "Token is not valid"},
		{"Google: another app's token", tokeninfoPath, "ya29.x", 200, tokeninfo(object{"aud": "evil", "azp": "evil"}), google, "Token was issued to another application"},
		{"Google: got by another app", tokeninfoPath, "ya29.x", 200, tokeninfo(object{"azp": "evil"}), google, "Token was issued to another application"},
		{"Google: meant for another app", tokeninfoPath, "ya29.x", 200, tokeninfo(object{"aud": "evil"}), google, "Token was issued to another application"},
		{"Google: revoked", tokeninfoPath, "ya29.x", 400, `{"error":"invalid_token","error_description":"Invalid Value"}`, google, "Token is not valid"},
		{"Google: expired", tokeninfoPath, "ya29.x", 200, tokeninfo(object{"exp": "1"}), google, "Token has expired"},
		{"any other: another app's token", userinfoPath, "opaque", 200, `{"sub":"alice","client":"evil"}`, plain, "Token was issued to another application"},
		{"any other: no client", userinfoPath, "opaque", 200, `{"sub":"alice"}`, plain, "Token was issued to another application"},
		{"any other: 401", userinfoPath, "opaque", 401, ``, plain, "Token is not valid"},
		{"bound to a key", userinfoPath, "opaque", 200, `{"sub":"alice","client":"app","cnf":{"jkt":"x"}}`, plain, "Token is bound to a key"},
		{"DPoP", userinfoPath, "opaque", 200, `{"sub":"alice","client":"app","token_type":"DPoP"}`, plain, "Token cannot be used as a Bearer token"},
		{"expired", userinfoPath, "opaque", 200, `{"sub":"alice","client":"app","exp":1}`, plain, "Token has expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			i.answer(test.path, test.status, test.answer)
			v := newUserinfo(t, i, test.config)
			_, err := v.VerifyAccessToken(t.Context(), test.token)
			wantError(t, err, oauth.ErrInvalidToken, test.want)
			verdict, _ := v.Verdict(t.Context(), test.token)
			if verdict.Until.IsZero() {
				t.Error("a definite no is not to be remembered")
			}
		})
	}
	before := i.count(gitHubCheckPath)
	for _, foreign := range []string{"ya29.x", "eyJhbGciOiJub25lIn0.e30.x", "ghp_personal", "", strings.Repeat("gho_", 5000)} {
		_, err := newUserinfo(t, i, gitHub()).VerifyAccessToken(t.Context(), foreign)
		wantError(t, err, oauth.ErrInvalidToken, "")
	}
	if i.count(gitHubCheckPath) != before {
		t.Error("somebody else's token was sent to GitHub")
	}
}

func TestUserinfoTrouble(t *testing.T) {
	i := newIssuer(t)
	plain := bearer.UserinfoConfig{AnyClient: true}
	for _, test := range []struct {
		name, path, token string
		status            int
		answer            string
		config            bearer.UserinfoConfig
	}{
		{"GitHub: our credentials", gitHubCheckPath, "gho_x", 401, `{}`, gitHub()},
		{"GitHub: asked too often", gitHubCheckPath, "gho_x", 403, `{}`, gitHub()},
		{"GitHub: no app", gitHubCheckPath, "gho_x", 200, checked(object{"app": nil}), gitHub()},
		{"GitHub: no user id", gitHubCheckPath, "gho_x", 200, checked(object{"user": object{"login": "x"}}), gitHub()},
		{"GitHub: a fraction as user id", gitHubCheckPath, "gho_x", 200, checked(object{"user": object{"id": 1.5}}), gitHub()},
		{"GitHub: expiry is no time", gitHubCheckPath, "gho_x", 200, checked(object{"expires_at": "soon"}), gitHub()},
		{"Google: 400 without a word", tokeninfoPath, "ya29.x", 400, `nope`, bearer.UserinfoConfig{Provider: "google", ClientIDs: []string{"app"}}},
		{"Google: no expiry", tokeninfoPath, "ya29.x", 200, tokeninfo(object{"exp": nil}), bearer.UserinfoConfig{Provider: "google", ClientIDs: []string{"app"}}},
		{"Google: no user", tokeninfoPath, "ya29.x", 200, tokeninfo(object{"sub": nil}), bearer.UserinfoConfig{Provider: "google", ClientIDs: []string{"app"}}},
		{"500", userinfoPath, "opaque", 500, ``, plain},
		{"403 without a challenge", userinfoPath, "opaque", 403, ``, plain},
		{"a redirect", userinfoPath, "opaque", 302, ``, plain},
		{"HTML", userinfoPath, "opaque", 200, `<html>`, plain},
		{"a member twice", userinfoPath, "opaque", 200, `{"sub":"alice","sub":"bob"}`, plain},
		{"no user", userinfoPath, "opaque", 200, `{"name":"alice"}`, plain},
		{"1 MB", userinfoPath, "opaque", 200, `{"sub":"` + strings.Repeat("x", 1<<20) + `"}`, plain},
	} {
		t.Run(test.name, func(t *testing.T) {
			var lines logLines
			test.config.Logger = slog.New(slog.NewTextHandler(&lines, nil))
			i.answer(test.path, test.status, test.answer)
			v := newUserinfo(t, i, test.config)
			verdict, err := v.Verdict(t.Context(), test.token)
			wantError(t, err, oauth.ErrTemporarilyUnavailable, "The token cannot be verified at the moment")
			if !verdict.Until.IsZero() {
				t.Error("trouble is to be remembered")
			}
			if text := err.Error() + lines.String(); strings.Contains(text, test.token) || strings.Contains(text, "s3cret") {
				t.Errorf("a secret was told: %s", text)
			}
		})
	}
}

func TestUserinfoIsBelievedForAWhile(t *testing.T) {
	for _, test := range []struct {
		name         string
		cache        time.Duration
		expires      string
		fresh, stale time.Duration
	}{
		{"30 s", 0, "4000000000", 29 * time.Second, 31 * time.Second},
		{"as configured", 2 * time.Minute, "4000000000", 119 * time.Second, 121 * time.Second},
		{"5 min at most", time.Hour, "4000000000", 299 * time.Second, 301 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c clock
			i := newIssuer(t)
			i.answer(tokeninfoPath, 200, tokeninfo(nil))
			v := remembering(t, newUserinfo(t, i, bearer.UserinfoConfig{
				Provider: "google", ClientIDs: []string{"app"}, MaxCache: test.cache, Now: c.now,
			}), bearer.TokenCacheConfig{Now: c.now})
			for _, step := range []struct {
				after time.Duration
				want  int
			}{{0, 1}, {test.fresh, 1}, {test.stale - test.fresh, 2}} {
				c.advance(step.after)
				if _, err := v.VerifyAccessToken(t.Context(), "ya29.x"); err != nil {
					t.Fatal(err)
				}
				if n := i.count(tokeninfoPath); n != step.want {
					t.Errorf("asked %d times, want %d", n, step.want)
				}
			}
			i.answer(tokeninfoPath, 400, `{"error":"invalid_token"}`)
			c.advance(test.stale)
			_, err := v.VerifyAccessToken(t.Context(), "ya29.x")
			wantError(t, err, oauth.ErrInvalidToken, "Token is not valid")
		})
	}
}

func TestNewUserinfoVerifierRefuses(t *testing.T) {
	for _, test := range []struct {
		want   string
		config bearer.UserinfoConfig
	}{
		{"any other application got", bearer.UserinfoConfig{Provider: "google"}},
		{"any other application got", bearer.UserinfoConfig{URL: "https://idp.example/userinfo", ClientClaim: "azp"}},
		{"choose one", bearer.UserinfoConfig{Provider: "google", ClientIDs: []string{"a"}, AnyClient: true}},
		{"a client id is empty", bearer.UserinfoConfig{Provider: "google", ClientIDs: []string{""}}},
		{"client_secret", bearer.UserinfoConfig{Provider: "github", ClientIDs: []string{"a"}}},
		{"one client id", bearer.UserinfoConfig{Provider: "github", ClientIDs: []string{"a", "b"}, ClientSecret: "s"}},
		{"the claims are known", bearer.UserinfoConfig{Provider: "github", AnyClient: true, UserClaim: "login"}},
		{"no client secret", bearer.UserinfoConfig{Provider: "google", ClientIDs: []string{"a"}, ClientSecret: "s"}},
		{"client_claim", bearer.UserinfoConfig{URL: "https://idp.example/userinfo", ClientIDs: []string{"a"}}},
		{"url of the userinfo", bearer.UserinfoConfig{AnyClient: true}},
		{"absolute", bearer.UserinfoConfig{AnyClient: true, URL: "idp.example"}},
		{"no provider that is known", bearer.UserinfoConfig{Provider: "gitlab", AnyClient: true}},
		{"is not a scope", bearer.UserinfoConfig{Provider: "google", AnyClient: true, Scopes: []string{"a b"}}},
	} {
		if _, err := bearer.NewUserinfoVerifier(test.config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want an error with %q", test.config, err, test.want)
		}
	}
}

func FuzzUserinfoAnswer(f *testing.F) {
	f.Add("github", checked(nil), "repo")
	f.Add("google", tokeninfo(nil), "")
	f.Add("", `{"sub":"alice","azp":"app","scope":"a b","exp":4000000000}`, "")
	f.Add("", `{"sub":1e400,"azp":"app"}`, "")
	f.Fuzz(func(t *testing.T, provider, answer, scopes string) {
		c := bearer.UserinfoConfig{Provider: provider, ClientIDs: []string{"app"}, Prefixes: []string{"t"}, URL: "https://idp.example"}
		switch provider {
		case "github":
			c.ClientSecret = "s"
		case "google":
		default:
			c.Provider, c.ClientClaim = "", "azp"
		}
		c.Client = &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Oauth-Scopes", url.QueryEscape(scopes))
			_, _ = io.WriteString(w, answer)
		})}}
		v, err := bearer.NewUserinfoVerifier(c)
		if err != nil {
			t.Fatal(err)
		}
		info, err := v.VerifyAccessToken(t.Context(), "token")
		if err != nil {
			if !errors.Is(err, oauth.ErrInvalidToken) && !errors.Is(err, oauth.ErrTemporarilyUnavailable) {
				t.Fatalf("%q: %v", answer, err)
			}
			return
		}
		if info.ClientID != "app" || info.UserID == "" || info.Token != "token" {
			t.Fatalf("%q: %+v", answer, info)
		}
		for _, scope := range info.Scopes {
			if !oauth.ValidScope(scope) {
				t.Fatalf("%q: scope %q", answer, scope)
			}
		}
	})
}
