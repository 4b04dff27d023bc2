package caddytest_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const settingsSite = `
{ORIGIN} {
	mcp_bearer {
		resource {ORIGIN}/mcp
		authorization_server %s
		%s
	}
	reverse_proxy %s
}`

// A duration of 0 means none, where that makes sense, and never the default.
func TestDurationsOfZero(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	active := true
	idp.handle("/introspect", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 200, map[string]any{"active": active, "sub": "alice", "exp": 4000000000})
	})
	c := loadCaddy(t, fmt.Sprintf(settingsSite, idp.URL, fmt.Sprintf(`audience any
		verify jwt {
			jwks_uri %[1]s/keys
			issuer %[1]s
			skew 0s
		}
		verify introspection {
			url %[1]s/introspect
			client_id rs
			client_secret secret
			cache 0s
		}`, idp.URL), b.addr()))
	status := func(token string) int {
		resp, _ := c.send("POST", "/mcp", bearerHeader(token), "{}")
		return resp.StatusCode
	}
	if got := status(idp.token(map[string]any{"exp": time.Now().Unix() - 5})); got != 401 {
		t.Errorf("skew 0s, a token that has expired: %d", got)
	}
	if got := status(idp.token(nil)); got != 200 {
		t.Errorf("skew 0s, a good token: %d", got)
	}
	for n := range 3 {
		if got := status("opaque"); got != 200 || idp.count("/introspect") != n+1 {
			t.Errorf("cache 0s: %d, asked %d times for %d requests", got, idp.count("/introspect"), n+1)
		}
	}
	active = false
	if got := status("opaque"); got != 401 {
		t.Errorf("cache 0s, a revoked token: %d", got)
	}
}

