package caddytest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// pagesSite is a broker for the pages; %s are who signs people in, and the
// server behind.
const pagesSite = `
{ORIGIN} {
	mcp_auth {ORIGIN} {
		%s
		resource /mcp {
			name "Team Notes"
			scopes notes:read notes:write
			require notes:read
			describe notes:read "Read your notes"
			describe notes:write "Change and delete your notes"
		}
		rate_limit off
	}
	reverse_proxy %s
}
`

// twoAccounts are alice, and bob who connects nothing. Their hashes are argon2id,
// which the race detector does not slow down as it does bcrypt.
const twoAccounts = `accounts {
			alice $argon2id$v=19$m=7168,t=5,p=1$c2FsdCBvZiBhbGljZSAxMjM0$BLp49AuZwNJUwH/UcyCJTt2WRTcBQMHHaaIO1e74FnE
			bob $argon2id$v=19$m=7168,t=5,p=1$c2FsdCBvZiBib2IgMTIzNA$2oWim0jwUfRJf0UigfhGQL+GLGY701WohFSwentvPyU
		}`

// loadPages loads pagesSite, in front of a server.
func loadPages(t *testing.T, signIn string) *caddyInstance {
	t.Helper()
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(pagesSite, signIn, newBackend(t).addr())); err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	loginForm = `document.querySelector("input[name=password]")`
	// hostileName turns the text around it, breaks lines and does not end.
	hostileName = "\u202eknaB \u2066\u05d1\u05e0\u05e7 \u05d9\u05e9\u05e8\u05d0\u05dc \u0627\u0644\u0639\u0631\u0628\u064a\u0629 " +
		"WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW"
)

// longRedirect is a redirect URI of 300 characters.
var longRedirect = "https://client.example/" + strings.Repeat("a", 277)

// testChromiumLooks audits every page on a phone and on a desktop, light and
// dark: layout, contrast, labels, headings, and nothing that the browser
// complains of.
func testChromiumLooks(t *testing.T, browser *chromium) {
	c := loadPages(t, twoAccounts)
	app := newLoopbackClient(t)
	local := c.registerApp("Claude Code", "", app.redirect)
	web := c.registerApp("Example Agent", "https://agent.example/about", "https://agent.example/oauth/callback")
	hostile := c.registerApp(hostileName, "https://"+strings.Repeat("long-", 10)+".example/", longRedirect)
	nameless := c.registerApp("", "", "com.example.app:/callback")
	for _, v := range []view{{Phone: true}, {Phone: true, Dark: true}, {}, {Dark: true}} {
		t.Run(v.String(), func(t *testing.T) {
			b := browser.open(t, v)
			b.visit(c.authorizeURL(web, "https://agent.example/oauth/callback", "s", "notes:read"))
			b.awaitHeading("Example Agent wants to use Team Notes")
			b.audit("consent-website")
			b.visit(c.authorizeURL(hostile, longRedirect, "s", "notes:read", "notes:write"))
			b.await(`document.querySelector(".target")`)
			b.audit("consent-hostile")
			b.visit(c.authorizeURL(nameless, "com.example.app:/callback", "s", "notes:read"))
			b.awaitHeading("An app without a name")
			b.audit("consent-nameless")
			b.visit(c.authorizeURL(local, app.redirect, "s", "notes:read", "notes:write", "offline_access"))
			b.awaitHeading("Claude Code wants to use Team Notes")
			b.audit("consent")

			b.click("button[value=allow]")
			b.await(loginForm)
			b.audit("login")
			b.signIn(aliceName, "wrong")
			b.await(`document.querySelector("[role=alert]")`)
			b.audit("login-wrong")
			b.signIn(aliceName, alicePassword)
			b.awaitHeading("Back in the app")
			c.redeem(local, app.redirect, app.answer())

			b.visit(c.Origin + "/mcp-auth/connections")
			b.await(loginForm)
			b.audit("connections-login")
			b.signIn(aliceName, alicePassword)
			b.await(`document.querySelector(".grants")`)
			b.audit("connections")
			b.click("button[value=revoke-all]")
			b.await(`document.querySelector("[role=status]")`)
			b.audit("connections-empty")

			b.visit(c.Origin + "/mcp-auth/consent")
			b.awaitHeading("There is nothing to do here")
			b.audit("problem")
			b.visit(c.Origin + "/authorize?client_id=unknown&redirect_uri=https://evil.example")
			b.awaitHeading("This app is not known here")
			b.audit("problem-client")
		})
	}
}

// testChromiumGerman: the pages are in the language of the browser.
func testChromiumGerman(t *testing.T, browser *chromium) {
	c := loadPages(t, twoAccounts)
	app := newLoopbackClient(t)
	id := c.registerApp("Claude Code", "https://claude.ai", app.redirect)
	b := browser.open(t, view{Phone: true, Language: "de-AT,de;q=0.9,en;q=0.5"})
	german := func(name string) {
		t.Helper()
		if got := evaluate[string](b, `document.documentElement.lang`); got != "de" {
			t.Errorf("%s: the language is %s", name, got)
		}
		b.audit(name + "-de")
	}
	b.visit(c.authorizeURL(id, app.redirect, "s", "notes:read", "offline_access"))
	b.await(`document.querySelector("button[value=allow]")?.textContent === "Erlauben"`)
	german("consent")
	b.click("button[value=allow]")
	b.await(loginForm)
	german("login")
	b.signIn(aliceName, "wrong")
	b.await(`document.querySelector("[role=alert]")`)
	german("login-wrong")
	b.signIn(aliceName, alicePassword)
	b.awaitHeading("Back in the app")
	c.redeem(id, app.redirect, app.answer())
	b.visit(c.Origin + "/mcp-auth/connections")
	b.signIn(aliceName, alicePassword)
	b.await(`document.querySelector(".grants")`)
	german("connections")
	b.visit(c.Origin + "/mcp-auth/consent")
	b.await(`document.querySelector("h1") && !document.querySelector(".grants")`)
	german("problem")
}

