package caddytest_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// upstreamSite is a broker with a signInIDP; %s are its issuer, further
// settings, and the server behind.
const upstreamSite = `
{ORIGIN} {
	log
	mcp_auth {ORIGIN} {
		upstream oidc %s {
			client_id broker
			client_secret secret-of-the-broker
		}
		resource /mcp {
			name "Notes"
			scopes mcp:read
		}
		%s
	}
	reverse_proxy %s
}
`

// loadUpstream loads upstreamSite with a signInIDP.
func loadUpstream(t *testing.T, settings string) (*caddyInstance, *signInIDP) {
	t.Helper()
	idp := newSignInIDP(t)
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(upstreamSite, idp.URL, settings, newBackend(t).addr())); err != nil {
		t.Fatal(err)
	}
	return c, idp
}

// uses returns the status that a request with the access token gets.
func (c *caddyInstance) uses(tokens map[string]any) int {
	c.t.Helper()
	resp, _ := c.send("GET", "/mcp", bearerHeader(fmt.Sprint(tokens["access_token"])), "")
	return resp.StatusCode
}

// mustExchange redeems a code.
func (c *caddyInstance) mustExchange(id string, answer url.Values) map[string]any {
	c.t.Helper()
	resp, tokens := c.exchange(id, answer.Get("code"))
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("no tokens for the answer %v: %d %v", answer, resp.StatusCode, tokens)
	}
	return tokens
}

// allow presses Allow on the consent page, and returns the answer to the client
// if the browser is sent there.
func (b *browser) allow() *url.URL {
	b.t.Helper()
	return b.submit(b.button("Allow"))
}

// mustArrive fails unless the browser was sent to the client with these
// parameters, and returns all that it was sent there with.
func mustArrive(t *testing.T, c *caddyInstance, arrived *url.URL, want url.Values) url.Values {
	t.Helper()
	if arrived == nil {
		t.Fatal("the browser was not sent to the client")
	}
	got := arrived.Query()
	for name := range want {
		if got.Get(name) != want.Get(name) {
			t.Fatalf("the client was sent %v, want %v", got, want)
		}
	}
	if got.Get("iss") != c.Origin {
		t.Errorf("the answer to the client has iss %q", got.Get("iss"))
	}
	return got
}

// mustStay fails unless the browser is on a page of ours with this status.
func (b *browser) mustStay(arrived *url.URL, status int) {
	b.t.Helper()
	switch {
	case arrived != nil:
		b.t.Fatalf("the browser was sent to the client: %s", arrived)
	case b.resp.StatusCode != status || !strings.HasPrefix(b.resp.Header.Get("Content-Type"), "text/html"):
		b.t.Fatalf("%s answered %d %s, want a page with %d:\n%.400s", b.at, b.resp.StatusCode, b.resp.Header.Get("Content-Type"), status, b.page)
	}
}

