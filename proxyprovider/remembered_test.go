package proxyprovider_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestRememberedConsent: alice has allowed the web client two scopes.
func TestRememberedConsent(t *testing.T) {
	rows := []struct {
		name   string
		silent bool
		change func(w *brokerWorld, b *brokerBrowser) *brokerBrowser
		client string
		query  []string
	}{
		{name: "the same again", silent: true},
		{name: "fewer scopes", silent: true, query: []string{"scope", "mcp:write"}},
		{name: "in another order", silent: true, query: []string{"scope", "mcp:write mcp:read"}},
		{name: "more scopes", query: []string{"scope", "mcp:read mcp:write mcp:admin"}},
		{name: "another scope", query: []string{"scope", "mcp:admin"}},
		{name: "offline_access besides", query: []string{"scope", "mcp:read offline_access"}},
		{name: "another redirect URI of the client", query: []string{"redirect_uri", "https://client.example/other"}},
		{name: "another resource", query: []string{"resource", secondResource}},
		{name: "another client", client: otherClient},
		{name: "prompt=consent", query: []string{"prompt", "consent"}},
		{name: "the client has another name now", change: func(w *brokerWorld, b *brokerBrowser) *brokerBrowser {
			w.clients.set(func(s *brokerClients) { s.clients[webClient].ClientName = "Web client!" })
			return b
		}},
		{name: "a day before its end", silent: true, change: func(w *brokerWorld, b *brokerBrowser) *brokerBrowser {
			w.clock.advance(89 * 24 * time.Hour)
			return b
		}},
		{name: "at its end", change: func(w *brokerWorld, b *brokerBrowser) *brokerBrowser {
			w.clock.advance(90 * 24 * time.Hour)
			return b
		}},
		{name: "another browser", change: func(w *brokerWorld, _ *brokerBrowser) *brokerBrowser { return w.browser() }},
		{name: "an altered cookie", change: func(_ *brokerWorld, b *brokerBrowser) *brokerBrowser {
			c := b.cookiesNamed("__Host-mcp_c")[0]
			b.setCookies(&http.Cookie{Name: c.Name, Value: c.Value[:60] + flip(c.Value[60]) + c.Value[61:]})
			return b
		}},
		{name: "the browser id in its place", change: func(_ *brokerWorld, b *brokerBrowser) *brokerBrowser {
			b.setCookies(&http.Cookie{Name: b.cookiesNamed("__Host-mcp_c")[0].Name, Value: b.cookiesNamed("__Host-mcp_b")[0].Value})
			return b
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := newBrokerWorld(t)
			b := w.browser()
			b.login(webClient, "alice").code(webClient)
			if row.change != nil {
				b = row.change(w, b)
			}
			client := row.client
			if client == "" {
				client = webClient
			}
			page := b.get(w.authorizeURL(client, row.query...))
			if !row.silent {
				page.wantConsent()
				return
			}
			page.wantSilent()
			b.get(w.upstream.signIn(t, page.location, "alice")).code(client)
		})
	}
}

// TestNeverSilentOnThisDevice: RFC 8252 §8.6.
func TestNeverSilentOnThisDevice(t *testing.T) {
	w := newBrokerWorld(t, func(w *brokerWorld) {
		w.clients.preregistered[loopbackClient] = true
		w.clients.preregistered[appClient] = true
		w.clients.clients["tls"] = brokerClient("tls", "TLS on loopback", "https://localhost:8443/cb")
		w.clients.preregistered["tls"] = true
		w.config.Consent.Skip = []string{loopbackClient, appClient, "tls"}
	})
	b := w.browser()
	for _, client := range []string{loopbackClient, appClient, "tls"} {
		for range 2 {
			b.login(client, "alice").code(client) // asks each time
		}
	}
	b.get(w.authorizeURL(appClient, "redirect_uri", "com.example.app://host/cb")).wantConsent()
	if n := len(b.cookiesNamed("__Host-mcp_c")); n != 0 {
		t.Error("there is something remembered")
	}
}

// TestSkip: whom the operator names is not asked for, whoever signs in.
func TestSkip(t *testing.T) {
	w := newBrokerWorld(t, func(w *brokerWorld) { w.config.Consent.Skip = []string{knownClient, documentClient} })
	for _, client := range []string{knownClient, documentClient} {
		b := w.browser()
		for _, user := range []string{"alice", "bob"} {
			sent := b.get(w.authorizeURL(client))
			sent.wantSilent()
			b.get(w.upstream.signIn(t, sent.location, user)).code(client)
		}
		if len(b.cookiesNamed("__Host-mcp_c")) != 0 {
			t.Error("what nobody clicked is remembered")
		}
	}
	w.browser().get(w.authorizeURL(webClient)).wantConsent()
}

// TestRememberNothing: consent { remember off }.
func TestRememberNothing(t *testing.T) {
	w := newBrokerWorld(t, func(w *brokerWorld) { w.config.Consent.Remember = -1 })
	b := w.browser()
	for range 2 {
		page := b.get(w.authorizeURL(webClient))
		if strings.Contains(page.body, "not be asked again") {
			t.Error("the page promises to remember")
		}
		b.get(w.upstream.signIn(t, page.allow().location, "alice")).code(webClient)
	}
}

