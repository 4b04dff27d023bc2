package proxyprovider_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/seal"
)

// withAccounts makes a world with the local accounts alice and bob, who have the
// password "correct horse", and eve, whom no rule allows.
func withAccounts(w *brokerWorld) { withAccountsNamed(w, "alice", "bob", "eve") }

func withAccountsNamed(w *brokerWorld, names ...string) {
	const memory, passes = 8 << 10, 4
	key := argon2.IDKey([]byte("correct horse"), []byte("a salt of 16 byt"), passes, memory, 1, 32)
	enc := base64.RawStdEncoding.EncodeToString
	hash := fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=1$%s$%s", memory, passes, enc([]byte("a salt of 16 byt")), enc(key))
	var list []idp.Account
	for _, name := range names {
		list = append(list, idp.Account{Name: name, Hash: hash, Email: name + "@example.com"})
		if name == "eve" {
			list[len(list)-1].Email = "eve@evil.example"
		}
	}
	accounts, err := idp.NewAccounts(idp.AccountsConfig{Issuer: w.issuer, Now: w.clock.now, Accounts: list})
	if err != nil {
		w.t.Fatal(err)
	}
	w.config.Upstream, w.config.Accounts = nil, accounts
	w.grants.Upstream = nil
	w.grants.Refresh = func(_ context.Context, subject string) (*idp.Identity, error) {
		who, ok := accounts.Lookup(subject)
		if !ok {
			return nil, fmt.Errorf("%w: no such account", idp.ErrDead)
		}
		return who, nil
	}
}

// wantLogin checks that the page asks for a password.
func (p *brokerPage) wantLogin(status int, text string) *brokerPage {
	p.b.w.t.Helper()
	if p.status != status || !strings.Contains(p.body, `name="password"`) || !strings.Contains(p.body, text) {
		p.b.w.t.Fatalf("status %d, location %q, want %d and %q:\n%s", p.status, p.location, status, text, p.body)
	}
	return p
}

// signIn fills in the form.
func (p *brokerPage) signIn(user, password string) *brokerPage {
	p.b.w.t.Helper()
	return p.submit("username", user, "password", password)
}

func TestAccountsLogin(t *testing.T) {
	w := newBrokerWorld(t, withAccounts)
	b := w.browser()
	consent := b.get(w.authorizeURL(webClient))
	if !strings.Contains(consent.body, "Next, you sign in with your user name and password") {
		t.Errorf("the page does not say how to sign in:\n%s", consent.body)
	}
	login := consent.allow().wantLogin(http.StatusOK, "Sign in to connect <bdi><strong>Web client</strong></bdi>")
	if w.grantCount() != 0 {
		t.Error("something is stored before the login")
	}
	again := login.signIn("alice", "wrong").wantLogin(http.StatusForbidden, "The user name or the password is wrong.")
	if !strings.Contains(again.body, `value="alice"`) || strings.Contains(again.body, "wrong\"") {
		t.Errorf("the form after a mistake:\n%s", again.body)
	}
	for _, wrong := range [][2]string{{"nobody", "correct horse"}, {"", ""}, {"alice", strings.Repeat("x", 5000)}, {"<script>", "x"}} {
		page := again.signIn(wrong[0], wrong[1]).wantLogin(http.StatusForbidden, "The user name or the password is wrong.")
		if strings.Contains(page.body, "<script") {
			t.Error("the name is not escaped")
		}
	}
	end := again.signIn("alice", "correct horse")
	tokens, err := w.redeem(webClient, end.code(webClient))
	if err != nil {
		t.Fatal(err)
	}
	info, err := w.broker.VerifyAccessToken(t.Context(), tokens.AccessToken)
	if err != nil || info.UserID != "alice" {
		t.Errorf("%+v, %v", info, err)
	}
	// The back button and another click.
	login.signIn("alice", "correct horse").wantPage(http.StatusBadRequest, "finished already")
	if w.grantCount() != 1 {
		t.Errorf("%d grants", w.grantCount())
	}
	if len(b.cookiesNamed("__Host-mcp_t")) != 0 || len(b.cookiesNamed("__Host-mcp_s")) != 0 {
		t.Error("a login with a password needs no such cookie")
	}
	if strings.Contains(w.log.String(), "correct horse") || strings.Contains(w.log.String(), "wrong\n") {
		t.Error("the log holds a password")
	}
	// Consent is remembered, the sign-in is not.
	b.get(w.authorizeURL(webClient)).wantLogin(http.StatusOK, "Web client").signIn("alice", "correct horse").code(webClient)
}

