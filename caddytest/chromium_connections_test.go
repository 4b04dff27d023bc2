package caddytest_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
)

// testChromiumConnections: people see which apps have access, and end it.
func testChromiumConnections(t *testing.T, browser *chromium) {
	c := loadPages(t, twoAccounts)
	app := newLoopbackClient(t)
	b := browser.open(t, view{})
	names := []string{"Claude Code", "Cursor", "Zed"}
	access := make(map[string]string)
	for _, name := range names {
		id := c.registerApp(name, "", app.redirect)
		b.visit(c.authorizeURL(id, app.redirect, "s", "notes:read"))
		b.awaitHeading(name)
		b.click("button[value=allow]")
		b.signIn(aliceName, alicePassword)
		b.awaitHeading("Back in the app")
		access[name] = fmt.Sprint(wantCode(c, id, app.redirect, "s", app.answer())["access_token"])
	}
	wantAlive := func(alive ...string) {
		t.Helper()
		for _, name := range names {
			want := http.StatusUnauthorized
			if slices.Contains(alive, name) {
				want = http.StatusOK
			}
			if resp, _ := c.send("GET", "/mcp", bearerHeader(access[name]), ""); resp.StatusCode != want {
				t.Errorf("%s: %d, want %d", name, resp.StatusCode, want)
			}
		}
	}
	wantListed := func(want ...string) {
		t.Helper()
		got := evaluate[[]string](b, `[...document.querySelectorAll(".grants h2")].map((e) => e.textContent)`)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("listed are %q, want %q", got, want)
		}
	}
	wantAlive(names...)

	// Another user sees nothing of it.
	b.visit(c.Origin + "/mcp-auth/connections")
	b.signIn("bob", "battery staple")
	b.awaitHeading("Apps with access")
	b.await(`document.body.innerText.includes("No app has access in your name.")`)
	b.click("button[value=sign-out]")
	b.signIn(aliceName, alicePassword)
	b.await(`document.querySelector(".grants")`)
	wantListed(names...)

	// One, with the keyboard, by the name that a screen reader says.
	if label := b.axNode("Remove the access of Cursor", "button"); label == "" {
		t.Error("no button to remove Cursor")
	}
	b.do(chromedp.Focus(chromedp.CSS(`button[aria-label="Remove the access of Cursor"]`)), chromedp.KeyEvent("\r"))
	b.await(`document.querySelector("[role=status]")?.textContent === "The access was removed."`)
	wantListed("Claude Code", "Zed")
	wantAlive("Claude Code", "Zed")
	b.audit("connections-removed")

	// The page from before may come back from the browser's memory; to remove what
	// is gone already is fine.
	b.back()
	b.await(`!document.querySelector("[role=status]")`)
	if again := `button[aria-label="Remove the access of Cursor"]`; evaluate[bool](b, "!!document.querySelector("+quoted(again)+")") {
		b.clickRestored(again)
		b.await(`document.querySelector("[role=status]")`)
	}
	b.visit(c.Origin + "/mcp-auth/connections")
	b.await(`document.querySelector(".grants")`)
	wantListed("Claude Code", "Zed")

	b.do(chromedp.DoubleClick(chromedp.CSS("button[value=revoke-all]")))
	b.await(`document.querySelector("[role=status]")?.textContent === "All access was removed."`)
	wantListed()
	wantAlive()

	b.click("button[value=sign-out]")
	b.await(loginForm)
	b.back()
	b.await(loginForm) // whoever comes next sees nothing
}