// What the Caddyfile refuses while it is read is refused in JSON as well.
func TestVerifierDurationsInJSON(t *testing.T) {
	for _, row := range []struct{ name, verify, want string }{
		{"skew of 0", `{"type": "jwt", "skew": 0}`, ""},
		{"skew below 0", `{"type": "jwt", "skew": -1}`, "skew cannot be below 0"},
		{"cache of 0", `{"type": "introspection", "client_id": "a", "client_secret": "b", "cache": "0s"}`, ""},
		{"cache below 0", `{"type": "introspection", "client_id": "a", "client_secret": "b", "cache": "-1s"}`, "cache cannot be below 0"},
		{"cache above the most", `{"type": "introspection", "client_id": "a", "client_secret": "b", "cache": "31s"}`, "cache is 30s at most"},
		{"cache of userinfo below 0", `{"type": "userinfo", "provider": "google", "client_ids": ["a"], "cache": -1}`, "cache cannot be below 0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			config := fmt.Sprintf(`{"apps": {"http": {"servers": {"s": {"listen": [":0"], "routes": [{"handle": [
				{"handler": "mcp_bearer", "resource": {"url": "https://mcp.example.com/mcp"},
				 "authorization_servers": ["https://idp.example.com"], "verify": %s}]}]}}}}}`, row.verify)
			var c caddy.Config
			if err := json.Unmarshal([]byte(config), &c); err != nil {
				t.Fatal(err)
			}
			c.StorageRaw = json.RawMessage(fmt.Sprintf(`{"module": "file_system", "root": %q}`, t.TempDir()))
			c.Admin = &caddy.AdminConfig{Disabled: true}
			err := caddy.Validate(&c)
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

// Sessions of an authorization server whose introspection knows no sub.
func TestSessionsByUsername(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	b.answer = func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Mcp-Session-Id", "s") }
	idp.handle("/introspect", func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := strings.Cut(r.FormValue("token"), "-")
		answerJSON(w, 200, map[string]any{"active": true, "username": user, "client_id": "app", "exp": 4000000000})
	})
	for _, row := range []struct{ setting, user string }{{"", "username:alice"}, {"user_claim username", "alice"}} {
		c := loadCaddy(t, fmt.Sprintf(settingsSite, idp.URL, fmt.Sprintf(`audience any
		verify introspection {
			url %s/introspect
			client_id rs
			client_secret secret
			%s
		}`, idp.URL, row.setting), b.addr()))
		call := func(token, session string) *http.Response {
			header := bearerHeader(token)
			if session != "" {
				header.Set("Mcp-Session-Id", session)
			}
			resp, _ := c.send("POST", "/mcp", header, "{}")
			return resp
		}
		session := call("alice-1", "").Header.Get("Mcp-Session-Id")
		if seen := b.take(); len(seen) != 1 || seen[0].Header.Get("X-Mcp-User") != row.user {
			t.Errorf("%q: the server saw %+v", row.setting, seen)
		}
		for token, want := range map[string]int{"alice-1": 200, "alice-2": 200, "bob-1": 404} {
			if got := call(token, session).StatusCode; got != want {
				t.Errorf("%q: %s with the session of alice: %d, want %d", row.setting, token, got, want)
			}
		}
		b.take()
	}
}

// Claims of every type that JSON has, and what an operator writes for them.
func TestAllowClaimByNumber(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(settingsSite, idp.URL, fmt.Sprintf(`audience any
		verify jwt {
			jwks_uri %[1]s/keys
			issuer %[1]s
		}
		allow claim org_id 42
		allow claim share 0.5
		allow claim big 9007199254740993 9007199254740992
		allow claim staff true`, idp.URL), b.addr()))
	for _, row := range []struct {
		claim  string
		value  any
		status int
	}{
		{"org_id", 42, 200},
		{"org_id", json.Number("42.0"), 200},
		{"org_id", "42", 200},
		{"org_id", []any{1, 42}, 200},
		{"org_id", []any{"42"}, 200},
		{"org_id", 43, 403},
		{"org_id", 42.5, 403},
		{"org_id", []any{}, 403},
		{"org_id", []any{[]any{42}}, 403},
		{"org_id", true, 403},
		{"org_id", nil, 403},
		{"share", 0.5, 200},
		{"share", 0.25, 403},
		{"big", json.Number("9007199254740993"), 200},
		{"big", json.Number("9007199254740992.0"), 403},
		{"big", json.Number("9007199254740995"), 403},
		{"staff", true, 200},
		{"staff", []any{true}, 200},
		{"staff", false, 403},
	} {
		resp, body := c.send("POST", "/mcp", bearerHeader(idp.token(map[string]any{row.claim: row.value})), "{}")
		if resp.StatusCode != row.status {
			t.Errorf("%s: %v: %d %s, want %d", row.claim, row.value, resp.StatusCode, body, row.status)
		}
	}
}

// The operator has written the address of an API key, and vouches for it.
func TestEmailOfAnAPIKey(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	for _, rule := range []string{"allow email *@example.com", `when email.endsWith("@example.com")`} {
		keys := ""
		for name, address := range map[string]string{"in": "ci@example.com", "out": "ci@example.org"} {
			keys += fmt.Sprintf("key %[1]s {\n key %[1]s-%[2]s\n user %[1]s\n email %[3]s\n }\n", name, strings.Repeat("k", 32), address)
		}
		c := loadCaddy(t, fmt.Sprintf(settingsSite, idp.URL, "verify static {\n"+keys+"}\n"+rule, b.addr()))
		for name, want := range map[string]int{"in": 200, "out": 403} {
			header := bearerHeader(name + "-" + strings.Repeat("k", 32))
			header.Set("Content-Type", "application/json")
			resp, body := c.send("POST", "/mcp", header, `{"jsonrpc":"2.0","id":1,"method":"ping"}`)
			if resp.StatusCode != want {
				t.Errorf("%s: %s: %d %s, want %d", rule, name, resp.StatusCode, body, want)
			}
		}
	}
}

// A stranger's key id uses up the throttle. What then cannot be judged is 503, and
// not the end of somebody's sign-in.
func TestUnknownKeyWhileThrottled(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(settingsSite, idp.URL, "audience any", b.addr()))
	named := func(kid string, claims map[string]any) string {
		_, rest, _ := strings.Cut(idp.token(claims), ".")
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"`+kid+`"}`)) + "." + rest
	}
	for _, row := range []struct {
		rule, token string
		status      int
	}{
		{"a known key", idp.token(nil), 200},
		{"a stranger's, and the keys are loaded anew", named("k8", nil), 401},
		{"another, for which they cannot be", named("k9", nil), 503},
		{"one of a token older than the keys", named("k9", map[string]any{"iat": time.Now().Unix() - 120}), 401},
		{"a known key all the while", idp.token(map[string]any{"jti": "2"}), 200},
	} {
		resp, body := c.send("POST", "/mcp", bearerHeader(row.token), "{}")
		if resp.StatusCode != row.status || (resp.Header.Get("Retry-After") != "") != (row.status == 503) ||
			strings.Contains(body, "temporarily_unavailable") != (row.status == 503) {
			t.Errorf("%s: %d %s %v, want %d", row.rule, resp.StatusCode, body, resp.Header, row.status)
		}
	}
}

// The clock of the server behind is its own: an assertion never lives longer than
// its access token, and is never over already.
func TestForwardJWTOfATokenWithinTheSkew(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	for forward, want := range map[string]int{"jwt": 401, "identity": 200} {
		c := loadCaddy(t, fmt.Sprintf(settingsSite, idp.URL, "audience any\n forward "+forward, b.addr()))
		for age, status := range map[int64]int{-60: 200, 10: want} {
			resp, body := c.send("POST", "/mcp", bearerHeader(idp.token(map[string]any{"exp": time.Now().Unix() - age})), "{}")
			if resp.StatusCode != status || status == 401 && !strings.Contains(resp.Header.Get("WWW-Authenticate"), "Token has expired") {
				t.Errorf("forward %s, expired %d s ago: %d %s %v, want %d", forward, age, resp.StatusCode, body, resp.Header, status)
			}
		}
	}
}
