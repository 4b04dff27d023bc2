package caddytest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddyserver/caddy/v2"
)

const scriptedProxySite = `
{ORIGIN} {
	log
	mcp_auth {ORIGIN} {
		proxy {
			issuer %s
			audience {ORIGIN}/mcp
		}
		resource /mcp {
			scopes mcp:read
		}
		%s
	}
	reverse_proxy %s
}
`

// register registers a public client and returns its id.
func (c *caddyInstance) register(redirectURI string) string {
	c.t.Helper()
	body := fmt.Sprintf(`{"redirect_uris":[%q],"token_endpoint_auth_method":"none","client_name":"Test"}`, redirectURI)
	resp, text := c.send("POST", "/register", http.Header{"Content-Type": {"application/json"}}, body)
	var client struct {
		ClientID string `json:"client_id"`
	}
	if resp.StatusCode != http.StatusCreated || json.Unmarshal([]byte(text), &client) != nil || client.ClientID == "" {
		c.t.Fatalf("registration: %d %s", resp.StatusCode, text)
	}
	return client.ClientID
}

func (c *caddyInstance) token(form url.Values) (*http.Response, map[string]any) {
	c.t.Helper()
	resp, text := c.send("POST", "/token", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
	var answer map[string]any
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		c.t.Fatalf("token endpoint: %d %q", resp.StatusCode, text)
	}
	return resp, answer
}

const (
	testRedirect = "https://client.example/callback"
	// The pair of RFC 7636 appendix B.
	testVerifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	testChallenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

func authorizeTarget(clientID, state string) string {
	return "/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {testRedirect}, "state": {state},
		"code_challenge": {testChallenge}, "code_challenge_method": {"S256"}, "scope": {"mcp:read"},
	}.Encode()
}

func codeForm(clientID string) url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "client_id": {clientID}, "code": {"secret-code-4711"},
		"redirect_uri": {testRedirect}, "code_verifier": {testVerifier},
	}
}

// TestClientsOutliveReloadAndRestart: what was sealed under the generated key
// opens after a reload, after a stop and a start, and not after the key is gone.
func TestClientsOutliveReloadAndRestart(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := newCaddy(t)
	site := fmt.Sprintf(scriptedProxySite, idp.URL, "", b.addr())
	load := func(globals string) {
		t.Helper()
		if err := c.load(globals, site); err != nil {
			t.Fatal(err)
		}
	}
	load("")
	id := c.register(testRedirect)
	works := func(want int) {
		t.Helper()
		if resp, answer := c.token(codeForm(id)); resp.StatusCode != want {
			t.Errorf("token: %d %v, want %d", resp.StatusCode, answer, want)
		}
	}
	works(200)
	load("\tlog other {\n\t\toutput discard\n\t}")
	works(200)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	load("")
	works(200)
	info, err := os.Stat(filepath.Join(c.dir, "storage", "mcp_auth", "sealing_key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v %v", info, err)
	}
	load("\tmcp_auth {\n\t\tstore memory\n\t}")
	works(401)
	load("\tmcp_auth {\n\t\tencryption_key pass-phrase-of-at-least-thirty-two-characters\n\t}")
	id = c.register(testRedirect)
	load("\tmcp_auth {\n\t\tencryption_key another-phrase-of-at-least-thirty-two-chars pass-phrase-of-at-least-thirty-two-characters\n\t}")
	works(200)
	load("\tmcp_auth {\n\t\tencryption_key another-phrase-of-at-least-thirty-two-chars\n\t}")
	works(401)
}

