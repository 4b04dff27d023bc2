package caddytest_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signInIDP is an OpenID provider whose session never ends: whoever comes is
// the current user and is sent back at once.
type signInIDP struct {
	*scriptedIDP

	mu     sync.Mutex
	user   map[string]any // claims of who signs in
	codes  map[string]signIn
	access map[string]map[string]any // claims by access token
	// answer changes the parameters of the next authorization responses.
	answer func(url.Values)
}

// signIn is what a code stands for.
type signIn struct {
	nonce, challenge, redirectURI string
	claims                        map[string]any
}

var aliceClaims = map[string]any{"sub": "a-1", "email": "alice@example.com", "email_verified": true, "name": "Alice"}

func newSignInIDP(t *testing.T) *signInIDP {
	t.Helper()
	idp := &signInIDP{
		scriptedIDP: newScriptedIDP(t), user: aliceClaims,
		codes: make(map[string]signIn), access: make(map[string]map[string]any),
	}
	idp.handle("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, map[string]any{
			"issuer": idp.URL, "authorization_endpoint": idp.URL + "/authorize", "token_endpoint": idp.URL + "/token",
			"userinfo_endpoint": idp.URL + "/userinfo", "revocation_endpoint": idp.URL + "/revoke", "jwks_uri": idp.URL + "/keys",
			"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"ES256"}, "code_challenge_methods_supported": []string{"S256"},
			"authorization_response_iss_parameter_supported": true,
		})
	})
	idp.handle("/authorize", idp.authorize)
	idp.handle("/token", idp.issue)
	idp.handle("/userinfo", idp.userinfo)
	return idp
}

// signsIn makes somebody else the current user.
func (idp *signInIDP) signsIn(claims map[string]any) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	idp.user = claims
}

// answers has fn change all authorization responses from now on.
func (idp *signInIDP) answers(fn func(url.Values)) {
	idp.mu.Lock()
	defer idp.mu.Unlock()
	idp.answer = fn
}

func (idp *signInIDP) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	code := rand.Text()
	idp.mu.Lock()
	idp.codes[code] = signIn{q.Get("nonce"), q.Get("code_challenge"), q.Get("redirect_uri"), idp.user}
	back := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {idp.URL}}
	if idp.answer != nil {
		idp.answer(back)
	}
	idp.mu.Unlock()
	w.Header().Set("Location", q.Get("redirect_uri")+"?"+back.Encode())
	w.WriteHeader(http.StatusFound)
}

// issue redeems codes, each once, and refresh tokens, each for ever.
func (idp *signInIDP) issue(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	refuse := func() { answerJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"}) }
	idp.mu.Lock()
	defer idp.mu.Unlock()
	var in signIn
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		code := r.PostForm.Get("code")
		var ok bool
		in, ok = idp.codes[code]
		delete(idp.codes, code)
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if !ok || base64.RawURLEncoding.EncodeToString(sum[:]) != in.challenge || r.PostForm.Get("redirect_uri") != in.redirectURI {
			refuse()
			return
		}
	case "refresh_token":
		in.claims = idp.user
	default:
		refuse()
		return
	}
	claims := jwt.MapClaims{"iss": idp.URL, "aud": "broker", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	if in.nonce != "" {
		claims["nonce"] = in.nonce
	}
	maps.Copy(claims, in.claims)
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = "k1"
	signed, err := token.SignedString(idp.key)
	if err != nil {
		panic(err)
	}
	access := rand.Text()
	idp.access[access] = in.claims
	answerJSON(w, http.StatusOK, map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": 300, "refresh_token": "upstream-" + rand.Text(), "id_token": signed,
	})
}

func (idp *signInIDP) userinfo(w http.ResponseWriter, r *http.Request) {
	idp.mu.Lock()
	claims := idp.access[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	idp.mu.Unlock()
	if claims == nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	answerJSON(w, http.StatusOK, claims)
}

// upstreamSite is a broker with a signInIDP; %s are its issuer, further
// settings, and the server behind.
const upstreamSite = `
{ORIGIN} {
	log
	mcp_auth {ORIGIN} {
		upstream oidc %s {
			client_id broker
			client_secret secret-of-the-broker
		}
		resource /mcp {
			name "Notes"
			scopes mcp:read
		}
		%s
	}
	reverse_proxy %s
}
`

// loadUpstream loads upstreamSite with a signInIDP.
func loadUpstream(t *testing.T, settings string) (*caddyInstance, *signInIDP) {
	t.Helper()
	idp := newSignInIDP(t)
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(upstreamSite, idp.URL, settings, newBackend(t).addr())); err != nil {
		t.Fatal(err)
	}
	return c, idp
}

