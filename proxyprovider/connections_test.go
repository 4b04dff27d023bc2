package proxyprovider_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// connect makes a grant whose code was redeemed.
func (b *brokerBrowser) connect(client, user string) {
	b.w.t.Helper()
	page := b.get(b.w.authorizeURL(client))
	if page.location == "" {
		page = page.allow()
	}
	end := b.get(b.w.upstream.signIn(b.w.t, page.location, user))
	if _, err := b.w.redeem(client, end.code(client)); err != nil {
		b.w.t.Fatal(err)
	}
}

// connections signs in at the page of connected apps and returns it.
func (b *brokerBrowser) connections(user string) *brokerPage {
	b.w.t.Helper()
	sent := b.get(b.w.issuer+"/mcp-auth/connections").submit("action", "sign-in")
	sent.wantSilent()
	if !b.w.upstream.request(query(sent.location).Get("state")).MinimalScope {
		b.w.t.Error("more than who the user is was asked for")
	}
	next := b.get(b.w.upstream.signIn(b.w.t, sent.location, user))
	if next.status != http.StatusOK || !strings.Contains(next.body, `<meta http-equiv="refresh" content="0;url=/mcp-auth/connections">`) {
		b.w.t.Fatalf("status %d:\n%s", next.status, next.body)
	}
	session := b.cookiesNamed("__Host-mcp_s")
	if len(session) != 1 {
		b.w.t.Fatal("there is no session")
	}
	for _, c := range next.cookies {
		if c.Name == session[0].Name && (c.SameSite != http.SameSiteStrictMode || !c.HttpOnly || !c.Secure || c.MaxAge != 900) {
			b.w.t.Errorf("the session's cookie: %+v", c)
		}
	}
	return b.get(b.w.issuer + "/mcp-auth/connections")
}

func TestConnectionsPage(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	b.connect(webClient, "alice")
	b.connect(loopbackClient, "alice")
	b.connect(documentClient, "alice")
	b.connect(otherClient, "bob")
	page := b.connections("alice")
	for _, want := range []string{
		"Web client", "<bdi>client.example</bdi>", "Desktop client", "127.0.0.1:33418", "Document client", "Example MCP", "<code>mcp:read</code>", "2026-07-28",
	} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %q:\n%s", want, page.body)
		}
	}
	if strings.Contains(page.body, "Other client") {
		t.Error("alice sees what bob allowed")
	}
	if got := strings.Join(w.upstream.revoked, " "); got != "up-alice" {
		t.Errorf("the tokens of the page's own login: revoked %q", got)
	}
	ids := revokeButtons(page)
	if len(ids) != 3 {
		t.Fatalf("%d apps", len(ids))
	}
	done := page.submit("revoke", ids[0])
	if done.status != http.StatusSeeOther || done.location != "/mcp-auth/connections?done=one" {
		t.Fatalf("%d %q", done.status, done.location)
	}
	page = b.get(w.issuer + done.location)
	if left := revokeButtons(page); len(left) != 2 || !strings.Contains(page.body, "The access was removed.") {
		t.Errorf("left %v:\n%s", left, page.body)
	}
	page.submit("revoke", ids[0]) // twice is as good as once
	page.submit("action", "revoke-all")
	page = b.get(w.issuer + "/mcp-auth/connections?done=all")
	if !strings.Contains(page.body, "No app has access in your name.") || !strings.Contains(page.body, "All access was removed.") {
		t.Errorf("after all:\n%s", page.body)
	}
	if n := len(revokeButtons(w.browser().connections("bob"))); n != 1 {
		t.Errorf("bob has %d apps: alice ended his", n)
	}
	page.submit("action", "sign-out")
	if len(b.cookiesNamed("__Host-mcp_s")) != 0 || !strings.Contains(b.get(w.issuer+"/mcp-auth/connections").body, `value="sign-in"`) {
		t.Error("still signed in")
	}
}

func revokeButtons(p *brokerPage) (ids []string) {
	for _, part := range strings.Split(p.body, `name="revoke" value="`)[1:] {
		id, _, _ := strings.Cut(part, `"`)
		ids = append(ids, id)
	}
	return ids
}

