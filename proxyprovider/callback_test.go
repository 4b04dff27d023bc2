package proxyprovider_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// TestCallbackAttacks: state and cookie must agree, in this browser, once.
func TestCallbackAttacks(t *testing.T) {
	w := newBrokerWorld(t)
	sibling := newBrokerWorld(t, func(o *brokerWorld) { o.ring = w.ring })
	// begin brings a browser to the point where the provider sends it back.
	begin := func() (b *brokerBrowser, back string) {
		b = w.browser()
		return b, w.upstream.signIn(t, b.get(w.authorizeURL(webClient)).allow().location, "alice")
	}
	pending := func(b *brokerBrowser) *http.Cookie { return b.cookiesNamed("__Host-mcp_t")[0] }
	rows := []struct {
		name string
		text string
		get  func() *brokerPage
	}{
		{"login CSRF: the attacker's callback in the victim's browser", "not known in this browser", func() *brokerPage {
			_, back := begin()
			victim, _ := begin()
			return victim.get(back)
		}},
		{"login CSRF: in a browser without any cookie", "not known in this browser", func() *brokerPage {
			_, back := begin()
			return w.browser().get(back)
		}},
		{"the attacker's code with the victim's state", "finished already", func() *brokerPage {
			_, attackers := begin()
			victim, back := begin()
			return victim.get(strings.Split(back, "?")[0] + "?" + url.Values{
				"code": {query(attackers).Get("code")}, "state": {query(back).Get("state")},
			}.Encode())
		}},
		{"the browser id in place of the transaction", "not known in this browser", func() *brokerPage {
			b, back := begin()
			c := pending(b)
			b.setCookies(&http.Cookie{Name: c.Name, Value: b.cookiesNamed("__Host-mcp_b")[0].Value})
			return b.get(back)
		}},
		{"the cookie of another transaction under the name of this one", "not known in this browser", func() *brokerPage {
			b, back := begin()
			other, _ := begin()
			b.setCookies(&http.Cookie{Name: pending(b).Name, Value: pending(other).Value})
			return b.get(back)
		}},
		{"an altered cookie", "not known in this browser", func() *brokerPage {
			b, back := begin()
			c := pending(b)
			b.setCookies(&http.Cookie{Name: c.Name, Value: c.Value[:50] + flip(c.Value[50]) + c.Value[51:]})
			return b.get(back)
		}},
		{"a cookie cut off", "not known in this browser", func() *brokerPage {
			b, back := begin()
			c := pending(b)
			b.setCookies(&http.Cookie{Name: c.Name, Value: c.Value[:100]})
			return b.get(back)
		}},
		{"a cookie that is too long", "not known in this browser", func() *brokerPage {
			b, back := begin()
			b.setCookies(&http.Cookie{Name: pending(b).Name, Value: strings.Repeat("A", 9000)})
			return b.get(back)
		}},
		{"a cookie of another issuer", "not known in this browser", func() *brokerPage {
			b, back := begin()
			other := sibling.browser()
			other.get(sibling.authorizeURL(webClient)).allow().wantSilent()
			b.setCookies(&http.Cookie{Name: pending(b).Name, Value: pending(other).Value})
			return b.get(back)
		}},
		{"a form as the cookie", "not known in this browser", func() *brokerPage {
			b, back := begin()
			_, form := b.get(w.authorizeURL(webClient)).form()
			b.setCookies(&http.Cookie{Name: pending(b).Name, Value: form.Get("request")})
			return b.get(back)
		}},
		{"no state", "not known in this browser", func() *brokerPage {
			b, back := begin()
			return b.get(strings.Split(back, "?")[0] + "?code=" + query(back).Get("code"))
		}},
		{"state twice", "not known in this browser", func() *brokerPage {
			b, back := begin()
			return b.get(back + "&state=" + query(back).Get("state"))
		}},
		{"a state nobody has", "not known in this browser", func() *brokerPage {
			b, back := begin()
			return b.get(strings.Replace(back, query(back).Get("state"), randomState("x"), 1))
		}},
		{"a state that is altered in its unused bits", "not known in this browser", func() *brokerPage {
			b, back := begin()
			state := query(back).Get("state")
			return b.get(strings.Replace(back, state, state[:42]+string(rune(state[42]+1)), 1))
		}},
		{"too late", "took too long", func() *brokerPage {
			b, back := begin()
			kept := *pending(b)
			w.clock.advance(10 * time.Minute)
			b.setCookies(&kept)
			return b.get(back)
		}},
		{"an endless query", "not known in this browser", func() *brokerPage {
			b, back := begin()
			return b.get(back + "&x=" + strings.Repeat("x", 17<<10))
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			row.get().wantPage(http.StatusBadRequest, row.text)
			if n := w.grantCount(); n != 0 {
				t.Errorf("%d grants", n)
			}
		})
	}
}

