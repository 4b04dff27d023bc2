package caddytest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// remoteSite is an MCP server that this plugin guards, at {REMOTE}; carol has an
// account there. %s are her password's hash and the MCP server.
const remoteSite = `
{REMOTE} {
	mcp_auth {REMOTE} {
		accounts {
			carol %s
		}
		resource /mcp {
			name "Remote notes"
			scopes mcp:read
		}
	}
	reverse_proxy %s
}
`

// newRemoteSite returns the origin and the configuration of one.
func newRemoteSite(t *testing.T) (origin, site string) {
	t.Helper()
	origin = "http://localhost:" + strconv.Itoa(freePort(t))
	site = fmt.Sprintf(remoteSite, hash(t, "remote password"), startMCPServer(t))
	return origin, strings.ReplaceAll(site, "{REMOTE}", origin)
}

// plainClient connects go-sdk's client without any authorization, or with the
// headers.
func plainClient(t *testing.T, endpoint string, header http.Header) (*mcp.ClientSession, error) {
	t.Helper()
	client := mcp.NewClient(&mcp.Implementation{Name: "go-sdk", Version: "1.0.0"}, nil)
	session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{
		Endpoint: endpoint, HTTPClient: &http.Client{Transport: headerTransport(header)},
	}, nil)
	if err == nil {
		t.Cleanup(func() { _ = session.Close() })
	}
	return session, err
}

type headerTransport http.Header

func (h headerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for name, values := range h {
		r.Header[name] = values
	}
	return http.DefaultTransport.RoundTrip(r)
}

// whoamiAt asks the example MCP server who it thinks calls.
func whoamiAt(ctx context.Context, t *testing.T, session *mcp.ClientSession) identity {
	t.Helper()
	answer, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "whoami"})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(answer.StructuredContent)
	if err != nil {
		t.Fatal(err)
	}
	var id identity
	if err := json.Unmarshal(data, &id); err != nil {
		t.Fatal(err)
	}
	return id
}

var pageLink = regexp.MustCompile(`<a href="([^"]+)"`)

// follow goes on with the link of the page.
func (b *browser) follow() {
	b.t.Helper()
	m := pageLink.FindStringSubmatch(b.page)
	if m == nil {
		b.t.Fatalf("no link on the page at %s:\n%s", b.at, b.page)
	}
	next, err := b.at.Parse(unescape.Replace(m[1]))
	if err != nil {
		b.t.Fatal(err)
	}
	b.open(next.String())
}

// userSite is a broker whose users have grants of their own at the remote; %s
// are the hashes of alice's and bob's passwords, the remote and settings.
const userSite = `
{ORIGIN} {
	log
	mcp_auth {ORIGIN} {
		accounts {
			alice %s
			bob %s
		}
		resource /mcp {
			name "Front"
			scopes mcp:read
			forward none
		}
	}
	reverse_proxy %s {
		transport mcp_oauth {
			%s
		}
	}
}
`

// login returns an access token of the site.
func (c *caddyInstance) login(user, password string) string {
	c.t.Helper()
	id := c.register(testRedirect)
	answer := newBrowser(c.t).signIn(c.Origin+authorizeTarget(id, "s"), user, password)
	return fmt.Sprint(c.mustExchange(id, answer)["access_token"])
}

// call sends a JSON-RPC request to the MCP endpoint.
func (c *caddyInstance) call(token, body string) (*http.Response, string) {
	c.t.Helper()
	header := bearerHeader(token)
	header.Set("Content-Type", "application/json")
	header.Set("Accept", "application/json, text/event-stream")
	return c.send("POST", "/mcp", header, body)
}

const initialize = `{"jsonrpc":"2.0","id":"i1","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`

