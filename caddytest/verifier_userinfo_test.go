package caddytest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// userinfoSite takes the block of authorization_server.
const userinfoSite = `
{ORIGIN} {
	mcp_auth {ORIGIN} {
		authorization_server https://idp.example {
			%s
		}
		resource /mcp {
			require repo
			forward identity name
		}
	}
	reverse_proxy %s
}`

// gitHubChecks makes the provider answer as GitHub does about tokens of one
// OAuth app: tokens of others are as unknown to it as none at all.
func (idp *scriptedIDP) gitHubChecks(app, secret string, tokens map[string]string) {
	idp.handle("/applications/"+app+"/token", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			AccessToken string `json:"access_token"`
		}
		id, given, _ := r.BasicAuth()
		switch {
		case id != app || given != secret:
			answerJSON(w, 401, map[string]any{"message": "Bad credentials"})
		case json.NewDecoder(r.Body).Decode(&body) != nil:
			answerJSON(w, 422, nil)
		default:
			scope, known := tokens[body.AccessToken]
			if !known {
				answerJSON(w, 404, map[string]any{"message": "Not Found"})
				return
			}
			answerJSON(w, 200, map[string]any{
				"app": map[string]any{"client_id": app}, "scopes": strings.Fields(scope), "expires_at": nil,
				"user": map[string]any{"login": "octocat", "id": 583231, "name": "Mona", "email": "mona@evil.example"},
			})
		}
	})
}

// Tokens of our GitHub app are accepted, and what a user gave to somebody else's
// is worth nothing here.
func TestVerifyGitHubTokens(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	idp.gitHubChecks("our-app", "s3cret", map[string]string{"gho_ours": "repo read:user", "gho_narrow": "read:user"})
	c := loadCaddy(t, fmt.Sprintf(userinfoSite, `audience our-app
			verify userinfo github {
				url `+idp.URL+`
				client_id our-app
				client_secret s3cret
			}`, b.addr()))
	for _, test := range []struct {
		name, token string
		status      int
		says        string
	}{
		{"ours", "gho_ours", 200, ""},
		{"without the scope", "gho_narrow", 403, `error="insufficient_scope"`},
		{"of another app", "gho_theirs", 401, `error="invalid_token"`},
		{"a personal token", "ghp_personal", 401, `error="invalid_token"`},
		{"a JWT", idp.token(map[string]any{"aud": "our-app"}), 401, `error="invalid_token"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 2 {
				resp, body := c.send("POST", "/mcp", bearerHeader(test.token), "{}")
				if resp.StatusCode != test.status || !strings.Contains(resp.Header.Get("WWW-Authenticate"), test.says) {
					t.Errorf("%d %s %s", resp.StatusCode, resp.Header.Get("WWW-Authenticate"), body)
				}
			}
			if got := len(b.take()); test.status == 200 != (got == 2) {
				t.Errorf("%d requests reached the server", got)
			}
		})
	}
	if n := idp.count("/applications/our-app/token"); n != 3 {
		t.Errorf("GitHub was asked %d times, want once for each of its tokens", n)
	}
	c.send("POST", "/mcp", bearerHeader("gho_ours"), "{}")
	seen := b.take()[0].Header
	if seen.Get("X-Mcp-User") != "583231" || seen.Get("X-Mcp-Client") != "our-app" || seen.Get("X-Mcp-User-Name") != "Mona" || seen.Get("Authorization") != "" {
		t.Errorf("the server is told %v", seen)
	}
	if log := c.log(); strings.Contains(log, "gho_") || strings.Contains(log, "s3cret") {
		t.Error("the log holds a secret")
	}
}

func TestVerifyGoogleTokens(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	idp.handle("/tokeninfo", func(w http.ResponseWriter, r *http.Request) {
		client, known := map[string]string{"ya29.ours": "our-app", "ya29.theirs": "their-app"}[r.PostForm.Get("access_token")]
		if !known {
			answerJSON(w, 400, map[string]any{"error": "invalid_token", "error_description": "Invalid Value"})
			return
		}
		answerJSON(w, 200, map[string]any{
			"azp": client, "aud": client, "sub": "1234", "scope": "openid repo", "exp": "4000000000", "expires_in": "3599",
		})
	})
	c := loadCaddy(t, fmt.Sprintf(userinfoSite, `audience our-app
			verify userinfo google {
				url `+idp.URL+`
				client_id our-app
			}`, b.addr()))
	for token, status := range map[string]int{"ya29.ours": 200, "ya29.theirs": 401, "ya29.none": 401, "gho_x": 401} {
		resp, body := c.send("POST", "/mcp", bearerHeader(token), "{}")
		if resp.StatusCode != status || (len(b.take()) == 1) != (status == 200) {
			t.Errorf("%s: %d %s", token, resp.StatusCode, body)
		}
	}
}

// The provider is down: that is no reason to sign in again.
func TestVerifyUserinfoTrouble(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	idp.handle("/userinfo", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	c := loadCaddy(t, fmt.Sprintf(userinfoSite, `audience any
			verify userinfo {
				url `+idp.URL+`/userinfo
				any_client
				scopes repo
			}`, b.addr()))
	resp, _ := c.send("POST", "/mcp", bearerHeader("opaque"), "{}")
	if resp.StatusCode != 503 || len(b.take()) != 0 {
		t.Errorf("%d", resp.StatusCode)
	}
	idp.handle("/userinfo", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, 200, map[string]any{"sub": "alice"}) })
	if resp, body := c.send("POST", "/mcp", bearerHeader("opaque"), "{}"); resp.StatusCode != 200 {
		t.Errorf("afterwards: %d %s", resp.StatusCode, body)
	}
	if !strings.Contains(c.log(), "any_client") {
		t.Error("no warning about any_client")
	}
}

func TestVerifierProvisionErrors(t *testing.T) {
	c := newCaddy(t)
	for _, test := range []struct{ name, block, want string }{
		{"tokens that nobody accepts", "verify userinfo google {\nclient_id our-app\n}", "write audience our-app"},
		{"any client without any audience", "verify userinfo google {\nany_client\n}", "write audience any"},
		{"GitHub without a secret", "audience a\nverify userinfo github {\nclient_id a\n}", "client_secret"},
		{"an unknown member of the client", "audience a\nverify userinfo {\nurl https://idp.example/u\nclient_id a\n}", "client_claim"},
		{"a file that is not there", "verify static {\nfile /nonexistent/keys.json\n}", "no such file"},
		{"a hash that is none", "verify static {\nkey a {\nhash md5:0\nuser u\n}\n}", "begins with sha256:"},
		{"a key that could be guessed", "verify static {\nkey a {\nkey short\nuser u\n}\n}", "at least 32"},
		{"in a chain", "verify jwt\nverify static {\nkey a {\nhash md5:0\nuser u\n}\n}", "begins with sha256:"},
	} {
		err := c.load("", fmt.Sprintf(userinfoSite, test.block, "localhost:1"))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", test.name, err, test.want)
		}
	}
}
