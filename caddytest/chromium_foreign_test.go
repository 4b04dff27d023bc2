package caddytest_test

import (
	"html"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// testChromiumForeignPages: another website can neither show our pages in a
// frame nor answer them.
func testChromiumForeignPages(t *testing.T, browser *chromium) {
	c := loadPages(t, twoAccounts)
	app := newLoopbackClient(t)
	id := c.registerApp("Claude Code", "", app.redirect)
	b := browser.open(t, view{})
	target := c.authorizeURL(id, app.redirect, "s", "notes:read")
	b.visit(target)
	b.awaitHeading("Claude Code")
	form := evaluate[string](b, `document.querySelector("form").outerHTML`)
	form = strings.Replace(form, `action="`, `action="`+c.Origin, 1)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/frame" {
			servePage(w, "Win a prize", `<iframe src="`+html.EscapeString(target)+`"></iframe>`)
			return
		}
		servePage(w, "Win a prize", form)
	}))
	defer evil.Close()

	b.visit(evil.URL + "/form") // with the person's own form, in the person's own browser
	b.awaitHeading("Win a prize")
	b.click("button[value=allow]")
	b.awaitHeading("This request came from another website")
	b.audit("problem-foreign")
	if b.status() != http.StatusForbidden {
		t.Errorf("status %d", b.status())
	}

	b.visit(evil.URL + "/frame")
	b.awaitHeading("Win a prize")
	b.await(`document.querySelector("iframe").contentDocument === null`)
	if said := strings.Join(b.complaints(), "\n"); !strings.Contains(said, "frame-ancestors") {
		t.Errorf("the page was not kept out of the frame: %s", said)
	}
}