// TestTransportUserGrants: each user connects an account at the remote once,
// and nobody uses another's.
func TestTransportUserGrants(t *testing.T) {
	origin, remote := newRemoteSite(t)
	c := newCaddy(t)
	site := fmt.Sprintf(userSite, hash(t, "correct horse"), hash(t, "battery staple"), origin, "user {ORIGIN}") + remote
	globals := fmt.Sprintf("\tmcp_auth {\n\t\tstore bbolt %s/grants.db\n\t}", c.dir)
	if err := c.load(globals, site); err != nil {
		t.Fatal(err)
	}
	alice, bob := c.login("alice", "correct horse"), c.login("bob", "battery staple")

	// Without an account the client gets the page, in the way of MCP.
	resp, body := c.call(alice, initialize)
	var refusal struct {
		ID    string
		Error struct {
			Code    int
			Message string
			Data    struct {
				Elicitations []struct{ Mode, URL, ElicitationID string }
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &refusal); err != nil || resp.StatusCode != 200 || refusal.ID != "i1" ||
		refusal.Error.Code != -32042 || len(refusal.Error.Data.Elicitations) != 1 || refusal.Error.Data.Elicitations[0].Mode != "url" {
		t.Fatalf("not connected: %d %s", resp.StatusCode, body)
	}
	link := refusal.Error.Data.Elicitations[0].URL
	if resp, body := c.send("GET", "/mcp", bearerHeader(alice), ""); resp.StatusCode != 403 || !strings.Contains(body, link) || resp.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("not connected, GET: %d %v %s", resp.StatusCode, resp.Header, body)
	}

	// The link works for whoever signs in, and for nobody else.
	person := newBrowser(t)
	connect := func(b *browser, user, password string) {
		t.Helper()
		b.open(link)
		b.submit(url.Values{"username": {user}, "password": {password}})
		b.follow()
		b.allow()
		b.submit(url.Values{"username": {"carol"}, "password": {"remote password"}})
		b.follow()
	}
	connect(person, "alice", "correct horse")
	if !strings.Contains(person.page, "is connected") || person.resp.StatusCode != 200 {
		t.Fatalf("%s %d %s", person.at, person.resp.StatusCode, person.page)
	}
	used := strings.Replace(person.at.String(), "/finish?", "/callback?", 1)

	session, err := plainClient(t, c.Origin+"/mcp", bearerHeader(alice))
	if err != nil {
		t.Fatal(err)
	}
	if id := whoamiAt(t.Context(), t, session); id.User != "carol" || id.Authorization {
		t.Errorf("at the remote alice is %+v", id)
	}
	if resp, body := c.call(bob, initialize); !strings.Contains(body, "-32042") {
		t.Errorf("bob uses alice's account: %d %s", resp.StatusCode, body)
	}

	// The callback works once, and in the browser that began.
	for name, b := range map[string]*browser{"same browser": person, "another browser": newBrowser(t)} {
		b.open(used)
		if b.resp.StatusCode != 400 || strings.Contains(b.page, "is connected") {
			t.Errorf("replay in %s: %d %s", name, b.resp.StatusCode, b.page)
		}
	}
	// A callback of one user's login in the browser of another's.
	mallory, victim := newBrowser(t), newBrowser(t)
	signIn := func(b *browser, user, password string) {
		t.Helper()
		b.open(link)
		b.submit(url.Values{"username": {user}, "password": {password}})
	}
	signIn(victim, "bob", "battery staple")
	victim.follow()
	signIn(mallory, "alice", "correct horse")
	mallory.follow()
	mallory.client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasSuffix(req.URL.Path, "/callback") && strings.Contains(req.URL.Path, "/connect/") {
			return http.ErrUseLastResponse
		}
		return nil
	}
	mallory.allow()
	mallory.submit(url.Values{"username": {"carol"}, "password": {"remote password"}})
	location := mallory.resp.Header.Get("Location")
	if !strings.Contains(location, "code=") {
		t.Fatalf("no callback to steal: %d %s", mallory.resp.StatusCode, mallory.page)
	}
	victim.open(location)
	if strings.Contains(victim.page, "is connected") {
		t.Error("a stolen callback connects an account to another user")
	}
	if _, body := c.call(bob, initialize); !strings.Contains(body, "-32042") {
		t.Errorf("bob has got an account: %s", body)
	}

	// Where a sign-in leads cannot be forged.
	forged := newBrowser(t)
	forged.open(link)
	at, err := url.Parse(c.Origin)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, cookie := range forged.client.Jar.Cookies(at) {
		if strings.HasPrefix(cookie.Name, "mcp_n_") {
			found = true
			cookie.Value, cookie.Path = "//evil.example", "/"
			forged.client.Jar.SetCookies(at, []*http.Cookie{cookie})
		}
	}
	forged.submit(url.Values{"username": {"alice"}, "password": {"correct horse"}})
	if m := pageLink.FindStringSubmatch(forged.page); !found || m == nil || m[1] != "/mcp-auth/connections" {
		t.Errorf("with a forged cookie (%t) the sign-in leads to %v", found, m)
	}

	// Grants outlive a reload.
	if err := c.load(globals, site+"\n"); err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections() // Caddy has closed them
	if session, err = plainClient(t, c.Origin+"/mcp", bearerHeader(alice)); err != nil {
		t.Fatal(err)
	}
	if id := whoamiAt(t.Context(), t, session); id.User != "carol" {
		t.Errorf("after a reload alice is %+v", id)
	}
	for line := range strings.Lines(c.log()) {
		if strings.Contains(line, "code=") || strings.Contains(line, "remote password") {
			t.Errorf("a secret is in the log: %s", line)
		}
	}
}

