package caddytest_test

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

var connectLink = regexp.MustCompile(`http[^" ]*/mcp-auth/connect/[0-9a-f]+`)

// loadUserSite loads userSite before the remote.
func loadUserSite(t *testing.T, remote string) *caddyInstance {
	t.Helper()
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(userSite, hash(t, "correct horse"), hash(t, "battery staple"), remote, "user")); err != nil {
		t.Fatal(err)
	}
	return c
}

// mustAskToConnect fails unless the answer is the link for the request's user.
func mustAskToConnect(t *testing.T, when string, resp *http.Response, body string) (link string) {
	t.Helper()
	link = connectLink.FindString(body)
	if resp.StatusCode != 200 || !strings.Contains(body, "-32042") || !strings.Contains(body, `"id":"i1"`) || link == "" {
		t.Errorf("%s: %d %s, want the error -32042 for the request with the link", when, resp.StatusCode, body)
	}
	return link
}

// connectTo opens the page and goes on to the remote.
func (b *browser) connectTo(link, user, password string) {
	b.t.Helper()
	b.open(link)
	if strings.Contains(b.page, `name="password"`) {
		b.submit(url.Values{"username": {user}, "password": {password}})
		b.follow()
	}
}

// heldBack makes the browser stop where the remote sends it back to, and returns
// that.
func (b *browser) heldBack(fn func()) (callback string) {
	b.t.Helper()
	before := b.client.CheckRedirect
	defer func() { b.client.CheckRedirect = before }()
	b.client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasSuffix(req.URL.Path, "/callback") {
			return http.ErrUseLastResponse
		}
		return nil
	}
	fn()
	if callback = b.resp.Header.Get("Location"); !strings.Contains(callback, "code=") {
		b.t.Fatalf("%s answered %d, and no way back: %s", b.at, b.resp.StatusCode, b.page)
	}
	return callback
}

// TestTransportConnectTabs: two tabs of one browser both connect, in any order.
func TestTransportConnectTabs(t *testing.T) {
	r := newPeopleRemote(t)
	c := loadUserSite(t, r.URL)
	alice := c.login("alice", "correct horse")
	resp, body := c.call(alice, initialize)
	link := mustAskToConnect(t, "at first", resp, body)
	person := newBrowser(t)
	var tabs []string
	for range 2 {
		tabs = append(tabs, person.heldBack(func() { person.connectTo(link, "alice", "correct horse") }))
	}
	for i, callback := range tabs {
		person.open(callback)
		person.follow()
		if person.resp.StatusCode != 200 || !strings.Contains(person.page, "is connected") {
			t.Errorf("tab %d: %d %s", i, person.resp.StatusCode, person.page)
		}
		person.open(callback)
		if person.resp.StatusCode != 400 {
			t.Errorf("tab %d again: %d %s", i, person.resp.StatusCode, person.page)
		}
	}
	if resp, body := c.call(alice, initialize); resp.StatusCode != 200 || body != "people:hello" {
		t.Errorf("connected: %d %s", resp.StatusCode, body)
	}
}

// TestTransportConnectForAnother: with the cookie of one user, however it came
// there, another one's browser does not connect an account for the first.
func TestTransportConnectForAnother(t *testing.T) {
	r := newPeopleRemote(t)
	c := loadUserSite(t, r.URL)
	mallory := c.login("alice", "correct horse")
	resp, body := c.call(mallory, initialize)
	link := mustAskToConnect(t, "at first", resp, body)
	at, err := url.Parse(c.Origin)
	if err != nil {
		t.Fatal(err)
	}
	attacker := newBrowser(t)
	callback := attacker.heldBack(func() { attacker.connectTo(link, "alice", "correct horse") })

	for name, signedIn := range map[string]bool{"a user who is signed in": true, "a browser that was never here": false} {
		victim := newBrowser(t)
		if signedIn {
			victim.heldBack(func() { victim.connectTo(link, "bob", "battery staple") })
		}
		tossed := false
		for _, cookie := range attacker.client.Jar.Cookies(at) {
			if strings.Contains(cookie.Name, "mcp_r_") {
				cookie.Path = "/"
				victim.client.Jar.SetCookies(at, []*http.Cookie{cookie})
				tossed = true
			}
		}
		if !tossed {
			t.Fatal("there is no cookie of the login")
		}
		victim.open(callback)
		if !strings.Contains(victim.page, "is connected") && pageLink.MatchString(victim.page) {
			victim.follow()
		}
		if strings.Contains(victim.page, "is connected") || signedIn && victim.resp.StatusCode != 403 {
			t.Errorf("%s: %d %s", name, victim.resp.StatusCode, victim.page)
		}
		resp, body := c.call(mallory, initialize)
		mustAskToConnect(t, "after "+name, resp, body)
	}
}

