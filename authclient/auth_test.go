package authclient_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestAuthWholeFlow(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	result := signIn(t, p, authclient.Options{ServerURL: s.mcpURL()})
	if result.Tokens.AccessToken != "token-1" || result.Resource != s.mcpURL() || result.Issuer != s.URL || result.Client.ClientID != "registered-1" {
		t.Errorf("result %+v", result)
	}
	if result.AuthorizationServer.TokenEndpoint != s.URL+"/token" || result.ProtectedResource.Resource != s.mcpURL() {
		t.Errorf("metadata %+v, %+v", result.AuthorizationServer, result.ProtectedResource)
	}
}

// Which tokens Auth returns as they are, and which it refreshes.
func TestAuthUsesStoredTokens(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		name    string
		expires time.Time
		options authclient.Options
		refresh bool
	}{
		{"not expired", now.Add(time.Minute), authclient.Options{}, false},
		{"expired", now, authclient.Options{}, true},
		{"of unknown expiry", time.Time{}, authclient.Options{}, true},
		{"not expired, but refused", now.Add(time.Minute), authclient.Options{RefusedToken: "old"}, true},
		{"not expired, and another one was refused", now.Add(time.Minute), authclient.Options{RefusedToken: "older"}, false},
		{"of unknown expiry, and another one was refused", time.Time{}, authclient.Options{RefusedToken: "older"}, false},
		{"forced", now.Add(time.Minute), authclient.Options{ForceRefresh: true}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			p, store := web(t, nil)
			s.saved(t, store, "old", "refresh-0")
			tokens, err := store.Tokens(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			kept := *tokens
			kept.ExpiresAt = test.expires
			if err := store.SaveTokens(t.Context(), &kept); err != nil {
				t.Fatal(err)
			}
			test.options.ServerURL, test.options.Now = s.mcpURL(), func() time.Time { return now }
			result, err := authclient.Auth(t.Context(), p, test.options)
			if err != nil || result.Status != authclient.Authorized {
				t.Fatalf("%+v, %v", result, err)
			}
			if got := result.Tokens.AccessToken == "token-1"; got != test.refresh || !test.refresh && len(s.seen()) != 0 {
				t.Errorf("token %q, requests %v", result.Tokens.AccessToken, s.lines())
			}
		})
	}
}

func TestForceReauthorizationSkipsTheRefresh(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL(), ForceReauthorization: true, Scope: "a b"})
	if err != nil || result.Status != authclient.Redirect || len(s.to("/token")) != 0 {
		t.Errorf("%+v, %v, requests %v", result, err, s.lines())
	}
	if tokens, err := store.Tokens(t.Context(), ""); err != nil || tokens.AccessToken != "old" {
		t.Errorf("the old tokens are gone: %+v, %v", tokens, err)
	}
}

// A refusal of a refresh, and what follows.
func TestAuthRecovers(t *testing.T) {
	t.Parallel()
	refusal := func(code string) map[string]any { return map[string]any{"error": code} }
	for _, test := range []struct {
		name                   string
		code                   string
		status                 authclient.Status // "": an error
		keepsTokens, registers bool
	}{
		{"invalid_grant: the tokens are forgotten, the user is asked", "invalid_grant", authclient.Redirect, false, false},
		{"invalid_client: the client too", "invalid_client", authclient.Redirect, false, true},
		{"unauthorized_client: the client too", "unauthorized_client", authclient.Redirect, false, true},
		{"invalid_request: some servers say so of a dead token", "invalid_request", authclient.Redirect, true, false},
		{"a code that nobody knows", "bad_refresh_token", authclient.Redirect, true, false},
		{"invalid_scope is an error", "invalid_scope", "", true, false},
		{"invalid_target is an error", "invalid_target", "", true, false},
		{"temporarily_unavailable is an error", "temporarily_unavailable", "", true, false},
		{"server_error is an error", "server_error", "", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.json("/token", 400, refusal(test.code))
			p, store := web(t, nil)
			s.saved(t, store, "old", "refresh-0")
			result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
			if result.Status != test.status || (err == nil) != (test.status != "") {
				t.Fatalf("status %q, error %v", result.Status, err)
			}
			tokens, err := store.Tokens(t.Context(), s.URL)
			if err != nil || (tokens != nil) != test.keepsTokens {
				t.Errorf("tokens %+v, error %v", tokens, err)
			}
			if got := len(s.to("/register")) == 1; got != test.registers {
				t.Errorf("requests %v", s.lines())
			}
			if got := len(s.to("/token")); got != 1 {
				t.Errorf("%d token requests", got)
			}
		})
	}
}