// TestBackFromTheApp: every step has an address that can be loaded again, so that
// no browser asks whether to send a form once more.
func TestBackFromTheApp(t *testing.T) {
	w := newBrokerWorld(t, withAccounts)
	b := w.browser()
	login := b.get(w.authorizeURL(webClient)).allow().wantLogin(http.StatusOK, "Web client")
	if !strings.HasPrefix(login.url, w.issuer+"/mcp-auth/login?state=") {
		t.Fatalf("the form is at %s", login.url)
	}
	b.get(login.url).wantLogin(http.StatusOK, "Web client") // reload
	if w.grantCount() != 0 {
		t.Error("loading the form grants something")
	}
	b.get(login.url).signIn("alice", "correct horse").code(webClient)
	b.get(login.url).wantPage(http.StatusBadRequest, "not known in this browser") // back
	if len(b.cookiesNamed("__Host-mcp_t")) != 0 {
		t.Error("the cookie of the login is left")
	}

	login = w.browser().get(w.authorizeURL(webClient)).allow()
	stranger := w.browser()
	stranger.get(w.authorizeURL(webClient)).wantConsent()
	stranger.get(login.url).wantPage(http.StatusBadRequest, "not known in this browser")
	w.clock.advance(10 * time.Minute)
	login.b.get(login.url).wantPage(http.StatusBadRequest, "took too long")
}

// TestAccountsCallback: there is none, so nobody can come back from elsewhere.
func TestAccountsCallback(t *testing.T) {
	w := newBrokerWorld(t, withAccounts)
	if page := w.browser().get(w.issuer + "/mcp-auth/callback?state=" + randomState("x")); page.status != http.StatusNotFound {
		t.Errorf("status %d", page.status)
	}
}

// TestLoginForgery: the form is good in the browser that it was shown in, for ten
// minutes, and is no other form.
func TestLoginForgery(t *testing.T) {
	w := newBrokerWorld(t, withAccounts)
	sibling := newBrokerWorld(t, func(o *brokerWorld) { o.ring = w.ring }, withAccounts)
	good := url.Values{"username": {"alice"}, "password": {"correct horse"}}
	rows := []struct {
		name   string
		status int
		text   string
		post   func(b *brokerBrowser, consent *brokerPage, action string, form url.Values) *brokerPage
	}{
		{"login CSRF: in another browser", http.StatusBadRequest, "did not send its cookie", func(_ *brokerBrowser, _ *brokerPage, action string, form url.Values) *brokerPage {
			victim := w.browser()
			victim.get(w.authorizeURL(webClient)).wantConsent()
			return victim.do("POST", action, form)
		}},
		{"from another site", http.StatusForbidden, "another website", func(b *brokerBrowser, _ *brokerPage, action string, form url.Values) *brokerPage {
			return b.do("POST", action, form, "Sec-Fetch-Site", "cross-site")
		}},
		{"with the consent form, so that nobody has allowed anything", http.StatusBadRequest, "not valid", func(b *brokerBrowser, consent *brokerPage, action string, form url.Values) *brokerPage {
			_, unapproved := consent.form()
			form.Set("request", unapproved.Get("request"))
			return b.do("POST", action, form)
		}},
		{"for another issuer", http.StatusBadRequest, "not valid", func(b *brokerBrowser, _ *brokerPage, action string, form url.Values) *brokerPage {
			_, theirs := sibling.browser().get(sibling.authorizeURL(webClient)).allow().form()
			form.Set("request", theirs.Get("request"))
			return b.do("POST", action, form)
		}},
		{"too late", http.StatusBadRequest, "took too long", func(b *brokerBrowser, _ *brokerPage, action string, form url.Values) *brokerPage {
			w.clock.advance(10 * time.Minute)
			return b.do("POST", action, form)
		}},
		{"by a link", http.StatusBadRequest, "not known in this browser", func(b *brokerBrowser, _ *brokerPage, action string, form url.Values) *brokerPage {
			return b.get(action + "?" + form.Encode())
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := w.browser()
			consent := b.get(w.authorizeURL(webClient))
			action, form := consent.allow().form()
			for name, values := range good {
				form[name] = values
			}
			row.post(b, consent, action, form).wantPage(row.status, row.text)
			if w.grantCount() != 0 {
				t.Error("there is a grant")
			}
		})
	}
}

// TestThrottledLogin says when to try again.
func TestThrottledLogin(t *testing.T) {
	w := newBrokerWorld(t, withAccounts)
	login := w.browser().get(w.authorizeURL(webClient)).allow()
	for range 10 {
		login.signIn("alice", "wrong").wantLogin(http.StatusForbidden, "is wrong")
	}
	page := login.signIn("alice", "correct horse").wantLogin(http.StatusTooManyRequests, "Try again in 15 min.")
	if page.header.Get("Retry-After") != "900" {
		t.Errorf("Retry-After %q", page.header.Get("Retry-After"))
	}
	// Not for others, nor for her from elsewhere.
	login.signIn("bob", "correct horse").code(webClient)
}

