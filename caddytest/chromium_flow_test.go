package caddytest_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// wantCode checks an answer to the app and redeems its code.
func wantCode(c *caddyInstance, id, redirect, state string, answer url.Values) (tokens map[string]any) {
	c.t.Helper()
	if answer.Get("state") != state || answer.Get("iss") != c.Origin || answer.Get("error") != "" {
		c.t.Errorf("the app got %v", answer)
	}
	return c.redeem(id, redirect, answer)
}

// testChromiumConsentAndLogin takes people from the app and back to it.
func testChromiumConsentAndLogin(t *testing.T, browser *chromium) {
	c := loadPages(t, twoAccounts)
	app := newLoopbackClient(t)
	id := c.registerApp("Claude Code", "", app.redirect)
	ask := func(b *tab, state string) {
		b.t.Helper()
		b.visit(c.authorizeURL(id, app.redirect, state, "notes:read"))
		b.awaitHeading("Claude Code wants to use Team Notes")
	}
	// next presses Tab and tells what has the focus now, which must be seen.
	next := func(b *tab) focused {
		b.t.Helper()
		b.press(kb.Tab)
		f := b.focus()
		if !f.Visible {
			b.t.Errorf("nobody can see that %q has the focus", f.Text)
		}
		return f
	}

	t.Run("with the keyboard alone", func(t *testing.T) {
		b := browser.open(t, view{Phone: true})
		ask(b, "keys")
		if f := next(b); f.Text != "Allow" {
			t.Fatalf("the first stop is %q", f.Text)
		}
		for _, want := range []string{"Deny", "Apps that have access"} {
			if f := next(b); f.Text != want {
				t.Fatalf("the next stop is %q, want %q", f.Text, want)
			}
		}
		b.do(chromedp.KeyEvent(kb.Tab, chromedp.KeyModifiers(chromedp.ModifierShift)), chromedp.KeyEvent(kb.Tab, chromedp.KeyModifiers(chromedp.ModifierShift)))
		if f := b.focus(); f.Text != "Allow" || !f.Visible {
			t.Fatalf("backwards: %+v", f)
		}
		b.press(kb.Enter)
		b.await(loginForm)
		b.await(`document.activeElement.name === "username"`)
		if f := b.focus(); !f.Visible {
			t.Fatal("nobody can see that the user name has the focus")
		}
		b.press(aliceName)
		if f := next(b); f.Name != "password" {
			t.Fatalf("after the user name comes %+v", f)
		}
		b.press(alicePassword)
		if f := next(b); f.Text != "Sign in" {
			t.Fatalf("after the password comes %+v", f)
		}
		b.press(kb.Enter)
		b.awaitHeading("Back in the app")
		wantCode(c, id, app.redirect, "keys", app.answer())
	})

	t.Run("Deny with the keyboard", func(t *testing.T) {
		b := browser.open(t, view{})
		ask(b, "no")
		next(b)
		if f := next(b); f.Text != "Deny" {
			t.Fatalf("the second stop is %q", f.Text)
		}
		b.press(kb.Enter)
		b.awaitHeading("Back in the app")
		answer := app.answer()
		if answer.Get("error") != "access_denied" || answer.Get("state") != "no" || answer.Get("iss") != c.Origin || answer.Has("code") {
			t.Errorf("the app got %v", answer)
		}
	})

	t.Run("a wrong password is announced", func(t *testing.T) {
		b := browser.open(t, view{})
		ask(b, "wrong")
		b.click("button[value=allow]")
		for range 2 {
			b.await(loginForm)
			evaluate[bool](b, "window.before = true")
			b.signIn(aliceName, "incorrect horse")
			b.await(`!window.before && document.querySelector("[role=alert]")`)
			const text = "The user name or the password is wrong."
			if alert := b.axNode("", "alert"); !strings.Contains(alert, text) {
				t.Errorf("the alert reads %q", alert)
			}
			// It is there from the start, so that some screen readers skip it; what
			// the field with the focus is described by, they all read.
			b.await(`document.activeElement.name === "password"`)
			if f := b.focus(); !f.Visible {
				t.Error("nobody can see that the password has the focus")
			}
			if described := b.axNode("Password", "textbox"); !strings.Contains(described, text) {
				t.Errorf("the field reads %q", described)
			}
			if b.status() != http.StatusForbidden {
				t.Errorf("status %d", b.status())
			}
			if got := evaluate[[]string](b, `[...document.querySelectorAll("input:not([type=hidden])")].map((e) => e.value)`); got[0] != aliceName || got[1] != "" {
				t.Errorf("the form holds %q", got)
			}
		}
		b.fill("password", alicePassword)
		b.click("button.primary")
		b.awaitHeading("Back in the app")
		wantCode(c, id, app.redirect, "wrong", app.answer())
	})

	t.Run("without JavaScript", func(t *testing.T) {
		b := browser.open(t, view{Phone: true, NoScript: true})
		b.visit(`data:text/html,<!doctype html><h1>off</h1><script>document.querySelector("h1").textContent = "on"</script>`)
		b.awaitHeading("off")
		ask(b, "plain")
		b.click("button[value=allow]")
		b.signIn(aliceName, alicePassword)
		b.awaitHeading("Back in the app")
		wantCode(c, id, app.redirect, "plain", app.answer())
		b.visit(c.Origin + "/mcp-auth/connections")
		b.signIn(aliceName, alicePassword)
		b.awaitHeading("Apps with access")
	})

	t.Run("back after Allow", func(t *testing.T) {
		b := browser.open(t, view{})
		ask(b, "back")
		b.click("button[value=allow]")
		b.await(loginForm)
		b.back()
		b.awaitHeading("Claude Code wants to use Team Notes")
		b.clickRestored("button[value=allow]")
		b.signIn(aliceName, alicePassword)
		b.awaitHeading("Back in the app")
		wantCode(c, id, app.redirect, "back", app.answer())
	})

	// No browser asks whether to send the form once more.
	t.Run("back from the app", func(t *testing.T) {
		b := browser.open(t, view{})
		ask(b, "there-and-back")
		b.click("button[value=allow]")
		b.signIn(aliceName, alicePassword)
		b.awaitHeading("Back in the app")
		wantCode(c, id, app.redirect, "there-and-back", app.answer())
		b.back() // to the form as it was, or loaded anew
		b.await(`location.pathname === "/mcp-auth/login"`)
		b.visit(evaluate[string](b, "location.href"))
		b.awaitHeading("This sign-in is not known in this browser")
	})

	t.Run("Deny after back", func(t *testing.T) {
		b := browser.open(t, view{})
		ask(b, "regret")
		b.click("button[value=allow]")
		b.await(loginForm)
		b.back()
		b.awaitHeading("Claude Code wants to use Team Notes")
		b.clickRestored("button[value=deny]")
		b.awaitHeading("Back in the app")
		if answer := app.answer(); answer.Get("error") != "access_denied" {
			t.Errorf("the app got %v", answer)
		}
	})

	t.Run("two clicks on Allow and on Sign in", func(t *testing.T) {
		b := browser.open(t, view{})
		ask(b, "twice")
		b.do(chromedp.DoubleClick(chromedp.CSS("button[value=allow]")))
		b.await(loginForm)
		b.fill("username", aliceName)
		b.fill("password", alicePassword)
		b.do(chromedp.DoubleClick(chromedp.CSS("button.primary")))
		b.awaitHeading("Back in the app")
		wantCode(c, id, app.redirect, "twice", app.answer())
		select {
		case again := <-app.answers:
			t.Errorf("the app got a second answer: %v", again)
		case <-time.After(300 * time.Millisecond):
		}
	})

	t.Run("two tabs at once", func(t *testing.T) {
		first := browser.open(t, view{})
		ask(first, "tab-1")
		second := first.another()
		ask(second, "tab-2")
		first.click("button[value=allow]")
		second.click("button[value=allow]")
		for i, b := range []*tab{second, first} {
			b.signIn(aliceName, alicePassword)
			b.awaitHeading("Back in the app")
			wantCode(c, id, app.redirect, []string{"tab-2", "tab-1"}[i], app.answer())
		}
	})

	t.Run("an app on the device is asked for each time", func(t *testing.T) {
		b := browser.open(t, view{})
		ask(b, "first")
		b.click("button[value=allow]")
		b.signIn(aliceName, alicePassword)
		b.awaitHeading("Back in the app")
		app.answer()
		ask(b, "again")
	})
}

