package authclient_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// transport wraps p for the MCP server of s.
func transport(t *testing.T, s *scripted, p authclient.Provider, o authclient.TransportOptions) (*authclient.Transport, *http.Client) {
	t.Helper()
	if o.Next == nil {
		next := &http.Transport{}
		t.Cleanup(next.CloseIdleConnections)
		o.Next = next
	}
	tr, err := authclient.WithOAuth(p, s.mcpURL(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr, &http.Client{Transport: tr}
}

// text sends the request and returns status and body of the answer.
func text(t *testing.T, client *http.Client, req *http.Request) (int, string, error) {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func post(t *testing.T, address, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func bearers(requests []recorded) (tokens []string) {
	for _, r := range requests {
		tokens = append(tokens, r.Header.Get("Authorization"))
	}
	return tokens
}

func TestTransport(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		set     func(s *scripted, store authclient.Store)
		status  int
		err     error
		bearers []string // at the MCP server
	}{
		{"adds the token", func(s *scripted, store authclient.Store) {
			s.saved(t, store, "good", "refresh-0")
			s.accept("good", true)
		}, 200, nil, []string{"Bearer good"}},
		{"401: refreshes, and sends the request once more", func(s *scripted, store authclient.Store) {
			s.saved(t, store, "old", "refresh-0")
		}, 200, nil, []string{"Bearer old", "Bearer token-1"}},
		{"401 without tokens: the user is needed", func(*scripted, authclient.Store) {}, 0, authclient.ErrUnauthorized, []string{""}},
		{"a second 401 is an error", func(s *scripted, store authclient.Store) {
			s.saved(t, store, "old", "refresh-0")
			s.status("/mcp", 401)
		}, 0, authclient.ErrUnauthorized, []string{"Bearer old", "Bearer token-1"}},
		{"authorization fails", func(s *scripted, store authclient.Store) {
			s.saved(t, store, "old", "refresh-0")
			s.json("/token", 400, map[string]any{"error": "invalid_scope"})
		}, 0, oauth.ErrInvalidScope, []string{"Bearer old"}},
		{"authorization is not to be reached", func(s *scripted, store authclient.Store) {
			s.saved(t, store, "old", "refresh-0")
			s.status("/token", 500)
		}, 0, authclient.ErrUnavailable, []string{"Bearer old"}},
		{"other errors pass", func(s *scripted, store authclient.Store) {
			s.saved(t, store, "good", "refresh-0")
			s.status("/mcp", 500)
		}, 500, nil, []string{"Bearer good"}},
		{"403 without insufficient_scope passes", func(s *scripted, store authclient.Store) {
			s.saved(t, store, "good", "refresh-0")
			s.handle("/mcp", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", `Bearer error="access_denied"`)
				w.WriteHeader(http.StatusForbidden)
			})
		}, 403, nil, []string{"Bearer good"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			p, store := web(t, nil)
			test.set(s, store)
			_, client := transport(t, s, p, authclient.TransportOptions{})
			req := post(t, s.mcpURL(), "hello")
			req.Header.Set("Authorization", "Bearer of-the-caller")
			status, body, err := text(t, client, req)
			if status != test.status || !errors.Is(err, test.err) || status == 200 && body != "hello" {
				t.Errorf("status %d, body %q, error %v", status, body, err)
			}
			if diff := cmp.Diff(test.bearers, bearers(s.to("/mcp"))); diff != "" {
				t.Error(diff)
			}
			for _, r := range s.to("/mcp") {
				if r.Method != http.MethodPost || r.Body != "hello" {
					t.Errorf("%s %q", r.Method, r.Body)
				}
			}
			if req.Header.Get("Authorization") != "Bearer of-the-caller" {
				t.Error("the request of the caller was changed")
			}
		})
	}
}

// The user is needed: the error says where to, and FinishAuth goes on.
func TestTransportFinishAuth(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, _ := web(t, nil)
	tr, client := transport(t, s, p, authclient.TransportOptions{})
	_, _, err := text(t, client, post(t, s.mcpURL(), "hello"))
	var unauthorized *authclient.UnauthorizedError
	if !errors.As(err, &unauthorized) || unauthorized.Result == nil || unauthorized.Result.Status != authclient.Redirect {
		t.Fatalf("error %v", err)
	}
	if err := tr.FinishAuth(t.Context(), url.Values{"code": {"x"}, "state": {"of another"}}); !errors.Is(err, authclient.ErrState) {
		t.Errorf("a callback of another login: %v", err)
	}
	if err := tr.FinishAuth(t.Context(), browse(t, unauthorized.Result.AuthorizationURL)); err != nil {
		t.Fatal(err)
	}
	if status, body, err := text(t, client, post(t, s.mcpURL(), "hello")); status != 200 || body != "hello" || err != nil {
		t.Errorf("status %d, body %q, error %v", status, body, err)
	}
}

// Scope and metadata URL of the challenge are used.
func TestTransportUsesTheChallenge(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.scopes = "mcp:read"
	s.handle("/custom", s.resourceMetadata)
	s.handle(prmPath+"/mcp", nil)
	s.handle("/mcp", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("WWW-Authenticate", `Basic realm="x"`)
		w.Header().Add("WWW-Authenticate", `bearer resource_metadata="`+s.URL+`/custom", scope="a b"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	p, _ := web(t, nil)
	_, client := transport(t, s, p, authclient.TransportOptions{})
	_, _, err := text(t, client, post(t, s.mcpURL(), ""))
	var unauthorized *authclient.UnauthorizedError
	if !errors.As(err, &unauthorized) || unauthorized.Result == nil || unauthorized.Result.Scope != "a b" || len(s.to("/custom")) != 1 {
		t.Errorf("error %v, requests %v", err, s.lines())
	}
}

// A token that has expired by our clock is refreshed before it is sent.
func TestTransportRefreshesExpiredTokens(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		fails   bool
		bearers []string
	}{
		{"before the request", false, []string{"Bearer token-1"}},
		{"if that fails for the moment, the token may still be good", true, []string{"Bearer good"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.accept("good", true)
			if test.fails {
				s.status("/token", 503)
			}
			p, store := web(t, nil)
			s.saved(t, store, "good", "refresh-0")
			tokens, err := store.Tokens(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			expired := *tokens
			expired.ExpiresAt = time.Now().Add(-time.Second)
			if err := store.SaveTokens(t.Context(), &expired); err != nil {
				t.Fatal(err)
			}
			_, client := transport(t, s, p, authclient.TransportOptions{})
			if status, _, err := text(t, client, post(t, s.mcpURL(), "hello")); status != 200 || err != nil {
				t.Errorf("status %d, error %v", status, err)
			}
			if diff := cmp.Diff(test.bearers, bearers(s.to("/mcp"))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The token goes to the origin of the MCP server only.
func TestTransportKeepsTheTokenFromOtherOrigins(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.accept("good", true)
	var seen []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer other.Close()
	s.handle("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/mcp", http.StatusTemporaryRedirect)
	})
	p, store := web(t, nil)
	s.saved(t, store, "good", "refresh-0")
	_, client := transport(t, s, p, authclient.TransportOptions{})
	for _, address := range []string{s.URL + "/away", other.URL + "/mcp"} {
		if status, _, err := text(t, client, post(t, address, "hello")); status != 401 || err != nil {
			t.Errorf("%s: status %d, error %v", address, status, err)
		}
	}
	if diff := cmp.Diff([]string{"", ""}, seen); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"Bearer good"}, bearers(s.to("/away"))); diff != "" {
		t.Error(diff)
	}
	if len(s.to("/token")) != 0 {
		t.Error("the 401 of another origin began an authorization")
	}
}

// The old SSE transport: the stream is handed on as it comes, and the messages
// go to another path of the same origin.
func TestTransportStreams(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	next := make(chan string)
	defer close(next)
	s.handle("/sse", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token-1" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for event := range next {
			fmt.Fprintf(w, "data: %s\n\n", event)
			w.(http.Flusher).Flush()
		}
	})
	s.handle("/messages", s.mcp)
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	_, client := transport(t, s, p, authclient.TransportOptions{})
	resp, err := client.Get(s.URL + "/sse")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewReader(resp.Body)
	for _, event := range []string{"one", "two"} {
		next <- event // before the stream has ended
		line, err := events.ReadString('\n')
		if err != nil || line != "data: "+event+"\n" {
			t.Fatalf("%q, %v", line, err)
		}
		if _, err := events.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if status, body, err := text(t, client, post(t, s.URL+"/messages", event)); status != 200 || body != event || err != nil {
			t.Errorf("status %d, body %q, error %v", status, body, err)
		}
	}
}

func TestWithOAuthChecksItsOptions(t *testing.T) {
	t.Parallel()
	p, _ := web(t, nil)
	for _, test := range []struct {
		name, url string
		p         authclient.Provider
		o         authclient.TransportOptions
	}{
		{"no provider", "https://mcp.example/mcp", nil, authclient.TransportOptions{}},
		{"no URL: the token would go anywhere", "", p, authclient.TransportOptions{}},
		{"http", "http://mcp.example/mcp", p, authclient.TransportOptions{}},
		{"an unknown policy", "https://mcp.example/mcp", p, authclient.TransportOptions{OnInsufficientScope: "ask"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, err := authclient.WithOAuth(test.p, test.url, test.o); err == nil {
				t.Error("no error")
			}
		})
	}
}

// A token that is bound to a key is not sent without a proof.
func TestTransportRefusesBoundTokensWithoutProver(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	p, store := web(t, nil)
	s.saved(t, store, "bound", "")
	tokens, _ := store.Tokens(t.Context(), "")
	bound := *tokens
	bound.TokenType = "DPoP"
	if err := store.SaveTokens(t.Context(), &bound); err != nil {
		t.Fatal(err)
	}
	_, client := transport(t, s, p, authclient.TransportOptions{})
	if _, _, err := text(t, client, post(t, s.mcpURL(), "")); !errors.Is(err, authclient.ErrUnauthorized) || len(s.seen()) != 0 {
		t.Errorf("error %v, requests %v", err, s.lines())
	}
}
