package caddytest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/seal"
)

const (
	thePhrase   = "the-pass-phrase-of-these-tests-which-is-long"
	otherPhrase = "another-pass-phrase-that-is-as-long-as-that"
)

func ring(t *testing.T, phrase string) *seal.Ring {
	t.Helper()
	key, err := seal.ParseKey(phrase)
	if err != nil {
		t.Fatal(err)
	}
	r, err := seal.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// badSeals are forms of a genuine sealed value that are not to be accepted. The
// control is sealed anew by the same hand and is.
func badSeals(t *testing.T, genuine string, purpose seal.Purpose, issuer string, ad ...string) (bad map[string]string, control string) {
	t.Helper()
	mine, others := ring(t, thePhrase), ring(t, otherPhrase)
	plaintext, err := mine.Sealer(purpose, issuer).Open(genuine, time.Now(), ad...)
	if err != nil {
		t.Fatalf("the genuine value does not open: %v", err)
	}
	future, past := time.Now().Add(time.Minute), time.Now().Add(-time.Minute)
	sealed := func(s *seal.Sealer, expiry time.Time, ad ...string) string {
		value, err := s.Seal(plaintext, expiry, ad...)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	otherPurpose := seal.PurposeProxyID
	return map[string]string{
		"tampered in the middle": alter(genuine, len(genuine)/2),
		"tampered at the end":    alter(genuine, len(genuine)-2),
		"tampered in its expiry": alter(genuine, 9),
		"truncated":              genuine[:len(genuine)-8],
		"almost nothing left":    genuine[:8],
		"longer":                 genuine + "AAAA",
		"with a line break":      genuine[:12] + "\n" + genuine[12:],
		"expired":                sealed(mine.Sealer(purpose, issuer), past, ad...),
		"of another key":         sealed(others.Sealer(purpose, issuer), future, ad...),
		"of another purpose":     sealed(mine.Sealer(otherPurpose, issuer), future, ad...),
		"of another issuer":      sealed(mine.Sealer(purpose, "http://localhost:1"), future, ad...),
		"of another kind":        sealed(mine.Sealer(purpose, issuer), future, append(ad, "other")...),
	}, sealed(mine.Sealer(purpose, issuer), future, ad...)
}

// TestAttackSealedValues: values that are tampered with, cut, too old, or sealed
// with another key, for another purpose or by another issuer are refused alike.
func TestAttackSealedValues(t *testing.T) {
	idp := newSignInIDP(t)
	c := newCaddy(t)
	globals := "\tmcp_auth {\n\t\tstore memory\n\t\tencryption_key " + thePhrase + "\n\t}"
	if err := c.load(globals, fmt.Sprintf(upstreamSite, idp.URL, "allow any\nrate_limit off", newBackend(t).addr())); err != nil {
		t.Fatal(err)
	}
	id := c.register(testRedirect)

	t.Run("client_id", func(t *testing.T) {
		bad, control := badSeals(t, id, seal.PurposeClientID, c.Origin)
		if resp, body := c.send("GET", authorizeTarget(control, "s"), http.Header{"Accept": {"text/html"}}, ""); resp.StatusCode != 200 {
			t.Errorf("the control is refused: %d %s", resp.StatusCode, body)
		}
		for name, value := range bad {
			resp, body := c.send("GET", authorizeTarget(value, "s"), nil, "")
			form := codeForm(value)
			tokenResp, answer := c.token(form)
			switch {
			case name == "with a line break": // no such thing in a parameter
				if resp.StatusCode != 400 || tokenResp.StatusCode == 200 {
					t.Errorf("%s: %d %s", name, resp.StatusCode, body)
				}
			case resp.StatusCode != 400 || !strings.Contains(body, `"invalid_client"`) || resp.Header.Get("Location") != "":
				t.Errorf("authorize, %s: %d %s", name, resp.StatusCode, body)
			case tokenResp.StatusCode != 401 || answer["error"] != "invalid_client":
				t.Errorf("token, %s: %d %v", name, tokenResp.StatusCode, answer)
			}
		}
	})

	b := newBrowser(t)
	stop := b.client.CheckRedirect
	b.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if req.URL.Path == "/mcp-auth/callback" {
			return http.ErrUseLastResponse
		}
		return stop(req, via)
	}
	b.open(c.Origin + authorizeTarget(id, "s"))
	t.Run("consent form", func(t *testing.T) {
		bad, control := badSeals(t, hiddenField(t, b.page), seal.PurposeConsentForm, c.Origin, "consent")
		post := func(value string) (*http.Response, string) {
			t.Helper()
			return c.send("POST", "/mcp-auth/consent", http.Header{
				"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"text/html"}, "Cookie": {cookieHeader(t, b, c)},
			}, url.Values{"request": {value}, "decision": {"allow"}}.Encode())
		}
		if resp, body := post(control); resp.StatusCode != 303 {
			t.Errorf("the control is refused: %d %s", resp.StatusCode, body)
		}
		for name, value := range bad {
			if resp, body := post(value); resp.StatusCode != 400 || len(resp.Cookies()) != 0 || resp.Header.Get("Location") != "" || !strings.Contains(body, "<h1>") {
				t.Errorf("%s: %d %v %s", name, resp.StatusCode, resp.Header, body)
			}
		}
	})

	b.allow()
	callback := strings.TrimPrefix(b.resp.Header.Get("Location"), c.Origin)
	t.Run("transaction", func(t *testing.T) {
		name, genuine := transactionCookie(t, cookieHeader(t, b, c))
		bad, control := badSeals(t, genuine, seal.PurposeTransaction, c.Origin)
		load := func(value string) (*http.Response, string) {
			t.Helper()
			return c.send("GET", callback, http.Header{"Accept": {"text/html"}, "Cookie": {name + "=" + value}}, "")
		}
		for what, value := range bad {
			if what == "with a line break" { // no such thing in a header
				continue
			}
			if resp, body := load(value); resp.StatusCode != 400 || resp.Header.Get("Location") != "" || !strings.Contains(body, "<h1>") {
				t.Errorf("%s: %d %v %s", what, resp.StatusCode, resp.Header, body)
			}
		}
		if n := idp.count("/token"); n != 0 {
			t.Errorf("the upstream code was sent %d times", n)
		}
		if resp, body := load(control); resp.StatusCode != 303 || !strings.Contains(resp.Header.Get("Location"), "code=") {
			t.Errorf("the control is refused: %d %s", resp.StatusCode, body)
		}
	})

	t.Run("every value in every other's place", func(t *testing.T) {
		tokens := c.mustExchange(id, mustArrive(t, c, signedIn(newBrowser(t), c, id), nil))
		b := newBrowser(t)
		b.open(c.Origin + authorizeTarget(id, "s"))
		form := hiddenField(t, b.page)
		cookies := cookieHeader(t, b, c)
		values := map[string]string{
			"client_id": id, "consent form": form, "access token": fmt.Sprint(tokens["access_token"]),
			"refresh token": fmt.Sprint(tokens["refresh_token"]), "browser id": cookies[strings.IndexByte(cookies, '=')+1:],
		}
		html := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"text/html"}, "Cookie": {cookies}}
		for name, value := range values {
			if name != "client_id" {
				if resp, body := c.send("GET", authorizeTarget(value, "s"), nil, ""); resp.StatusCode != 400 {
					t.Errorf("%s as client_id: %d %s", name, resp.StatusCode, body)
				}
			}
			if name != "consent form" {
				if resp, body := c.send("POST", "/mcp-auth/consent", html, url.Values{"request": {value}, "decision": {"allow"}}.Encode()); resp.StatusCode != 400 {
					t.Errorf("%s as consent form: %d %s", name, resp.StatusCode, body)
				}
			}
			if name != "access token" && c.uses(map[string]any{"access_token": value}) != 401 {
				t.Errorf("%s as access token", name)
			}
			if name != "refresh token" {
				if resp, answer := c.refresh(id, value); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
					t.Errorf("%s as refresh token: %d %v", name, resp.StatusCode, answer)
				}
			}
			if resp, answer := c.exchange(id, value); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
				t.Errorf("%s as code: %d %v", name, resp.StatusCode, answer)
			}
			if resp, body := c.send("POST", "/mcp-auth/connections", html, url.Values{"token": {value}, "action": {"revoke-all"}}.Encode()); resp.StatusCode != 400 {
				t.Errorf("%s as form of the connections: %d %s", name, resp.StatusCode, body)
			}
		}
		if c.uses(tokens) != 200 {
			t.Error("the session has ended")
		}
	})
}

