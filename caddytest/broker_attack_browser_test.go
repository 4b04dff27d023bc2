package caddytest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestAttackConfusedDeputy: a user who has signed in for one client, and whose
// session at the identity provider lives, is asked for every other one. No
// click, no code.
func TestAttackConfusedDeputy(t *testing.T) {
	c, idp := loadUpstream(t, "allow any")
	id := c.register(testRedirect)
	mallory := c.registerNamed("Mallory")
	b := newBrowser(t)
	b.open(c.Origin + authorizeTarget(id, "s1"))
	mustArrive(t, c, b.allow(), url.Values{"state": {"s1"}})
	for name, target := range map[string]string{
		"another client":         authorizeTarget(mallory, "s2"),
		"more scope":             strings.Replace(authorizeTarget(id, "s2"), "scope=mcp%3Aread", "scope=mcp%3Aread+offline_access", 1),
		"prompt=consent":         authorizeTarget(id, "s2") + "&prompt=consent",
		"another client by hint": authorizeTarget(mallory, "s2") + "&login_hint=alice@example.com&id_token_hint=x&max_age=0",
	} {
		asked := idp.count("/authorize")
		b.mustStay(b.open(c.Origin+target), http.StatusOK)
		if !strings.Contains(b.page, `value="allow"`) || idp.count("/authorize") != asked {
			t.Errorf("%s: no question to the user:\n%s", name, b.page)
		}
	}
	// prompt=none cannot make it silent either.
	mustArrive(t, c, b.open(c.Origin+authorizeTarget(mallory, "s3")+"&prompt=none"), url.Values{"error": {"interaction_required"}, "state": {"s3"}})
}

// TestAttackConsentCSRF: a consent form works from our page, in the browser
// that it was shown in, unchanged, and in no other way.
func TestAttackConsentCSRF(t *testing.T) {
	c, idp := loadUpstream(t, "allow any")
	id := c.register(testRedirect)
	victim := newBrowser(t)
	victim.open(c.Origin + authorizeTarget(id, "s1"))
	if cookies := cookieHeader(t, victim, c); strings.Count(cookies, "=") != 1 || !strings.HasPrefix(cookies, "mcp_b_") {
		t.Errorf("before approval the browser has the cookies %s", cookies)
	}
	other := newBrowser(t)
	other.open(c.Origin + authorizeTarget(id, "s1"))
	request := hiddenField(t, victim.page)
	header := func(changes ...string) http.Header {
		h := http.Header{
			"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"text/html"}, "Cookie": {cookieHeader(t, victim, c)},
			"Origin": {c.Origin}, "Sec-Fetch-Site": {"same-origin"},
		}
		for i := 0; i < len(changes); i += 2 {
			if h.Del(changes[i]); changes[i+1] != "" {
				h.Set(changes[i], changes[i+1])
			}
		}
		return h
	}
	form := url.Values{"request": {request}, "decision": {"allow"}}
	changed := func(name, value string) url.Values {
		f := url.Values{"request": {request}, "decision": {"allow"}}
		f.Set(name, value)
		return f
	}
	for name, row := range map[string]struct {
		header http.Header
		form   url.Values
	}{
		"no cookie":               {header("Cookie", ""), form},
		"another browser":         {header("Cookie", cookieHeader(t, other, c)), form},
		"the cookie twice":        {header("Cookie", cookieHeader(t, other, c)+"; "+cookieHeader(t, victim, c)), form},
		"a foreign origin":        {header("Origin", "https://evil.example", "Sec-Fetch-Site", ""), form},
		"a port is a foreign one": {header("Origin", "http://localhost:1", "Sec-Fetch-Site", ""), form},
		"cross-site":              {header("Sec-Fetch-Site", "cross-site"), form},
		"same-site":               {header("Sec-Fetch-Site", "same-site"), form},
		"not by hand":             {header("Sec-Fetch-Site", "none"), form},
		"an altered form":         {header(), changed("request", alter(request, len(request)/2))},
		"an altered key id":       {header(), changed("request", alter(request, 1))},
		"a truncated form":        {header(), changed("request", request[:len(request)-8])},
		"an empty form":           {header(), changed("request", "")},
		"the form twice":          {header(), url.Values{"request": {request, request}, "decision": {"allow"}}},
		"no decision":             {header(), changed("decision", "")},
		"another decision":        {header(), changed("decision", "perhaps")},
		"no form at all":          {header("Content-Type", "text/plain"), form},
		"65 KiB":                  {header(), changed("padding", strings.Repeat("a", 65<<10))},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := c.send("POST", "/mcp-auth/consent", row.header, row.form.Encode())
			if resp.StatusCode != 400 && resp.StatusCode != 403 || resp.Header.Get("Location") != "" || !strings.Contains(body, "<h1>") {
				t.Errorf("%d %v %.300s", resp.StatusCode, resp.Header, body)
			}
			for _, cookie := range resp.Cookies() {
				if cookie.MaxAge >= 0 {
					t.Errorf("the cookie %s was set", cookie.Name)
				}
			}
		})
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		if resp, _ := c.send(method, "/mcp-auth/consent?"+form.Encode(), header(), ""); resp.StatusCode != 405 {
			t.Errorf("%s: %d", method, resp.StatusCode)
		}
	}
	if n := idp.count("/authorize"); n != 0 {
		t.Errorf("%d requests went to the identity provider", n)
	}
	// The same form, from the page, works.
	if resp, _ := c.send("POST", "/mcp-auth/consent", header(), form.Encode()); resp.StatusCode != 303 || !strings.HasPrefix(resp.Header.Get("Location"), idp.URL) {
		t.Errorf("the form itself: %d %v", resp.StatusCode, resp.Header)
	}
}

