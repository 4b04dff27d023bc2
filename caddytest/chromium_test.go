package caddytest_test

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	chromelog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "write the pictures of the documentation into this folder")

// pictured are the pages whose pictures the documentation shows.
var pictured = []string{"consent", "login", "connections", "problem-client"}

//go:embed testdata/chromium/audit.js
var auditScript string

//go:embed testdata/chromium/focus.js
var focusScript string

// patience is how long a tab waits for what a test expects.
const patience = 15 * time.Second

// TestChromium: the pages of the broker, with a browser and through Caddy.
func TestChromium(t *testing.T) {
	browser := startChromium(t)
	for _, part := range []struct {
		name string
		test func(*testing.T, *chromium)
	}{
		{"consent and login", testChromiumConsentAndLogin},
		{"identity provider", testChromiumUpstream},
		{"remembered consent", testChromiumRemembers},
		{"connections", testChromiumConnections},
		{"foreign pages", testChromiumForeignPages},
		{"looks", testChromiumLooks},
		{"German", testChromiumGerman},
		{"brand", testChromiumBrand},
		{"audit", testChromiumAudit},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, browser) })
	}
}

// chromium is a running Chromium. Its tabs share nothing.
type chromium struct{ ctx context.Context }

// startChromium runs Debian's Chromium until the test ends. It reaches loopback
// addresses and nothing else.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("the pages are tested with Chromium, Debian's package chromium: %v", err)
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-extensions", true),
		chromedp.Flag("force-color-profile", "srgb"),
		chromedp.Flag("lang", "en-US"),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"),
	)
	ctx, _ := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("ending Chromium: %v", err)
		}
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	return &chromium{ctx}
}

// view is how a person looks at pages. The zero value is a desktop, light, in
// English.
type view struct {
	Phone, Dark bool
	Language    string
	NoScript    bool
	// Sites are those beside localhost's ports that the person is meant to visit.
	Sites []string
	// Images are the paths of those that the pages show.
	Images []string
}

func (v view) width() int64 {
	if v.Phone {
		return 360
	}
	return 1280
}

func (v view) height() int64 {
	if v.Phone {
		return 800
	}
	return 900
}

// String names the view in the names of pictures.
func (v view) String() string {
	scheme := "light"
	if v.Dark {
		scheme = "dark"
	}
	return fmt.Sprintf("%d-%s", v.width(), scheme)
}

// tab is the browser of a person who has just unpacked it.
type tab struct {
	t    *testing.T
	ctx  context.Context
	view view

	mu        sync.Mutex
	documents map[string]int64 // status by URL
	last      int64            // status of the last document
	problems  []string
}

// open opens a tab with cookies of its own. When the test ends it fails if the
// browser complained of anything, or loaded anything but pages.
func (c *chromium) open(t *testing.T, v view) *tab {
	t.Helper()
	ctx, stop := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext())
	b := &tab{t: t, ctx: ctx, view: v, documents: make(map[string]int64)}
	t.Cleanup(func() {
		stop()
		for _, problem := range b.complaints() {
			t.Error(problem)
		}
	})
	b.must(chromedp.Listen(ctx, b.observe))
	b.call(func() error { _, err := chromedp.Call(ctx, audits.Enable, cdp.Empty{}); return err })
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "light"}}}
	if v.Dark {
		media.Features[0].Value = "dark"
	}
	b.call(func() error { _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); return err })
	viewport := []chromedp.EmulateViewportOption{}
	if v.Phone {
		viewport = append(viewport, chromedp.EmulateMobile, chromedp.EmulateTouch)
	}
	b.do(chromedp.EmulateViewport(v.width(), v.height(), viewport...))
	language := network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": "en-US,en;q=0.9"}}
	if v.Language != "" {
		language.Headers["Accept-Language"] = v.Language
	}
	b.call(func() error { _, err := chromedp.Call(ctx, network.SetExtraHTTPHeaders, language); return err })
	scripts := emulation.SetScriptExecutionDisabledParams{Value: v.NoScript}
	b.call(func() error { _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, scripts); return err })
	return b
}