// signedIn presses Allow for the client.
func signedIn(b *browser, c *caddyInstance, id string) *url.URL {
	b.t.Helper()
	if arrived := b.open(c.Origin + authorizeTarget(id, "s")); arrived != nil {
		return arrived
	}
	return b.allow()
}

// TestAttackCrossIssuer: two issuers of one Caddy, with one key and one store,
// accept nothing of each other.
func TestAttackCrossIssuer(t *testing.T) {
	idp := newSignInIDP(t)
	c := newCaddy(t)
	second := &caddyInstance{t: t, dir: c.dir, Port: freePort(t)}
	second.Origin = fmt.Sprintf("http://localhost:%d", second.Port)
	site := fmt.Sprintf(upstreamSite, idp.URL, "allow any\nrate_limit off", newBackend(t).addr())
	globals := "\tmcp_auth {\n\t\tstore memory\n\t\tencryption_key " + thePhrase + "\n\t}"
	if err := c.load(globals, site+strings.ReplaceAll(site, "{ORIGIN}", second.Origin)); err != nil {
		t.Fatal(err)
	}
	id, otherID := c.register(testRedirect), second.register(testRedirect)
	answer := mustArrive(t, c, signedIn(newBrowser(t), c, id), nil)
	tokens := c.mustExchange(id, mustArrive(t, c, signedIn(newBrowser(t), c, id), nil))

	if resp, body := second.send("GET", authorizeTarget(id, "s"), nil, ""); resp.StatusCode != 400 || !strings.Contains(body, "invalid_client") {
		t.Errorf("client_id: %d %s", resp.StatusCode, body)
	}
	for _, client := range []string{id, otherID} {
		if resp, got := second.exchange(client, answer.Get("code")); resp.StatusCode == 200 {
			t.Errorf("code: %v", got)
		}
		if resp, got := second.refresh(client, tokens["refresh_token"]); resp.StatusCode == 200 {
			t.Errorf("refresh token: %v", got)
		}
	}
	if status := second.uses(tokens); status != 401 {
		t.Errorf("access token: %d", status)
	}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	second.send("POST", "/revoke", header, url.Values{"client_id": {otherID}, "token": {fmt.Sprint(tokens["refresh_token"])}}.Encode())
	if status := c.uses(tokens); status != 200 {
		t.Errorf("the session was ended at the other issuer: %d", status)
	}

	// The browser's side: both are on localhost and share its cookies.
	b := newBrowser(t)
	stop := b.client.CheckRedirect
	b.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if req.URL.Path == "/mcp-auth/callback" {
			return http.ErrUseLastResponse
		}
		return stop(req, via)
	}
	b.open(c.Origin + authorizeTarget(id, "s"))
	form := hiddenField(t, b.page)
	b.open(second.Origin + authorizeTarget(otherID, "s"))
	cookies := cookieHeader(t, b, c)
	if strings.Count(cookies, "mcp_b_") != 2 {
		t.Errorf("cookies %s", cookies)
	}
	html := http.Header{"Content-Type": header["Content-Type"], "Accept": {"text/html"}, "Cookie": {cookies}}
	if resp, body := second.send("POST", "/mcp-auth/consent", html, url.Values{"request": {form}, "decision": {"allow"}}.Encode()); resp.StatusCode != 400 {
		t.Errorf("consent form: %d %s", resp.StatusCode, body)
	}
	b.open(c.Origin + authorizeTarget(id, "s"))
	b.allow()
	callback := strings.TrimPrefix(b.resp.Header.Get("Location"), c.Origin)
	if resp, _ := second.send("GET", callback, http.Header{"Accept": {"text/html"}, "Cookie": {cookieHeader(t, b, c)}}, ""); resp.StatusCode != 400 {
		t.Errorf("callback: %d %v", resp.StatusCode, resp.Header)
	}
	mustArrive(t, c, b.open(c.Origin+callback), url.Values{"state": {"s"}})
}

