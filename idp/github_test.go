package idp_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/idp"
)

// githubWorld answers as GitHub does: tokens as a form unless JSON is asked
// for, numeric ids, mail in a list of its own.
func githubWorld(t *testing.T) *world {
	w := newWorld(t)
	w.handle("github.com/login/oauth/access_token", func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == "application/json" {
			rw.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(rw).Encode(object{"access_token": access, "scope": "read:user,user:email", "token_type": "bearer"})
			return
		}
		_, _ = rw.Write([]byte("access_token=" + access + "&scope=read%3Auser&token_type=bearer"))
	})
	w.answer("api.github.com/user", 200, `{"login":"Octocat","id":583231123456789012,"name":null,"email":"public@evil.example","type":"User"}`)
	w.answer("api.github.com/user/emails", 200, []object{
		{"email": "old@example.com", "primary": false, "verified": true, "visibility": nil},
		{"email": "octocat@example.com", "primary": true, "verified": true, "visibility": "private"},
	})
	w.answer("api.github.com/user/orgs", 200, []object{{"login": "Example", "id": 1}})
	w.answer("api.github.com/user/teams", 200, []object{{"slug": "platform", "name": "Platform", "organization": object{"login": "Example"}}})
	return w
}

func TestGitHub(t *testing.T) {
	w := githubWorld(t)
	common := w.common()
	common.Groups = true
	u := mustUpstream(t)(idp.NewGitHub(idp.GitHubOptions{Common: common}))
	place, q := authorize(t, u, request())
	if place != "https://github.com/login/oauth/authorize" || q.Get("scope") != "read:user user:email read:org" || q.Has("nonce") {
		t.Errorf("%s %v", place, q)
	}
	id, tokens := exchange(t, u)
	want := &idp.Identity{
		Issuer: "https://github.com", Subject: "583231123456789012", Name: "Octocat",
		Email: "octocat@example.com", EmailVerified: true, Groups: []string{"example", "example/platform"},
		Claims: map[string]any{"preferred_username": "Octocat"},
	}
	if diff := cmp.Diff(want, id); diff != "" {
		t.Error(diff)
	}
	if tokens.AccessToken != access || tokens.RefreshToken != "" || !tokens.Expiry.IsZero() {
		t.Errorf("%+v", tokens)
	}
	form := w.form("github.com/login/oauth/access_token")
	if form.Get("client_secret") != secret || form.Get("code_verifier") != verifier {
		t.Errorf("%v", form)
	}
	id, err := u.UserInfo(t.Context(), *tokens)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, id); diff != "" {
		t.Error(diff)
	}
	if h := w.header("api.github.com/user"); h.Get("User-Agent") == "" || h.Get("Authorization") != "Bearer "+access {
		t.Errorf("%v", h)
	}
}

func TestGitHubMail(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		emails any
		email  string
		kind   string
	}{
		{"primary but unverified", 200, []object{{"email": "a@example.com", "primary": true, "verified": false}}, "", ""},
		{"verified but not primary", 200, []object{{"email": "a@example.com", "primary": false, "verified": true}}, "", ""},
		{"none", 200, []object{}, "", ""},
		{"the scope is missing", 404, object{"message": "Not Found"}, "", ""},
		{"throttled", 403, object{"message": "API rate limit exceeded"}, "", "trouble"},
		{"throttled with 429", 429, object{}, "", "trouble"},
		{"revoked", 401, object{"message": "Bad credentials"}, "", "dead"},
		{"no list", 200, object{"email": "a@example.com"}, "", "trouble"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := githubWorld(t)
			w.answer("api.github.com/user/emails", test.status, test.emails)
			u := mustUpstream(t)(idp.NewGitHub(idp.GitHubOptions{Common: w.common()}))
			id, err := u.UserInfo(t.Context(), idp.Tokens{AccessToken: access})
			if kind(t, err) != test.kind {
				t.Fatalf("error %v", err)
			}
			if err == nil && (id.Email != test.email || id.EmailVerified) {
				t.Errorf("%+v", id)
			}
			if w.count("api.github.com/user/orgs") != 0 {
				t.Error("organizations were asked for, though nobody needs groups")
			}
		})
	}
}