func query(to string) url.Values {
	u, err := url.Parse(to)
	if err != nil {
		panic(err)
	}
	return u.Query()
}

// TestCallbackReplay: the second use of a callback ends in a page and makes
// nothing, whatever the browser kept, and the upstream is not asked twice.
func TestCallbackReplay(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	back := w.upstream.signIn(t, b.get(w.authorizeURL(webClient)).allow().location, "alice")
	kept := b.cookiesNamed("__Host-mcp_t")
	code := b.get(back).code(webClient)
	b.get(back).wantPage(http.StatusBadRequest, "not known in this browser") // the back button
	b.setCookies(kept...)
	b.get(back).wantPage(http.StatusBadRequest, "finished already")
	b.setCookies(kept...)
	tokens, err := w.redeem(webClient, code)
	if err != nil {
		t.Fatal(err)
	}
	b.setCookies(kept...)
	b.get(back).wantPage(http.StatusBadRequest, "finished already")
	if w.grantCount() != 1 || w.upstream.exchanges != 1 {
		t.Errorf("%d grants, %d exchanges", w.grantCount(), w.upstream.exchanges)
	}
	if _, err := w.broker.VerifyAccessToken(t.Context(), tokens.AccessToken); err != nil {
		t.Errorf("the replay harmed the grant: %v", err)
	}
	// Also with a fresh code of the same login.
	if err := w.broker.RevokeAll(t.Context(), subjectOf("alice")); err != nil {
		t.Fatal(err)
	}
	w.upstream.set(func(u *loginUpstream) {
		u.codes["again"] = upstreamCode{user: "alice", state: query(back).Get("state")}
	})
	b.setCookies(kept...)
	b.get(strings.Replace(back, query(back).Get("code"), "again", 1)).wantPage(http.StatusBadRequest, "finished already")
}

// TestConcurrentCallbacks share one exchange and one code, also if the first of
// them is given up.
func TestConcurrentCallbacks(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	back := w.upstream.signIn(t, b.get(w.authorizeURL(webClient)).allow().location, "alice")
	w.upstream.set(func(u *loginUpstream) { u.hold, u.holding = make(chan struct{}), make(chan struct{}, 8) })
	kept := b.cookiesNamed("__Host-mcp_")
	locations := make([]string, 8)
	var wg sync.WaitGroup
	for i := range locations {
		wg.Go(func() {
			tab := w.browser()
			tab.setCookies(kept...)
			locations[i] = tab.get(back).location
		})
	}
	<-w.upstream.holding
	time.Sleep(50 * time.Millisecond) // the others arrive; if not, the test still holds
	close(w.upstream.hold)
	wg.Wait()
	codes := make(map[string]bool)
	for _, location := range locations {
		if location != "" {
			codes[query(location).Get("code")] = true
		}
	}
	if len(codes) != 1 || codes[""] || w.grantCount() != 1 || w.upstream.exchanges != 1 {
		t.Errorf("%d codes, %d grants, %d exchanges", len(codes), w.grantCount(), w.upstream.exchanges)
	}
}

// TestGivenUpCallback: the browser goes away, as it does on a second click.
func TestGivenUpCallback(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	back := w.upstream.signIn(t, b.get(w.authorizeURL(webClient)).allow().location, "alice")
	hold, holding := make(chan struct{}), make(chan struct{}, 8)
	w.upstream.set(func(u *loginUpstream) { u.hold, u.holding = hold, holding })
	ctx, giveUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, back, nil)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error)
	go func() {
		resp, err := b.client.Do(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		gone <- err
	}()
	<-holding
	giveUp()
	if err := <-gone; err == nil {
		t.Fatal("the first load was not given up")
	}
	time.Sleep(100 * time.Millisecond) // for the server to notice; if not, the test still holds
	second := make(chan *brokerPage)
	go func() { second <- b.get(back) }()
	time.Sleep(50 * time.Millisecond) // the second joins the first; if it comes later, it gets a page
	w.upstream.set(func(u *loginUpstream) {
		if u.givenUp > 0 {
			t.Error("the exchange ended with the browser's first request")
		}
	})
	close(hold)
	if page := <-second; page.location != "" {
		page.code(webClient)
	} else {
		page.wantPage(http.StatusBadRequest, "finished already")
	}
	if w.grantCount() != 1 || w.upstream.exchanges != 1 {
		t.Errorf("%d grants, %d exchanges", w.grantCount(), w.upstream.exchanges)
	}
}