// back presses the browser's button. It does not wait: a page that comes back
// from memory does not load.
func (b *tab) back() {
	b.t.Helper()
	history, err := chromedp.Call(b.ctx, page.GetNavigationHistory, cdp.Empty{})
	b.must(err)
	if history.CurrentIndex < 1 {
		b.t.Fatal("there is nothing to go back to")
	}
	_, err = chromedp.Call(b.ctx, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: history.Entries[history.CurrentIndex-1].ID})
	b.must(err)
}

// clickRestored is click on a page that may have come back from memory, whose
// nodes chromedp does not find.
func (b *tab) clickRestored(selector string) {
	b.t.Helper()
	byHand := func(p *runtime.EvaluateParams) { gesture := true; p.UserGesture = &gesture }
	evaluate[bool](b, "document.querySelector("+quoted(selector)+").click(), true", byHand)
}

// another opens a second tab of the same browser.
func (b *tab) another() *tab {
	b.t.Helper()
	ctx, stop := chromedp.NewContext(b.ctx)
	b.t.Cleanup(stop)
	other := &tab{t: b.t, ctx: ctx, view: b.view, documents: make(map[string]int64)}
	other.must(chromedp.Listen(ctx, other.observe))
	return other
}

// axNode is what assistive technology gets of the nodes of that role and name:
// their names, descriptions and the text inside.
func (b *tab) axNode(name, role string) string {
	b.t.Helper()
	document := evaluate[*runtime.RemoteObject](b, "document")
	found, err := chromedp.Call(b.ctx, accessibility.QueryAXTree, accessibility.QueryAXTreeParams{
		ObjectID: document.ObjectID, AccessibleName: name, Role: role,
	})
	b.must(err)
	var words []string
	for _, node := range found.Nodes {
		for _, value := range []*accessibility.Value{node.Name, node.Description} {
			if value != nil {
				words = append(words, string(value.Value))
			}
		}
	}
	if role == "alert" && len(found.Nodes) == 1 {
		words = append(words, evaluate[string](b, `document.querySelector("[role=alert]").innerText`))
	}
	return strings.Join(words, " ")
}

