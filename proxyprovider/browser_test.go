package proxyprovider_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
)

// TestConsentForgery is CSRF on the consent form, and everything else that is
// not the click of the user who saw the page.
func TestConsentForgery(t *testing.T) {
	w := newBrokerWorld(t)
	otherKey, err := seal.NewRing(seal.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	strange := newBrokerWorld(t, func(o *brokerWorld) { o.ring = otherKey })
	sibling := newBrokerWorld(t, func(o *brokerWorld) { o.ring = w.ring }) // another issuer, the same key
	rows := []struct {
		name   string
		status int
		text   string
		post   func(b *brokerBrowser, action string, form url.Values) *brokerPage
	}{
		{"from another site", http.StatusForbidden, "another website", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			return b.do("POST", action, form, "Sec-Fetch-Site", "cross-site")
		}},
		{"from another host of the site", http.StatusForbidden, "another website", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			return b.do("POST", action, form, "Sec-Fetch-Site", "same-site")
		}},
		{"from another origin, in a browser without Sec-Fetch-Site", http.StatusForbidden, "another website", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			return b.do("POST", action, form, "Sec-Fetch-Site", "", "Origin", "https://evil.example")
		}},
		{"from another port", http.StatusForbidden, "another website", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			return b.do("POST", action, form, "Sec-Fetch-Site", "", "Origin", "https://127.0.0.1:1")
		}},
		{"in another browser", http.StatusBadRequest, "did not send its cookie", func(_ *brokerBrowser, action string, form url.Values) *brokerPage {
			victim := w.browser()
			victim.get(w.authorizeURL(webClient)).wantConsent() // has a cookie of its own
			return victim.do("POST", action, form)
		}},
		{"in a browser that keeps no cookies", http.StatusBadRequest, "did not send its cookie", func(_ *brokerBrowser, action string, form url.Values) *brokerPage {
			return w.browser().do("POST", action, form)
		}},
		{"with the cookie twice", http.StatusBadRequest, "did not send its cookie", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			c := b.cookiesNamed("__Host-mcp_b")[0]
			return b.do("POST", action, form, "Cookie", c.Name+"="+c.Value)
		}},
		{"altered", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			sealed := form.Get("request")
			form.Set("request", sealed[:40]+flip(sealed[40])+sealed[41:])
			return b.do("POST", action, form)
		}},
		{"cut off", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			form.Set("request", form.Get("request")[:60])
			return b.do("POST", action, form)
		}},
		{"empty", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, _ url.Values) *brokerPage {
			return b.do("POST", action, url.Values{"decision": {"allow"}})
		}},
		{"sealed with another key", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			_, theirs := strange.browser().get(strange.authorizeURL(webClient)).form()
			form.Set("request", theirs.Get("request"))
			return b.do("POST", action, form)
		}},
		{"sealed for another issuer", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			_, theirs := sibling.browser().get(sibling.authorizeURL(webClient)).form()
			form.Set("request", theirs.Get("request"))
			return b.do("POST", action, form)
		}},
		{"sealed for another form", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			_, theirs := b.get(w.issuer + "/mcp-auth/connections").form()
			form.Set("request", theirs.Get("token"))
			return b.do("POST", action, form)
		}},
		{"sealed for another purpose", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			b.get(w.authorizeURL(webClient)).allow().wantSilent()
			form.Set("request", b.cookiesNamed("__Host-mcp_t")[0].Value)
			return b.do("POST", action, form)
		}},
		{"too late", http.StatusBadRequest, "took too long", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			w.clock.advance(10 * time.Minute)
			return b.do("POST", action, form)
		}},
		{"with two answers", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			form["decision"] = []string{"deny", "allow"}
			return b.do("POST", action, form)
		}},
		{"without an answer", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			form.Del("decision")
			return b.do("POST", action, form)
		}},
		{"as JSON", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			return b.do("POST", action, form, "Content-Type", "text/plain")
		}},
		{"too large", http.StatusBadRequest, "not valid", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			form.Set("x", strings.Repeat("x", 65<<10))
			return b.do("POST", action, form)
		}},
		{"by a link", http.StatusMethodNotAllowed, "nothing to do", func(b *brokerBrowser, action string, form url.Values) *brokerPage {
			return b.get(action + "?" + form.Encode())
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := w.browser()
			action, form := b.get(w.authorizeURL(webClient)).form()
			form.Set("decision", "allow")
			page := row.post(b, action, form)
			page.wantPage(row.status, row.text)
			for _, c := range page.cookies {
				t.Errorf("a cookie is set: %s", c.Name)
			}
		})
	}
}