// TestBrokerLargeRequests: a request that needs two cookies works, one that
// needs more is told to the client, and no cookie is larger than browsers take.
func TestBrokerLargeRequests(t *testing.T) {
	c, _ := loadUpstream(t, "allow any")
	id := c.register(testRedirect)
	sized := func(name string, n int) string {
		return c.Origin + authorizeTarget(id, "s") + "&" + name + "=" + strings.Repeat("x", n)
	}
	b := newBrowser(t)
	big := strings.Replace(c.Origin+authorizeTarget(id, "s"), "state=s", "state="+strings.Repeat("s", 2000), 1)
	big += "&login_hint=" + strings.Repeat("h", 300) + "&ui_locales=" + strings.Repeat("x", 100)
	b.mustStay(b.open(big), 200)
	stop := b.client.CheckRedirect
	largest, parts := 0, 0
	b.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if req.Response != nil {
			for _, line := range req.Response.Header.Values("Set-Cookie") {
				largest = max(largest, len(line))
				if strings.HasPrefix(line, "mcp_t_") || strings.HasPrefix(line, "mcp_u_") {
					parts++
				}
			}
		}
		return stop(req, via)
	}
	answer := mustArrive(t, c, b.allow(), url.Values{"state": {strings.Repeat("s", 2000)}})
	if largest > 4096 || parts < 2 {
		t.Errorf("%d cookies for the transaction, the largest of %d bytes", parts, largest)
	}
	c.mustExchange(id, answer)
	for name, n := range map[string]int{"state": 2 << 10, "login_hint": 8 << 10, "ui_locales": 8 << 10, "nonce": 8 << 10} {
		target := sized(name, n)
		if name == "state" {
			target = strings.Replace(c.Origin+authorizeTarget(id, "s"), "state=s", "state="+strings.Repeat("s", n+1), 1)
		}
		arrived := newBrowser(t).open(target)
		if arrived != nil && arrived.Query().Get("error") != "invalid_request" {
			t.Errorf("%s of %d bytes led to %s", name, n, arrived)
		}
	}
}

