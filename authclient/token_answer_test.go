package authclient_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// RFC 6749 §7.1: a token of a type that the client does not know is not used.
func TestTokenType(t *testing.T) {
	t.Parallel()
	for kind, good := range map[string]bool{"Bearer": true, "bearer": true, "BEARER": true, "DPoP": false, "mac": false, "N_A": false, "Bearer ": false} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.json("/token", 200, map[string]any{"access_token": "a", "token_type": kind})
			_, err := exchange(t, s)
			if good && err != nil || !good && !errors.Is(err, authclient.ErrIncompatible) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestRetryAfterDate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, test := range []struct {
		name, value string
		want        time.Duration
	}{
		{"a date", now.Add(90 * time.Second).UTC().Format(http.TimeFormat), 90 * time.Second},
		{"a date that is over", now.Add(-time.Minute).UTC().Format(http.TimeFormat), 0},
		{"a date in ten years", now.AddDate(10, 0, 0).UTC().Format(http.TimeFormat), 0},
		{"seconds", "17", 17 * time.Second},
		{"seconds without end", "99999999999", 0},
		{"less than nothing", "-1", 0},
		{"neither", "soon", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
				w.Header().Set("Retry-After", test.value)
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			_, err := exchange(t, s)
			var endpoint *authclient.EndpointError
			if !errors.As(err, &endpoint) || endpoint.RetryAfter != test.want {
				t.Errorf("error %#v", err)
			}
		})
	}
}

// What a server echoes of the credentials that it was sent gets neither into
// errors nor into the log.
func TestEchoedSecretsAreRedacted(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"error":"invalid_grant","error_description":"%s is expired"}`,
		`{"error":"server_error","error_description":"cannot find %s"}`,
		`{"error":"%s"}`,
		`{"error":"invalid_scope","error_uri":"https://as.example/%s"}`,
		`%s is no JSON`,
		`{"access_token":"%s\n","token_type":"Bearer"}`,
	} {
		for _, echoed := range []string{"refresh_token", "client_secret"} {
			t.Run(echoed+" "+body, func(t *testing.T) {
				t.Parallel()
				s := newScripted(t)
				s.handle("/token", func(w http.ResponseWriter, r *http.Request) {
					_ = r.ParseForm()
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusBadRequest)
					fmt.Fprintf(w, body, r.PostForm.Get(echoed))
				})
				p, store := web(t, func(o *authclient.WebOptions) {
					o.Client = clientWith("s3cret value+", oauth.AuthMethodClientSecretPost)
				})
				s.saved(t, store, "old", "refresh-s3cret value+")
				var log strings.Builder
				o := authclient.Options{ServerURL: s.mcpURL(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
				_, err := authclient.Auth(t.Context(), p, o)
				if all := fmt.Sprint(err, log.String()); strings.Contains(all, "s3cret") {
					t.Errorf("%s", all)
				}
			})
		}
	}
}

// The query of the server's URL may hold a key.
func TestErrorsLeaveTheQueryOut(t *testing.T) {
	t.Parallel()
	const key = "?key=t0psecret"
	for _, test := range []struct {
		name string
		set  func(s *scripted)
	}{
		{"the user is needed", func(*scripted) {}},
		{"the metadata are of another resource", func(s *scripted) { s.setResource("resource", "https://other.example/mcp") }},
		{"the metadata fail", func(s *scripted) { s.status(prmPath+"/mcp", 503) }},
		{"no registration", func(s *scripted) { s.set("registration_endpoint", nil) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			test.set(s)
			p, _ := web(t, nil)
			tr, err := authclient.WithOAuth(p, s.mcpURL()+key, authclient.TransportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer tr.CloseIdleConnections()
			resp, err := tr.RoundTrip(post(t, s.mcpURL()+key, ""))
			if err == nil {
				_ = resp.Body.Close()
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "t0psecret") {
				t.Error(err)
			}
		})
	}
	s := newScripted(t)
	s.handle(prmPath+"/mcp", nil)
	_, err := authclient.DiscoverProtectedResourceMetadata(t.Context(), authclient.Options{ServerURL: s.mcpURL() + key})
	if !errors.Is(err, authclient.ErrNoMetadata) || strings.Contains(err.Error(), "t0psecret") {
		t.Error(err)
	}
}

// Browsers leave the port of http out of the Host.
func TestHostOfTheCallback(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		address, host string
		want          bool
	}{
		{"127.0.0.1:80", "127.0.0.1", true},
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:8080", "127.0.0.1", false},
		{"127.0.0.1:8080", "127.0.0.1:8080", true},
		{"127.0.0.1:80", "evil.example", false},
		{"127.0.0.1:80", "", false},
	} {
		if got := authclient.IsHostOf(test.address, test.host); got != test.want {
			t.Errorf("%s, Host %q: %v", test.address, test.host, got)
		}
	}
}