// hiddenField is the sealed request in the form of a page.
func hiddenField(t *testing.T, page string) string {
	t.Helper()
	_, after, ok := strings.Cut(page, `name="request" value="`)
	value, _, _ := strings.Cut(after, `"`)
	if !ok || value == "" {
		t.Fatalf("no sealed request in the page:\n%s", page)
	}
	return unescape.Replace(value)
}

// alter changes one character of base64url.
func alter(s string, at int) string {
	replacement := byte('A')
	if s[at] == 'A' {
		replacement = 'B'
	}
	return s[:at] + string(replacement) + s[at+1:]
}

// TestAttackClickjacking: no page of ours can be framed, cached, or tell others
// where its visitor came from.
func TestAttackClickjacking(t *testing.T) {
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(brokerSite, aliceAccount(t), "", "localhost:1")); err != nil {
		t.Fatal(err)
	}
	id := c.register(testRedirect)
	consent, login, wrong, failed, connections := newBrowser(t), newBrowser(t), newBrowser(t), newBrowser(t), newBrowser(t)
	consent.open(c.Origin + authorizeTarget(id, "s"))
	login.open(c.Origin + authorizeTarget(id, "s"))
	login.allow()
	wrong.open(c.Origin + authorizeTarget(id, "s"))
	wrong.allow()
	wrong.submit(url.Values{"username": {aliceName}, "password": {"guess"}})
	failed.open(c.Origin + authorizeTarget("unknown", "s"))
	connections.open(c.Origin + "/mcp-auth/connections")
	for name, b := range map[string]*browser{"consent": consent, "login": login, "wrong password": wrong, "error": failed, "connections": connections} {
		h := b.resp.Header
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: the policy %q lacks %s", name, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "form-action") || strings.Contains(policy, "script-src") {
			t.Errorf("%s: policy %q", name, policy)
		}
		for header, want := range map[string]string{
			"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
		} {
			if h.Get(header) != want {
				t.Errorf("%s: %s is %q", name, header, h.Get(header))
			}
		}
		if strings.Contains(b.page, "<script") || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: scripts or CORS: %v", name, h)
		}
	}
}

