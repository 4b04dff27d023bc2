package caddytest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// makeKey runs `caddy mcp-auth key` and returns the key and its entry.
func makeKey(t *testing.T, args ...string) (token, entry string) {
	t.Helper()
	cmd := &cobra.Command{Use: "mcp-auth", SilenceUsage: true, SilenceErrors: true}
	caddycmd.Commands()["mcp-auth"].CobraFunc(cmd)
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs(append([]string{"key"}, args...))
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	token, entry, _ = strings.Cut(out.String(), "\n")
	return token, entry
}

func keyHash(t *testing.T, entry string) string {
	t.Helper()
	var key struct{ Hash string }
	if err := json.Unmarshal([]byte(entry), &key); err != nil {
		t.Fatal(err)
	}
	return key.Hash
}

func replaceKeys(t *testing.T, file string, entries ...string) {
	t.Helper()
	text := `{"keys":[` + strings.Join(entries, ",") + `]}`
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// API keys beside the tokens of the broker: from the configuration, the
// environment, and a file that changes while Caddy runs. A key that is taken out
// ends within seconds, though it is remembered.
func TestAPIKeysBesideTheBroker(t *testing.T) {
	b := newBackend(t)
	file := filepath.Join(t.TempDir(), "keys.json")
	inline, inlineEntry := makeKey(t, "--user", "alice", "--scope", "mcp:read")
	first, firstEntry := makeKey(t, "--user", "bob", "--client", "ci", "--scope", "mcp:read", "--expires", "24h")
	second, secondEntry := makeKey(t, "--user", "carol", "--scope", "mcp:other")
	elsewhere, elsewhereEntry := makeKey(t, "--user", "dave", "--scope", "mcp:read", "--resource", "https://other.example/mcp")
	expired, expiredEntry := makeKey(t, "--user", "erin", "--scope", "mcp:read", "--expires", "2099-01-01")
	expiredEntry = strings.Replace(expiredEntry, "2099-", "2020-", 1)
	fromEnv := strings.Repeat("env-key-", 5)
	t.Setenv("TEST_API_KEY", fromEnv)
	replaceKeys(t, file, firstEntry, elsewhereEntry, expiredEntry)
	settings := fmt.Sprintf(`verify static {
			key inline {
				hash %s
				user alice
				scopes mcp:read
				email alice@example.com
				groups engineering ops
			}
			key env {
				key {env.TEST_API_KEY}
				user machine
				scopes mcp:read
			}
			file %s
		}`, keyHash(t, inlineEntry), file)
	c := newCaddy(t)
	load := func() {
		t.Helper()
		if err := c.load("\tmcp_auth {\n\t\tstore memory\n\t}", fmt.Sprintf(accountsSite, hash(t, "pw"), hash(t, "pw"), settings, b.addr())); err != nil {
			t.Fatal(err)
		}
	}
	load()
	id := c.register(testRedirect)
	_, tokens := c.exchange(id, newBrowser(t).signIn(c.authorizeURL(id, testRedirect, "s"), "alice", "pw").Get("code"))
	brokers := fmt.Sprint(tokens["access_token"])
	statuses := func(when string, want map[string]int) {
		t.Helper()
		for token, status := range want {
			resp, body := c.send("POST", "/mcp", bearerHeader(token), "{}")
			if resp.StatusCode != status || (len(b.take()) == 1) != (status == 200) {
				t.Errorf("%s: %.12s…: %d %s, want %d", when, token, resp.StatusCode, body, status)
			}
		}
	}
	for range 2 { // then from memory
		statuses("at first", map[string]int{
			inline: 200, fromEnv: 200, first: 200, second: 401, elsewhere: 401, expired: 401, brokers: 200,
			inline + "x": 401, inline[:len(inline)-1]: 401, "mcpk-unknown_" + strings.Repeat("x", 43): 401, brokers + "x": 401,
		})
	}
	c.send("POST", "/mcp", bearerHeader(inline), "{}")
	if h := b.take()[0].Header; h.Get("X-Mcp-User") != "alice" || h.Get("X-Mcp-Client") != "inline" ||
		h.Get("X-Mcp-User-Email") != "alice@example.com" || h.Get("X-Mcp-User-Groups") != "engineering,ops" || h.Get("Authorization") != "" {
		t.Errorf("the server is told %v", h)
	}

	replaceKeys(t, file, secondEntry)
	waitFor(t, func() bool {
		resp, _ := c.send("POST", "/mcp", bearerHeader(first), "{}")
		return resp.StatusCode == http.StatusUnauthorized
	})
	b.take()
	statuses("after the change", map[string]int{inline: 200, first: 401, second: 403, brokers: 200})
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		c.send("POST", "/mcp", bearerHeader(inline), "{}")
		return strings.Contains(c.log(), "the file of API keys cannot be used")
	})
	b.take()
	statuses("with a broken file", map[string]int{inline: 200, second: 403, brokers: 200})
	replaceKeys(t, file, firstEntry)
	load()
	waitFor(t, func() bool {
		resp, _ := c.send("POST", "/mcp", bearerHeader(first), "{}")
		return resp.StatusCode == http.StatusOK
	})
	b.take()
	statuses("after a reload", map[string]int{inline: 200, first: 200, second: 401, brokers: 200})
	if log := c.log(); strings.Contains(log, inline) || strings.Contains(log, first) || strings.Contains(log, fromEnv) {
		t.Error("the log holds a key")
	}
}