// TestAnotherUserSignsIn: what alice allowed is not bob's word. He sees the page
// before there is a grant, and the answer is his alone.
func TestAnotherUserSignsIn(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	b.login(webClient, "alice").code(webClient)
	bobs := func() *brokerPage {
		sent := b.get(w.authorizeURL(webClient))
		sent.wantSilent()
		return b.get(w.upstream.signIn(t, sent.location, "bob"))
	}
	page := bobs()
	page.wantConsent()
	if !strings.Contains(page.body, "You are signed in as <bdi><strong>bob@example.com</strong></bdi>") {
		t.Errorf("the page does not say who signed in:\n%s", page.body)
	}
	if w.grantCount() != 1 || len(w.upstream.revoked) != 1 {
		t.Errorf("%d grants, revoked %v", w.grantCount(), w.upstream.revoked)
	}
	page.submit("decision", "deny").wantError(webClient, "access_denied")

	// He allows it, but alice comes back: she is asked again, not him.
	sent := bobs().allow()
	if hint := w.upstream.request(query(sent.location).Get("state")).LoginHint; hint != "bob@example.com" {
		t.Errorf("login hint %q", hint)
	}
	page = b.get(w.upstream.signIn(t, sent.location, "alice"))
	page.wantConsent()
	if !strings.Contains(page.body, "alice@example.com") || w.grantCount() != 1 {
		t.Errorf("%d grants", w.grantCount())
	}

	sent = bobs().allow()
	b.get(w.upstream.signIn(t, sent.location, "bob")).code(webClient)
	if w.grantCount() != 2 {
		t.Errorf("%d grants", w.grantCount())
	}
	// Now both are remembered.
	for _, user := range []string{"alice", "bob"} {
		sent := b.get(w.authorizeURL(webClient))
		sent.wantSilent()
		b.get(w.upstream.signIn(t, sent.location, user)).code(webClient)
	}
	// A third one is not, though somebody of that browser is.
	w.upstream.set(func(u *loginUpstream) {
		carol := *u.users["bob"]
		carol.Subject = "carol"
		u.users["carol"] = &carol
	})
	b.get(w.upstream.signIn(t, b.get(w.authorizeURL(webClient)).location, "carol")).wantConsent()
}

// TestMemoriesEndOneByOne, though they share a cookie, and all of them earlier if
// the operator says so.
func TestMemoriesEndOneByOne(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	b.login(webClient, "alice").code(webClient)
	w.clock.advance(60 * 24 * time.Hour)
	b.login(otherClient, "alice").code(otherClient)
	b.get(w.authorizeURL(webClient)).wantSilent()
	w.clock.advance(30 * 24 * time.Hour)
	b.get(w.authorizeURL(webClient)).wantConsent()
	b.get(w.authorizeURL(otherClient)).wantSilent()
	w.config.Consent.Remember = 30 * 24 * time.Hour
	w.start()
	b.get(w.authorizeURL(otherClient)).wantConsent()
}

// TestMemoryIsBounded: the oldest are forgotten, and the cookie stays one.
func TestMemoryIsBounded(t *testing.T) {
	w := newBrokerWorld(t)
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf("https://client.example/cb/%d", i)
	}
	w.clients.set(func(s *brokerClients) {
		s.clients[webClient].RedirectURIs = append(s.clients[webClient].RedirectURIs, many...)
	})
	b := w.browser()
	for _, redirect := range many {
		b.get(w.upstream.signIn(t, b.get(w.authorizeURL(webClient, "redirect_uri", redirect)).allow().location, "alice"))
	}
	cookies := b.cookiesNamed("__Host-mcp_c")
	if len(cookies) != 1 || len(cookies[0].Value) > 3584 {
		t.Fatalf("%d cookies, %d characters", len(cookies), len(cookies[0].Value))
	}
	b.get(w.authorizeURL(webClient, "redirect_uri", many[7])).wantConsent()
	b.get(w.authorizeURL(webClient, "redirect_uri", many[8])).wantSilent()
	b.get(w.authorizeURL(webClient, "redirect_uri", many[39])).wantSilent()
}

// TestMemoryWithManyScopes: long lists push out others, and one that is too long
// for a cookie is asked for again.
func TestMemoryWithManyScopes(t *testing.T) {
	var all []string
	for i := range 500 {
		all = append(all, fmt.Sprintf("s%d", i))
	}
	w := newBrokerWorld(t, func(w *brokerWorld) { w.config.GrantableScopes = nil })
	b := w.browser()
	for n, silent := range map[int]bool{200: true, 400: true, 500: false} {
		scope := strings.Join(all[:n], " ")
		b.get(w.upstream.signIn(t, b.get(w.authorizeURL(webClient, "scope", scope)).allow().location, "alice"))
		page := b.get(w.authorizeURL(webClient, "scope", scope))
		if silent {
			page.wantSilent()
		} else {
			page.wantConsent()
		}
		b = w.browser()
	}
}
