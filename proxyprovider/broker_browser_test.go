package proxyprovider_test

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
)

// brokerBrowser is a browser that follows no redirect by itself.
type brokerBrowser struct {
	w      *brokerWorld
	client *http.Client
}

func (w *brokerWorld) browser() *brokerBrowser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	client := w.server.Client()
	return &brokerBrowser{w, &http.Client{
		Transport: client.Transport, Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// brokerPage is an answer.
type brokerPage struct {
	b        *brokerBrowser
	url      string
	status   int
	header   http.Header
	body     string
	location string
	cookies  []*http.Cookie
}

// do sends a request as a browser does.
func (b *brokerBrowser) do(method, to string, form url.Values, header ...string) *brokerPage {
	b.w.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(b.w.t.Context(), method, to, body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "null") // because of Referrer-Policy: no-referrer
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Del(header[i])
		if header[i+1] != "" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := b.client.Do(r)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	if to := resp.Header.Get("Location"); strings.HasPrefix(to, "/mcp-auth/login?") { // our own page: browsers go there
		return b.get(b.w.issuer + to)
	}
	return &brokerPage{
		b: b, url: to, status: resp.StatusCode, header: resp.Header, body: pageStyle.ReplaceAllString(string(data), ""),
		location: resp.Header.Get("Location"), cookies: resp.Cookies(),
	}
}

func (b *brokerBrowser) get(to string, header ...string) *brokerPage {
	b.w.t.Helper()
	return b.do(http.MethodGet, to, nil, header...)
}

var (
	formAction = regexp.MustCompile(`<form method="post" action="([^"]+)"`)
	pageStyle  = regexp.MustCompile(`(?s)<style.*</style>\n`)
	formHidden = regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)">`)
)

// form returns the form of the page with its hidden fields.
func (p *brokerPage) form() (action string, values url.Values) {
	p.b.w.t.Helper()
	m, h := formAction.FindStringSubmatch(p.body), formHidden.FindStringSubmatch(p.body)
	if m == nil || h == nil {
		p.b.w.t.Fatalf("status %d, no form:\n%s", p.status, p.body)
	}
	return p.b.w.server.URL + html.UnescapeString(m[1]), url.Values{h[1]: {html.UnescapeString(h[2])}}
}

// submit clicks a button.
func (p *brokerPage) submit(pairs ...string) *brokerPage {
	p.b.w.t.Helper()
	action, values := p.form()
	for i := 0; i < len(pairs); i += 2 {
		values.Set(pairs[i], pairs[i+1])
	}
	return p.b.do(http.MethodPost, action, values)
}

func (p *brokerPage) allow() *brokerPage {
	p.b.w.t.Helper()
	p.wantConsent()
	return p.submit("decision", "allow")
}

func (p *brokerPage) wantConsent() {
	p.b.w.t.Helper()
	if p.status != http.StatusOK || !strings.Contains(p.body, `value="allow"`) {
		p.b.w.t.Fatalf("no consent page: status %d, location %q\n%s", p.status, p.location, p.body)
	}
}

// wantSilent checks that the browser is sent to the provider at once.
func (p *brokerPage) wantSilent() {
	p.b.w.t.Helper()
	if p.status != http.StatusSeeOther || !strings.HasPrefix(p.location, brokerIdP) {
		p.b.w.t.Fatalf("not silent: status %d, location %q\n%.300s", p.status, p.location, p.body)
	}
}

// wantPage checks that this is one of our pages that send nobody anywhere.
func (p *brokerPage) wantPage(status int, text string) {
	p.b.w.t.Helper()
	if p.status != status || p.location != "" || !strings.Contains(p.body, "<h1>") || !strings.Contains(p.body, html.EscapeString(text)) {
		p.b.w.t.Fatalf("status %d, location %q, want a page with %d and %q:\n%s", p.status, p.location, status, text, p.body)
	}
}

// answer returns the parameters of the answer to the client.
func (p *brokerPage) answer(client string) url.Values {
	p.b.w.t.Helper()
	to, err := url.Parse(p.location)
	if err != nil || !strings.HasPrefix(p.location, p.b.w.redirectOf(client)+"?") {
		p.b.w.t.Fatalf("status %d, location %q is not the client's\n%s", p.status, p.location, p.body)
	}
	q := to.Query()
	if q.Get("state") != "st&te" || q.Get("iss") != p.b.w.issuer {
		p.b.w.t.Errorf("state %q, iss %q", q.Get("state"), q.Get("iss"))
	}
	return q
}

// wantError checks that the client is told of an error.
func (p *brokerPage) wantError(client, code string) {
	p.b.w.t.Helper()
	q := p.answer(client)
	if q.Get("error") != code || q.Has("code") {
		p.b.w.t.Errorf("the client is told %v, want %s", q, code)
	}
}

// code returns the code that the client gets.
func (p *brokerPage) code(client string) string {
	p.b.w.t.Helper()
	q := p.answer(client)
	if q.Get("code") == "" || q.Has("error") {
		p.b.w.t.Fatalf("the client gets %v, want a code", q)
	}
	return q.Get("code")
}

// login takes the browser from the client to the callback and returns its
// answer.
func (b *brokerBrowser) login(client, user string, change ...string) *brokerPage {
	b.w.t.Helper()
	p := b.get(b.w.authorizeURL(client, change...)).allow()
	return b.get(b.w.upstream.signIn(b.w.t, p.location, user))
}

// cookiesNamed returns the cookies that the browser holds and whose name begins
// so.
func (b *brokerBrowser) cookiesNamed(prefix string) []*http.Cookie {
	u, _ := url.Parse(b.w.server.URL)
	var found []*http.Cookie
	for _, c := range b.client.Jar.Cookies(u) {
		if strings.HasPrefix(c.Name, prefix) {
			found = append(found, c)
		}
	}
	return found
}

// setCookies gives the browser cookies, those of another one for example.
func (b *brokerBrowser) setCookies(cookies ...*http.Cookie) {
	u, _ := url.Parse(b.w.server.URL)
	for _, c := range cookies {
		b.client.Jar.SetCookies(u, []*http.Cookie{{Name: c.Name, Value: c.Value, Path: "/", Secure: true}})
	}
}
