package authclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// loginTimeout is how long a user has for the login unless options say otherwise.
const loginTimeout = 5 * time.Minute

// callbackPath is fixed, because servers that ignore the port of a loopback
// redirect URI (RFC 8252 §7.3) compare the path.
const callbackPath = "/callback"

// LoopbackOptions are the options of NewLoopback. The zero value works.
type LoopbackOptions struct {
	// Metadata are sent at registration. redirect_uris is filled in.
	Metadata oauth.ClientMetadata
	// ClientMetadataURL is the client metadata document; "" for none.
	ClientMetadataURL string
	// Client is a client that was registered beforehand; nil to register.
	Client *ClientInformation
	// Port is that of the callback; 0 for a free one.
	Port int
	// OpenBrowser opens the URL in the user's browser. Default: the usual
	// command of the system.
	OpenBrowser func(ctx context.Context, u string) error
	// NoBrowser only prints the URL.
	NoBrowser bool
	// Output is where the URL is printed. Default: standard error.
	Output io.Writer
	// Timeout is how long the user has. Default: five minutes.
	Timeout time.Duration
}

// Loopback is the Provider of a program at a terminal (RFC 8252 §7.3): it
// listens on a port of 127.0.0.1, sends the user's browser to the authorization
// server, and receives the callback. Close stops it.
type Loopback struct {
	identity
	o        LoopbackOptions
	listener net.Listener
	server   *http.Server

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	pending *pendingLogin
}

// pendingLogin is the login under way.
type pendingLogin struct {
	state    string
	callback chan url.Values
	taken    bool
}

var (
	_ Provider       = (*Loopback)(nil)
	_ CallbackWaiter = (*Loopback)(nil)
)

// NewLoopback starts to listen and returns a Provider that keeps what it holds
// in the store.
func NewLoopback(store Store, o LoopbackOptions) (*Loopback, error) {
	if o.Port < 0 || o.Port > 65535 {
		return nil, fmt.Errorf("port %d: write one from 1 to 65535, or 0 for a free one", o.Port)
	}
	if o.Output == nil {
		o.Output = os.Stderr
	}
	if o.Timeout <= 0 {
		o.Timeout = loginTimeout
	}
	if o.OpenBrowser == nil {
		o.OpenBrowser = openBrowser
	}
	if o.Metadata.ClientName == "" {
		o.Metadata.ClientName = "MCP client"
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port)))
	if err != nil {
		return nil, fmt.Errorf("the callback of the login cannot listen: %w", err)
	}
	id, err := newIdentity(store, "http://"+listener.Addr().String()+callbackPath, o.Metadata, o.ClientMetadataURL, o.Client)
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	l := &Loopback{identity: id, o: o, listener: listener}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.server = &http.Server{
		Handler:           http.HandlerFunc(l.serveCallback),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      5 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
	l.running.Go(func() { _ = l.server.Serve(listener) }) // ends with Close
	return l, nil
}

// lastPageTime is how long Close lets the page of a callback be on its way.
const lastPageTime = time.Second

// Close stops to listen. Waiting ends with net.ErrClosed. The browser whose
// callback has just been received still gets its page.
func (l *Loopback) Close() error {
	l.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), lastPageTime)
	defer cancel()
	err := l.server.Shutdown(ctx)
	if err != nil { // a connection without a request
		err = l.server.Close()
	}
	l.running.Wait()
	return err
}

// RedirectToAuthorization implements Provider: it prints the URL and opens it in
// the browser.
func (l *Loopback) RedirectToAuthorization(_ context.Context, u *url.URL) error {
	if u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("the authorization URL is not http or https")
	}
	l.mu.Lock()
	l.pending = &pendingLogin{state: u.Query().Get("state"), callback: make(chan url.Values, 1)}
	l.mu.Unlock()
	if _, err := fmt.Fprintf(l.o.Output, "To sign in, open this page in a browser:\n\n  %s\n\n", u); err != nil {
		return err
	}
	if l.o.NoBrowser {
		return nil
	}
	l.running.Go(func() {
		// A failure is no reason to stop: the URL has been printed.
		_ = l.o.OpenBrowser(l.ctx, u.String())
	})
	return nil
}

// WaitForCallback implements CallbackWaiter. The error is ErrLoginTimeout if the
// user does not come back in time.
func (l *Loopback) WaitForCallback(ctx context.Context) (url.Values, error) {
	l.mu.Lock()
	pending := l.pending
	l.mu.Unlock()
	if pending == nil {
		return nil, errNoLogin()
	}
	timer := time.NewTimer(l.o.Timeout)
	defer timer.Stop()
	select {
	case callback := <-pending.callback:
		return callback, nil
	case <-timer.C:
		return nil, fmt.Errorf("%w: nobody has signed in within %s: run it again", ErrLoginTimeout, l.o.Timeout)
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// serveCallback receives the browser. A callback with another state is somebody
// else's, and does not end the login.
func (l *Loopback) serveCallback(w http.ResponseWriter, r *http.Request) {
	switch {
	case !isHostOf(l.listener.Addr().String(), r.Host): // DNS rebinding
		writePage(w, http.StatusMisdirectedRequest, pageForeign)
	case r.URL.Path != callbackPath:
		writePage(w, http.StatusNotFound, pageForeign)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		writePage(w, http.StatusMethodNotAllowed, pageForeign)
	default:
		l.receive(w, r)
	}
}

// isHostOf reports whether the Host of a request names the address. Browsers
// leave the port of http out.
func isHostOf(address, host string) bool { return host == address || host+":80" == address }

func (l *Loopback) receive(w http.ResponseWriter, r *http.Request) {
	callback, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || !l.take(callback) {
		writePage(w, http.StatusBadRequest, pageForeign)
		return
	}
	if callback.Get("error") != "" || callback.Get("code") == "" {
		writePage(w, http.StatusOK, pageDenied)
		return
	}
	writePage(w, http.StatusOK, pageDone)
}

// take hands the callback to the login under way, once.
func (l *Loopback) take(callback url.Values) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pending
	states := callback["state"]
	if p == nil || p.taken || p.state == "" || len(states) != 1 || !sameState(states[0], p.state) {
		return false
	}
	p.taken = true
	p.callback <- callback
	return true
}

// Login gets tokens for the MCP server and waits for the user if that is
// needed: Auth, and if the status is Redirect, Auth again with the callback. p
// has to be a CallbackWaiter, such as Loopback.
func Login(ctx context.Context, p Provider, o Options) (Result, error) {
	result, err := Auth(ctx, p, o)
	if err != nil || result.Status != Redirect {
		return result, err
	}
	waiter, ok := p.(CallbackWaiter)
	if !ok {
		return result, errors.New("the provider does not wait for callbacks: use Auth, and call it again with the callback")
	}
	o.Callback, err = waiter.WaitForCallback(ctx)
	if err != nil {
		return result, err
	}
	return Auth(ctx, p, o)
}

// page is what the browser shows after the callback.
type page struct{ title, text string }

var (
	pageDone    = page{"Signed in", "You can close this window and go back to the program."}
	pageDenied  = page{"Not signed in", "The authorization server did not agree. You can close this window; the program says more."}
	pageForeign = page{"Nothing to see here", "This address receives the answer of a login. No login waits for this one."}
)

func writePage(w http.ResponseWriter, status int, p page) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer") // the URL holds the code
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	const layout = `<!doctype html><html lang="en"><meta charset="utf-8"><title>TITLE</title><h1>TITLE</h1><p>TEXT</p></html>`
	_, _ = io.WriteString(w, strings.NewReplacer("TITLE", p.title, "TEXT", p.text).Replace(layout))
}