// TestAttackCallback: login CSRF and replay. A callback works once, in the
// browser that began the login.
func TestAttackCallback(t *testing.T) {
	c, idp := loadUpstream(t, "allow any")
	id := c.register(testRedirect)
	begin := func(t *testing.T) (b *browser, callback string) {
		t.Helper()
		b = newBrowser(t)
		stop := b.client.CheckRedirect
		b.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
			if req.URL.Path == "/mcp-auth/callback" {
				return http.ErrUseLastResponse
			}
			return stop(req, via)
		}
		b.open(c.Origin + authorizeTarget(id, "s1"))
		b.allow()
		if callback = b.resp.Header.Get("Location"); !strings.HasPrefix(callback, c.Origin+"/mcp-auth/callback?") {
			t.Fatalf("no way to the callback: %d %v", b.resp.StatusCode, b.resp.Header)
		}
		return b, callback
	}
	t.Run("in another browser", func(t *testing.T) {
		mallory, callback := begin(t)
		asked := idp.count("/token")
		victim := newBrowser(t)
		victim.mustStay(victim.open(callback), 400)
		// Nor in one that is in the middle of its own login.
		busy, own := begin(t)
		busy.mustStay(busy.open(callback), 400)
		if n := idp.count("/token") - asked; n != 0 {
			t.Errorf("the upstream code was sent %d times", n)
		}
		// The cookie of one login with the state of another.
		stolen := cookieHeader(t, mallory, c)
		resp, _ := c.send("GET", strings.TrimPrefix(own, c.Origin), http.Header{"Cookie": {stolen}, "Accept": {"text/html"}}, "")
		if resp.StatusCode != 400 || resp.Header.Get("Location") != "" {
			t.Errorf("mixed: %d %v", resp.StatusCode, resp.Header)
		}
		// Both logins themselves go on.
		mustArrive(t, c, busy.open(own), url.Values{"state": {"s1"}})
		mustArrive(t, c, mallory.open(callback), url.Values{"state": {"s1"}})
	})
	t.Run("replay", func(t *testing.T) {
		b, callback := begin(t)
		cookies := cookieHeader(t, b, c)
		answer := mustArrive(t, c, b.open(callback), url.Values{"state": {"s1"}})
		if strings.Contains(cookieHeader(t, b, c), "mcp_t_") {
			t.Error("the transaction's cookie is still there")
		}
		tokens := c.mustExchange(id, answer)
		asked := idp.count("/token")
		b.mustStay(b.open(callback), 400)
		// With the cookie, as a browser that restores its session would.
		resp, body := c.send("GET", strings.TrimPrefix(callback, c.Origin), http.Header{"Cookie": {cookies}, "Accept": {"text/html"}}, "")
		if resp.StatusCode != 400 || resp.Header.Get("Location") != "" || !strings.Contains(body, "finished already") {
			t.Errorf("with the cookie restored: %d %s", resp.StatusCode, body)
		}
		if n := idp.count("/token") - asked; n != 0 {
			t.Errorf("the upstream code was sent again %d times", n)
		}
		if status := c.uses(tokens); status != 200 {
			t.Errorf("the session has ended: %d", status)
		}
	})
	t.Run("cookies that are no good", func(t *testing.T) {
		b, callback := begin(t)
		cookies := cookieHeader(t, b, c)
		name, value := transactionCookie(t, cookies)
		browserID, _, _ := strings.Cut(cookies, ";")
		asked := idp.count("/token")
		var first string
		for what, bad := range map[string]string{
			"tampered":             name + "=" + alter(value, len(value)/2),
			"truncated":            name + "=" + value[:len(value)/2],
			"empty":                name + "=",
			"of no format":         name + "=" + strings.Repeat("A", 200),
			"over 4 KiB":           name + "=" + value + strings.Repeat("A", 5000),
			"over 4 KiB elsewhere": "other=" + strings.Repeat("A", 5000),
			"the browser's id":     name + "=" + strings.TrimPrefix(browserID[strings.IndexByte(browserID, '='):], "="),
			"twice":                name + "=" + value + "; " + name + "=" + value,
			"none":                 browserID,
		} {
			resp, body := c.send("GET", strings.TrimPrefix(callback, c.Origin), http.Header{"Cookie": {bad}, "Accept": {"text/html"}}, "")
			if resp.StatusCode != 400 || resp.Header.Get("Location") != "" {
				t.Errorf("%s: %d %v", what, resp.StatusCode, resp.Header)
			}
			if body = withoutNonce(body); first == "" {
				first = body
			}
			if body != first {
				t.Errorf("%s: its page tells it from others:\n%s", what, body)
			}
		}
		if n := idp.count("/token") - asked; n != 0 {
			t.Errorf("the upstream code was sent %d times", n)
		}
		mustArrive(t, c, b.open(callback), url.Values{"state": {"s1"}})
	})
	t.Run("HEAD and prefetch use nothing up", func(t *testing.T) {
		b, callback := begin(t)
		target, cookies := strings.TrimPrefix(callback, c.Origin), cookieHeader(t, b, c)
		for _, row := range []struct {
			method string
			header http.Header
		}{{"HEAD", http.Header{"Cookie": {cookies}}}, {"GET", http.Header{"Cookie": {cookies}, "Sec-Purpose": {"prefetch;prerender"}}}} {
			if resp, _ := c.send(row.method, target, row.header, ""); len(resp.Cookies()) != 0 || resp.Header.Get("Location") != "" {
				t.Errorf("%s: %d %v", row.method, resp.StatusCode, resp.Header)
			}
		}
		mustArrive(t, c, b.open(callback), url.Values{"state": {"s1"}})
	})
}

// transactionCookie returns the cookie of the login that is under way.
func transactionCookie(t *testing.T, cookies string) (name, value string) {
	t.Helper()
	for pair := range strings.SplitSeq(cookies, "; ") {
		if name, value, _ = strings.Cut(pair, "="); strings.HasPrefix(name, "mcp_t_") {
			return name, value
		}
	}
	t.Fatalf("no transaction in the cookies %s", cookies)
	return "", ""
}

// withoutNonce removes what differs between two renderings of one page.
func withoutNonce(page string) string {
	before, after, ok := strings.Cut(page, `nonce="`)
	if !ok {
		return page
	}
	_, after, _ = strings.Cut(after, `"`)
	return before + after
}
