package caddytest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// attacked is a broker under attack. mallory has a client of its own, and every
// code and token that it is said to have seen.
type attacked struct {
	*caddyInstance
	id, mallory string // client ids
}

func newAttacked(t *testing.T, settings string) *attacked {
	t.Helper()
	c, _ := loadUpstream(t, "allow any\n"+settings)
	a := &attacked{caddyInstance: c, id: c.register(testRedirect)}
	a.mallory = a.registerNamed("Mallory")
	if a.mallory == a.id {
		t.Fatal("two clients have one id")
	}
	return a
}

// registerNamed registers a client that differs from others by its name.
func (c *caddyInstance) registerNamed(name string) string {
	c.t.Helper()
	resp, text := c.send("POST", "/register", http.Header{"Content-Type": {"application/json"}},
		fmt.Sprintf(`{"redirect_uris":[%q],"token_endpoint_auth_method":"none","client_name":%q}`, testRedirect, name))
	var client struct {
		ClientID string `json:"client_id"`
	}
	if resp.StatusCode != http.StatusCreated || json.Unmarshal([]byte(text), &client) != nil {
		c.t.Fatalf("registration: %d %s", resp.StatusCode, text)
	}
	return client.ClientID
}

// signIn returns a code for alice's client.
func (a *attacked) signIn(t *testing.T) url.Values {
	t.Helper()
	return mustArrive(t, a.caddyInstance, signedIn(newBrowser(t), a.caddyInstance, a.id), nil)
}

// refused fails unless the token endpoint answers with this OAuth error.
func refused(t *testing.T, resp *http.Response, answer map[string]any, code string) {
	t.Helper()
	if resp.StatusCode != 400 || answer["error"] != code || answer["access_token"] != nil {
		t.Errorf("%d %v, want 400 %s", resp.StatusCode, answer, code)
	}
}

// alive fails unless the session of these tokens goes on, and returns the next.
func (a *attacked) alive(t *testing.T, tokens map[string]any) map[string]any {
	t.Helper()
	if status := a.uses(tokens); status != 200 {
		t.Errorf("the access token gets %d", status)
	}
	resp, next := a.refresh(a.id, tokens["refresh_token"])
	if resp.StatusCode != 200 {
		t.Errorf("the refresh token gets %d %v", resp.StatusCode, next)
	}
	return next
}

// dead fails unless nothing of the session is left.
func (a *attacked) dead(t *testing.T, tokens map[string]any) {
	t.Helper()
	if status := a.uses(tokens); status != 401 {
		t.Errorf("the access token gets %d, want 401", status)
	}
	resp, answer := a.refresh(a.id, tokens["refresh_token"])
	refused(t, resp, answer, "invalid_grant")
}

// TestAttackCode: what can be tried with a code that was seen.
func TestAttackCode(t *testing.T) {
	a := newAttacked(t, "rate_limit off")
	try := func(t *testing.T, code string, change func(url.Values)) (*http.Response, map[string]any) {
		t.Helper()
		form := codeForm(a.id)
		form.Set("code", code)
		change(form)
		return a.token(form)
	}
	t.Run("replay with the right verifier ends the session", func(t *testing.T) {
		answer := a.signIn(t)
		tokens := a.mustExchange(a.id, answer)
		resp, second := a.exchange(a.id, answer.Get("code"))
		refused(t, resp, second, "invalid_grant")
		a.dead(t, tokens)
	})
	t.Run("64 exchanges of one code give one session at most", func(t *testing.T) {
		answer := a.signIn(t)
		var won []map[string]any
		var mu sync.Mutex
		var wait sync.WaitGroup
		for range 64 {
			wait.Go(func() {
				resp, tokens := a.exchange(a.id, answer.Get("code"))
				if resp.StatusCode == 200 {
					mu.Lock()
					won = append(won, tokens)
					mu.Unlock()
				}
			})
		}
		wait.Wait()
		if len(won) != 1 {
			t.Fatalf("%d of 64 exchanges gave tokens", len(won))
		}
		a.dead(t, won[0])
	})
	for name, row := range map[string]struct {
		code   string
		change func(url.Values)
	}{
		"replay with a wrong verifier": {"invalid_grant", func(f url.Values) { f.Set("code_verifier", strings.Repeat("a", 43)) }},
		"for another client":           {"invalid_grant", func(f url.Values) { f.Set("client_id", a.mallory) }},
		"redirect swap":                {"invalid_grant", func(f url.Values) { f.Set("redirect_uri", "https://evil.example/callback") }},
		"redirect left out":            {"invalid_grant", func(f url.Values) { f.Del("redirect_uri") }},
		"verifier left out":            {"invalid_request", func(f url.Values) { f.Del("code_verifier") }},
		"the challenge as verifier":    {"invalid_grant", func(f url.Values) { f.Set("code_verifier", testChallenge) }},
		"another resource":             {"invalid_target", func(f url.Values) { f.Set("resource", "https://other.example/mcp") }},
		"another secret part":          {"invalid_grant", func(f url.Values) { f.Set("code", f.Get("code")[:len(f.Get("code"))-4]+"AAAA") }},
		"cut off":                      {"invalid_grant", func(f url.Values) { f.Set("code", f.Get("code")[:10]) }},
		"as a refresh token": {"invalid_grant", func(f url.Values) {
			f.Set("grant_type", "refresh_token")
			f.Set("refresh_token", f.Get("code"))
		}},
	} {
		t.Run(name+" changes nothing", func(t *testing.T) {
			answer := a.signIn(t)
			resp, tokens := try(t, answer.Get("code"), row.change)
			refused(t, resp, tokens, row.code)
			// Before it is redeemed …
			won := a.mustExchange(a.id, answer)
			// … and after.
			resp, tokens = try(t, answer.Get("code"), row.change)
			refused(t, resp, tokens, row.code)
			a.alive(t, won)
		})
	}
}

