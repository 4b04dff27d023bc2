package caddytest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestBrokerTenTabs: one browser, ten logins at once, which end in the opposite
// order and at the same time.
func TestBrokerTenTabs(t *testing.T) {
	c, idp := loadUpstream(t, "allow any")
	const tabs = 10
	b := newBrowser(t)
	id := c.register(testRedirect)
	stop := b.client.CheckRedirect
	b.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), idp.URL) {
			return http.ErrUseLastResponse // the user has not signed in yet
		}
		return stop(req, via)
	}
	pages := make([]string, tabs)
	for i := range tabs {
		b.open(c.Origin + authorizeTarget(id, fmt.Sprintf("s%d", i)))
		pages[i] = b.page
	}
	atIDP := make([]string, tabs)
	for i := range tabs {
		b.page = pages[i]
		b.allow()
		atIDP[i] = b.resp.Header.Get("Location")
		if !strings.HasPrefix(atIDP[i], idp.URL) {
			t.Fatalf("tab %d: Allow led to %d %q", i, b.resp.StatusCode, atIDP[i])
		}
	}
	arrived := make([]string, tabs)
	var wait sync.WaitGroup
	plain := &http.Client{Jar: b.client.Jar, Timeout: 15 * time.Second, CheckRedirect: stop}
	for i := tabs - 1; i >= 0; i-- {
		wait.Go(func() {
			resp, err := plain.Get(atIDP[i])
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			arrived[i] = resp.Header.Get("Location")
		})
	}
	wait.Wait()
	for i, location := range arrived {
		u, err := url.Parse(location)
		if err != nil || u.Query().Get("code") == "" || u.Query().Get("state") != fmt.Sprintf("s%d", i) {
			t.Errorf("tab %d ended at %q", i, location)
			continue
		}
		if tokens := c.mustExchange(id, u.Query()); c.uses(tokens) != 200 {
			t.Errorf("tab %d: its token is refused", i)
		}
	}
}

// TestBrokerBackAndAgain: the back button and a second click end in an answer,
// never in two grants of one login.
func TestBrokerBackAndAgain(t *testing.T) {
	c, idp := loadUpstream(t, "allow any\nconsent {\nremember off\n}")
	id := c.register(testRedirect)
	b := newBrowser(t)
	b.open(c.Origin + authorizeTarget(id, "s1"))
	page := b.page
	first := mustArrive(t, c, b.allow(), url.Values{"state": {"s1"}})
	// Back to the consent page, and Allow again: a new login.
	b.page = page
	second := mustArrive(t, c, b.allow(), url.Values{"state": {"s1"}})
	if first.Get("code") == second.Get("code") {
		t.Error("the same code twice")
	}
	c.mustExchange(id, first)
	c.mustExchange(id, second)
	// Back to it, and Deny: the client hears that, what it has stays.
	b.page = page
	mustArrive(t, c, b.submit(b.button("Deny")), url.Values{"error": {"access_denied"}, "state": {"s1"}})

	// Two clicks on Allow, so fast that both go out.
	b.open(c.Origin + authorizeTarget(id, "s2"))
	page = b.page
	locations := make(chan string, 2)
	var wait sync.WaitGroup
	for range 2 {
		tab := &browser{t: t, client: b.client, page: page, at: b.at, resp: b.resp}
		wait.Go(func() {
			if arrived := tab.allow(); arrived != nil {
				locations <- arrived.Query().Get("code")
			}
		})
	}
	wait.Wait()
	close(locations)
	seen := make(map[string]bool)
	for code := range locations {
		seen[code] = true
	}
	if len(seen) == 0 || seen[""] {
		t.Errorf("two clicks led to the codes %v", seen)
	}
	// And the same callback loaded twice at once: one exchange, one grant.
	stop := b.client.CheckRedirect
	b.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if strings.Contains(req.URL.Path, "/callback") && req.URL.Host == c.Origin[len("http://"):] {
			return http.ErrUseLastResponse
		}
		return stop(req, via)
	}
	b.open(c.Origin + authorizeTarget(id, "s3"))
	b.allow()
	callback := b.resp.Header.Get("Location")
	cookies := cookieHeader(t, b, c)
	asked := idp.count("/token")
	results := make([]string, 4)
	for i := range results {
		wait.Go(func() {
			resp, body, err := rawRequest(c.Port, "GET", strings.TrimPrefix(callback, c.Origin), http.Header{"Cookie": {cookies}, "Accept": {"text/html"}}, "")
			if err != nil {
				t.Error(err)
				return
			}
			results[i] = resp.Header.Get("Location")
			if results[i] == "" && (resp.StatusCode != 400 || !strings.Contains(body, "finished already")) {
				t.Errorf("a second load of the callback: %d %s", resp.StatusCode, body)
			}
		})
	}
	wait.Wait()
	codes := make(map[string]bool)
	for _, location := range results {
		if u, err := url.Parse(location); err == nil && location != "" {
			codes[u.Query().Get("code")] = true
		}
	}
	if len(codes) != 1 || codes[""] {
		t.Errorf("one login led to the codes %v", codes)
	}
	if n := idp.count("/token") - asked; n != 1 {
		t.Errorf("the upstream code was sent %d times", n)
	}
}