// minimal is a Provider without the optional parts, except that it registers.
type minimal struct {
	p *authclient.Web
}

func (m minimal) RedirectURL() string                  { return m.p.RedirectURL() }
func (m minimal) ClientMetadata() oauth.ClientMetadata { return m.p.ClientMetadata() }
func (m minimal) ClientInformation(ctx context.Context, issuer string) (*authclient.ClientInformation, error) {
	return m.p.ClientInformation(ctx, issuer)
}

func (m minimal) SaveClientInformation(ctx context.Context, c *authclient.ClientInformation) error {
	return m.p.SaveClientInformation(ctx, c)
}

func (m minimal) Tokens(ctx context.Context, issuer string) (*authclient.Tokens, error) {
	return m.p.Tokens(ctx, issuer)
}

func (m minimal) SaveTokens(ctx context.Context, tokens *authclient.Tokens) error {
	return m.p.SaveTokens(ctx, tokens)
}

func (m minimal) RedirectToAuthorization(ctx context.Context, u *url.URL) error {
	return m.p.RedirectToAuthorization(ctx, u)
}

func (m minimal) SaveCodeVerifier(ctx context.Context, verifier string) error {
	return m.p.SaveCodeVerifier(ctx, verifier)
}
func (m minimal) CodeVerifier(ctx context.Context) (string, error) { return m.p.CodeVerifier(ctx) }

// Without a CredentialInvalidator the refused tokens stay, and are not tried
// again in this call.
func TestAuthRecoversWithoutInvalidator(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.json("/token", 400, map[string]any{"error": "invalid_grant"})
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	result, err := authclient.Auth(t.Context(), minimal{p}, authclient.Options{ServerURL: s.mcpURL()})
	if err != nil || result.Status != authclient.Redirect || len(s.to("/token")) != 1 {
		t.Errorf("%+v, %v, requests %v", result, err, s.lines())
	}
}

// The provider without optional parts can sign in.
func TestAuthWithMinimalProvider(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	signIn(t, minimal{p}, authclient.Options{ServerURL: s.mcpURL()})
}

// The redemption of a code is never repeated: servers take a second one for an
// attack. What is stored has nothing to do with it.
func TestCodeIsRedeemedOnce(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"invalid_grant", "invalid_client", "unauthorized_client"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			p, store := web(t, nil)
			s.saved(t, store, "old", "refresh-0")
			o := authclient.Options{ServerURL: s.mcpURL(), ForceReauthorization: true}
			result, err := authclient.Auth(t.Context(), p, o)
			if err != nil {
				t.Fatal(err)
			}
			o.Callback = browse(t, result.AuthorizationURL)
			s.json("/token", 400, map[string]any{"error": code})
			_, err = authclient.Auth(t.Context(), p, o)
			if !errors.Is(err, oauth.NewError(code, "")) || errors.Is(err, authclient.ErrAuthorizationServerMismatch) || len(s.to("/token")) != 1 {
				t.Errorf("error %v, requests %v", err, s.lines())
			}
			if tokens, _ := store.Tokens(t.Context(), s.URL); code == "invalid_grant" && tokens == nil {
				t.Error("the stored tokens are gone")
			}
		})
	}
}

// A client that was registered beforehand cannot be replaced by another.
func TestFixedClientIsNotReplaced(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.json("/token", 401, map[string]any{"error": "invalid_client"})
	p, store := web(t, func(o *authclient.WebOptions) { o.Client = clientWith("secret", "") })
	s.saved(t, store, "old", "refresh-0")
	_, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
	if !errors.Is(err, oauth.ErrInvalidClient) || len(s.to("/register")) != 0 {
		t.Errorf("error %v, requests %v", err, s.lines())
	}
	if tokens, err := store.Tokens(t.Context(), s.URL); err != nil || tokens == nil {
		t.Errorf("the tokens are gone: %v", err)
	}
}