// TestAttackPKCEDowngrade: S256 or nothing.
func TestAttackPKCEDowngrade(t *testing.T) {
	a := newAttacked(t, "rate_limit off")
	for name, change := range map[string]func(url.Values){
		"plain":            func(q url.Values) { q.Set("code_challenge_method", "plain"); q.Set("code_challenge", testVerifier) },
		"no method":        func(q url.Values) { q.Del("code_challenge_method") },
		"no challenge":     func(q url.Values) { q.Del("code_challenge"); q.Del("code_challenge_method") },
		"empty challenge":  func(q url.Values) { q.Set("code_challenge", "") },
		"short challenge":  func(q url.Values) { q.Set("code_challenge", "abc") },
		"challenges twice": func(q url.Values) { q.Add("code_challenge", testChallenge) },
	} {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(authorizeTarget(a.id, "s"))
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			change(q)
			b := newBrowser(t)
			arrived := b.open(a.Origin + "/authorize?" + q.Encode())
			if got := mustArrive(t, a.caddyInstance, arrived, url.Values{"error": {"invalid_request"}, "state": {"s"}}); got.Has("code") {
				t.Errorf("the client was sent %v", got)
			}
		})
	}
}

// TestAttackRefresh: what can be tried with a refresh token that was seen.
func TestAttackRefresh(t *testing.T) {
	const grace = time.Second
	a := newAttacked(t, "rate_limit off\ntokens {\ngrace 1s\n}")
	begin := func(t *testing.T) map[string]any {
		t.Helper()
		return a.mustExchange(a.id, a.signIn(t))
	}
	form := func(token any) url.Values {
		return url.Values{"grant_type": {"refresh_token"}, "client_id": {a.id}, "refresh_token": {fmt.Sprint(token)}}
	}
	post := func(t *testing.T, form url.Values) (int, string) {
		t.Helper()
		resp, body := a.send("POST", "/token", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
		return resp.StatusCode, body
	}
	t.Run("again within grace gives the same answer, byte for byte", func(t *testing.T) {
		tokens := begin(t)
		_, first := post(t, form(tokens["refresh_token"]))
		status, again := post(t, form(tokens["refresh_token"]))
		if status != 200 || again != first {
			t.Errorf("%d %s, want %s", status, again, first)
		}
	})
	t.Run("again within grace with another scope or resource", func(t *testing.T) {
		tokens := begin(t)
		_, next := a.refresh(a.id, tokens["refresh_token"])
		other := form(tokens["refresh_token"])
		other.Set("resource", "https://other.example/mcp")
		resp, answer := a.token(other)
		if resp.StatusCode != 400 {
			t.Errorf("%d %v", resp.StatusCode, answer)
		}
		a.alive(t, next)
	})
	t.Run("again after grace ends the session", func(t *testing.T) {
		tokens := begin(t)
		_, next := a.refresh(a.id, tokens["refresh_token"])
		time.Sleep(grace + 100*time.Millisecond)
		resp, answer := a.refresh(a.id, tokens["refresh_token"])
		refused(t, resp, answer, "invalid_grant")
		a.dead(t, next)
	})
	t.Run("64 refreshes at once get one answer", func(t *testing.T) {
		tokens := begin(t)
		answers := make([]string, 64)
		var wait sync.WaitGroup
		for i := range answers {
			wait.Go(func() {
				status, body := post(t, form(tokens["refresh_token"]))
				answers[i] = fmt.Sprint(status, " ", body)
			})
		}
		wait.Wait()
		for _, answer := range answers {
			if answer != answers[0] || !strings.HasPrefix(answer, "200 ") {
				t.Fatalf("two answers:\n%s\n%s", answers[0], answer)
			}
		}
		var next map[string]any
		if err := json.Unmarshal([]byte(strings.TrimPrefix(answers[0], "200 ")), &next); err != nil {
			t.Fatal(err)
		}
		a.alive(t, next)
	})
	for name, row := range map[string]struct {
		code   string
		change func(url.Values)
	}{
		"another client's":    {"invalid_grant", func(f url.Values) { f.Set("client_id", a.mallory) }},
		"a wider scope":       {"invalid_scope", func(f url.Values) { f.Set("scope", "mcp:read mcp:admin") }},
		"another resource":    {"invalid_target", func(f url.Values) { f.Set("resource", "https://other.example/mcp") }},
		"cut off":             {"invalid_grant", func(f url.Values) { f.Set("refresh_token", f.Get("refresh_token")[:40]) }},
		"longer":              {"invalid_grant", func(f url.Values) { f.Set("refresh_token", f.Get("refresh_token")+"AAAA") }},
		"a later generation":  {"invalid_grant", func(f url.Values) { forge(f, 16, 200) }},
		"an older generation": {"invalid_grant", func(f url.Values) { forge(f, 16, 0) }},
		"another grant":       {"invalid_grant", func(f url.Values) { forge(f, 0, 255) }},
		"another MAC":         {"invalid_grant", func(f url.Values) { forge(f, -1, 255) }},
		"as a code": {"invalid_grant", func(f url.Values) {
			f.Set("grant_type", "authorization_code")
			f.Set("code", f.Get("refresh_token"))
			f.Set("code_verifier", testVerifier)
			f.Set("redirect_uri", testRedirect)
		}},
	} {
		t.Run(name+" changes nothing", func(t *testing.T) {
			tokens := begin(t)
			bad := form(tokens["refresh_token"])
			row.change(bad)
			resp, answer := a.token(bad)
			refused(t, resp, answer, row.code)
			a.alive(t, tokens)
		})
	}
	t.Run("as an access token", func(t *testing.T) {
		tokens := begin(t)
		if status := a.uses(map[string]any{"access_token": tokens["refresh_token"]}); status != 401 {
			t.Errorf("the MCP server's guard answers %d", status)
		}
		resp, answer := a.refresh(a.id, tokens["access_token"])
		refused(t, resp, answer, "invalid_grant")
		a.alive(t, tokens)
	})
	t.Run("revocation by another client changes nothing", func(t *testing.T) {
		tokens := begin(t)
		header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		for _, token := range []any{tokens["refresh_token"], tokens["access_token"], "unknown"} {
			resp, body := a.send("POST", "/revoke", header, url.Values{"client_id": {a.mallory}, "token": {fmt.Sprint(token)}}.Encode())
			if resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		}
		a.alive(t, tokens)
	})
}

// forge changes bytes of the refresh token in the form: at is the first, from
// the end if negative; four bytes get the value, the first three zero.
func forge(form url.Values, at int, value byte) {
	raw, err := base64.RawURLEncoding.DecodeString(form.Get("refresh_token"))
	if err != nil {
		panic(err)
	}
	if at < 0 {
		at = len(raw) - 4
	}
	changed := bytes.Clone(raw)
	copy(changed[at:], []byte{0, 0, 0, value})
	if bytes.Equal(raw, changed) {
		panic("nothing was forged")
	}
	form.Set("refresh_token", base64.RawURLEncoding.EncodeToString(changed))
}
