package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
)

// testOptions are the options of the quickstart on free ports.
func testOptions(t *testing.T) options {
	t.Helper()
	o := options{caddyfile: "../Caddyfile", data: t.TempDir()}
	for _, port := range []*int{&o.port, &o.serverPort} {
		l, err := net.Listen("tcp", localhost(0))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // after all are chosen, so that they differ
		*port = l.Addr().(*net.TCPAddr).Port
	}
	return o
}

// output tells when something was written first.
type output struct {
	bytes.Buffer
	once    sync.Once
	written chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Buffer.Write(p)
	o.once.Do(func() { close(o.written) })
	return n, err
}

// click allows the client and signs in as alice, as a person does.
func click(ctx context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	page, _, err := load(ctx, browser, http.MethodGet, args.URL, nil)
	if err != nil {
		return nil, err
	}
	_, login, err := submit(ctx, browser, args.URL, page, url.Values{"decision": {"allow"}})
	if err != nil {
		return nil, err
	}
	if login == nil {
		return nil, errors.New("the consent led nowhere")
	}
	page, _, err = load(ctx, browser, http.MethodGet, login.String(), nil)
	if err != nil {
		return nil, err
	}
	_, answer, err := submit(ctx, browser, args.URL, page, url.Values{"username": {"alice"}, "password": {"wonderland"}})
	if err != nil {
		return nil, err
	}
	if answer == nil {
		return nil, errors.New("the sign-in led nowhere")
	}
	q := answer.Query()
	return &auth.AuthorizationResult{Code: q.Get("code"), State: q.Get("state"), Iss: q.Get("iss")}, nil
}

var (
	formAction  = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)
	hiddenInput = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)
)

// submit posts the form of a page with its hidden fields and those given.
func submit(ctx context.Context, browser *http.Client, base, page string, fields url.Values) (string, *url.URL, error) {
	action := formAction.FindStringSubmatch(page)
	if action == nil {
		return "", nil, fmt.Errorf("no form on the page: %s", page)
	}
	for _, input := range hiddenInput.FindAllStringSubmatch(page, -1) {
		fields.Set(html.UnescapeString(input[1]), html.UnescapeString(input[2]))
	}
	target, err := url.Parse(base)
	if err != nil {
		return "", nil, err
	}
	if target, err = target.Parse(html.UnescapeString(action[1])); err != nil {
		return "", nil, err
	}
	return load(ctx, browser, http.MethodPost, target.String(), strings.NewReader(fields.Encode()))
}

// load returns the page, and where it redirects to if it does.
func load(ctx context.Context, browser *http.Client, method, target string, body io.Reader) (string, *url.URL, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return "", nil, err
	}
	req.Header.Set("Accept", "text/html")
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", req.URL.Scheme+"://"+req.URL.Host)
	}
	resp, err := browser.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", nil, err
	}
	location, err := resp.Location()
	if err != nil {
		location = nil
	}
	return string(page), location, nil
}

func TestAnMCPClientGetsThrough(t *testing.T) {
	o := testOptions(t)
	out := &output{written: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, o, out) }()
	defer stop()
	select {
	case err := <-ended:
		t.Fatalf("it ended: %v", err)
	case <-out.written:
	}
	endpoint := "http://" + localhost(o.port) + "/mcp"
	for _, want := range []string{endpoint + "\n", "alice", "wonderland", "/mcp-auth/connections"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the instructions lack %q:\n%s", want, out.String())
		}
	}

	handler, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
		DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{
			Metadata: &oauthex.ClientRegistrationMetadata{
				ClientName:              "test",
				RedirectURIs:            []string{"http://127.0.0.1:5555/callback"},
				GrantTypes:              []string{"authorization_code", "refresh_token"},
				TokenEndpointAuthMethod: "none",
			},
		},
		AuthorizationCodeFetcher: click,
	})
	if err != nil {
		t.Fatal(err)
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: endpoint, OAuthHandler: handler}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	answer, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "whoami"})
	if err != nil {
		t.Fatal(err)
	}
	if user := answer.StructuredContent.(map[string]any)["user"]; user != "alice" {
		t.Errorf("whoami says %v, want alice", answer.StructuredContent)
	}

	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("stopping gave %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it did not stop")
	}
}

func TestBusyPort(t *testing.T) {
	tests := map[string]func(*options) *int{
		"port":        func(o *options) *int { return &o.port },
		"server-port": func(o *options) *int { return &o.serverPort },
	}
	for flag, port := range tests {
		t.Run(flag, func(t *testing.T) {
			o := testOptions(t)
			l, err := net.Listen("tcp", localhost(*port(&o)))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var out bytes.Buffer
			err = run(t.Context(), o, &out)
			if err == nil || !strings.Contains(err.Error(), "choose another with -"+flag) {
				t.Errorf("run gave %v, want advice to use -%s", err, flag)
			}
			if out.Len() > 0 {
				t.Errorf("it said %q before it ran", &out)
			}
		})
	}
}

func TestCaddyfileThatIsNotThere(t *testing.T) {
	o := testOptions(t)
	o.caddyfile = "none"
	if err := run(t.Context(), o, &bytes.Buffer{}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("run gave %v, want an error", err)
	}
}