// TestReloadUnderTraffic reloads good and bad configurations while clients
// call. Every request is served, and the identity provider is not asked for its
// keys again: verification goes on while it is down. A connection that the old
// configuration's server closes before it answers is tried again, as clients
// do: net/http closes such connections at a reload with or without this module.
func TestReloadUnderTraffic(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := newCaddy(t)
	site := fmt.Sprintf(scriptedProxySite, idp.URL, "", b.addr())
	if err := c.load("", site); err != nil {
		t.Fatal(err)
	}
	token := idp.token(map[string]any{"aud": c.Origin + "/mcp"})
	if resp, body := c.send("GET", "/mcp", bearerHeader(token), ""); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	keysAsked := idp.count("/keys")
	for _, path := range []string{"/keys", "/.well-known/oauth-authorization-server"} {
		idp.handle(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	}

	stop := make(chan struct{})
	var served atomic.Int64
	var clients sync.WaitGroup
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				status, err := 0, error(nil)
				for range 5 {
					if status, err = call(t, client, c.Origin+"/mcp", token); err == nil {
						break
					}
				}
				if err != nil || status != 200 {
					t.Errorf("a request was lost: status %d, %v", status, err)
					return
				}
				served.Add(1)
			}
		})
	}
	for i := range 10 {
		if err := c.load(fmt.Sprintf("\tlog other%d {\n\t\toutput discard\n\t}", i), site); err != nil {
			t.Error(err)
		}
		bad := fmt.Sprintf(scriptedProxySite, idp.URL, "base_url {env.MCPAUTH_TEST_NOT_SET}", b.addr())
		if err := c.load("", bad); err == nil {
			t.Error("a configuration with an unset variable was loaded")
		}
	}
	close(stop)
	clients.Wait()
	if served.Load() < 20 {
		t.Errorf("only %d requests were served during the reloads", served.Load())
	}
	if n := idp.count("/keys"); n != keysAsked {
		t.Errorf("the keys were asked for %d more times", n-keysAsked)
	}
}