// TestBrokerUpstreamAnswers: whatever the identity provider answers, the client
// gets an OAuth error or the user a page, and nobody a code.
func TestBrokerUpstreamAnswers(t *testing.T) {
	c, idp := loadUpstream(t, "allow email *@example.com")
	id := c.register(testRedirect)
	set := func(name, value string) func(url.Values) { return func(q url.Values) { q.Set(name, value) } }
	fail := func(code string) func(url.Values) {
		return func(q url.Values) {
			q.Del("code")
			q.Set("error", code)
			q.Set("error_description", "<b>secret words</b>")
		}
	}
	for _, row := range []struct {
		name   string
		answer func(url.Values)
		user   map[string]any
		code   string // to the client
		page   int    // to the user
	}{
		{name: "the user denies", answer: fail("access_denied"), code: "access_denied"},
		{name: "it has trouble", answer: fail("server_error"), code: "temporarily_unavailable"},
		{name: "it does not like our request", answer: fail("invalid_scope"), code: "temporarily_unavailable"},
		{name: "neither code nor error", answer: func(q url.Values) { q.Del("code") }, code: "temporarily_unavailable"},
		{name: "a code it does not know", answer: set("code", "stolen"), page: http.StatusBadRequest},
		{name: "mix-up: the iss of another", answer: set("iss", "https://other.example"), code: "temporarily_unavailable"},
		{name: "mix-up: no iss though announced", answer: func(q url.Values) { q.Del("iss") }, code: "temporarily_unavailable"},
		{name: "mix-up: an error of another", answer: func(q url.Values) { fail("access_denied")(q); q.Set("iss", "https://other.example") }, code: "temporarily_unavailable"},
		{name: "state changed", answer: set("state", strings.Repeat("A", 43)), page: http.StatusBadRequest},
		{name: "no state", answer: func(q url.Values) { q.Del("state") }, page: http.StatusBadRequest},
		{name: "state twice", answer: func(q url.Values) { q.Add("state", q.Get("state")) }, page: http.StatusBadRequest},
		{name: "code twice", answer: func(q url.Values) { q.Add("code", q.Get("code")) }, code: "temporarily_unavailable"},
		{
			name: "unverified mail against allow email", code: "access_denied",
			user: map[string]any{"sub": "m-1", "email": "mallory@example.com", "email_verified": false},
		},
		{
			name: "unverified mail by silence", code: "access_denied",
			user: map[string]any{"sub": "m-1", "email": "mallory@example.com"},
		},
		{
			name: "mail of another domain", code: "access_denied",
			user: map[string]any{"sub": "m-1", "email": "mallory@example.com.evil.example", "email_verified": true},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			idp.answers(row.answer)
			if row.user == nil {
				row.user = aliceClaims
			}
			idp.signsIn(row.user)
			asked := idp.count("/token")
			b := newBrowser(t)
			b.open(c.Origin + authorizeTarget(id, "s1"))
			arrived := b.allow()
			if row.page != 0 {
				b.mustStay(arrived, row.page)
				if strings.Contains(b.page, "stolen") {
					t.Errorf("the page repeats what it was given:\n%s", b.page)
				}
				return
			}
			got := mustArrive(t, c, arrived, url.Values{"error": {row.code}, "state": {"s1"}})
			if got.Has("code") || strings.Contains(arrived.RawQuery, "secret") {
				t.Errorf("the client was sent %v", got)
			}
			if strings.HasPrefix(row.name, "mix-up") && idp.count("/token") != asked {
				t.Error("the code was sent to the identity provider")
			}
		})
	}
}

// TestBrokerAnotherUser: what alice allowed in this browser is not allowed when
// bob signs in there.
func TestBrokerAnotherUser(t *testing.T) {
	c, idp := loadUpstream(t, "allow any")
	id := c.register(testRedirect)
	b := newBrowser(t)
	b.open(c.Origin + authorizeTarget(id, "s1"))
	mustArrive(t, c, b.allow(), url.Values{"state": {"s1"}})
	// Remembered: no page …
	mustArrive(t, c, b.open(c.Origin+authorizeTarget(id, "s2")), url.Values{"state": {"s2"}})
	// … but for bob.
	idp.signsIn(map[string]any{"sub": "b-1", "email": "bob@example.com", "email_verified": true})
	b.mustStay(b.open(c.Origin+authorizeTarget(id, "s3")), http.StatusOK)
	if !strings.Contains(b.page, "bob@example.com") || !strings.Contains(b.page, "Allow") {
		t.Errorf("no question to bob:\n%s", b.page)
	}
	// Nor is bob's word alice's, should she come back now.
	idp.signsIn(aliceClaims)
	arrived := b.allow()
	b.mustStay(arrived, http.StatusOK)
	if !strings.Contains(b.page, "alice@example.com") {
		t.Errorf("no question to alice:\n%s", b.page)
	}
	answer := mustArrive(t, c, b.allow(), url.Values{"state": {"s3"}})
	if tokens := c.mustExchange(id, answer); c.uses(tokens) != 200 {
		t.Error("the token is refused")
	}
}

// TestBrokerNeverSilentOnThisDevice: consent for a loopback redirect URI is not
// remembered, whoever asks may be any program.
func TestBrokerNeverSilentOnThisDevice(t *testing.T) {
	c, _ := loadUpstream(t, "allow any")
	const redirectURI = "http://127.0.0.1:41995/callback"
	id := c.register(redirectURI)
	target := c.Origin + strings.Replace(authorizeTarget(id, "s"), url.QueryEscape(testRedirect), url.QueryEscape(redirectURI), 1)
	b := newBrowser(t)
	b.client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), redirectURI) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	for range 2 {
		b.mustStay(b.open(target), http.StatusOK)
		b.allow()
		if location := b.resp.Header.Get("Location"); !strings.HasPrefix(location, redirectURI+"?") || !strings.Contains(location, "code=") {
			t.Fatalf("Allow led to %d %q", b.resp.StatusCode, location)
		}
	}
}

// newListener counts the connections that somebody makes to it.
func newListener(t *testing.T) (addr string, connections func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	ts.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			mu.Lock()
			n++
			mu.Unlock()
		}
	}
	ts.Start()
	t.Cleanup(ts.Close)
	return ts.Listener.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}