// waitFor waits for what a running Caddy does within seconds.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Several verifiers: each token goes to the first that recognises it, and a bad
// one goes no further.
func TestVerifiersInAChain(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	key, entry := makeKey(t, "--user", "alice", "--scope", "mcp:read")
	c := loadCaddy(t, fmt.Sprintf(`
{ORIGIN} {
	mcp_bearer {
		resource {ORIGIN}/mcp
		authorization_server %[1]s
		audience {ORIGIN}/mcp
		verify static {
			key a {
				hash %[2]s
				user alice
				scopes mcp:read
			}
		}
		verify jwt {
			jwks_uri %[1]s/keys
			issuer %[1]s
		}
		verify introspection {
			url %[1]s/introspect
			client_id rs
			client_secret secret
		}
		scopes mcp:read
	}
	reverse_proxy %[3]s
}`, idp.URL, keyHash(t, entry), b.addr()))
	aud := c.Origin + "/mcp"
	idp.handle("/introspect", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 200, map[string]any{"active": true, "sub": "whoever", "scope": "mcp:read", "aud": aud, "exp": 4000000000})
	})
	forged := idp.token(map[string]any{"aud": aud})
	forged = forged[:len(forged)-8] + "AAAAAAAA"
	for _, test := range []struct {
		name, token string
		status      int
		user        string
		asked       int
	}{
		{"a key", key, 200, "alice", 0},
		{"a JWT", idp.token(map[string]any{"aud": aud}), 200, "alice", 0},
		{"an opaque token", "opaque", 200, "whoever", 1},
		{"a wrong key is not introspected", key + "x", 401, "", 0},
		{"a revoked key is not introspected", "mcpk-gone_" + strings.Repeat("x", 43), 401, "", 0},
		{"a forged JWT is not introspected", forged, 401, "", 0},
		{"an expired JWT is not introspected", idp.token(map[string]any{"aud": aud, "exp": 1}), 401, "", 0},
		{"a JWT without expiry is refused, keys or not", idp.token(map[string]any{"aud": aud, "exp": nil}), 401, "", 0},
		{"a JWT that is bound to a key", idp.token(map[string]any{"aud": aud, "cnf": map[string]any{"jkt": "x"}}), 401, "", 0},
		{"another issuer's JWT", idp.token(map[string]any{"aud": aud, "iss": "https://other.example"}), 200, "whoever", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := idp.count("/introspect")
			resp, body := c.send("POST", "/mcp", bearerHeader(test.token), "{}")
			if resp.StatusCode != test.status {
				t.Fatalf("%d %s", resp.StatusCode, body)
			}
			seen := b.take()
			if (len(seen) == 1) != (test.status == 200) || len(seen) == 1 && test.user != "" && seen[0].Header.Get("X-Mcp-User") != test.user {
				t.Errorf("%d requests reached the server: %v", len(seen), seen)
			}
			if asked := idp.count("/introspect") - before; asked != test.asked {
				t.Errorf("introspected %d times", asked)
			}
		})
	}
}