// call sends one request on a connection of its own.
func call(t *testing.T, client *http.Client, target, token string) (status int, err error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader("{}"))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// TestNoSecretInLogs runs a whole flow, good and bad, at debug level with
// access logs on, and looks for what must not be there.
func TestNoSecretInLogs(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := loadCaddy(t, fmt.Sprintf(scriptedProxySite, idp.URL, "", b.addr()))
	id := c.register(testRedirect)
	resp, _ := c.send("GET", authorizeTarget(id, "secret-state-0815"), nil, "")
	if resp.StatusCode != http.StatusFound || !strings.HasPrefix(resp.Header.Get("Location"), idp.URL+"/authorize?") {
		t.Fatalf("authorize: %d %s", resp.StatusCode, resp.Header.Get("Location"))
	}
	for _, target := range []string{
		authorizeTarget("unknown-client", "secret-state-0815"),
		authorizeTarget(id, "secret-state-0815") + "&code_challenge=again",
		strings.Replace(authorizeTarget(id, "secret-state-0815"), "response_type=code", "response_type=token", 1),
	} {
		c.send("GET", target, nil, "")
	}
	upstreamToken := idp.token(map[string]any{"aud": c.Origin + "/mcp"})
	idp.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 200, map[string]any{"access_token": upstreamToken, "token_type": "Bearer", "expires_in": 300, "refresh_token": "secret-refresh-0816"})
	})
	tokenResp, tokens := c.token(codeForm(id))
	if tokenResp.StatusCode != 200 {
		t.Fatalf("token: %v", tokens)
	}
	refresh, _ := tokens["refresh_token"].(string)
	c.send("GET", "/mcp", bearerHeader(upstreamToken), "")
	c.send("GET", "/mcp", bearerHeader(upstreamToken+"x"), "")
	c.token(url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {refresh}})
	idp.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 400, map[string]any{"error": "invalid_grant", "error_description": "no"})
	})
	c.token(url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {refresh}})
	c.token(codeForm(id))
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	c.send("POST", "/revoke", form, url.Values{"token": {refresh}, "client_id": {id}}.Encode())
	c.send("POST", "/token", http.Header{"Content-Type": form["Content-Type"], "Authorization": {"Basic c2VjcmV0OnNlY3JldC1iYXNpYw=="}}, "grant_type=authorization_code")

	c.send("POST", "/token?code=secret-query-1", form, "")
	c.send("GET", "/mcp?access_token="+upstreamToken, nil, "")
	c.send("GET", "/mcp?%61ccess_token="+upstreamToken, nil, "")

	log := c.log()
	if !strings.Contains(log, "its URL redacted") || !strings.Contains(log, "handled request") {
		t.Error("the log lacks the access lines")
	}
	for name, secret := range map[string]string{
		"state": "secret-state-0815", "code": "secret-code-4711", "verifier": testVerifier, "challenge": testChallenge,
		"refresh token": refresh, "upstream refresh token": "secret-refresh-0816", "access token": upstreamToken,
		"signature": upstreamToken[strings.LastIndexByte(upstreamToken, '.')+1:], "basic credentials": "c2VjcmV0",
		"basic secret": "secret-basic", "query": "secret-query-1", "client id": id,
	} {
		for line := range strings.Lines(log) {
			if strings.Contains(line, secret) {
				t.Errorf("the %s is in the log: %s", name, line)
			}
		}
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	t.Setenv("MCPAUTH_TEST_EMPTY", "")
	site := func(settings string) string {
		return "{ORIGIN} {\nmcp_auth {ORIGIN} {\n" + settings + "\n}\n}"
	}
	const server = "authorization_server https://idp.example.com\n"
	const proxy = "proxy {\nissuer https://idp.example.com\naudience https://mcp.example.com/mcp\n}\n"
	for _, row := range []struct{ name, globals, site, want string }{
		{"its own upstream", "", site("upstream oidc {ORIGIN} {\nclient_id x\n}"), "own issuer"},
		{"its own proxy", "", site("proxy {\nissuer {ORIGIN}\naudience {ORIGIN}/mcp\n}"), "own issuer"},
		{"GitHub without a secret", "", site("upstream github {\nclient_id x\n}\nallow email a@example.com"), "client_secret"},
		{"the metadata's URL as an issuer", "", site("authorization_server https://idp.example.com/realm/.well-known/openid-configuration"), `usually "https://idp.example.com/realm"`},
		{"unset variable", "", site(proxy + "service_documentation {env.MCPAUTH_TEST_NOT_SET}"), "MCPAUTH_TEST_NOT_SET"},
		{"empty variable", "", site(proxy + "service_documentation {env.MCPAUTH_TEST_EMPTY}"), "MCPAUTH_TEST_EMPTY"},
		{"missing file", "", site(proxy + "client a {\nsecret {file./nowhere/secret}\nredirect_uris https://a.example/cb\n}"), "/nowhere/secret"},
		{"request placeholder", "", site(proxy + "service_documentation https://{host}/"), "http.request.host"},
		{"request placeholder in the issuer", "", "{ORIGIN} {\nmcp_auth https://{host} {\n" + server + "}\n}", "http.request.host"},
		{"short key", "\tmcp_auth {\n\t\tencryption_key short\n\t}", site(proxy), "openssl rand"},
		{"issuer twice, different", "", site(server) + "\nhttp://other.localhost:{PORT} {\nmcp_auth {ORIGIN} {\n" + proxy + "}\n}", "configured twice"},
		{"metadata of an unknown issuer", "", "{ORIGIN} {\nmcp_auth_metadata https://unknown.example\n}", "unknown.example"},
		{"resource at an endpoint", "", site(proxy + "resource /token"), "endpoint"},
		{"path rule outside its resource", "", site(server + "resource /mcp {\npath /other x\n}"), "/other"},
		{"implication in a circle", "", site(server + "resource /mcp {\nimplies a b\nimplies b a\n}"), "implies"},
		{"proxy without clients", "", site(strings.Replace(proxy, "issuer https://idp.example.com", "authorization_url https://idp.example.com/a\ntoken_url https://idp.example.com/t\nverify jwt {\njwks_uri https://idp.example.com/k\n}", 1)), "client"},
		{"clients in resource-server mode", "", site(server + "client a {\nredirect_uris https://a.example/cb\n}"), "no meaning with authorization_server"},
		{"symmetric algorithm", "", site("authorization_server https://idp.example.com {\nverify jwt {\nalgorithms HS256\n}\n}"), "HS256"},
		{"http upstream", "", site("proxy {\nissuer http://idp.example.com\naudience any\n}"), "https"},
		{"verify introspection without credentials", "", site("authorization_server https://idp.example.com {\nverify introspection\n}"), "client_id"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newCaddy(t)
			err := c.load(row.globals, row.site)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("loading gave %v, want an error with %q", err, row.want)
			}
		})
	}
}