// TestTenTabs: logins in one browser do not disturb each other, and of too many
// the oldest give way.
func TestTenTabs(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	var pages []*brokerPage
	for range 15 {
		pages = append(pages, b.get(w.authorizeURL(webClient)))
	}
	var backs []string
	for _, page := range pages {
		w.clock.advance(time.Second)
		backs = append(backs, w.upstream.signIn(t, page.allow().location, "alice"))
	}
	if n := len(b.cookiesNamed("__Host-mcp_t")); n != 12 {
		t.Errorf("%d logins under way", n)
	}
	for i, back := range backs {
		page := b.get(back)
		if i < 3 {
			page.wantPage(http.StatusBadRequest, "not known in this browser")
			continue
		}
		page.code(webClient)
	}
}

// TestCookiesThatAreNoGoodGo when the next login begins.
func TestCookiesThatAreNoGoodGo(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	name := "__Host-mcp_t_01234567_" + issuerSuffix(w.issuer)
	b.setCookies(&http.Cookie{Name: name, Value: "nonsense"}, &http.Cookie{Name: "__Host-mcp_t_other", Value: "theirs"})
	b.get(w.authorizeURL(webClient)).allow().wantSilent()
	if left := b.cookiesNamed("__Host-mcp_t_"); len(left) != 2 || left[0].Name == name || left[1].Name == name {
		t.Errorf("left: %v", left)
	}
}

// TestLargeRequests need two cookies, or are refused before anything is asked.
func TestLargeRequests(t *testing.T) {
	w := newBrokerWorld(t)
	long := "https://client.example/" + strings.Repeat("p", 1500)
	w.clients.set(func(s *brokerClients) {
		s.clients[webClient].RedirectURIs = []string{long}
		huge := strings.Repeat("c", 2000)
		s.clients[huge] = brokerClient(huge, "Huge", long)
	})
	b := w.browser()
	state := strings.Repeat("s", 2048)
	sent := b.get(w.authorizeURL(webClient, "state", state)).allow()
	if len(sent.cookies) != 2 {
		t.Fatalf("%d cookies", len(sent.cookies))
	}
	for _, c := range sent.cookies {
		if len(c.Raw) > 4096 {
			t.Errorf("a cookie of %d bytes", len(c.Raw))
		}
	}
	back := w.upstream.signIn(t, sent.location, "alice")
	parts := b.cookiesNamed("__Host-mcp_")
	end := b.get(back)
	if query(end.location).Get("state") != state || query(end.location).Get("code") == "" || len(b.cookiesNamed("__Host-mcp_t"))+len(b.cookiesNamed("__Host-mcp_u")) != 0 {
		t.Errorf("location %.100q, cookies left %v", end.location, b.cookiesNamed("__Host-mcp_"))
	}
	half := w.browser()
	for _, c := range parts {
		if !strings.HasPrefix(c.Name, "__Host-mcp_u") {
			half.setCookies(c)
		}
	}
	half.get(back).wantPage(http.StatusBadRequest, "not known in this browser")

	// Many of them are together no more than a server takes.
	for range 12 {
		b.get(w.authorizeURL(webClient, "state", state)).wantSilent()
	}
	size := 0
	for _, c := range append(b.cookiesNamed("__Host-mcp_t"), b.cookiesNamed("__Host-mcp_u")...) {
		size += len(c.Value)
	}
	if size > 24<<10 || size < 16<<10 {
		t.Errorf("the logins under way take %d bytes", size)
	}

	refused := b.get(w.authorizeURL(strings.Repeat("c", 2000), "state", state))
	if q := query(refused.location); q.Get("error") != "invalid_request" || !strings.Contains(q.Get("error_description"), "too large") {
		t.Errorf("%d %.200q", refused.status, refused.location)
	}
}

// TestUpstreamErrors reach the client as OAuth errors without upstream words, and
// never twice.
func TestUpstreamErrors(t *testing.T) {
	said := errors.New("<b>upstream words</b>")
	rows := []struct {
		name, want string
		err        error
	}{
		{"denied", "access_denied", fmt.Errorf("%w: %w", idp.ErrDenied, said)},
		{"trouble", "temporarily_unavailable", fmt.Errorf("%w: %w", idp.ErrTrouble, said)},
		{"unforeseen", "server_error", said},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := newBrokerWorld(t)
			b := w.browser()
			back := w.upstream.signIn(t, b.get(w.authorizeURL(webClient)).allow().location, "alice")
			w.upstream.set(func(u *loginUpstream) { u.err = row.err })
			page := b.get(back)
			page.wantError(webClient, row.want)
			if strings.Contains(page.location, "upstream") || strings.Contains(page.body, "upstream") {
				t.Errorf("upstream words: %s", page.location)
			}
			if !strings.Contains(w.log.String(), "upstream words") {
				t.Error("the operator does not learn what the upstream said")
			}
			b.get(back).wantPage(http.StatusBadRequest, "not known in this browser")
		})
	}
	t.Run("the code is no good", func(t *testing.T) {
		w := newBrokerWorld(t)
		b := w.browser()
		back := w.upstream.signIn(t, b.get(w.authorizeURL(webClient)).allow().location, "alice")
		w.upstream.set(func(u *loginUpstream) { u.err = idp.ErrDead })
		b.get(back).wantPage(http.StatusBadRequest, "finished already")
	})
	t.Run("the provider cannot be reached before the login", func(t *testing.T) {
		w := newBrokerWorld(t)
		page := w.browser().get(w.authorizeURL(webClient))
		w.upstream.set(func(u *loginUpstream) { u.err = idp.ErrTrouble })
		answer := page.allow()
		answer.wantError(webClient, "temporarily_unavailable")
		if len(answer.cookies) != 0 {
			t.Error("a cookie for a login that did not begin")
		}
	})
	t.Run("the client store is in trouble at the callback", func(t *testing.T) {
		w := newBrokerWorld(t)
		b := w.browser()
		back := w.upstream.signIn(t, b.get(w.authorizeURL(webClient)).allow().location, "alice")
		w.clients.set(func(s *brokerClients) { s.err = oauth.ErrTemporarilyUnavailable })
		b.get(back).wantPage(http.StatusServiceUnavailable, "does not work at the moment")
	})
}

