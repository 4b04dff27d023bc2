package caddytest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/modelcontextprotocol/go-sdk/auth"
)

// relaySite is proxySite with the upstream's answers relayed, whatever its
// metadata say.
var relaySite = strings.Replace(proxySite, "issuer %s", "issuer %s\ncallback relay", 1)

// relayedSites are the ways to a relay: the upstream of the tests announces iss.
var relayedSites = map[string]string{"by default": proxySite, "callback relay": relaySite}

// TestRelayGoClient: go-sdk, which compares iss, from the 401 to the revocation.
// With callback direct it cannot sign in: TestStrictGoClientRefusesTheUpstreamsIss.
func TestRelayGoClient(t *testing.T) {
	for name, site := range relayedSites {
		t.Run(name, func(t *testing.T) {
			idp := startIDP(t, idpOptions{})
			c := loadCaddy(t, fmt.Sprintf(site, idp, startMCPServer(t)))
			client, err := connectGo(t, c.Origin+"/mcp")
			if err != nil {
				t.Fatal(err)
			}
			tools, err := client.ListTools(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, tool := range tools.Tools {
				names = append(names, tool.Name)
			}
			if diff := cmp.Diff(toolNames, names, cmpopts.SortSlices(strings.Compare)); diff != "" {
				t.Errorf("tools (-want +got):\n%s", diff)
			}
			id := client.whoami(t)
			if diff := cmp.Diff(identity{User: "alice", Client: id.Client, Scope: "mcp:read"}, id); diff != "" || id.Client == "" {
				t.Errorf("identity with client %q (-want +got):\n%s", id.Client, diff)
			}
			fresh, err := client.refresh(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(id, client.whoami(t)); diff != "" {
				t.Errorf("identity after the refresh (-want +got):\n%s", diff)
			}
			metadata, err := auth.GetAuthServerMetadata(t.Context(), c.Origin, http.DefaultClient)
			if err != nil {
				t.Fatal(err)
			}
			revoke(t, metadata.RevocationEndpoint, client.config.ClientID, fresh.RefreshToken)
			client.token = fresh
			if _, err := client.refresh(t.Context()); err == nil {
				t.Error("a revoked refresh token is good")
			}
		})
	}
}

// TestRelayNodeClients: the TypeScript SDK, and the two that abort a login in
// which the upstream's iss reaches them.
func TestRelayNodeClients(t *testing.T) {
	type result struct {
		Step   string   `json:"step"`
		Error  string   `json:"error"`
		Scope  string   `json:"scope"`
		Before identity `json:"before"`
		After  identity `json:"after"`
	}
	for name, site := range relayedSites {
		t.Run(name, func(t *testing.T) {
			idp := startIDP(t, idpOptions{})
			c := loadCaddy(t, fmt.Sprintf(site, idp, startMCPServer(t)))
			for script, step := range map[string]string{"sdkclient.mjs": "", "strictclient.mjs": "done", "openidclient.mjs": ""} {
				t.Run(script, func(t *testing.T) {
					var got result
					stderr, err := runNode(t, script, map[string]any{"url": c.Origin + "/mcp", "issuer": c.Origin}, &got)
					if err != nil {
						t.Fatalf("%v\n%s", err, stderr)
					}
					id := identity{User: "alice", Client: got.Before.Client, Scope: "mcp:read"}
					if diff := cmp.Diff(result{Step: step, Scope: "mcp:read", Before: id, After: id}, got); diff != "" || id.Client == "" {
						t.Errorf("result (-want +got):\n%s\n%s", diff, stderr)
					}
				})
			}
		})
	}
}

// TestRelayMCPRemote: mcp-remote, from the sign-in over a restart of its to a
// refresh. Its redirect URI, whose port is what was free, never reaches the
// identity provider.
func TestRelayMCPRemote(t *testing.T) {
	idp := startIDP(t, idpOptions{})
	c := loadCaddy(t, fmt.Sprintf(proxySite, idp, startMCPServer(t)))
	dir := t.TempDir()
	use := func(wantVisits int) identity {
		t.Helper()
		remote, err := startMCPRemote(t, dir, c.Origin+"/mcp")
		if err != nil {
			t.Fatal(err)
		}
		id := (&goClient{ClientSession: remote.ClientSession}).whoami(t)
		if err := remote.Close(); err != nil {
			t.Logf("mcp-remote ended with %v", err)
		}
		if n := len(remote.visits); n != wantVisits {
			t.Errorf("mcp-remote sent its user to the browser %d times, want %d", n, wantVisits)
		}
		return id
	}
	first := use(1)
	if first.User != "alice" || !strings.Contains(first.Scope, "mcp:read") || first.Client == "" || first.Authorization {
		t.Errorf("identity: %+v", first)
	}
	if diff := cmp.Diff(first, use(0)); diff != "" {
		t.Errorf("identity when started anew (-before +after):\n%s", diff)
	}
	before := spoilAccessToken(t, dir)
	if diff := cmp.Diff(first, use(0)); diff != "" {
		t.Errorf("identity after a refresh (-before +after):\n%s", diff)
	}
	if spoilAccessToken(t, dir) == before {
		t.Error("it did not refresh")
	}
}

func TestRelayUserDeclines(t *testing.T) {
	idp := startIDP(t, idpOptions{Deny: true})
	c := loadCaddy(t, fmt.Sprintf(proxySite, idp, startMCPServer(t)))
	if _, err := connectGo(t, c.Origin+"/mcp"); err == nil || !strings.Contains(err.Error(), "access_denied") {
		t.Errorf("connecting gave %v, want access_denied", err)
	}
}

// relayAttack is a relay in front of an identity provider that a test scripts,
// with a client.
type relayAttack struct {
	*caddyInstance
	t        *testing.T
	idp      *scriptedIDP
	clientID string
}

func newRelayAttack(t *testing.T) *relayAttack {
	t.Helper()
	idp := newScriptedIDP(t)
	backend := newBackend(t)
	idp.handle("/token", func(w http.ResponseWriter, r *http.Request) {
		// As an identity provider does: for its client, redirect URI and code only.
		if r.PostForm.Get("client_id") != "upstream-1" || !strings.HasSuffix(r.PostForm.Get("redirect_uri"), "/mcp-auth/callback") || r.PostForm.Get("code") != "upstream-code" {
			answerJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
			return
		}
		answerJSON(w, http.StatusOK, map[string]any{"access_token": idp.token(nil), "token_type": "Bearer", "expires_in": 300})
	})
	site := strings.Replace(scriptedProxySite, "proxy {", "proxy {\ncallback relay", 1)
	c := loadCaddy(t, fmt.Sprintf(site, idp.URL, "", backend.addr()))
	return &relayAttack{caddyInstance: c, t: t, idp: idp, clientID: c.register(testRedirect)}
}

// visit takes a person over the consent page to the identity provider, which
// answers with the parameters. It returns the callback's URL.
func (a *relayAttack) visit(person *browser, answer url.Values) (callback string) {
	a.t.Helper()
	a.idp.handle("/authorize", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot) // the test goes on by itself
	})
	if back := person.open(a.Origin + authorizeTarget(a.clientID, "s1")); back != nil {
		a.t.Fatalf("no consent page, but %s", back)
	}
	person.submit(person.button("Allow"))
	q := person.at.Query()
	if !strings.HasPrefix(person.at.String(), a.idp.URL+"/authorize?") || q.Get("redirect_uri") != a.Origin+"/mcp-auth/callback" || q.Get("client_id") != "upstream-1" {
		a.t.Fatalf("the browser is at %s", person.at)
	}
	values := url.Values{"state": {q.Get("state")}}
	for name, value := range answer {
		values[name] = value
	}
	return a.Origin + "/mcp-auth/callback?" + values.Encode()
}