// uses returns the status that a request with the access token gets.
func (c *caddyInstance) uses(tokens map[string]any) int {
	c.t.Helper()
	resp, _ := c.send("GET", "/mcp", bearerHeader(fmt.Sprint(tokens["access_token"])), "")
	return resp.StatusCode
}

// mustExchange redeems a code.
func (c *caddyInstance) mustExchange(id string, answer url.Values) map[string]any {
	c.t.Helper()
	resp, tokens := c.exchange(id, answer.Get("code"))
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("no tokens for the answer %v: %d %v", answer, resp.StatusCode, tokens)
	}
	return tokens
}

// allow presses Allow on the consent page, and returns the answer to the client
// if the browser is sent there.
func (b *browser) allow() *url.URL {
	b.t.Helper()
	return b.submit(b.button("Allow"))
}

// mustArrive fails unless the browser was sent to the client with these
// parameters, and returns all that it was sent there with.
func mustArrive(t *testing.T, c *caddyInstance, arrived *url.URL, want url.Values) url.Values {
	t.Helper()
	if arrived == nil {
		t.Fatal("the browser was not sent to the client")
	}
	got := arrived.Query()
	for name := range want {
		if got.Get(name) != want.Get(name) {
			t.Fatalf("the client was sent %v, want %v", got, want)
		}
	}
	if got.Get("iss") != c.Origin {
		t.Errorf("the answer to the client has iss %q", got.Get("iss"))
	}
	return got
}

// mustStay fails unless the browser is on a page of ours with this status.
func (b *browser) mustStay(arrived *url.URL, status int) {
	b.t.Helper()
	switch {
	case arrived != nil:
		b.t.Fatalf("the browser was sent to the client: %s", arrived)
	case b.resp.StatusCode != status || !strings.HasPrefix(b.resp.Header.Get("Content-Type"), "text/html"):
		b.t.Fatalf("%s answered %d %s, want a page with %d:\n%.400s", b.at, b.resp.StatusCode, b.resp.Header.Get("Content-Type"), status, b.page)
	}
}

// TestBrokerUpstreamAnswers: whatever the identity provider answers, the client
// gets an OAuth error or the user a page, and nobody a code.
func TestBrokerUpstreamAnswers(t *testing.T) {
	c, idp := loadUpstream(t, "allow email *@example.com")
	id := c.register(testRedirect)
	set := func(name, value string) func(url.Values) { return func(q url.Values) { q.Set(name, value) } }
	fail := func(code string) func(url.Values) {
		return func(q url.Values) {
			q.Del("code")
			q.Set("error", code)
			q.Set("error_description", "<b>secret words</b>")
		}
	}
	for _, row := range []struct {
		name   string
		answer func(url.Values)
		user   map[string]any
		code   string // to the client
		page   int    // to the user
	}{
		{name: "the user denies", answer: fail("access_denied"), code: "access_denied"},
		{name: "it has trouble", answer: fail("server_error"), code: "temporarily_unavailable"},
		{name: "it does not like our request", answer: fail("invalid_scope"), code: "temporarily_unavailable"},
		{name: "neither code nor error", answer: func(q url.Values) { q.Del("code") }, code: "temporarily_unavailable"},
		{name: "a code it does not know", answer: set("code", "stolen"), page: http.StatusBadRequest},
		{name: "mix-up: the iss of another", answer: set("iss", "https://other.example"), code: "temporarily_unavailable"},
		{name: "mix-up: no iss though announced", answer: func(q url.Values) { q.Del("iss") }, code: "temporarily_unavailable"},
		{name: "mix-up: an error of another", answer: func(q url.Values) { fail("access_denied")(q); q.Set("iss", "https://other.example") }, code: "temporarily_unavailable"},
		{name: "state changed", answer: set("state", strings.Repeat("A", 43)), page: http.StatusBadRequest},
		{name: "no state", answer: func(q url.Values) { q.Del("state") }, page: http.StatusBadRequest},
		{name: "state twice", answer: func(q url.Values) { q.Add("state", q.Get("state")) }, page: http.StatusBadRequest},
		{name: "code twice", answer: func(q url.Values) { q.Add("code", q.Get("code")) }, code: "temporarily_unavailable"},
		{
			name: "unverified mail against allow email", code: "access_denied",
			user: map[string]any{"sub": "m-1", "email": "mallory@example.com", "email_verified": false},
		},
		{
			name: "unverified mail by silence", code: "access_denied",
			user: map[string]any{"sub": "m-1", "email": "mallory@example.com"},
		},
		{
			name: "mail of another domain", code: "access_denied",
			user: map[string]any{"sub": "m-1", "email": "mallory@example.com.evil.example", "email_verified": true},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			idp.answers(row.answer)
			if row.user == nil {
				row.user = aliceClaims
			}
			idp.signsIn(row.user)
			asked := idp.count("/token")
			b := newBrowser(t)
			b.open(c.Origin + authorizeTarget(id, "s1"))
			arrived := b.allow()
			if row.page != 0 {
				b.mustStay(arrived, row.page)
				if strings.Contains(b.page, "stolen") {
					t.Errorf("the page repeats what it was given:\n%s", b.page)
				}
				return
			}
			got := mustArrive(t, c, arrived, url.Values{"error": {row.code}, "state": {"s1"}})
			if got.Has("code") || strings.Contains(arrived.RawQuery, "secret") {
				t.Errorf("the client was sent %v", got)
			}
			if strings.HasPrefix(row.name, "mix-up") && idp.count("/token") != asked {
				t.Error("the code was sent to the identity provider")
			}
		})
	}
}