// TestSecretsStayPlaceholders: what the admin API shows holds no secret.
func TestSecretsStayPlaceholders(t *testing.T) {
	t.Setenv("MCPAUTH_TEST_SECRET", "hunter2hunter2")
	idp := newScriptedIDP(t)
	c := newCaddy(t)
	socket := filepath.Join(c.dir, "admin.sock")
	site := fmt.Sprintf(scriptedProxySite, idp.URL, "client my-app {\nsecret {env.MCPAUTH_TEST_SECRET}\nredirect_uris "+testRedirect+"\n}", "localhost:1")
	if err := c.loadWithAdmin(socket, site); err != nil {
		t.Fatal(err)
	}
	// The secret works …
	form := codeForm("my-app")
	form.Set("client_secret", "hunter2hunter2")
	if resp, answer := c.token(form); resp.StatusCode != 200 {
		t.Errorf("token: %d %v", resp.StatusCode, answer)
	}
	form.Set("client_secret", "wrong")
	if resp, answer := c.token(form); resp.StatusCode != 401 {
		t.Errorf("token with a wrong secret: %d %v", resp.StatusCode, answer)
	}
	// … and is not shown.
	config := adminRequest(t, socket, "GET", "/config/", "", 200)
	if strings.Contains(config, "hunter2") || !strings.Contains(config, "{env.MCPAUTH_TEST_SECRET}") {
		t.Errorf("configuration: %s", config)
	}
}

// TestAdminAPI loads JSON, changes one value through its @id, and is refused
// what the schema does not have.
func TestAdminAPI(t *testing.T) {
	idp, b := newScriptedIDP(t), newBackend(t)
	c := newCaddy(t)
	socket := filepath.Join(c.dir, "admin.sock")
	if err := c.loadWithAdmin(socket, fmt.Sprintf("http://unused.localhost:%d {\nrespond 200\n}", freePort(t))); err != nil {
		t.Fatal(err)
	}
	config := map[string]any{
		"admin":   map[string]any{"listen": "unix/" + socket, "config": map[string]any{"persist": false}},
		"storage": map[string]any{"module": "file_system", "root": filepath.Join(c.dir, "storage")},
		"apps": map[string]any{"http": map[string]any{"servers": map[string]any{"srv0": map[string]any{
			"listen": []string{fmt.Sprintf("localhost:%d", c.Port)}, "automatic_https": map[string]any{"disable": true},
			"routes": []any{map[string]any{"handle": []any{
				map[string]any{
					"handler": "mcp_auth", "@id": "mcp", "issuer": c.Origin,
					"provider":    map[string]any{"mode": "proxy", "issuer": idp.URL, "audience": []string{c.Origin + "/mcp"}},
					"resources":   []any{map[string]any{"path": "/mcp", "scopes": []string{"mcp:read"}, "forward": map[string]any{"kind": "identity"}}},
					"rate_limits": map[string]any{"token": map[string]any{"count": 50, "window": "15m"}},
				},
				map[string]any{"handler": "reverse_proxy", "upstreams": []any{map[string]any{"dial": b.addr()}}},
			}}},
		}}}},
	}
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	adminRequest(t, socket, "POST", "/load", string(data), 200)
	token := idp.token(map[string]any{"aud": c.Origin + "/mcp"})
	if resp, body := c.send("GET", "/mcp", bearerHeader(token), ""); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	adminRequest(t, socket, "PATCH", "/id/mcp/resources/0/scopes", `["mcp:write"]`, 200)
	if resp, _ := c.send("GET", "/mcp", bearerHeader(token), ""); resp.StatusCode != 403 {
		t.Errorf("after the change: %d", resp.StatusCode)
	}
	adminRequest(t, socket, "PATCH", "/id/mcp/resources/0/scopes", `["mcp:read"]`, 200)
	// A refused change leaves the running configuration as it is.
	refusal := adminRequest(t, socket, "POST", "/id/mcp/colour", `"red"`, 500)
	if !strings.Contains(refusal, "colour") {
		t.Errorf("refusal: %s", refusal)
	}
	if resp, _ := c.send("GET", "/mcp", bearerHeader(token), ""); resp.StatusCode != 200 {
		t.Errorf("after the refused change: %d", resp.StatusCode)
	}
}