// TestMixUp: an answer of another issuer (RFC 9207) is not used, with the real
// OpenID Connect upstream.
func TestMixUp(t *testing.T) {
	tokenRequests := 0
	mux := http.NewServeMux()
	provider := httptest.NewServer(mux)
	defer provider.Close()
	mux.HandleFunc("/.well-known/openid-configuration", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(rw, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q,"jwks_uri":%q,"response_types_supported":["code"],
			"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["RS256"],"authorization_response_iss_parameter_supported":true}`,
			provider.URL, provider.URL+"/authorize", provider.URL+"/token", provider.URL+"/jwks")
	})
	mux.HandleFunc("/token", func(rw http.ResponseWriter, _ *http.Request) {
		tokenRequests++
		rw.WriteHeader(http.StatusBadRequest)
	})
	upstream, err := idp.NewOIDC(idp.OIDCOptions{Common: idp.Common{ClientID: "mcp", ClientSecret: "s", Client: provider.Client()}, Issuer: provider.URL})
	if err != nil {
		t.Fatal(err)
	}
	for _, iss := range []string{"https://evil.example", ""} {
		w := newBrokerWorld(t, func(w *brokerWorld) { w.grants.Upstream, w.config.Upstream = upstream, upstream })
		b := w.browser()
		sent := b.get(w.authorizeURL(webClient)).allow()
		q := query(sent.location)
		if q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" || q.Get("redirect_uri") != w.issuer+"/mcp-auth/callback" {
			t.Fatalf("the request upstream: %v", q)
		}
		answer := url.Values{"state": {q.Get("state")}, "code": {"honest"}}
		if iss != "" {
			answer.Set("iss", iss)
		}
		b.get(w.issuer+"/mcp-auth/callback?"+answer.Encode()).wantError(webClient, "temporarily_unavailable")
		if tokenRequests != 0 {
			t.Fatal("the code was sent to the token endpoint")
		}
		// An error of the right issuer keeps its meaning, but not its words.
		for said, want := range map[string]string{"access_denied": "access_denied", "login_required": "login_required", "server_error": "temporarily_unavailable"} {
			sent := b.get(w.authorizeURL(webClient)).allow()
			page := b.get(w.issuer + "/mcp-auth/callback?" + url.Values{
				"state": {query(sent.location).Get("state")}, "iss": {provider.URL}, "error": {said}, "error_description": {"upstream words"},
			}.Encode())
			page.wantError(webClient, want)
			if strings.Contains(page.location, "words") {
				t.Errorf("upstream words: %s", page.location)
			}
		}
	}
}

// TestNotAllowed: who may not is refused, and asked for another account next.
func TestNotAllowed(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	b.login(webClient, "eve").wantError(webClient, "access_denied")
	if w.grantCount() != 0 {
		t.Error("there is a grant")
	}
	if !strings.Contains(w.log.String(), "eve@evil.example") {
		t.Error("the operator does not learn who was refused")
	}
	if len(w.upstream.revoked) != 1 {
		t.Errorf("revoked upstream: %v", w.upstream.revoked)
	}
	sent := b.get(w.authorizeURL(webClient)).allow()
	if got := w.upstream.request(query(sent.location).Get("state")).Prompt; got != "select_account" {
		t.Errorf("prompt %q: the same account would come again", got)
	}
	b.get(w.upstream.signIn(t, sent.location, "alice")).code(webClient)
	again := b.get(w.authorizeURL(otherClient)).allow()
	if got := w.upstream.request(query(again.location).Get("state")).Prompt; got != "" {
		t.Errorf("prompt %q", got)
	}
}