// testChromiumBrand: title, logo and colour are on every page, and a colour on
// which white could not be read gets black.
func testChromiumBrand(t *testing.T, browser *chromium) {
	c := newCaddy(t)
	behind := newBackend(t)
	behind.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/svg+xml")
		fmt.Fprint(w, `<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle cx="20" cy="20" r="18" fill="#e0a800"/></svg>`)
	}
	brand := twoAccounts + "\n\t\tconsent {\n\t\t\ttitle \"Example Industries\"\n\t\t\tlogo /logo.svg\n\t\t\tcolor \"#ffd23f\"\n\t\t}"
	if err := c.load(memoryStore, fmt.Sprintf(pagesSite, brand, behind.addr())); err != nil {
		t.Fatal(err)
	}
	app := newLoopbackClient(t)
	id := c.registerApp("Claude Code", "", app.redirect)
	for _, v := range []view{{}, {Phone: true, Dark: true}} {
		v.Images = []string{"/logo.svg"}
		t.Run(v.String(), func(t *testing.T) {
			b := browser.open(t, v)
			branded := func(name string) {
				t.Helper()
				if title := evaluate[string](b, "document.title"); !strings.HasSuffix(title, " · Example Industries") {
					t.Errorf("%s: title %q", name, title)
				}
				if !evaluate[bool](b, `document.querySelector(".brand img").naturalWidth > 0`) {
					t.Errorf("%s: the logo was not loaded", name)
				}
				b.audit("brand-" + name)
			}
			b.visit(c.authorizeURL(id, app.redirect, "s", "notes:read"))
			b.awaitHeading("Claude Code wants to use Team Notes")
			branded("consent")
			color := evaluate[[]string](b, `(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.querySelector("button.primary")))`)
			if want := []string{"rgb(255, 210, 63)", "rgb(0, 0, 0)"}; !slices.Equal(color, want) {
				t.Errorf("the main button is %v, want %v", color, want)
			}
			b.click("button[value=allow]")
			b.await(loginForm)
			branded("login")
			b.visit(c.Origin + "/mcp-auth/consent")
			b.awaitHeading("There is nothing to do here")
			branded("problem")
		})
	}
}

// testChromiumAudit: the audit sees what it is for.
func testChromiumAudit(t *testing.T, browser *chromium) {
	c := loadPages(t, twoAccounts)
	b := browser.open(t, view{Phone: true})
	b.visit(c.Origin + "/mcp-auth/connections")
	b.await(loginForm)
	for _, row := range []struct{ change, want string }{
		{`document.querySelector("h1").style.color = "#999"`, "has a contrast of 2.8"},
		{`document.querySelector("button").style.backgroundColor = "#7ea2ff"`, "has a contrast of 2."},
		{`document.querySelector("input[name=username]").style.color = "#bbb"`, "has a contrast of 1."},
		{`document.querySelector("input[name=username]").style.borderColor = "#ddd"`, "the edge of input#username"},
		{`document.querySelector("label").remove()`, "input#username has no label"},
		{`document.querySelector("button").textContent = ""`, "button.primary has no name"},
		{`document.querySelector("main").style.minWidth = "500px"`, "scrolls sideways"},
		{`document.querySelector("p").style.whiteSpace = "nowrap"; document.querySelector("p").textContent += " and more and more and more and more"`, "leaves the window|is wider inside"},
		{`document.querySelector("h1").outerHTML = "<h2>Sign in</h2>"`, "0 h1"},
		{`document.documentElement.removeAttribute("lang")`, "no language"},
		{`document.title = ""`, "no title"},
		{`document.querySelector("button").style.cssText = "min-height: 0; padding: 0; border: 0; font-size: 11px"`, "is small"},
		{`document.querySelector("input[name=password]").setAttribute("aria-describedby", "nothing")`, "names the id nothing"},
	} {
		b.visit(c.Origin + "/mcp-auth/connections")
		b.await(loginForm)
		found := evaluate[[]string](b, fmt.Sprintf("%s, %s(%d)", row.change, auditScript, b.view.width()))
		if !slices.ContainsFunc(found, func(s string) bool {
			return slices.ContainsFunc(strings.Split(row.want, "|"), func(want string) bool { return strings.Contains(s, want) })
		}) {
			t.Errorf("%s: found %q, not %s", row.change, found, row.want)
		}
	}
	b.complaints()
	// What the policy forbids is noticed.
	evaluate[bool](b, `document.body.append(Object.assign(new Image(), {src: "http://127.0.0.1:1/x.png"})), true`)
	b.await(`document.images.length === 1`)
	evaluate[bool](b, `new Promise((done) => { document.images[0].onerror = () => done(true); document.images[0].src += "?"; })`, chromedp.EvalAwaitPromise)
	if found := strings.Join(b.complaints(), "\n"); !strings.Contains(found, "Content Security Policy") {
		t.Errorf("no complaint about an image from elsewhere: %s", found)
	}
}