// personalIDP is an identity provider on another site, with a page where people
// say who they are.
func personalIDP(t *testing.T) *scriptedIDP {
	t.Helper()
	idp := newScriptedIDP(t)
	idp.handle("/authorize", func(w http.ResponseWriter, r *http.Request) {
		answer := func(values url.Values) string {
			values.Set("state", r.URL.Query().Get("state"))
			return html.EscapeString(r.URL.Query().Get("redirect_uri") + "?" + values.Encode())
		}
		servePage(w, "The identity provider", fmt.Sprintf(`<a id="yes" href="%s">I am Alice</a> <a id="no" href="%s">Cancel</a>`,
			answer(url.Values{"code": {"upstream-code"}}), answer(url.Values{"error": {"access_denied"}})))
	})
	idp.handle("/userinfo", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, map[string]any{"sub": "4711", "email": "alice@example.com", "email_verified": true})
	})
	return idp
}

func (idp *scriptedIDP) asUpstream() string {
	return fmt.Sprintf(`upstream oauth2 {
			client_id broker
			client_secret secret-of-the-broker
			authorization_url %[1]s/authorize
			token_url %[1]s/token
			userinfo_url %[1]s/userinfo
		}
		allow email alice@example.com`, idp.URL)
}

// testChromiumUpstream: the sign-in at an identity provider on another site, and
// the cookies that bind it to the browser.
func testChromiumUpstream(t *testing.T, browser *chromium) {
	idp := personalIDP(t)
	c := loadPages(t, idp.asUpstream())
	app := newLoopbackClient(t)
	id := c.registerApp("Claude Code", "", app.redirect)

	t.Run("cookies", func(t *testing.T) {
		b := browser.open(t, view{})
		b.visit(c.authorizeURL(id, app.redirect, "s", "notes:read"))
		b.awaitHeading("Claude Code")
		b.wantCookies(c.Origin, map[string]cookieRule{`mcp_b_[0-9a-f]{6}`: {network.CookieSameSiteLax, 0}})
		b.click("button[value=allow]")
		b.awaitHeading("The identity provider")
		b.wantCookies(c.Origin, map[string]cookieRule{
			`mcp_b_[0-9a-f]{6}`: {network.CookieSameSiteLax, 0}, `mcp_t_[0-9a-f]{8}_[0-9a-f]{6}`: {network.CookieSameSiteLax, 10 * time.Minute},
		})
		b.click("#yes")
		b.awaitHeading("Back in the app")
		wantCode(c, id, app.redirect, "s", app.answer())
		b.wantCookies(c.Origin, map[string]cookieRule{`mcp_b_[0-9a-f]{6}`: {network.CookieSameSiteLax, 0}})
	})

	t.Run("refused by the identity provider", func(t *testing.T) {
		b := browser.open(t, view{})
		b.visit(c.authorizeURL(id, app.redirect, "s", "notes:read"))
		b.click("button[value=allow]")
		b.awaitHeading("The identity provider")
		b.click("#no")
		b.awaitHeading("Back in the app")
		if answer := app.answer(); answer.Get("error") != "access_denied" || answer.Get("state") != "s" || answer.Get("iss") != c.Origin {
			t.Errorf("the app got %v", answer)
		}
	})

	t.Run("back to the callback", func(t *testing.T) {
		b := browser.open(t, view{})
		b.visit(c.authorizeURL(id, app.redirect, "s", "notes:read"))
		b.click("button[value=allow]")
		b.awaitHeading("The identity provider")
		callback := evaluate[string](b, `document.querySelector("#yes").href`)
		b.click("#yes")
		b.awaitHeading("Back in the app")
		tokens := wantCode(c, id, app.redirect, "s", app.answer())
		b.visit(callback)
		b.awaitHeading("This sign-in is not known in this browser")
		b.audit("problem-lost")
		if resp, _ := c.send("GET", "/mcp", bearerHeader(fmt.Sprint(tokens["access_token"])), ""); resp.StatusCode != http.StatusOK {
			t.Errorf("the access token afterwards: %d", resp.StatusCode)
		}
	})

	t.Run("in another browser", func(t *testing.T) {
		b, other := browser.open(t, view{}), browser.open(t, view{})
		b.visit(c.authorizeURL(id, app.redirect, "s", "notes:read"))
		b.click("button[value=allow]")
		b.awaitHeading("The identity provider")
		other.visit(evaluate[string](b, `document.querySelector("#yes").href`))
		other.awaitHeading("This sign-in is not known in this browser")
	})

	t.Run("connections", func(t *testing.T) {
		b := browser.open(t, view{})
		b.visit(c.Origin + "/mcp-auth/connections")
		b.await(`document.querySelector("button[value=sign-in]")`)
		b.audit("connections-provider")
		b.click("button[value=sign-in]")
		b.awaitHeading("The identity provider")
		b.click("#yes")
		// The session's cookie is SameSite=Strict, and the way led over another site.
		b.await(`document.querySelector(".grants")`)
		b.wantCookies(c.Origin, map[string]cookieRule{
			`mcp_b_[0-9a-f]{6}`: {network.CookieSameSiteLax, 0}, `mcp_s_[0-9a-f]{6}`: {network.CookieSameSiteStrict, 15 * time.Minute},
		})
	})
}