// observe takes down what happens in the tab.
func (b *tab) observe(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	say := func(format string, args ...any) { b.problems = append(b.problems, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		switch {
		case err != nil:
			say("a request to %q", e.Request.URL)
		case u.Scheme == "data":
		case sameOrigin(e.Request.URL, e.DocumentURL) && (u.Path == "/favicon.ico" || slices.Contains(b.view.Images, u.Path)):
		case e.Type != network.ResourceTypeDocument:
			say("the page at %s loads %s", e.DocumentURL, e.Request.URL)
		case u.Hostname() != "localhost" && u.Hostname() != "127.0.0.1" && !slices.Contains(b.view.Sites, u.Hostname()):
			say("the browser is sent to %s", e.Request.URL)
		default:
			b.documents[e.Request.URL] = 0
		}
	case *network.EventResponseReceived:
		if e.Type == network.ResourceTypeDocument {
			b.documents[e.Response.URL], b.last = e.Response.Status, e.Response.Status
		}
	case *chromelog.EventEntryAdded:
		// That a page came with a status such as 403 is no complaint of the page.
		if _, document := b.documents[e.Entry.URL]; !document || e.Entry.Source != chromelog.EntrySourceNetwork {
			say("the console says %s: %s (%s)", e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		say("exception: %s", e.ExceptionDetails.Text)
	case *audits.EventIssueAdded:
		details, _ := json.Marshal(e.Issue.Details)
		say("issue %s: %s", e.Issue.Code, details)
	}
}

// sameOrigin reports whether two addresses have the same scheme, host and port.
func sameOrigin(a, b string) bool {
	u, errA := url.Parse(a)
	v, errB := url.Parse(b)
	return errA == nil && errB == nil && u.Scheme == v.Scheme && u.Host == v.Host
}

// complaints are what the browser has complained of since the last call.
func (b *tab) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	problems := b.problems
	b.problems = nil
	return problems
}

// status is that of the last page that the server sent.
func (b *tab) status() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *tab) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) call(f func() error) { b.t.Helper(); b.must(f()) }

// do runs the actions. They do not wait for the page that they lead to.
func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%v, at %s", err, b.describe())
	}
}

// visit opens the address as a person would who typed it.
func (b *tab) visit(address string) { b.t.Helper(); b.do(chromedp.Navigate(address)) }

// click clicks what the CSS selector names.
func (b *tab) click(selector string) { b.t.Helper(); b.do(chromedp.Click(chromedp.CSS(selector))) }

// press presses keys of the keyboard.
func (b *tab) press(keys string) { b.t.Helper(); b.do(chromedp.KeyEvent(keys)) }

// fill types into the field of that name.
func (b *tab) fill(name, text string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(chromedp.CSS("input[name="+name+"]"), text))
}

// signIn waits for the form, fills it in and sends it.
func (b *tab) signIn(user, password string) {
	b.t.Helper()
	b.await(loginForm)
	evaluate[string](b, `document.querySelector("input[name=username]").value = ""`)
	b.fill("username", user)
	b.fill("password", password)
	b.click("button.primary")
}

// await waits until a loaded page is there for which the JavaScript expression
// is true.
func (b *tab) await(condition string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		there, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.readyState === "complete" && !!(`+condition+`)`))
		if err == nil && there {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("no page with %s, %v, at %s", condition, err, b.describe())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// awaitHeading waits for a page whose heading begins so.
func (b *tab) awaitHeading(text string) {
	b.t.Helper()
	b.await(`document.querySelector("h1")?.textContent.startsWith(` + quoted(text) + `)`)
}

// describe says what the tab shows.
func (b *tab) describe() string {
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body?.innerText`))
	return text
}

// evaluate returns the value of a JavaScript expression.
func evaluate[T any](b *tab, expression string, opts ...chromedp.EvaluateOption) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, opts...))
	if err != nil {
		b.t.Fatalf("%v, at %s", err, b.describe())
	}
	return value
}