// TestRelayAttacks sends what attackers would to a real Caddy.
func TestRelayAttacks(t *testing.T) {
	a := newRelayAttack(t)
	good := url.Values{"code": {"upstream-code"}}
	wantPage := func(t *testing.T, b *browser, back *url.URL, status int) {
		t.Helper()
		if back != nil || b.resp.StatusCode != status || !strings.Contains(b.page, "<h1>") {
			t.Errorf("sent to %v, %d:\n%s", back, b.resp.StatusCode, b.page)
		}
	}
	wantError := func(t *testing.T, back *url.URL, code string) {
		t.Helper()
		if back == nil || back.Query().Get("error") != code || back.Query().Get("state") != "s1" || back.Query().Get("iss") != a.Origin || back.Query().Has("code") {
			t.Errorf("the client is told %v, want %s", back, code)
		}
	}
	code := func(t *testing.T) string {
		t.Helper()
		person := newBrowser(t)
		back := person.open(a.visit(person, good))
		if back == nil || back.Query().Get("code") == "" || back.Query().Get("iss") != a.Origin || back.Query().Get("state") != "s1" {
			t.Fatalf("answer to the client: %v", back)
		}
		return back.Query().Get("code")
	}
	refused := func(t *testing.T, form url.Values) {
		t.Helper()
		before := a.idp.count("/token")
		if resp, answer := a.token(form); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
			t.Errorf("token: %d %v", resp.StatusCode, answer)
		}
		if a.idp.count("/token") != before {
			t.Error("the identity provider was asked")
		}
	}
	with := func(code string, change ...string) url.Values {
		form := codeForm(a.clientID)
		form.Set("code", code)
		for i := 0; i < len(change); i += 2 {
			form.Set(change[i], change[i+1])
		}
		return form
	}

	for name, attack := range map[string]func(t *testing.T){
		"callback without cookie": func(t *testing.T) {
			person := newBrowser(t)
			callback := a.visit(person, good)
			person.client.Jar = nil
			wantPage(t, person, person.open(callback), 400)
		},
		"callback in another browser": func(t *testing.T) {
			attacker, victim := newBrowser(t), newBrowser(t)
			callback := a.visit(attacker, good)
			wantPage(t, victim, victim.open(callback), 400)
		},
		"callback replayed": func(t *testing.T) {
			person := newBrowser(t)
			callback := a.visit(person, good)
			if back := person.open(callback); back == nil || back.Query().Get("code") == "" {
				t.Fatalf("answer to the client: %v", back)
			}
			wantPage(t, person, person.open(callback), 400)
		},
		"consent denied": func(t *testing.T) {
			person := newBrowser(t)
			person.open(a.Origin + authorizeTarget(a.clientID, "s1"))
			before := a.idp.count("/authorize")
			wantError(t, person.submit(person.button("Deny")), "access_denied")
			if a.idp.count("/authorize") != before {
				t.Error("the identity provider was visited")
			}
		},
		"consent from another website": func(t *testing.T) {
			person := newBrowser(t)
			resp, err := person.client.PostForm(a.Origin+"/mcp-auth/consent", url.Values{"decision": {"allow"}})
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 400 {
				t.Errorf("%d", resp.StatusCode)
			}
		},
		"error of the identity provider": func(t *testing.T) {
			person := newBrowser(t)
			callback := a.visit(person, url.Values{"error": {"server_error"}, "error_description": {"upstream words"}})
			back := person.open(callback)
			wantError(t, back, "temporarily_unavailable")
			if strings.Contains(back.String(), "words") {
				t.Errorf("its words are passed on: %s", back)
			}
			wantPage(t, person, person.open(callback), 400)
		},
		"mix-up: answer of another identity provider": func(t *testing.T) {
			person := newBrowser(t)
			wantError(t, person.open(a.visit(person, url.Values{"code": {"upstream-code"}, "iss": {"https://evil.example"}})), "server_error")
		},
		"code for another client": func(t *testing.T) {
			refused(t, with(code(t), "client_id", a.register(testRedirect)))
		},
		"redirect URI swapped": func(t *testing.T) {
			refused(t, with(code(t), "redirect_uri", "https://evil.example/cb"))
		},
		"another verifier": func(t *testing.T) {
			refused(t, with(code(t), "code_verifier", strings.Repeat("v", 43)))
		},
		"code tampered with": func(t *testing.T) {
			c := code(t)
			refused(t, with(c[:40]+strings.Repeat("A", 4)+c[44:]))
		},
		"code of the identity provider itself": func(t *testing.T) { refused(t, with("upstream-code")) },
	} {
		t.Run(name, attack)
	}

	c := code(t)
	if resp, answer := a.exchange(a.clientID, c); resp.StatusCode != 200 {
		t.Errorf("token: %d %v", resp.StatusCode, answer)
	}
	for line := range strings.Lines(a.log()) {
		for _, secret := range []string{c, "upstream-code", "dBjftJeZ4CVP"} {
			if strings.Contains(line, secret) {
				t.Errorf("a secret is in the log: %s", line)
			}
		}
	}
	resp, body := a.send("GET", "/.well-known/oauth-authorization-server", nil, "")
	var metadata map[string]any
	if err := json.Unmarshal([]byte(body), &metadata); err != nil || resp.StatusCode != 200 || metadata["authorization_response_iss_parameter_supported"] != true {
		t.Errorf("metadata: %d %s", resp.StatusCode, body)
	}
}
