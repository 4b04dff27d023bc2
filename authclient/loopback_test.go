package authclient_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// loopback is a provider whose browser is browser.
func loopback(t *testing.T, o authclient.LoopbackOptions, browser func(ctx context.Context, u string) error) (*authclient.Loopback, *bytes.Buffer) {
	t.Helper()
	var output bytes.Buffer
	o.Output, o.OpenBrowser = &output, browser
	l, err := authclient.NewLoopback(authclient.NewMemoryStore(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, &output
}

// visit follows redirects as a browser does, and returns the last page.
func visit(ctx context.Context, address string) (status int, page string, err error) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func TestLoopbackLogin(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	pages := make(chan string, 1)
	l, output := loopback(t, authclient.LoopbackOptions{}, func(ctx context.Context, u string) error {
		_, page, err := visit(ctx, u)
		pages <- page
		return err
	})
	result, err := authclient.Login(t.Context(), l, authclient.Options{ServerURL: s.mcpURL()})
	if err != nil || result.Status != authclient.Authorized || result.Tokens.AccessToken != "token-1" {
		t.Fatalf("%+v, %v", result, err)
	}
	if page := <-pages; !strings.Contains(page, "Signed in") || !strings.Contains(page, "close this window") {
		t.Errorf("page %q", page)
	}
	if !strings.Contains(output.String(), s.URL+"/authorize?") {
		t.Errorf("output %q", output)
	}
	registered := object(t, s.to("/register")[0].Body)
	if registered["application_type"] != "native" || registered["token_endpoint_auth_method"] != "none" || !oauth.IsLoopbackRedirect(l.RedirectURL()) {
		t.Errorf("registered %v, redirect %s", registered, l.RedirectURL())
	}
}

func TestLoopbackLoginThroughTransport(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	l, _ := loopback(t, authclient.LoopbackOptions{}, func(ctx context.Context, u string) error {
		_, _, err := visit(ctx, u)
		return err
	})
	_, client := transport(t, s, l, authclient.TransportOptions{})
	if status, body, err := text(t, client, post(t, s.mcpURL(), "hello")); status != 200 || body != "hello" || err != nil {
		t.Errorf("status %d, body %q, error %v", status, body, err)
	}
}

// What the callback receives from others does not end the login.
func TestLoopbackIgnoresStrangers(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	l, _ := loopback(t, authclient.LoopbackOptions{}, func(context.Context, string) error { return nil })
	result, err := authclient.Auth(t.Context(), l, authclient.Options{ServerURL: s.mcpURL()})
	if err != nil {
		t.Fatal(err)
	}
	good := browse(t, result.AuthorizationURL)
	with := func(name, value string) string {
		q := url.Values{}
		for n, v := range good {
			q[n] = v
		}
		q.Set(name, value)
		return q.Encode()
	}
	for _, test := range []struct {
		name, method, path, query, host string
		status                          int
	}{
		{"another state", "GET", "/callback", with("state", "x"), "", 400},
		{"no state", "GET", "/callback", "code=x", "", 400},
		{"two states", "GET", "/callback", good.Encode() + "&state=x", "", 400},
		{"a malformed query", "GET", "/callback", "%zz&" + good.Encode(), "", 400},
		{"another path", "GET", "/", good.Encode(), "", 404},
		{"another method", "POST", "/callback", good.Encode(), "", 405},
		{"another host, by DNS rebinding", "GET", "/callback", good.Encode(), "evil.example", 421},
		{"the callback", "GET", "/callback", good.Encode(), "", 200},
		{"the callback again", "GET", "/callback", good.Encode(), "", 400},
	} {
		base, _ := url.Parse(l.RedirectURL())
		req, err := http.NewRequestWithContext(t.Context(), test.method, "http://"+base.Host+test.path+"?"+test.query, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = test.host
		client := &http.Transport{}
		resp, err := client.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		client.CloseIdleConnections()
		if resp.StatusCode != test.status || resp.Header.Get("Referrer-Policy") != "no-referrer" || resp.Header.Get("Cache-Control") != "no-store" || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
			t.Errorf("%s: status %d, headers %v", test.name, resp.StatusCode, resp.Header)
		}
	}
	callback, err := l.WaitForCallback(t.Context())
	if err != nil || callback.Get("code") != good.Get("code") {
		t.Errorf("%v, %v", callback, err)
	}
}

func TestLoopbackDenied(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.handle("/authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		http.Redirect(w, r, q.Get("redirect_uri")+"?error=access_denied&error_description=%3Cscript%3E&state="+url.QueryEscape(q.Get("state")), http.StatusFound)
	})
	pages := make(chan string, 1)
	l, _ := loopback(t, authclient.LoopbackOptions{}, func(ctx context.Context, u string) error {
		_, page, err := visit(ctx, u)
		pages <- page
		return err
	})
	if _, err := authclient.Login(t.Context(), l, authclient.Options{ServerURL: s.mcpURL()}); !errors.Is(err, oauth.ErrAccessDenied) {
		t.Errorf("error %v", err)
	}
	if page := <-pages; !strings.Contains(page, "Not signed in") || strings.Contains(page, "script") {
		t.Errorf("page %q", page)
	}
}

func TestLoopbackEnds(t *testing.T) {
	t.Parallel()
	nobody := func(context.Context, string) error { return errors.New("there is no browser") }
	t.Run("nobody comes", func(t *testing.T) {
		t.Parallel()
		s := newScripted(t)
		l, _ := loopback(t, authclient.LoopbackOptions{Timeout: 10 * time.Millisecond}, nobody)
		if _, err := authclient.Login(t.Context(), l, authclient.Options{ServerURL: s.mcpURL()}); !errors.Is(err, authclient.ErrLoginTimeout) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("it is closed", func(t *testing.T) {
		t.Parallel()
		s := newScripted(t)
		l, err := authclient.NewLoopback(authclient.NewMemoryStore(), authclient.LoopbackOptions{Output: io.Discard, NoBrowser: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := authclient.Auth(t.Context(), l, authclient.Options{ServerURL: s.mcpURL()}); err != nil {
			t.Fatal(err)
		}
		go l.Close()
		if _, err := l.WaitForCallback(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no login is under way", func(t *testing.T) {
		t.Parallel()
		l, _ := loopback(t, authclient.LoopbackOptions{}, nobody)
		if _, err := l.WaitForCallback(t.Context()); !errors.Is(err, authclient.ErrState) {
			t.Errorf("error %v", err)
		}
	})
}

func TestLoopbackPort(t *testing.T) {
	t.Parallel()
	if _, err := authclient.NewLoopback(authclient.NewMemoryStore(), authclient.LoopbackOptions{Port: 70000}); err == nil {
		t.Error("port 70000 is accepted")
	}
	first, _ := loopback(t, authclient.LoopbackOptions{}, nil)
	u, err := url.Parse(first.RedirectURL())
	if err != nil || u.Hostname() != "127.0.0.1" {
		t.Fatalf("%v, %v", u, err)
	}
}