// audit checks what every page must keep to, and takes its picture.
func (b *tab) audit(name string) {
	b.t.Helper()
	for _, problem := range evaluate[[]string](b, fmt.Sprintf("%s(%d)", auditScript, b.view.width())) {
		b.t.Errorf("%s, %s: %s", name, b.view, problem)
	}
	if *screenshots != "" && slices.Contains(pictured, name) {
		b.picture(filepath.Join(*screenshots, fmt.Sprintf("%s-%s.png", name, b.view)))
	}
}

// picture writes a picture of the whole page, as small as it gets.
func (b *tab) picture(path string) {
	b.t.Helper()
	beyond := true
	shot, err := chromedp.Call(b.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: &beyond})
	b.must(err)
	img, err := png.Decode(bytes.NewReader(shot.Data))
	b.must(err)
	var out bytes.Buffer
	b.must((&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, img))
	b.must(os.WriteFile(path, out.Bytes(), 0o644))
}

// focused is the control that has the focus, as focus.js tells.
type focused struct {
	Name, Text string
	Visible    bool
}

func (b *tab) focus() focused {
	b.t.Helper()
	return evaluate[focused](b, focusScript+"()")
}

// cookies are those of the tab for the site, by name.
func (b *tab) cookies(origin string) map[string]*network.Cookie {
	b.t.Helper()
	got, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{URLs: []string{origin}})
	b.must(err)
	all := make(map[string]*network.Cookie)
	for _, c := range got.Cookies {
		all[c.Name] = c
	}
	return all
}

// quoted is a JavaScript string.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// loopbackClient is an app on the person's device that waits for the answer.
type loopbackClient struct {
	t        *testing.T
	redirect string
	answers  chan url.Values
}

func newLoopbackClient(t *testing.T) *loopbackClient {
	t.Helper()
	l := &loopbackClient{t: t, answers: make(chan url.Values, 16)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/callback" {
			l.answers <- r.URL.Query()
		}
		servePage(w, "Back in the app", "")
	}))
	t.Cleanup(server.Close)
	l.redirect = server.URL + "/callback"
	return l
}

// answer is the next that the app gets.
func (l *loopbackClient) answer() url.Values {
	l.t.Helper()
	select {
	case values := <-l.answers:
		return values
	case <-time.After(patience):
		l.t.Fatal("no answer came to the app")
		return nil
	}
}

// servePage answers with a page of somebody else.
func servePage(w http.ResponseWriter, heading, body string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!doctype html><html lang="en"><title>%[1]s</title><link rel="icon" href="data:,"><h1>%[1]s</h1>%[2]s`, html.EscapeString(heading), body)
}

// registerApp registers a public client of that name and returns its id.
func (c *caddyInstance) registerApp(name, site, redirect string) string {
	c.t.Helper()
	metadata := map[string]any{"redirect_uris": []string{redirect}, "token_endpoint_auth_method": "none", "client_name": name}
	if site != "" {
		metadata["client_uri"] = site
	}
	body, err := json.Marshal(metadata)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, text := c.send("POST", "/register", http.Header{"Content-Type": {"application/json"}}, string(body))
	var client struct {
		ClientID string `json:"client_id"`
	}
	if resp.StatusCode != http.StatusCreated || json.Unmarshal([]byte(text), &client) != nil {
		c.t.Fatalf("registration: %d %s", resp.StatusCode, text)
	}
	return client.ClientID
}

// authorizeURL is where an app sends the person.
func (c *caddyInstance) authorizeURL(id, redirect, state string, scopes ...string) string {
	return c.Origin + "/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {id}, "redirect_uri": {redirect}, "state": {state},
		"code_challenge": {testChallenge}, "code_challenge_method": {"S256"}, "scope": {strings.Join(scopes, " ")},
	}.Encode()
}

// redeem exchanges the code of an answer, which must be good.
func (c *caddyInstance) redeem(id, redirect string, answer url.Values) (tokens map[string]any) {
	c.t.Helper()
	form := codeForm(id)
	form.Set("code", answer.Get("code"))
	form.Set("redirect_uri", redirect)
	resp, tokens := c.token(form)
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("token: %d %v, for %v", resp.StatusCode, tokens, answer)
	}
	return tokens
}