// A registration that has lost its use is replaced before it fails.
func TestOutdatedRegistrationIsReplaced(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, test := range []struct {
		name      string
		change    func(c *authclient.ClientInformation)
		registers bool
	}{
		{"good", func(*authclient.ClientInformation) {}, false},
		{"its secret has expired", func(c *authclient.ClientInformation) {
			c.ClientSecret, c.ClientSecretExpiresAt = "s", now.Unix()-1
		}, true},
		{"its secret expires later", func(c *authclient.ClientInformation) {
			c.ClientSecret, c.ClientSecretExpiresAt = "s", now.Unix()+100
		}, false},
		{"it has other redirect URIs", func(c *authclient.ClientInformation) { c.RedirectURIs = []string{"https://old.example/cb"} }, true},
		{"it has this one", func(c *authclient.ClientInformation) {
			c.RedirectURIs = []string{"https://old.example/cb", callbackURL}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			p, store := web(t, nil)
			client := clientWith("", "")
			client.Issuer = s.URL
			test.change(client)
			if err := store.SaveClientInformation(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			if _, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()}); err != nil {
				t.Fatal(err)
			}
			if got := len(s.to("/register")) == 1; got != test.registers {
				t.Errorf("requests %v", s.lines())
			}
		})
	}
}

// A loopback client comes back on another port: RFC 8252 §7.3 keeps its
// registration good.
func TestLoopbackRegistrationIsGoodOnAnotherPort(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, func(o *authclient.WebOptions) { o.RedirectURL = "http://127.0.0.1:2222/callback" })
	client := clientWith("", "")
	client.Issuer, client.RedirectURIs = s.URL, []string{"http://127.0.0.1:1111/callback"}
	if err := store.SaveClientInformation(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if _, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()}); err != nil || len(s.to("/register")) != 0 {
		t.Errorf("%v, requests %v", err, s.lines())
	}
}

// unsaving cannot save tokens.
type unsaving struct{ *authclient.Web }

var errDisk = errors.New("disk full")

func (unsaving) SaveTokens(context.Context, *authclient.Tokens) error { return errDisk }

func TestSaveErrorIsReturned(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	result, err := authclient.Auth(t.Context(), unsaving{p}, authclient.Options{ServerURL: s.mcpURL()})
	if !errors.Is(err, errDisk) || result.Status == authclient.Redirect {
		t.Errorf("%+v, %v", result, err)
	}
}

// A caller that leaves does not lose the rotated refresh token.
func TestRefreshIsFinishedWithoutTheCaller(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	ctx, leave := context.WithCancel(t.Context())
	answer := make(chan struct{})
	s.handle("/token", func(w http.ResponseWriter, r *http.Request) {
		leave()
		<-answer
		s.token(w, r)
	})
	if _, err := authclient.Auth(ctx, p, authclient.Options{ServerURL: s.mcpURL()}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	close(answer)
	// The next one waits for the lock, and finds the new tokens.
	result, err := authclient.Auth(t.Context(), p, authclient.Options{ServerURL: s.mcpURL()})
	if err != nil || result.Tokens.RefreshToken != "refresh-1" || len(s.to("/token")) != 1 {
		t.Errorf("%+v, %v, requests %v", result, err, s.lines())
	}
}

// saver learns issuer and resource.
type saver struct {
	*authclient.Web
	said map[string]string
}

func (s saver) SaveAuthorizationServerURL(_ context.Context, issuer string) error {
	s.said["issuer"] = issuer
	return nil
}

func (s saver) SaveResourceURL(_ context.Context, resource string) error {
	s.said["resource"] = resource
	return nil
}

func TestProviderLearnsIssuerAndResource(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	said := make(map[string]string)
	if _, err := authclient.Auth(t.Context(), saver{p, said}, authclient.Options{ServerURL: s.mcpURL()}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"issuer": s.URL, "resource": s.mcpURL()}, said); diff != "" {
		t.Error(diff)
	}
}

// What a server sends cannot forge lines of the log, and no secret gets there.
func TestWarningsAreOneLine(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.json("/token", 400, map[string]any{"error": "invalid_grant", "error_description": "x\nlevel=ERROR msg=forged"})
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	var log strings.Builder
	o := authclient.Options{ServerURL: s.mcpURL(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
	if _, err := authclient.Auth(t.Context(), p, o); err != nil {
		t.Fatal(err)
	}
	if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "authorizing again") || strings.Contains(log.String(), "refresh-0") {
		t.Errorf("log %q", log.String())
	}
}

// The injected client makes all requests of the flow.
func TestInjectedHTTPClient(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	var paths []string
	client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		paths = append(paths, r.URL.Path)
		r = r.Clone(r.Context())
		r.Header.Set("X-Custom", "yes")
		return http.DefaultTransport.RoundTrip(r)
	})}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	signIn(t, p, authclient.Options{ServerURL: s.mcpURL(), HTTPClient: client})
	want := []string{"/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-authorization-server", "/register", "/token"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Error(diff)
	}
	if r := s.to("/token")[0]; r.Header.Get("X-Custom") != "yes" || r.Header.Get("Accept") != "application/json" {
		t.Errorf("headers %v", r.Header)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
