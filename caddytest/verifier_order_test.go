package caddytest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// knows reports whether a request held the token, wherever that was.
func (idp *scriptedIDP) knows(token string) bool {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	for _, r := range idp.requests {
		if strings.Contains(fmt.Sprint(r), token) {
			return true
		}
	}
	return false
}

// A verifier that takes every token, beside accounts: this server's own tokens
// are good all the same, and nobody else sees them, not even a forged one.
func TestOwnTokensGoToNobodyElse(t *testing.T) {
	for name, block := range map[string]string{
		"introspection": "verify introspection {\nurl %[1]s/ask\nclient_id rs\nclient_secret secret\n}",
		"userinfo":      "verify userinfo {\nurl %[1]s/ask\nclient_id our-app\nclient_claim client\nscopes mcp:read\n}",
		"any JWT":       "verify jwt {\njwks_uri %[1]s/keys\n}",
	} {
		t.Run(name, func(t *testing.T) {
			idp, b := newScriptedIDP(t), newBackend(t)
			c := loadCaddy(t, fmt.Sprintf(accountsSite, hash(t, "pw"), hash(t, "pw"), fmt.Sprintf(block, idp.URL), b.addr()))
			idp.handle("/ask", func(w http.ResponseWriter, r *http.Request) {
				client := "our-app"
				if r.Header.Get("Authorization") == "Bearer theirs" {
					client = "their-app"
				}
				answerJSON(w, 200, map[string]any{
					"active": true, "sub": "whoever", "scope": "mcp:read", "aud": c.Origin + "/mcp", "exp": 4000000000, "client": client,
				})
			})
			id := c.register(testRedirect)
			_, tokens := c.exchange(id, newBrowser(t).signIn(c.authorizeURL(id, testRedirect, "s"), "alice", "pw").Get("code"))
			own := fmt.Sprint(tokens["access_token"])
			last := strings.LastIndexByte(own, '.')
			forged := own[:last+1] + strings.Repeat("A", len(own)-last-1)
			other, theirs := "opaque", 200
			switch name {
			case "userinfo": // the client is checked, and a token of it is for this site
				theirs = 401
			case "any JWT":
				other, theirs = idp.token(map[string]any{"aud": c.Origin + "/mcp", "scope": "mcp:read", "iss": "https://whoever.example"}), 401
			}
			for range 2 {
				for token, want := range map[string]int{own: 200, forged: 401, other: 200, "theirs": theirs} {
					resp, body := c.send("POST", "/mcp", bearerHeader(token), "{}")
					if resp.StatusCode != want || (len(b.take()) == 1) != (want == 200) {
						t.Errorf("%.12s…: %d %s, want %d", token, resp.StatusCode, body, want)
					}
				}
			}
			if idp.knows(own) || idp.knows(forged) {
				t.Error("another server got a token of this one")
			}
		})
	}
}

// The keys of an issuer that is not the site's come from its own metadata.
func TestJWTsOfAnotherIssuer(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	verify := "verify jwt {\nissuer " + idp.URL + "\n}"
	for name, site := range map[string]string{
		"beside accounts":      fmt.Sprintf(accountsSite, hash(t, "pw"), hash(t, "pw"), verify, b.addr()),
		"authorization_server": strings.Replace(fmt.Sprintf(userinfoSite, verify, b.addr()), "require repo", "require mcp:read", 1),
	} {
		t.Run(name, func(t *testing.T) {
			c := loadCaddy(t, site)
			for want, claims := range map[int]map[string]any{
				200: {"aud": c.Origin + "/mcp", "scope": "mcp:read"},
				401: {"aud": "https://other.example/mcp", "scope": "mcp:read"},
			} {
				resp, body := c.send("POST", "/mcp", bearerHeader(idp.token(claims)), "{}")
				if resp.StatusCode != want || (len(b.take()) == 1) != (want == 200) {
					t.Errorf("%v: %d %s, want %d", claims, resp.StatusCode, body, want)
				}
			}
		})
	}
}

// SECURITY: an id_token for a client that only another verifier of the chain
// names is no access token, in whatever order they stand.
func TestIDTokensOfAClientOfTheChain(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	verifiers := []string{
		"verify userinfo google {\nclient_id our-app\n}",
		"verify jwt {\nissuer " + idp.URL + "\n}",
	}
	for _, block := range []string{verifiers[0] + "\n" + verifiers[1], verifiers[1] + "\n" + verifiers[0]} {
		c := loadCaddy(t, fmt.Sprintf(userinfoSite, "audience our-app\n"+block, b.addr()))
		for name, test := range map[string]struct {
			claims map[string]any
			status int
		}{
			"a nonce":              {map[string]any{"aud": "our-app", "scope": "repo", "nonce": "n", "client_id": nil, "azp": nil}, 401},
			"no scope":             {map[string]any{"aud": "our-app", "scope": nil, "client_id": "our-app"}, 401},
			"for another client":   {map[string]any{"aud": "our-app", "scope": "repo", "client_id": "their-app"}, 401},
			"an honest access one": {map[string]any{"aud": "our-app", "scope": "repo", "client_id": "our-app"}, 200},
		} {
			resp, body := c.send("POST", "/mcp", bearerHeader(idp.token(test.claims)), "{}")
			if resp.StatusCode != test.status || (len(b.take()) == 1) != (test.status == 200) {
				t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, body, test.status)
			}
		}
	}
}

func TestVerifiersThatGetNoToken(t *testing.T) {
	c := newCaddy(t)
	const (
		introspection = "verify introspection {\nurl https://idp.example/i\nclient_id a\nclient_secret b\n}\n"
		userinfo      = "verify userinfo {\nurl https://idp.example/u\nany_client\n}\n"
		prefixed      = "verify userinfo {\nurl https://idp.example/u\nany_client\nprefixes a_\n}\n"
		keys          = "verify static {\nkey a {\nkey kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\nuser u\n}\n}\n"
	)
	for _, test := range []struct{ name, block, want string }{
		{"introspection first", introspection + "verify jwt", "move verify introspection to the end"},
		{"introspection before keys", introspection + keys, "move verify introspection to the end"},
		{"userinfo before keys", userinfo + keys, "move verify userinfo to the end"},
		{"two lists of keys", keys + strings.Replace(keys, "key a", "key b", 1), "into one verify static"},
		{"userinfo and JWTs leave nothing out but other JWTs", userinfo + "verify jwt\n" + introspection, ""},
		{"userinfo with prefixes", prefixed + keys + "verify jwt\n" + introspection, ""},
	} {
		err := c.load("", fmt.Sprintf(userinfoSite, "audience any\n"+test.block, "localhost:1"))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want an error with %q", test.name, err, test.want)
		}
	}
	for name, block := range map[string]string{
		"any_client is not possible": "verify userinfo {\nurl https://idp.example/u\nany_client\n}",
		"is no resource of this":     strings.Replace(keys, "user u", "user u\nresources https://other.example/mcp", 1),
	} {
		err := c.load("", fmt.Sprintf(accountsSite, hash(t, "pw"), hash(t, "pw"), block, "localhost:1"))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want an error with %q", err, name)
		}
	}
}