// TestAttackOffboarding: who may not have access any more loses it.
func TestAttackOffboarding(t *testing.T) {
	t.Run("allow withdrawn by a reload", func(t *testing.T) {
		idp := newSignInIDP(t)
		c := newCaddy(t)
		load := func(allow string) {
			t.Helper()
			if err := c.load(memoryStore, fmt.Sprintf(upstreamSite, idp.URL, "allow "+allow, "localhost:1")); err != nil {
				t.Fatal(err)
			}
		}
		load("email alice@example.com")
		id := c.register(testRedirect)
		tokens := c.mustExchange(id, mustArrive(t, c, signedIn(newBrowser(t), c, id), nil))
		load("email alice@example.com bob@example.com")
		resp, tokens := c.refresh(id, tokens["refresh_token"])
		if resp.StatusCode != 200 {
			t.Fatalf("refresh after a reload: %d %v", resp.StatusCode, tokens)
		}
		load("email bob@example.com")
		resp, answer := c.refresh(id, tokens["refresh_token"])
		refused(t, resp, answer, "invalid_grant")
		if status := c.uses(tokens); status != 401 {
			t.Errorf("the access token gets %d", status)
		}
		load("email alice@example.com")
		resp, answer = c.refresh(id, tokens["refresh_token"])
		refused(t, resp, answer, "invalid_grant")
	})
	t.Run("account removed or disabled by a reload", func(t *testing.T) {
		alice, bob := hash(t, alicePassword), hash(t, "battery staple")
		backend := newBackend(t)
		c := newCaddy(t)
		load := func(accounts string) {
			t.Helper()
			if err := c.load(memoryStore, fmt.Sprintf(brokerSite, "accounts {\n"+accounts+"\n}", "", backend.addr())); err != nil {
				t.Fatal(err)
			}
		}
		load("alice " + alice + "\nbob " + bob)
		id := c.register(testRedirect)
		hers := c.mustExchange(id, newBrowser(t).signIn(c.Origin+authorizeTarget(id, "s"), aliceName, alicePassword))
		his := c.mustExchange(id, newBrowser(t).signIn(c.Origin+authorizeTarget(id, "s"), "bob", "battery staple"))
		use := func(hersWant, hisWant int) {
			t.Helper()
			if a, b := c.uses(hers), c.uses(his); a != hersWant || b != hisWant {
				t.Errorf("alice gets %d, bob %d; want %d and %d", a, b, hersWant, hisWant)
			}
		}
		use(200, 200)
		load("bob " + bob)
		use(401, 200)
		load("alice " + alice + "\nbob " + bob + " {\ndisabled\n}")
		use(200, 401)
		resp, answer := c.refresh(id, his["refresh_token"])
		refused(t, resp, answer, "invalid_grant")
		load("alice " + alice + "\nbob " + bob)
		use(200, 401) // the refresh has ended it for good
	})
	t.Run("the identity provider is asked at a refresh", func(t *testing.T) {
		c, idp := loadUpstream(t, "allow any\ntokens {\nupstream_check 1ms\n}")
		id := c.register(testRedirect)
		tokens := c.mustExchange(id, mustArrive(t, c, signedIn(newBrowser(t), c, id), nil))
		status := 0
		idp.handle("/token", func(w http.ResponseWriter, r *http.Request) {
			switch status {
			case 500:
				w.WriteHeader(status)
			case 400:
				answerJSON(w, status, map[string]any{"error": "invalid_grant", "error_description": "secret words"})
			default:
				idp.issue(w, r)
			}
		})
		for _, status = range []int{500, 200} { // trouble loses nothing
			resp, body := c.send("POST", "/token", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
				url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {fmt.Sprint(tokens["refresh_token"])}}.Encode())
			if status == 500 && (resp.StatusCode != 503 || !strings.Contains(body, `"temporarily_unavailable"`) || resp.Header.Get("Retry-After") == "") {
				t.Errorf("while it has trouble: %d %v %s", resp.StatusCode, resp.Header, body)
			}
			if status == 200 && (resp.StatusCode != 200 || json.Unmarshal([]byte(body), &tokens) != nil) {
				t.Errorf("afterwards: %d %s", resp.StatusCode, body)
			}
			if used := c.uses(tokens); used != 200 {
				t.Errorf("the access token gets %d", used)
			}
		}
		status = 400 // a definite no
		resp, answer := c.refresh(id, tokens["refresh_token"])
		refused(t, resp, answer, "invalid_grant")
		if strings.Contains(fmt.Sprint(answer), "secret words") {
			t.Errorf("the upstream's words reach the client: %v", answer)
		}
		if used := c.uses(tokens); used != 401 {
			t.Errorf("the access token gets %d", used)
		}
	})
}
