package authclient_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// What goes wrong around a refresh: each is an error of its kind that says what
// to do, the user is not sent away, and the credentials stay.
func TestFaultsOfARefresh(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		set  func(s *scripted)
		err  error
		says string
	}{
		{"500", func(s *scripted) { s.status("/token", 500) }, authclient.ErrUnavailable, "try again later"},
		{"503 with an OAuth error", func(s *scripted) { s.json("/token", 503, map[string]any{"error": "temporarily_unavailable"}) }, oauth.ErrTemporarilyUnavailable, "try again later"},
		{"500 with invalid_grant", func(s *scripted) { s.json("/token", 500, map[string]any{"error": "invalid_grant"}) }, authclient.ErrUnavailable, "try again later"},
		{"429", func(s *scripted) { s.status("/token", 429) }, authclient.ErrUnavailable, "wait"},
		{"a web page", func(s *scripted) {
			s.handle("/token", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in</html>")) })
		}, authclient.ErrUnavailable, "web page"},
		{"a web page with 400", func(s *scripted) {
			s.handle("/token", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", 400) })
		}, authclient.ErrUnavailable, "web page"},
		{"no JSON", func(s *scripted) {
			s.handle("/token", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
		}, authclient.ErrUnavailable, "tell its operator"},
		{"hangs", func(s *scripted) {
			s.handle("/token", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		}, authclient.ErrUnavailable, "no answer within"},
		{"hangs in the body", func(s *scripted) {
			s.handle("/token", func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			})
		}, authclient.ErrUnavailable, "no answer within"},
		{"resets the connection", func(s *scripted) {
			s.handle("/token", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		}, authclient.ErrUnavailable, "connection broke"},
		{"breaks off in the body", func(s *scripted) {
			s.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				_, _ = w.Write([]byte(`{"access_token":`))
				panic(http.ErrAbortHandler)
			})
		}, authclient.ErrUnavailable, "connection broke"},
		{"the metadata change their issuer", func(s *scripted) { s.set("issuer", "https://evil.example") }, authclient.ErrIssuerMismatch, "RFC 8414"},
		{"the server metadata fail", func(s *scripted) { s.status(asPath, 500) }, authclient.ErrUnavailable, "try again later"},
		{"the resource metadata fail", func(s *scripted) { s.status(prmPath+"/mcp", 503) }, authclient.ErrUnavailable, "try again later"},
		{"the resource metadata are of another resource", func(s *scripted) { s.setResource("resource", "https://evil.example/mcp") }, authclient.ErrResourceMismatch, "operator"},
		{"a name that does not exist", func(s *scripted) { s.set("token_endpoint", "https://as.invalid/token") }, authclient.ErrUnavailable, "cannot be resolved"},
		{"nothing listens", func(s *scripted) { s.set("token_endpoint", "http://127.0.0.1:1/token") }, authclient.ErrUnavailable, "nothing listens"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			test.set(s)
			p, store := web(t, nil)
			s.saved(t, store, "old", "refresh-0")
			o := authclient.Options{ServerURL: s.mcpURL()}
			if strings.HasPrefix(test.name, "hangs") {
				transport := &http.Transport{}
				defer transport.CloseIdleConnections()
				o.HTTPClient = &http.Client{Transport: transport, Timeout: 100 * time.Millisecond}
			}
			result, err := authclient.Auth(t.Context(), p, o)
			if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.says) || result.Status != "" {
				t.Errorf("status %q, error %v", result.Status, err)
			}
			if strings.Contains(err.Error(), "refresh-0") {
				t.Errorf("a secret in %v", err)
			}
			tokens, err := store.Tokens(t.Context(), s.URL)
			if err != nil || tokens == nil || tokens.RefreshToken != "refresh-0" {
				t.Errorf("tokens %+v, error %v", tokens, err)
			}
			if client, err := store.ClientInformation(t.Context(), s.URL); err != nil || client == nil {
				t.Errorf("client %+v, error %v", client, err)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "17")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	_, err := exchange(t, s)
	var endpoint *authclient.EndpointError
	if !errors.As(err, &endpoint) || endpoint.RetryAfter != 17*time.Second || endpoint.Status != 503 {
		t.Errorf("error %#v", err)
	}
}

// A clock that is off matters only where a time is signed: the life of a token
// is counted from its arrival.
func TestClockFiveMinutesOff(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{5 * time.Minute, -5 * time.Minute} {
		s := newScripted(t)
		p, store := web(t, nil)
		o := authclient.Options{ServerURL: s.mcpURL(), Now: func() time.Time { return time.Now().Add(off) }}
		result := signIn(t, p, o)
		if result.Tokens.Expired(o.Now()) {
			t.Error("a new token counts as expired")
		}
		s.forget()
		if _, err := authclient.Auth(t.Context(), p, o); err != nil || len(s.seen()) != 0 {
			t.Errorf("%v, requests %v", err, s.lines())
		}
		// A refused assertion is blamed on the clock, and the client stays.
		s.json("/token", 401, map[string]any{"error": "invalid_client", "error_description": "assertion expired"})
		o.ForceRefresh = true
		_, err := authclient.Auth(t.Context(), authenticator{p}, o)
		var clock *authclient.ClockError
		if !errors.As(err, &clock) || (clock.Ahead-off).Abs() > 30*time.Second || !errors.Is(err, oauth.ErrInvalidClient) {
			t.Errorf("error %v", err)
		}
		if !strings.Contains(err.Error(), "set the clock") || !strings.Contains(err.Error(), map[bool]string{true: "ahead of", false: "behind"}[off > 0]) {
			t.Errorf("error %v", err)
		}
		if client, err := store.ClientInformation(t.Context(), s.URL); err != nil || client == nil {
			t.Errorf("the client is gone: %v", err)
		}
	}
}

// With a right clock a refusal is a refusal.
func TestRightClockIsNotBlamed(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.json("/token", 401, map[string]any{"error": "invalid_client"})
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	result, err := authclient.Auth(t.Context(), authenticator{p}, authclient.Options{ServerURL: s.mcpURL()})
	if err != nil || result.Status != authclient.Redirect || len(s.to("/register")) != 1 {
		t.Errorf("%+v, %v, requests %v", result, err, s.lines())
	}
}

// The end of the context is what the caller gets.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	cause := errors.New("enough")
	s := newScripted(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	s.handle(asPath, func(_ http.ResponseWriter, r *http.Request) {
		cancel(cause)
		<-r.Context().Done()
	})
	p, _ := web(t, nil)
	if _, err := authclient.Auth(ctx, p, authclient.Options{ServerURL: s.mcpURL()}); !errors.Is(err, cause) || errors.Is(err, authclient.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}