// cookieRule is what a cookie must be; a life of 0 is that of the browser.
type cookieRule struct {
	sameSite network.CookieSameSite
	life     time.Duration
}

// wantCookies compares the cookies of the site, whose names are patterns: an
// issuer on http has neither Secure nor __Host-.
func (b *tab) wantCookies(origin string, want map[string]cookieRule) {
	b.t.Helper()
	got := b.cookies(origin)
	if len(got) != len(want) {
		b.t.Errorf("there are %d cookies, want %d: %v", len(got), len(want), got)
	}
	for pattern, rule := range want {
		found := false
		for name, c := range got {
			if !regexp.MustCompile(`^` + pattern + `$`).MatchString(name) {
				continue
			}
			found = true
			if !c.HTTPOnly || c.Secure || c.Path != "/" || c.Domain != "localhost" || c.SameSite != rule.sameSite || c.Session != (rule.life == 0) {
				b.t.Errorf("cookie %+v, want %+v", c, rule)
			}
			if left := time.Until(time.Unix(int64(c.Expires), 0)); rule.life != 0 && (left > rule.life || left < rule.life-time.Minute) {
				b.t.Errorf("%s lives for %s, want %s", name, left, rule.life)
			}
			if len(c.Name)+len(c.Value) > 4000 {
				b.t.Errorf("%s has %d bytes", name, len(c.Value))
			}
		}
		if !found {
			b.t.Errorf("no cookie %s", pattern)
		}
	}
}