func TestGitHubPaging(t *testing.T) {
	w := githubWorld(t)
	pages := 0
	w.handle("api.github.com/user/orgs", func(rw http.ResponseWriter, r *http.Request) {
		pages++
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		var orgs []object
		for i := range 100 {
			orgs = append(orgs, object{"login": "org-" + strconv.Itoa(page*100+i)})
		}
		rw.Header().Set("Link", `<https://evil.example.com/user/orgs?page=2>; rel="next"`)
		_ = json.NewEncoder(rw).Encode(orgs)
	})
	common := w.common()
	common.Groups = true
	u := mustUpstream(t)(idp.NewGitHub(idp.GitHubOptions{Common: common}))
	id, err := u.UserInfo(t.Context(), idp.Tokens{AccessToken: access})
	if err != nil {
		t.Fatal(err)
	}
	if pages != 10 || len(id.Groups) != 500 || w.count("evil.example.com/user/orgs") != 0 {
		t.Errorf("%d pages, %d groups", pages, len(id.Groups))
	}
	if !strings.Contains(w.logged(), "rules see only the first") {
		t.Error("not logged")
	}
}

func TestGitHubTokenErrors(t *testing.T) {
	for code, want := range map[string]string{
		"bad_verification_code": "dead", "bad_refresh_token": "dead", "incorrect_client_credentials": "trouble", "redirect_uri_mismatch": "trouble",
	} {
		w := githubWorld(t)
		w.answer("github.com/login/oauth/access_token", 200, url.Values{"error": {code}, "error_description": {"no"}}.Encode())
		u := mustUpstream(t)(idp.NewGitHub(idp.GitHubOptions{Common: w.common()}))
		if _, _, err := u.Exchange(t.Context(), back("code=code-1")); kind(t, err) != want {
			t.Errorf("%s: %v", code, err)
		}
		if _, _, err := u.Refresh(t.Context(), idp.Tokens{RefreshToken: refresh}); kind(t, err) != want {
			t.Errorf("%s at refresh: %v", code, err)
		}
		if logged := strings.Contains(w.logged(), "level=ERROR"); logged != (want == "trouble") {
			t.Errorf("%s: log %s", code, w.logged())
		}
	}
}

func TestGitHubIss(t *testing.T) {
	w := githubWorld(t)
	u := mustUpstream(t)(idp.NewGitHub(idp.GitHubOptions{Common: w.common()}))
	for iss, want := range map[string]string{
		"https://github.com/login/oauth": "", "https://evil.example.com": "trouble",
	} {
		if _, _, err := u.Exchange(t.Context(), back("code=code-1&iss="+url.QueryEscape(iss))); kind(t, err) != want {
			t.Errorf("%s: %v", iss, err)
		}
	}
}

func TestGitHubRevokesOneToken(t *testing.T) {
	for status, want := range map[int]string{204: "", 404: "", 422: "", 401: "trouble", 500: "trouble"} {
		w := githubWorld(t)
		var method, token string
		w.handle("api.github.com/applications/"+clientID+"/token", func(rw http.ResponseWriter, r *http.Request) {
			var body map[string]string
			_ = json.NewDecoder(r.Body).Decode(&body)
			method, token = r.Method, body["access_token"]
			rw.WriteHeader(status)
		})
		u := mustUpstream(t)(idp.NewGitHub(idp.GitHubOptions{Common: w.common()}))
		if err := u.Revoke(t.Context(), idp.Tokens{AccessToken: access}); kind(t, err) != want {
			t.Errorf("%d: %v", status, err)
		}
		if method != http.MethodDelete || token != access {
			t.Errorf("%s %s", method, token)
		}
	}
}

func TestGitHubEnterprise(t *testing.T) {
	w := newWorld(t)
	w.answer("git.example.com/api/v3/user", 200, object{"login": "a", "id": 7})
	w.answer("git.example.com/api/v3/user/emails", 200, []object{})
	u := mustUpstream(t)(idp.NewGitHub(idp.GitHubOptions{Common: w.common(), BaseURL: "https://git.example.com/"}))
	id, err := u.UserInfo(t.Context(), idp.Tokens{AccessToken: access})
	if err != nil || id.Issuer != "https://git.example.com" || id.Subject != "7" {
		t.Errorf("%+v, %v", id, err)
	}
	if idp.RequiresAllow(u) {
		t.Error("a company's own GitHub is not open to all")
	}
}