// TestTransportUpstreamToken: the user's token of the identity provider goes to
// a server that it was asked for, and nowhere else.
func TestTransportUpstreamToken(t *testing.T) {
	idp, b := newSignInIDP(t), newBackend(t)
	load := func(c *caddyInstance, param, credentials string) error {
		site := fmt.Sprintf(upstreamSite, idp.URL, "", b.URL+" {\ntransport mcp_oauth {\n"+credentials+"\n}\n}")
		return c.load(memoryStore, strings.Replace(site, "client_id broker", "client_id broker\n"+param, 1))
	}
	for name, test := range map[string]struct{ param, credentials, want string }{
		"not asked for":    {"", "authorization_server " + idp.URL + "\nupstream_token", "token passthrough"},
		"for another":      {"param resource https://other.example/mcp", "authorization_server " + idp.URL + "\nupstream_token", "token passthrough"},
		"of another":       {"param resource " + b.URL + "/mcp", "authorization_server https://other.example\nupstream_token", "token passthrough"},
		"of another site":  {"param resource " + b.URL + "/mcp", "authorization_server " + idp.URL + "\nupstream_token https://other.example", "has the issuer"},
		"without a server": {"param resource " + b.URL + "/mcp", "upstream_token", "could name any other"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := load(newCaddy(t), test.param, test.credentials); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
	c := newCaddy(t)
	if err := load(c, "param resource "+b.URL+"/mcp", "authorization_server "+idp.URL+"\nupstream_token"); err != nil {
		t.Fatal(err)
	}
	id := c.register(testRedirect)
	person := newBrowser(t)
	person.open(c.Origin + authorizeTarget(id, "s"))
	tokens := c.mustExchange(id, mustArrive(t, c, person.allow(), nil))
	if got := c.uses(tokens); got != 200 {
		t.Fatalf("status %d", got)
	}
	requests := b.take()
	got := requests[len(requests)-1].Header.Get("Authorization")
	if !strings.HasPrefix(got, "Bearer ") || strings.Contains(got, fmt.Sprint(tokens["access_token"])) || got == "Bearer " {
		t.Errorf("the server got %q", got)
	}

	// What the user's token does not allow is the caller's matter; a token that the
	// server does not take is the operator's.
	for challenge, want := range map[string]string{
		`Bearer error="insufficient_scope", scope="admin"`: "403 access_denied",
		`Bearer error="invalid_token"`:                     "502 server_error",
		"":                                                 "403 ",
	} {
		b.mu.Lock()
		b.answer = func(w http.ResponseWriter, _ *http.Request) {
			if challenge != "" {
				w.Header().Set("WWW-Authenticate", challenge)
			}
			w.WriteHeader(http.StatusForbidden)
		}
		b.mu.Unlock()
		resp, body := c.send("GET", "/mcp", bearerHeader(fmt.Sprint(tokens["access_token"])), "")
		var answer struct{ Error string }
		_ = json.Unmarshal([]byte(body), &answer)
		if got := fmt.Sprint(resp.StatusCode, " ", answer.Error); got != want || resp.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %s, want %s", challenge, got, want)
		}
	}
}