// testChromiumRemembers: a website is asked for once, until somebody else signs
// in or it wants more.
func testChromiumRemembers(t *testing.T, browser *chromium) {
	c := loadPages(t, twoAccounts)
	id := c.registerApp("Website", "", testRedirect)
	b := browser.open(t, view{Sites: []string{"client.example"}})
	b.standIn(testRedirect)
	visit := func(scopes ...string) { t.Helper(); b.visit(c.authorizeURL(id, testRedirect, "s", scopes...)) }
	visit("notes:read", "notes:write")
	b.awaitHeading("Website wants to use Team Notes")
	b.click("button[value=allow]")
	b.signIn(aliceName, alicePassword)
	b.awaitHeading("client.example")
	b.wantCookies(c.Origin, map[string]cookieRule{
		`mcp_b_[0-9a-f]{6}`: {network.CookieSameSiteLax, 0}, `mcp_c_[0-9a-f]{6}`: {network.CookieSameSiteLax, 90 * 24 * time.Hour},
	})
	visit("notes:read")
	b.awaitHeading("Sign in") // at once, for less than was allowed
	b.signIn("bob", "battery staple")
	b.awaitHeading("Website wants to use Team Notes")
	if text := evaluate[string](b, "document.body.innerText"); !strings.Contains(text, "You are signed in as bob.") {
		t.Errorf("the page does not say who is signed in: %s", text)
	}
	b.audit("consent-signed-in")
	b.click("button[value=deny]")
	b.awaitHeading("client.example")
	if location := evaluate[string](b, "location.href"); !strings.Contains(location, "error=access_denied") {
		t.Errorf("the website got %s", location)
	}
	visit("notes:read", "notes:write", "offline_access")
	b.awaitHeading("Website wants to use Team Notes")
}

// standIn answers requests for the address and below in the place of its site.
func (b *tab) standIn(address string) {
	b.t.Helper()
	paused := chromedp.Events(b.ctx, fetch.RequestPaused)
	_, err := chromedp.Call(b.ctx, fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: address + "*"}}})
	b.must(err)
	go func() {
		for e, err := range paused {
			if err != nil {
				return
			}
			_, _ = chromedp.Call(b.ctx, fetch.FulfillRequest, fetch.FulfillRequestParams{
				RequestID: e.RequestID, ResponseCode: http.StatusOK,
				ResponseHeaders: []*fetch.HeaderEntry{{Name: "Content-Type", Value: "text/html"}},
				Body:            []byte(`<!doctype html><html lang="en"><title>Website</title><link rel="icon" href="data:,"><h1>client.example</h1>`),
			})
		}
	}()
}