// TestBrokerAnotherUser: what alice allowed in this browser is not allowed when
// bob signs in there.
func TestBrokerAnotherUser(t *testing.T) {
	c, idp := loadUpstream(t, "allow any")
	id := c.register(testRedirect)
	b := newBrowser(t)
	b.open(c.Origin + authorizeTarget(id, "s1"))
	mustArrive(t, c, b.allow(), url.Values{"state": {"s1"}})
	// Remembered: no page …
	mustArrive(t, c, b.open(c.Origin+authorizeTarget(id, "s2")), url.Values{"state": {"s2"}})
	// … but for bob.
	idp.signsIn(map[string]any{"sub": "b-1", "email": "bob@example.com", "email_verified": true})
	b.mustStay(b.open(c.Origin+authorizeTarget(id, "s3")), http.StatusOK)
	if !strings.Contains(b.page, "bob@example.com") || !strings.Contains(b.page, "Allow") {
		t.Errorf("no question to bob:\n%s", b.page)
	}
	// Nor is bob's word alice's, should she come back now.
	idp.signsIn(aliceClaims)
	arrived := b.allow()
	b.mustStay(arrived, http.StatusOK)
	if !strings.Contains(b.page, "alice@example.com") {
		t.Errorf("no question to alice:\n%s", b.page)
	}
	answer := mustArrive(t, c, b.allow(), url.Values{"state": {"s3"}})
	if tokens := c.mustExchange(id, answer); c.uses(tokens) != 200 {
		t.Error("the token is refused")
	}
}

// TestBrokerNeverSilentOnThisDevice: consent for a loopback redirect URI is not
// remembered, whoever asks may be any program.
func TestBrokerNeverSilentOnThisDevice(t *testing.T) {
	c, _ := loadUpstream(t, "allow any")
	const redirectURI = "http://127.0.0.1:41995/callback"
	id := c.register(redirectURI)
	target := c.Origin + strings.Replace(authorizeTarget(id, "s"), url.QueryEscape(testRedirect), url.QueryEscape(redirectURI), 1)
	b := newBrowser(t)
	b.client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), redirectURI) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	for range 2 {
		b.mustStay(b.open(target), http.StatusOK)
		b.allow()
		if location := b.resp.Header.Get("Location"); !strings.HasPrefix(location, redirectURI+"?") || !strings.Contains(location, "code=") {
			t.Fatalf("Allow led to %d %q", b.resp.StatusCode, location)
		}
	}
}

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

// newListener counts the connections that somebody makes to it.
func newListener(t *testing.T) (addr string, connections func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	ts.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			mu.Lock()
			n++
			mu.Unlock()
		}
	}
	ts.Start()
	t.Cleanup(ts.Close)
	return ts.Listener.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}
