package authclient_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// manyScopes are n different ones.
func manyScopes(prefix string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s-%x ", prefix, i)
	}
	return strings.TrimSpace(b.String())
}

// A challenge that is too long counts as none: the 403 goes to the caller.
func TestChallengeThatIsTooLong(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"1 MB": 100_000, "more than the bound": 2000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.accept("good", true)
			s.wants(manyScopes("scope", n), true)
			p, store := withUser(t)
			s.saved(t, store, "good", "refresh-0")
			_, client := transport(t, s, p, authclient.TransportOptions{})
			status, _, err := text(t, client, post(t, s.mcpURL(), ""))
			if status != http.StatusForbidden || err != nil || len(s.to("/authorize"))+len(s.to("/token")) != 0 {
				t.Errorf("status %d, error %v, requests %v", status, err, s.lines())
			}
		})
	}
}

// Of a challenge with too much scope the scope counts as absent.
func TestScopeOfAChallengeIsBounded(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.scopes = manyScopes("scope", 600)
	p, _ := web(t, nil)
	_, client := transport(t, s, p, authclient.TransportOptions{})
	_, _, err := text(t, client, post(t, s.mcpURL(), ""))
	var unauthorized *authclient.UnauthorizedError
	if !errors.As(err, &unauthorized) || unauthorized.Result == nil || unauthorized.Result.Scope != "" {
		t.Errorf("error %v", err)
	}
}

// The comparison of scopes must not be quadratic: it takes minutes then.
func TestScopeUnionIsLinear(t *testing.T) {
	t.Parallel()
	one, two := manyScopes("one", 1<<17), manyScopes("two", 1<<17)
	start := time.Now()
	union := authclient.ComputeScopeUnion(one, two, one)
	if !authclient.IsStrictScopeSuperset(union, one) || authclient.IsStrictScopeSuperset(one, union) || len(union) != len(one)+1+len(two) {
		t.Error("the union is wrong")
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

// asked are the scopes that the user was asked for.
func (s *scripted) asked(t *testing.T) (scopes []string) {
	t.Helper()
	for _, r := range s.to("/authorize") {
		scopes = append(scopes, query(t, r.Query).Get("scope"))
	}
	return scopes
}

// What the server did not grant is not asked for at the next step-up.
func TestScopesThatWereNotGranted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		set  func(s *scripted)
	}{
		{"silently", func(s *scripted) {
			n := 0
			s.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
				n++
				token := fmt.Sprint("narrow-", n)
				s.accept(token, true)
				sendJSON(w, 200, map[string]any{"access_token": token, "token_type": "Bearer", "scope": "mcp:read"})
			})
		}},
		{"by invalid_scope", func(s *scripted) {
			s.handle("/authorize", func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				if !strings.Contains(q.Get("scope"), "admin") {
					s.authorize(w, r)
					return
				}
				back := url.Values{"error": {"invalid_scope"}, "state": {q.Get("state")}}
				http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
			})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.scopes = "mcp:read"
			test.set(s)
			p, _ := withUser(t)
			_, client := transport(t, s, p, authclient.TransportOptions{})
			if status, _, err := text(t, client, post(t, s.mcpURL(), "")); status != 200 || err != nil {
				t.Fatalf("status %d, error %v", status, err)
			}
			for _, scope := range []string{"admin:all", "files:write"} {
				s.wants(scope, false)
				_, _, _ = text(t, client, post(t, s.mcpURL(), ""))
			}
			if diff := cmp.Diff([]string{"mcp:read", "mcp:read admin:all", "mcp:read files:write"}, s.asked(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A refusal whose body does not end does not hang the request.
func TestRefusalWhoseBodyDoesNotEnd(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.handle("/mcp", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer token-1" {
			s.mcp(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", oauth.FormatChallenge("Bearer", [2]string{"error", "invalid_token"}))
		w.WriteHeader(http.StatusUnauthorized)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	p, store := web(t, nil)
	s.saved(t, store, "old", "refresh-0")
	tr, client := transport(t, s, p, authclient.TransportOptions{})
	begin := time.Now()
	if status, body, err := text(t, client, post(t, s.mcpURL(), "hello")); status != 200 || body != "hello" || err != nil {
		t.Errorf("status %d, body %q, error %v", status, body, err)
	}
	s.saved(t, store, "older", "refresh-0")
	req := post(t, s.mcpURL(), "")
	req.Header.Set("Authorization", "Bearer older")
	plain := &http.Transport{}
	defer plain.CloseIdleConnections()
	resp, err := plain.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Authorize(t.Context(), req, resp); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}