// TestValidateTouchesNothing: validating provisions without opening the key or
// asking the identity provider.
func TestValidateTouchesNothing(t *testing.T) {
	idp := newScriptedIDP(t)
	c := newCaddy(t)
	config := c.adapt("", fmt.Sprintf(scriptedProxySite, idp.URL, "", "localhost:1"))
	var cfg caddy.Config
	if err := json.Unmarshal(config, &cfg); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&cfg); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(0, idp.total()); diff != "" {
		t.Errorf("requests to the identity provider (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "storage", "mcp_auth")); !os.IsNotExist(err) {
		t.Errorf("validating left something in the storage: %v", err)
	}
}

// TestProxyRelays: what reaches the identity provider is the client's request
// in the client's upstream name.
func TestProxyRelays(t *testing.T) {
	idp := newScriptedIDP(t)
	c := loadCaddy(t, fmt.Sprintf(scriptedProxySite, idp.URL, "", "localhost:1"))
	id := c.register(testRedirect)
	resp, _ := c.send("GET", authorizeTarget(id, "s")+"&resource="+url.QueryEscape(c.Origin+"/mcp/"), nil, "")
	location, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{
		"client_id": {"upstream-1"}, "response_type": {"code"}, "redirect_uri": {testRedirect}, "code_challenge": {testChallenge},
		"code_challenge_method": {"S256"}, "state": {"s"}, "scope": {"mcp:read"}, "resource": {c.Origin + "/mcp"},
	}
	if diff := cmp.Diff(want, location.Query()); diff != "" {
		t.Errorf("authorization request (-want +got):\n%s", diff)
	}
	if _, answer := c.token(codeForm(id)); answer["refresh_token"] == "upstream-refresh" || answer["refresh_token"] == nil {
		t.Errorf("the upstream's refresh token is not bound to the client: %v", answer)
	}
	request := idp.last("/token")
	wantForm := map[string][]string{
		"grant_type": {"authorization_code"}, "client_id": {"upstream-1"}, "code": {"secret-code-4711"},
		"code_verifier": {testVerifier}, "redirect_uri": {testRedirect}, "resource": {c.Origin + "/mcp"}, // the only one
	}
	if diff := cmp.Diff(wantForm, request.Form); diff != "" {
		t.Errorf("token request (-want +got):\n%s", diff)
	}
	if got := request.Header.Get("Accept"); got != "application/json" {
		t.Errorf("Accept is %q", got)
	}
	other := c.register("https://other.example/callback")
	_, tokens := c.token(codeForm(id))
	before := idp.count("/token")
	resp, answer := c.token(url.Values{"grant_type": {"refresh_token"}, "client_id": {other}, "refresh_token": {fmt.Sprint(tokens["refresh_token"])}})
	if resp.StatusCode != 400 || answer["error"] != "invalid_grant" || idp.count("/token") != before {
		t.Errorf("another client's refresh token: %d %v", resp.StatusCode, answer)
	}
}

// TestDescriptionOfNothing: a description that no consent page can show is likely
// misspelt.
func TestDescriptionOfNothing(t *testing.T) {
	const mode = "accounts {\nalice $2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy\n}\n"
	c := loadCaddy(t, "{ORIGIN} {\nmcp_auth {ORIGIN} {\n"+mode+`resource /mcp {
		scopes mcp:read
		tool delete_* mcp:delete
		describe mcp:read "Read"
		describe mcp:delete "Delete"
		describe mcp:raed "Read"
	}
	}
	}`)
	const complaint = "a scope is described that no resource grants"
	if log := c.log(); strings.Count(log, complaint) != 1 || !strings.Contains(log, `"scope":"mcp:raed"`) {
		t.Errorf("%d complaints", strings.Count(log, complaint))
	}
}