// TestTransportConnectCookie: other hosts of the domain cannot set the cookie of
// a login.
func TestTransportConnectCookie(t *testing.T) {
	r := newPeopleRemote(t)
	cert, key, roots := localCertificate(t)
	c := newCaddy(t)
	site := fmt.Sprintf(userSite, hash(t, "correct horse"), hash(t, "battery staple"), r.URL, "user")
	site = strings.ReplaceAll(site, "{ORIGIN}", "https://localhost:{PORT}")
	site = strings.Replace(site, "\tlog\n", "\ttls "+cert+" "+key+"\n", 1)
	if err := c.load(memoryStore+"\n\tservers {\n\t\tprotocols h1 h2\n\t}", site); err != nil {
		t.Fatal(err)
	}
	origin := fmt.Sprintf("https://localhost:%d", c.Port)
	person := newBrowser(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	t.Cleanup(transport.CloseIdleConnections)
	person.client.Transport = transport
	var set []*http.Cookie
	person.client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if req.Response != nil {
			set = append(set, req.Response.Cookies()...)
		}
		return nil
	}
	sum := sha256.Sum256([]byte(r.URL + "/mcp"))
	person.connectTo(fmt.Sprintf("%s/mcp-auth/connect/%x", origin, sum[:6]), "alice", "correct horse")
	var found *http.Cookie
	for _, cookie := range set {
		if strings.Contains(cookie.Name, "mcp_r_") {
			found = cookie
		}
	}
	if found == nil || !strings.HasPrefix(found.Name, "__Host-") || found.Path != "/" || found.Domain != "" || !found.Secure || !found.HttpOnly || found.SameSite != http.SameSiteLaxMode {
		t.Errorf("the cookie is %v", found)
	}
	person.follow()
	if !strings.Contains(person.page, "is connected") {
		t.Errorf("%d %s", person.resp.StatusCode, person.page)
	}
}

// TestTransportUserEnded: a user whose grant has run out, or was ended, is asked
// to connect the account again, with the id of the request, and the dead token
// is not sent again.
func TestTransportUserEnded(t *testing.T) {
	r := newPeopleRemote(t)
	r.noRefresh = true
	c := loadUserSite(t, r.URL)
	alice := c.login("alice", "correct horse")
	resp, body := c.call(alice, initialize)
	link := mustAskToConnect(t, "at first", resp, body)
	person := newBrowser(t)
	connect := func(when string) {
		t.Helper()
		person.connectTo(link, "alice", "correct horse")
		person.follow()
		if !strings.Contains(person.page, "is connected") {
			t.Fatalf("%s: %d %s", when, person.resp.StatusCode, person.page)
		}
		if resp, body := c.call(alice, initialize); resp.StatusCode != 200 || body != "people:hello" {
			t.Fatalf("%s: %d %s", when, resp.StatusCode, body)
		}
		r.set(func() { r.calls = 0 })
	}
	calls := func(when string, want int) {
		t.Helper()
		r.set(func() {
			if r.calls != want {
				t.Errorf("%s: %d requests at the server, want %d", when, r.calls, want)
			}
		})
	}

	r.set(func() { r.expiresIn = 1 })
	connect("for a second")
	time.Sleep(1100 * time.Millisecond) // it expires
	resp, body = c.call(alice, initialize)
	mustAskToConnect(t, "expired", resp, body)
	calls("expired", 0)

	r.set(func() { r.expiresIn = 0 })
	connect("for ever")
	r.set(func() { clear(r.access) })
	for range 3 {
		resp, body = c.call(alice, initialize)
		mustAskToConnect(t, "ended", resp, body)
	}
	calls("ended", 1)

	// A server that has forgotten the client is no dead end either.
	r.set(func() { r.noRefresh = false })
	connect("with a refresh token")
	r.forget()
	resp, body = c.call(alice, initialize)
	mustAskToConnect(t, "forgotten client", resp, body)
	connect("with another client")
}