// TestConnectionsAttacks: nobody revokes for somebody else, and no session of
// the page is good for anything else.
func TestConnectionsAttacks(t *testing.T) {
	w := newBrokerWorld(t)
	sibling := newBrokerWorld(t, func(o *brokerWorld) { o.ring = w.ring })
	alice, bob := w.browser(), w.browser()
	alice.connect(webClient, "alice")
	alicesPage := alice.connections("alice")
	bobsPage := bob.connections("bob")
	id := revokeButtons(alicesPage)[0]
	action, form := alicesPage.form()
	form.Set("revoke", id)
	_, bobsForm := bobsPage.form()
	to := w.issuer + "/mcp-auth/connections"
	rows := []struct {
		name   string
		status int
		text   string
		post   func() *brokerPage
	}{
		{"CSRF", http.StatusForbidden, "another website", func() *brokerPage {
			return alice.do("POST", action, form, "Sec-Fetch-Site", "cross-site")
		}},
		{"CSRF without a token", http.StatusBadRequest, "not valid", func() *brokerPage {
			return alice.do("POST", action, url.Values{"revoke": {id}})
		}},
		{"a token of another browser", http.StatusBadRequest, "did not send its cookie", func() *brokerPage {
			return alice.do("POST", action, url.Values{"revoke": {id}, "token": bobsForm["token"]})
		}},
		{"a token of before the sign-in", http.StatusBadRequest, "not valid", func() *brokerPage {
			fresh := w.browser()
			_, before := fresh.get(to).form()
			fresh.connections("alice")
			return fresh.do("POST", action, url.Values{"revoke": {id}, "token": before["token"]})
		}},
		{"a consent form as the token", http.StatusBadRequest, "not valid", func() *brokerPage {
			_, consent := alice.get(w.authorizeURL(otherClient)).form()
			return alice.do("POST", action, url.Values{"revoke": {id}, "token": consent["request"]})
		}},
		{"a link", http.StatusOK, "Apps with access", func() *brokerPage { return alice.get(to + "?revoke=" + id) }},
		{"somebody else's grant", 0, "", func() *brokerPage { return bobsPage.submit("revoke", id) }},
		{"no session", http.StatusSeeOther, "", func() *brokerPage {
			stranger := w.browser()
			stranger.setCookies(alice.cookiesNamed("__Host-mcp_b")...)
			return stranger.do("POST", action, form)
		}},
		{"a session of another issuer", http.StatusSeeOther, "", func() *brokerPage {
			theirs := sibling.browser()
			theirs.connections("alice")
			stranger := w.browser()
			stranger.setCookies(alice.cookiesNamed("__Host-mcp_b")...)
			stranger.setCookies(&http.Cookie{Name: alice.cookiesNamed("__Host-mcp_s")[0].Name, Value: theirs.cookiesNamed("__Host-mcp_s")[0].Value})
			return stranger.do("POST", action, form)
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			page := row.post()
			if row.status != 0 && (page.status != row.status || !strings.Contains(page.body, row.text)) {
				t.Errorf("status %d, location %q:\n%s", page.status, page.location, page.body)
			}
			if n := len(revokeButtons(alice.get(to))); n != 1 {
				t.Fatalf("alice has %d apps left", n)
			}
		})
	}
	t.Run("a session is over after 15 minutes", func(t *testing.T) {
		w.clock.advance(15*time.Minute - time.Second)
		if len(revokeButtons(alice.get(to))) != 1 {
			t.Error("too early")
		}
		w.clock.advance(time.Second)
		if page := alice.get(to); !strings.Contains(page.body, `value="sign-in"`) {
			t.Errorf("still signed in:\n%s", page.body)
		}
	})
}

// TestPurposesDoNotMix: a login for the page makes no grant, and one for a
// client no session.
func TestPurposesDoNotMix(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	b.connections("alice")
	if w.grantCount() != 0 {
		t.Error("signing in at the page made a grant")
	}
	other := w.browser()
	other.connect(webClient, "alice")
	if len(other.cookiesNamed("__Host-mcp_s")) != 0 {
		t.Error("signing in for a client made a session")
	}
	// The form of the page does not pass as consent.
	_, form := other.get(w.issuer + "/mcp-auth/connections").form()
	other.do("POST", w.issuer+"/mcp-auth/consent", url.Values{"request": form["token"], "decision": {"allow"}}).
		wantPage(http.StatusBadRequest, "not valid")
}

// TestConnectionsRefused: the rules hold here too, and errors end on a page.
func TestConnectionsRefused(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	begin := func() string {
		return b.get(w.issuer+"/mcp-auth/connections").submit("action", "sign-in").location
	}
	b.get(w.upstream.signIn(t, begin(), "eve")).wantPage(http.StatusForbidden, "You were not signed in")
	back := w.upstream.signIn(t, begin(), "alice")
	b.get(back+"&error=access_denied").wantPage(http.StatusForbidden, "You were not signed in")
	if len(b.cookiesNamed("__Host-mcp_s")) != 0 {
		t.Error("there is a session")
	}
	page := b.connections("alice")
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	page.submit("action", "revoke-all").wantPage(http.StatusServiceUnavailable, "does not work at the moment")
	b.get(w.issuer+"/mcp-auth/connections").wantPage(http.StatusServiceUnavailable, "does not work at the moment")
}

// TestConnectionsWithAccounts asks for the password at once.
func TestConnectionsWithAccounts(t *testing.T) {
	w := newBrokerWorld(t, withAccounts)
	b := w.browser()
	code := b.get(w.authorizeURL(webClient)).allow().signIn("alice", "correct horse").code(webClient)
	if _, err := w.redeem(webClient, code); err != nil {
		t.Fatal(err)
	}
	to := w.issuer + "/mcp-auth/connections"
	login := b.get(to).wantLogin(http.StatusOK, "Sign in to see which apps have access.")
	login.signIn("alice", "wrong").wantLogin(http.StatusForbidden, "is wrong")
	login.signIn("eve", "correct horse").wantPage(http.StatusForbidden, "You were not signed in")
	if page := login.signIn("alice", "correct horse"); page.status != http.StatusOK || len(b.cookiesNamed("__Host-mcp_s")) != 1 {
		t.Fatalf("status %d:\n%s", page.status, page.body)
	}
	page := b.get(to)
	if len(revokeButtons(page)) != 1 || !strings.Contains(page.body, "Web client") {
		t.Errorf("the page:\n%s", page.body)
	}
	page.submit("action", "revoke-all")
	if len(revokeButtons(b.get(to))) != 0 {
		t.Error("nothing was revoked")
	}
}
