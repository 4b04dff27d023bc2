package caddytest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/caddyserver/caddy/v2"
)

// accountsSite is a broker with local accounts; %s are the store, further
// settings and the server behind.
const accountsSite = `
{ORIGIN} {
	log
	mcp_auth {ORIGIN} {
		accounts {
			alice %s {
				email alice@example.com
				groups engineering
			}
			bob %s
		}
		resource /mcp {
			name "Notes"
			scopes mcp:read
			path /mcp/admin* mcp:admin
			describe mcp:read "Read your notes"
			forward identity email groups
		}
		%s
	}
	reverse_proxy %s
}
`

// hashes are those made so far, by password: each takes a while.
var hashes sync.Map

func hash(t *testing.T, password string) string {
	t.Helper()
	if known, ok := hashes.Load(password); ok {
		return known.(string)
	}
	h, err := bcrypt.GenerateFromPassword([]byte(password), 10)
	if err != nil {
		t.Fatal(err)
	}
	hashes.Store(password, string(h))
	return string(h)
}

// browser is a person's browser: it keeps cookies and stops at the client's
// redirect URI.
type browser struct {
	t      testing.TB
	client *http.Client
	// page is the last page, at its URL.
	page string
	at   *url.URL
	resp *http.Response
}

func newBrowser(t testing.TB) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t: t, client: &http.Client{Jar: jar, Timeout: 15 * time.Second, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), testRedirect) {
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

// open loads a page. It returns the client's redirect URI with its parameters
// once the browser is sent there, else nil.
func (b *browser) open(target string) *url.URL {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, target, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(req)
}

func (b *browser) do(req *http.Request) *url.URL {
	b.t.Helper()
	req.Header.Set("Accept", "text/html")
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.page, b.resp = string(body), resp
	b.at = resp.Request.URL
	if location := resp.Header.Get("Location"); strings.HasPrefix(location, testRedirect) {
		u, err := url.Parse(location)
		if err != nil {
			b.t.Fatal(err)
		}
		return u
	}
	return nil
}

var (
	formTag  = regexp.MustCompile(`(?s)<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<input[^>]*>`)
	attr     = regexp.MustCompile(`(name|value|type)="([^"]*)"`)
	unescape = strings.NewReplacer("&amp;", "&", "&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">", "&#43;", "+")
)

// submit posts the page's form with its hidden fields and those given.
func (b *browser) submit(fields url.Values) *url.URL {
	b.t.Helper()
	form := formTag.FindStringSubmatch(b.page)
	if form == nil {
		b.t.Fatalf("no form on the page at %s (%d):\n%s", b.at, b.resp.StatusCode, b.page)
	}
	values := url.Values{}
	for _, input := range inputTag.FindAllString(form[2], -1) {
		got := map[string]string{}
		for _, a := range attr.FindAllStringSubmatch(input, -1) {
			got[a[1]] = unescape.Replace(a[2])
		}
		if got["type"] == "hidden" {
			values.Set(got["name"], got["value"])
		}
	}
	for name, value := range fields {
		values[name] = value
	}
	action, err := b.at.Parse(unescape.Replace(form[1]))
	if err != nil {
		b.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, action.String(), strings.NewReader(values.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", action.Scheme+"://"+action.Host)
	return b.do(req)
}

// button finds the name and value of the page's button with this text.
func (b *browser) button(text string) url.Values {
	b.t.Helper()
	m := regexp.MustCompile(`(?s)<button([^>]*)>\s*` + regexp.QuoteMeta(text) + `\s*</button>`).FindStringSubmatch(b.page)
	if m == nil {
		b.t.Fatalf("no button %q on the page at %s (%d):\n%s", text, b.at, b.resp.StatusCode, b.page)
	}
	got := map[string]string{}
	for _, a := range attr.FindAllStringSubmatch(m[1], -1) {
		got[a[1]] = a[2]
	}
	if got["name"] == "" {
		return nil
	}
	return url.Values{got["name"]: {got["value"]}}
}

// signIn takes a person from the authorization request to the client's redirect
// URI.
func (b *browser) signIn(target, user, password string) url.Values {
	b.t.Helper()
	if back := b.open(target); back != nil {
		return back.Query()
	}
	back := b.submit(b.button("Allow"))
	if back == nil {
		back = b.submit(url.Values{"username": {user}, "password": {password}})
	}
	if back == nil {
		b.t.Fatalf("no way back to the client from %s (%d):\n%s", b.at, b.resp.StatusCode, b.page)
	}
	return back.Query()
}

func (c *caddyInstance) exchange(id, code string) (*http.Response, map[string]any) {
	form := codeForm(id)
	form.Set("code", code)
	return c.token(form)
}

func (c *caddyInstance) refresh(id string, token any) (*http.Response, map[string]any) {
	return c.token(url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {fmt.Sprint(token)}})
}

func TestBrokerWithAccounts(t *testing.T) {
	b := newBackend(t)
	c := newCaddy(t)
	site := fmt.Sprintf(accountsSite, hash(t, "correct horse"), hash(t, "battery staple"), "", b.addr())
	globals := fmt.Sprintf("\tmcp_auth {\n\t\tstore bbolt %s/grants.db\n\t}", c.dir)
	if err := c.load(globals, site); err != nil {
		t.Fatal(err)
	}
	id := c.register(testRedirect)
	if len(id) > 255 {
		t.Errorf("the client id has %d characters", len(id))
	}
	person := newBrowser(t)
	answer := person.signIn(c.Origin+authorizeTarget(id, "s1"), "alice", "correct horse")
	if answer.Get("state") != "s1" || answer.Get("iss") != c.Origin || answer.Get("code") == "" {
		t.Fatalf("answer to the client: %v", answer)
	}
	resp, tokens := c.exchange(id, answer.Get("code"))
	if resp.StatusCode != 200 {
		t.Fatalf("token: %d %v", resp.StatusCode, tokens)
	}
	use := func(access any, want int) {
		t.Helper()
		if resp, body := c.send("GET", "/mcp", bearerHeader(fmt.Sprint(access)), ""); resp.StatusCode != want {
			t.Errorf("use: %d %s, want %d", resp.StatusCode, body, want)
		}
	}
	use(tokens["access_token"], 200)
	requests := b.take()
	got := requests[0].Header
	if got.Get("X-Mcp-User") != "alice" || got.Get("X-Mcp-Client") != id || got.Get("X-Mcp-Scope") != "mcp:read" ||
		got.Get("X-Mcp-User-Email") != "alice@example.com" || got.Get("X-Mcp-User-Groups") != "engineering" || got.Get("Authorization") != "" {
		t.Errorf("identity: %v", got)
	}
	if got.Get("Cookie") != "" {
		t.Errorf("cookies at the backend: %s", got.Get("Cookie"))
	}

	// Refresh, restart, refresh again; the answer in grace is the same.
	resp, second := c.refresh(id, tokens["refresh_token"])
	if resp.StatusCode != 200 {
		t.Fatalf("refresh: %d %v", resp.StatusCode, second)
	}
	_, again := c.refresh(id, tokens["refresh_token"])
	if fmt.Sprint(again) != fmt.Sprint(second) {
		t.Errorf("the answer in grace differs: %v, %v", again, second)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.load(globals, site); err != nil {
		t.Fatal(err)
	}
	use(second["access_token"], 200)
	resp, third := c.refresh(id, second["refresh_token"])
	if resp.StatusCode != 200 {
		t.Fatalf("refresh after a restart: %d %v", resp.StatusCode, third)
	}

	// Revocation is seen at once.
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	resp, body := c.send("POST", "/revoke", form, url.Values{"client_id": {id}, "token": {fmt.Sprint(third["refresh_token"])}}.Encode())
	if resp.StatusCode != 200 {
		t.Errorf("revoke: %d %s", resp.StatusCode, body)
	}
	use(third["access_token"], 401)
	if resp, answer := c.refresh(id, third["refresh_token"]); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("refresh after revocation: %d %v", resp.StatusCode, answer)
	}
	if resp, answer := c.exchange(id, answer.Get("code")); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("code replay: %d %v", resp.StatusCode, answer)
	}
	for line := range strings.Lines(c.log()) {
		for _, secret := range []any{"correct horse", answer.Get("code"), tokens["access_token"], tokens["refresh_token"], second["refresh_token"]} {
			if strings.Contains(line, fmt.Sprint(secret)) {
				t.Errorf("a secret is in the log: %s", line)
			}
		}
	}
}

func TestBrokerMetadata(t *testing.T) {
	c := newCaddy(t)
	if err := c.load("\tmcp_auth {\n\t\tstore memory\n\t}", fmt.Sprintf(accountsSite, hash(t, "a"), hash(t, "b"), "", "localhost:1")); err != nil {
		t.Fatal(err)
	}
	var first string
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server/mcp", "/mcp/.well-known/oauth-authorization-server"} {
		_, body := c.send("GET", path, nil, "")
		if first == "" {
			first = body
		}
		if body != first {
			t.Errorf("%s: %s", path, body)
		}
	}
	var metadata map[string]any
	if err := json.Unmarshal([]byte(first), &metadata); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"issuer": c.Origin, "jwks_uri": c.Origin + "/.well-known/jwks.json", "authorization_response_iss_parameter_supported": true,
		"client_id_metadata_document_supported": true, "registration_endpoint": c.Origin + "/register", "revocation_endpoint": c.Origin + "/revoke",
	} {
		if metadata[name] != want {
			t.Errorf("%s is %v, want %v", name, metadata[name], want)
		}
	}
	if s := fmt.Sprint(metadata["scopes_supported"]); !strings.Contains(s, "offline_access") || !strings.Contains(s, "mcp:read") || strings.Contains(s, "mcp:admin") {
		t.Errorf("scopes_supported is %s", s)
	}
	if resp, body := c.send("GET", "/.well-known/jwks.json", nil, ""); resp.StatusCode != 200 || strings.Contains(body, `"d"`) {
		t.Errorf("keys: %d %s", resp.StatusCode, body)
	}
}