// TestConcurrentLogins: two clicks get one code.
func TestConcurrentLogins(t *testing.T) {
	w := newBrokerWorld(t, withAccounts)
	b := w.browser()
	action, form := b.get(w.authorizeURL(webClient)).allow().form()
	form.Set("username", "alice")
	form.Set("password", "correct horse")
	var wg sync.WaitGroup
	pages := make([]*brokerPage, 4)
	for i := range pages {
		wg.Go(func() { pages[i] = b.do("POST", action, form) })
	}
	wg.Wait()
	codes := make(map[string]bool)
	for _, page := range pages {
		if page.location != "" {
			codes[page.code(webClient)] = true
		} else {
			page.wantPage(http.StatusBadRequest, "finished already")
		}
	}
	if len(codes) != 1 || w.grantCount() != 1 {
		t.Errorf("%d codes, %d grants", len(codes), w.grantCount())
	}
}

// TestAccountsNotAllowed: the rules hold for local accounts too.
func TestAccountsNotAllowed(t *testing.T) {
	w := newBrokerWorld(t, withAccounts)
	w.browser().get(w.authorizeURL(webClient)).allow().signIn("eve", "correct horse").wantError(webClient, "access_denied")
	if w.grantCount() != 0 {
		t.Error("there is a grant")
	}
}

// TestAnotherAccountSignsIn: alice's consent is not bob's. He has proven who he
// is, so his answer is enough, once.
func TestAnotherAccountSignsIn(t *testing.T) {
	w := newBrokerWorld(t, withAccounts)
	b := w.browser()
	b.get(w.authorizeURL(webClient)).allow().signIn("alice", "correct horse").code(webClient)
	ask := func() *brokerPage {
		page := b.get(w.authorizeURL(webClient)).wantLogin(http.StatusOK, "Web client").signIn("bob", "correct horse")
		page.wantConsent()
		return page
	}
	page := ask()
	if !strings.Contains(page.body, "bob@example.com") || w.grantCount() != 1 {
		t.Errorf("%d grants:\n%s", w.grantCount(), page.body)
	}
	page.submit("decision", "deny").wantError(webClient, "access_denied")
	page = ask()
	// Not once his account is gone.
	withAccountsNamed(w, "alice")
	w.start()
	page.submit("decision", "allow").wantError(webClient, "access_denied")
	withAccounts(w)
	w.start()
	action, form := page.form()
	form.Set("decision", "allow")
	w.browser().do("POST", action, form).wantPage(http.StatusBadRequest, "did not send its cookie")
	code := page.allow().code(webClient)
	page.allow().wantPage(http.StatusBadRequest, "finished already")
	tokens, err := w.redeem(webClient, code)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := w.broker.VerifyAccessToken(t.Context(), tokens.AccessToken); err != nil || info.UserID != "bob" {
		t.Errorf("%+v, %v", info, err)
	}
	b.get(w.authorizeURL(webClient)).wantLogin(http.StatusOK, "").signIn("bob", "correct horse").code(webClient)
	if w.grantCount() != 3 {
		t.Errorf("%d grants", w.grantCount())
	}
}

// TestStoreIsDown: the client is told to try again.
func TestStoreIsDown(t *testing.T) {
	w := newBrokerWorld(t, withAccounts)
	login := w.browser().get(w.authorizeURL(webClient)).allow()
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	login.signIn("alice", "correct horse").wantError(webClient, "temporarily_unavailable")
}

// TestRestartBetweenAllSteps: a login survives the end of the process at every
// step, and so does a key that was rotated but not dropped.
func TestRestartBetweenAllSteps(t *testing.T) {
	w := newBrokerWorld(t)
	old := w.oldestKey
	restart := func() {
		ring, err := seal.NewRing(seal.GenerateKey(), old)
		if err != nil {
			t.Fatal(err)
		}
		w.ring = ring
		w.start()
	}
	b := w.browser()
	page := b.get(w.authorizeURL(webClient))
	restart()
	sent := page.allow()
	// What was sealed from here on needs the second key.
	w.start()
	end := b.get(w.upstream.signIn(t, sent.location, "alice"))
	w.start()
	if _, err := w.redeem(webClient, end.code(webClient)); err != nil {
		t.Fatal(err)
	}
	w.start()
	b.get(w.authorizeURL(webClient)).wantSilent()

	// Dropping all keys ends what they sealed, each with a page or an answer.
	page = b.get(w.authorizeURL(otherClient))
	sent = b.get(w.authorizeURL(webClient))
	old = seal.GenerateKey()
	restart()
	page.submit("decision", "allow").wantPage(http.StatusBadRequest, "not valid")
	b.get(w.upstream.signIn(t, sent.location, "alice")).wantPage(http.StatusBadRequest, "not known in this browser")
	b.get(w.authorizeURL(webClient)).wantConsent()
}