// TestConsentFormIsGoodInOldBrowsers: without Sec-Fetch-Site, and with the Origin
// that a browser may send.
func TestConsentFormIsGoodInOldBrowsers(t *testing.T) {
	w := newBrokerWorld(t)
	for _, origin := range []string{"", "null", w.issuer} {
		b := w.browser()
		action, form := b.get(w.authorizeURL(webClient)).form()
		form.Set("decision", "allow")
		b.do("POST", action, form, "Sec-Fetch-Site", "", "Origin", origin).wantSilent()
	}
}

// TestClientsThatChangeDuringTheLogin are not the ones that the user saw.
func TestClientsThatChangeDuringTheLogin(t *testing.T) {
	changes := map[string]func(*brokerClients){
		"removed": func(s *brokerClients) { delete(s.clients, webClient) },
		"another name": func(s *brokerClients) {
			s.clients[webClient] = brokerClient(webClient, "Bank", "https://client.example/cb")
		},
		"another redirect": func(s *brokerClients) {
			s.clients[webClient] = brokerClient(webClient, "Web client", "https://evil.example/cb")
		},
	}
	for name, change := range changes {
		t.Run(name+" before the answer", func(t *testing.T) {
			w := newBrokerWorld(t)
			page := w.browser().get(w.authorizeURL(webClient))
			w.clients.set(change)
			page.submit("decision", "allow").wantPage(http.StatusBadRequest, "not known here any more")
			page.submit("decision", "deny").wantPage(http.StatusBadRequest, "not known here any more")
		})
		t.Run(name+" before the callback", func(t *testing.T) {
			w := newBrokerWorld(t)
			b := w.browser()
			back := w.upstream.signIn(t, b.get(w.authorizeURL(webClient)).allow().location, "alice")
			w.clients.set(change)
			b.get(back).wantPage(http.StatusBadRequest, "not known here any more")
			if w.grantCount() != 0 || w.upstream.exchanges != 0 {
				t.Errorf("%d grants, %d exchanges", w.grantCount(), w.upstream.exchanges)
			}
		})
	}
}

// TestPagesAreLockedDown: clickjacking, referrers, caches, scripts.
func TestPagesAreLockedDown(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	consent := b.get(w.authorizeURL(webClient))
	for name, page := range map[string]*brokerPage{
		"consent":     consent,
		"connections": b.get(w.issuer + "/mcp-auth/connections"),
		"lost":        b.get(w.issuer + "/mcp-auth/callback?state=x"),
		"nothing":     b.get(w.issuer + "/mcp-auth/consent"),
	} {
		csp := page.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'; style-src 'nonce-", "; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: CSP %q lacks %q", name, csp, want)
			}
		}
		if strings.Contains(csp, "form-action") {
			t.Errorf("%s: form-action breaks federated logins", name)
		}
		for header, want := range map[string]string{
			"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			"Access-Control-Allow-Origin": "",
		} {
			if got := page.header.Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
		if strings.Contains(page.body, "<script") || strings.Contains(page.body, " style=") {
			t.Errorf("%s: script or inline style", name)
		}
	}
	for name, answer := range map[string]*brokerPage{"allow": consent.allow(), "deny": consent.submit("decision", "deny")} {
		if answer.status != http.StatusSeeOther || answer.header.Get("Cache-Control") != "no-store" || answer.header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %d %v", name, answer.status, answer.header)
		}
	}
}

// TestLookingUsesNothingUp: HEAD and prefetch leave a login as it is.
func TestLookingUsesNothingUp(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	back := w.upstream.signIn(t, b.get(w.authorizeURL(webClient)).allow().location, "alice")
	for _, look := range []func() *brokerPage{
		func() *brokerPage { return b.do("HEAD", back, nil) },
		func() *brokerPage { return b.get(back, "Sec-Purpose", "prefetch;prerender") },
		func() *brokerPage { return b.get(back, "Purpose", "prefetch") },
		func() *brokerPage { return b.do("HEAD", w.issuer+"/mcp-auth/connections", nil) },
		func() *brokerPage { return b.do("OPTIONS", back, nil, "Origin", "https://evil.example") },
		func() *brokerPage { return b.do("POST", back, url.Values{}) },
	} {
		if page := look(); page.location != "" || len(page.cookies) != 0 || page.status == http.StatusOK {
			t.Errorf("status %d, location %q, cookies %v", page.status, page.location, page.cookies)
		}
	}
	if status := b.do("HEAD", back, nil).status; status != http.StatusNoContent {
		t.Errorf("HEAD is answered by %d", status)
	}
	if w.upstream.exchanges != 0 {
		t.Error("the code was used up")
	}
	b.get(back).code(webClient)
}