// TestAdminControl: the operator sees and ends what users allowed.
func TestAdminControl(t *testing.T) {
	b := newBackend(t)
	c := newCaddy(t)
	socket := c.dir + "/admin.sock"
	config := c.adapt("\tmcp_auth {\n\t\tstore memory\n\t}", fmt.Sprintf(accountsSite, hash(t, "correct horse"), hash(t, "b"), "", b.addr()))
	config = []byte(strings.Replace(string(config), `"admin":{"disabled":true`, `"admin":{"listen":"unix/`+socket+`"`, 1))
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	login := func() (id string, tokens map[string]any) {
		t.Helper()
		id = c.register(testRedirect)
		answer := newBrowser(t).signIn(c.Origin+authorizeTarget(id, "s"), "alice", "correct horse")
		resp, tokens := c.exchange(id, answer.Get("code"))
		if resp.StatusCode != 200 {
			t.Fatalf("token: %d %v", resp.StatusCode, tokens)
		}
		return id, tokens
	}
	use := func(tokens map[string]any) int {
		t.Helper()
		resp, _ := c.send("GET", "/mcp", bearerHeader(fmt.Sprint(tokens["access_token"])), "")
		return resp.StatusCode
	}
	request := func(fields map[string]any) string {
		fields["issuer"] = c.Origin
		data, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if state := adminRequest(t, socket, "GET", "/mcp_auth/servers", "", 200); !strings.Contains(state, `"store":"ok"`) {
		t.Errorf("servers: %s", state)
	}
	id, tokens := login()
	list := adminRequest(t, socket, "GET", "/mcp_auth/grants?user=alice&issuer="+url.QueryEscape(c.Origin), "", 200)
	if !strings.Contains(list, id) || strings.Contains(list, fmt.Sprint(tokens["refresh_token"])) {
		t.Errorf("grants: %s", list)
	}
	adminRequest(t, socket, "POST", "/mcp_auth/grants/revoke", request(map[string]any{"user": "alice"}), 200)
	if got := use(tokens); got != 401 {
		t.Errorf("after all grants were revoked: %d", got)
	}

	_, tokens = login()
	adminRequest(t, socket, "POST", "/mcp_auth/clients/revoke", request(map[string]any{"client_id": id}), 200)
	if got := use(tokens); got != 401 {
		t.Errorf("after the client was revoked: %d", got)
	}
	if resp, answer := c.refresh(id, tokens["refresh_token"]); resp.StatusCode != 401 || answer["error"] != "invalid_client" {
		t.Errorf("refresh of a revoked client: %d %v", resp.StatusCode, answer)
	}
	body := fmt.Sprintf(`{"redirect_uris":[%q],"token_endpoint_auth_method":"none","client_name":"Test"}`, testRedirect)
	if resp, text := c.send("POST", "/register", http.Header{"Content-Type": {"application/json"}}, body); resp.StatusCode != 403 || !strings.Contains(text, "access_denied") {
		t.Errorf("registration of a revoked client: %d %s", resp.StatusCode, text)
	}
	adminRequest(t, socket, "POST", "/mcp_auth/clients/restore", request(map[string]any{"client_id": id}), 200)
	adminRequest(t, socket, "POST", "/mcp_auth/clients/restore", request(map[string]any{"client_id": id}), 404)
	_, tokens = login()

	adminRequest(t, socket, "POST", "/mcp_auth/keys/rotate", request(map[string]any{}), 200)
	if got := use(tokens); got != 200 {
		t.Errorf("after a key rotation: %d", got)
	}
	adminRequest(t, socket, "POST", "/mcp_auth/keys/rotate", request(map[string]any{"drop": true}), 200)
	if got := use(tokens); got != 401 {
		t.Errorf("after the keys were dropped: %d", got)
	}
	adminRequest(t, socket, "GET", "/mcp_auth/grants?user=alice&issuer=https://unknown.example", "", 404)
	adminRequest(t, socket, "GET", "/mcp_auth/keys/rotate", "", 405)
}
