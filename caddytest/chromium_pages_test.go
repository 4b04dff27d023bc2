package caddytest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
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
			describe notes:read "Read your notes"
			describe notes:write "Change and delete your notes"
		}
		rate_limit off
	}
	reverse_proxy %s
}
`

// twoAccounts are alice, and bob who has connected nothing.
func twoAccounts(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("accounts {\n%s %s\nbob %s\n}", aliceName, hash(t, alicePassword), hash(t, "battery staple"))
}

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

// TestChromiumLooks audits every page on a phone and on a desktop, light and
// dark: layout, contrast, labels, headings, and nothing that the browser
// complains of.
func TestChromiumLooks(t *testing.T) {
	browser := startChromium(t)
	c := loadPages(t, twoAccounts(t))
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
			b.await(`document.querySelector("h1")`)
			b.audit("problem-client")
		})
	}
}

var _ = chromedp.Click[string]
var _ = kb.Tab
var _ = http.StatusOK
var _ = url.Parse