// TestBrokerPasswordForm: a wrong password, a form sent twice, and one that is
// sent again after all is done.
func TestBrokerPasswordForm(t *testing.T) {
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(brokerSite, aliceAccount(t), "", newBackend(t).addr())); err != nil {
		t.Fatal(err)
	}
	id := c.register(testRedirect)
	b := newBrowser(t)
	b.open(c.Origin + authorizeTarget(id, "s"))
	b.allow()
	for name, row := range map[string]url.Values{
		"wrong password": {"username": {aliceName}, "password": {"guess"}},
		"unknown user":   {"username": {"nobody"}, "password": {"guess"}},
		"no password":    {"username": {aliceName}, "password": {""}},
		"a long one":     {"username": {aliceName}, "password": {strings.Repeat("a", 4000)}},
	} {
		b.mustStay(b.submit(row), http.StatusForbidden)
		if !strings.Contains(b.page, "The user name or the password is wrong.") {
			t.Errorf("%s: the page says something else:\n%s", name, b.page)
		}
	}
	page := b.page
	var mu sync.Mutex
	codes := make(map[string]bool)
	var wait sync.WaitGroup
	for range 4 {
		tab := &browser{t: t, client: b.client, page: page, at: b.at, resp: b.resp}
		wait.Go(func() {
			arrived := tab.submit(url.Values{"username": {aliceName}, "password": {alicePassword}})
			if arrived == nil {
				// Finished already, or so many hashes at once that it is asked to wait:
				// on a slow machine four are.
				if status := tab.resp.StatusCode; status != http.StatusBadRequest && status != http.StatusServiceUnavailable {
					t.Errorf("one more click: %d", status)
				}
				return
			}
			mu.Lock()
			codes[arrived.Query().Get("code")] = true
			mu.Unlock()
		})
	}
	wait.Wait()
	if len(codes) != 1 || codes[""] {
		t.Errorf("four clicks led to the codes %v", codes)
	}
	b.page = page
	b.mustStay(b.submit(url.Values{"username": {aliceName}, "password": {alicePassword}}), http.StatusBadRequest)
	for code := range codes {
		if resp, tokens := c.exchange(id, code); resp.StatusCode != 200 || c.uses(tokens) != 200 {
			t.Errorf("the session: %d %v", resp.StatusCode, tokens)
		}
	}
}

// cookieHeader is what the browser sends to Caddy.
func cookieHeader(t *testing.T, b *browser, c *caddyInstance) string {
	t.Helper()
	u, err := url.Parse(c.Origin)
	if err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for _, cookie := range b.client.Jar.Cookies(u) {
		pairs = append(pairs, cookie.Name+"="+cookie.Value)
	}
	return strings.Join(pairs, "; ")
}