func TestStripCookies(t *testing.T) {
	w := newBrokerWorld(t)
	sibling := newBrokerWorld(t)
	ours, theirs := "_"+issuerSuffix(w.issuer), "_"+issuerSuffix(sibling.issuer)
	rows := []struct {
		name       string
		have, want []string
	}{
		{"none", nil, nil},
		{"only others", []string{"a=b; __Host-sid=c;d"}, []string{"a=b; __Host-sid=c;d"}},
		{"ours among others", []string{"a=\"x y\"; __Host-mcp_b" + ours + "=v;  __Host-mcp_t_01234567" + ours + "=v; z=9"}, []string{"a=\"x y\"; z=9"}},
		{"all kinds", []string{"__Host-mcp_c" + ours + "=v; __Host-mcp_s" + ours + "=v; __Host-mcp_a" + ours + "=1; __Host-mcp_u_0123abcd" + ours + "=v"}, nil},
		{"two headers", []string{"__Host-mcp_b" + ours + "=v", "a=b"}, []string{"a=b"}},
		{"another issuer's", []string{"__Host-mcp_b" + theirs + "=v"}, []string{"__Host-mcp_b" + theirs + "=v"}},
		{"alike", []string{"mcp_b" + ours + "=v; __Host-mcp_t_0123456" + ours + "=v; x__Host-mcp_b" + ours + "=v"}, []string{"mcp_b" + ours + "=v; __Host-mcp_t_0123456" + ours + "=v; x__Host-mcp_b" + ours + "=v"}},
		{"in a value", []string{"a=__Host-mcp_b" + ours}, []string{"a=__Host-mcp_b" + ours}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := &http.Request{Header: http.Header{}}
			if row.have != nil {
				r.Header["Cookie"] = row.have
			}
			w.broker.StripCookies(r)
			if got, want := strings.Join(r.Header["Cookie"], "|"), strings.Join(row.want, "|"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestLoopbackIssuerHasPlainCookies: http cannot have Secure cookies.
func TestLoopbackIssuerHasPlainCookies(t *testing.T) {
	w := newBrokerWorld(t, func(w *brokerWorld) { w.config.BaseURL = strings.Replace(w.issuer, "https:", "http:", 1) })
	for _, c := range w.browser().get(w.authorizeURL(webClient)).cookies {
		if c.Secure || c.Name != "mcp_b_"+issuerSuffix(w.issuer) || !c.HttpOnly {
			t.Errorf("%+v", c)
		}
	}
}

// TestProgramsGetJSON: who asks for no HTML gets none.
func TestProgramsGetJSON(t *testing.T) {
	w := newBrokerWorld(t)
	page := w.browser().get(w.issuer+"/mcp-auth/callback", "Accept", "*/*")
	if page.status != http.StatusBadRequest || page.header.Get("Content-Type") != "application/json" || !strings.Contains(page.body, `"error":"invalid_request"`) {
		t.Errorf("%d %s", page.status, page.body)
	}
}

// TestLanguages: ui_locales before Accept-Language.
func TestLanguages(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	rows := []struct{ locales, header, want string }{
		{"", "", "en"}, {"", "de-AT,en;q=0.5", "de"}, {"de", "en", "de"}, {"xx", "de", "de"}, {"xx de-CH", "en", "de"},
	}
	for _, row := range rows {
		page := b.get(w.authorizeURL(webClient, "ui_locales", row.locales), "Accept-Language", row.header)
		if !strings.Contains(page.body, `<html lang="`+row.want+`">`) {
			t.Errorf("%+v: %.80s", row, page.body)
		}
	}
}

// TestKeysThatCannotBeOpened are the operator's trouble, told to the client.
func TestKeysThatCannotBeOpened(t *testing.T) {
	broken := true
	w := newBrokerWorld(t, func(w *brokerWorld) {
		keys := w.config.Keys
		w.config.Keys = func() (*seal.Ring, error) {
			if broken {
				return nil, proxyprovider.ErrGrantNotFound
			}
			return keys()
		}
	})
	b := w.browser()
	b.get(w.authorizeURL(webClient)).wantError(webClient, "server_error")
	b.get(w.issuer+"/mcp-auth/callback?state="+randomState("x")).wantPage(http.StatusInternalServerError, "does not work at the moment")
	broken = false
	b.login(webClient, "alice").code(webClient)
}

// flip returns another character of base64url.
func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}
