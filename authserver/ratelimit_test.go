package authserver_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// fromHeader takes the address from a header, so that tests can have many.
func fromHeader(c *authserver.Config, _ *scripted) {
	c.ClientIP = func(r *http.Request) string { return r.Header.Get("X-Test-Address") }
}

func limits(count int) func(*authserver.Config, *scripted) {
	return func(c *authserver.Config, _ *scripted) {
		l := &authserver.RateLimit{Count: count, Window: 15 * time.Minute}
		c.RateLimits = authserver.RateLimits{Authorize: l, Token: l, Register: l, Revoke: l}
	}
}

func rateHeaders(h http.Header) map[string]string {
	got := make(map[string]string)
	for _, name := range []string{"RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After"} {
		if v := h.Get(name); v != "" {
			got[name] = v
		}
	}
	return got
}

// SDK 1.8: headers, the 429 and its text, for every endpoint.
func TestRateLimit(t *testing.T) {
	s := newSite(t, fromHeader, limits(3))
	for what, request := range map[string]func() answer{
		"authorization requests":       func() answer { return s.do("GET", "/authorize?"+authorization(), "") },
		"token requests":               func() answer { return s.postForm("/token", "client_id=nobody") },
		"client registration requests": func() answer { return s.postJSON("/register", `{"redirect_uris":["https://a.example/cb"]}`) },
		"token revocation requests":    func() answer { return s.postForm("/revoke", "client_id=nobody") },
	} {
		t.Run(what, func(t *testing.T) {
			for i, reset := range []string{"300", "600", "900"} {
				a := request()
				want := map[string]string{
					"RateLimit-Policy": "3;w=900", "RateLimit-Limit": "3", "RateLimit-Remaining": fmt.Sprint(2 - i), "RateLimit-Reset": reset,
				}
				if diff := cmp.Diff(want, rateHeaders(a.Header)); diff != "" || a.Status == 429 {
					t.Errorf("request %d: %d %s", i+1, a.Status, diff)
				}
			}
			a := request()
			code, description := a.oauthError(t)
			if a.Status != 429 || code != "too_many_requests" || description != "You have exceeded the rate limit for "+what {
				t.Errorf("%d %s: %s", a.Status, code, description)
			}
			want := map[string]string{
				"RateLimit-Policy": "3;w=900", "RateLimit-Limit": "3", "RateLimit-Remaining": "0", "RateLimit-Reset": "900", "Retry-After": "300",
			}
			if diff := cmp.Diff(want, rateHeaders(a.Header)); diff != "" {
				t.Error(diff)
			}
			if a.Header.Get("WWW-Authenticate") != "" {
				t.Error("a 429 must not make clients sign in again")
			}
		})
	}
	// Capacity comes back over the window.
	s.clock.advance(5 * time.Minute)
	if a := s.do("GET", "/authorize?"+authorization(), ""); a.Status != 302 {
		t.Errorf("after five minutes: %d", a.Status)
	}
	if a := s.do("GET", "/authorize?"+authorization(), "", "Accept", "text/html"); a.Status != 429 || a.Header.Get("Retry-After") == "" {
		t.Errorf("one more, as a page: %d %v", a.Status, a.Header)
	}
}

// SECURITY 10: over the limit of failures a valid request is served.
func TestRateLimitServesValidRequests(t *testing.T) {
	s := newSite(t, limits(2))
	code := s.code()
	for range 50 {
		s.postForm("/token", redemption("guess"))
	}
	if a := s.postForm("/token", redemption("guess")); a.Status != 429 {
		t.Errorf("a failing one: %d", a.Status)
	}
	if a := s.postForm("/token", redemption(code)); a.Status != 200 || len(rateHeaders(a.Header)) != 0 {
		t.Errorf("a valid one: %d %v", a.Status, a.Header)
	}
	if a := s.postForm("/revoke", "client_id=public&token=t"); a.Status != 200 {
		t.Errorf("revocation: %d", a.Status)
	}
}

// SECURITY 10: counted for each client at an address, and for the address.
func TestRateLimitKeys(t *testing.T) {
	s := newSite(t, fromHeader, limits(2))
	try := func(client, address string) int {
		return s.postForm("/token", "client_id="+client, "X-Test-Address", address).Status
	}
	for _, row := range []struct {
		name, client, address string
		want                  int
	}{
		{"first", "a", "192.0.2.1", 401},
		{"second", "a", "192.0.2.1", 401},
		{"third", "a", "192.0.2.1", 429},
		{"another client", "b", "192.0.2.1", 401},
		{"another address", "a", "192.0.2.2", 401},
		{"IPv4 mapped into IPv6 is the same address", "a", "::ffff:192.0.2.1", 429},
		{"IPv6", "a", "2001:db8:1:100::1", 401},
		{"the same /56", "a", "2001:db8:1:1ff::2", 401},
		{"the same /56 again", "a", "2001:db8:1:1aa::3%eth0", 429},
		{"another /56", "a", "2001:db8:1:200::1", 401},
		{"no address", "a", "unknown", 401},
		{"no addresses share a bucket", "a", "", 401},
		{"no addresses share a bucket again", "a", "nonsense", 429},
	} {
		if got := try(row.client, row.address); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
	// Twenty times as many for an address, whatever client ids it makes up.
	limited := 0
	for i := range 45 {
		if try(fmt.Sprintf("client%d", i), "198.51.100.1") == 429 {
			limited++
		}
	}
	if limited != 5 {
		t.Errorf("%d of 45 were limited, want 5", limited)
	}
}

// Trouble of the server is not the client's failure, nor is a limit that the
// provider sets.
func TestRateLimitIgnoresServerErrors(t *testing.T) {
	var providerErr error
	s := newSite(t, limits(1), func(_ *authserver.Config, p *scripted) {
		p.exchangeRefresh = func(*oauth.Client, authserver.RefreshExchange) (*oauth.Tokens, error) {
			return nil, providerErr
		}
	})
	for _, providerErr = range []error{
		oauth.ErrTemporarilyUnavailable, oauth.ErrTooManyRequests, oauth.ErrServerError, errors.New("x"), oauth.ErrTemporarilyUnavailable,
	} {
		a := s.postForm("/token", "client_id=public&grant_type=refresh_token&refresh_token=r")
		if a.Header.Get("RateLimit-Remaining") != "" {
			t.Errorf("%v was counted", providerErr)
		}
	}
}

// SDK 1.8: wrong methods and preflights are not counted.
func TestRateLimitIgnoresWrongMethods(t *testing.T) {
	s := newSite(t, limits(1))
	for _, method := range []string{"PUT", "OPTIONS", "PUT"} {
		if a := s.do(method, "/register", ""); len(rateHeaders(a.Header)) != 0 {
			t.Errorf("%s: %v", method, a.Header)
		}
	}
	s.register(`{"redirect_uris":["https://a.example/cb"]}`)
}

func TestRateLimitOff(t *testing.T) {
	s := newSite(t, limits(1), func(c *authserver.Config, _ *scripted) {
		c.RateLimits.Off = true
		c.HardLimitClient = func(*oauth.Client) bool { return true }
	})
	for range 20 {
		a := s.postForm("/token", "client_id=secret&client_secret=x")
		if a.Status != 401 || len(rateHeaders(a.Header)) != 0 {
			t.Fatalf("%d %v", a.Status, a.Header)
		}
		if a := s.do("GET", "/authorize?"+authorization(), ""); a.Status != 302 {
			t.Fatalf("%d", a.Status)
		}
	}
}

// A revocation of a token that the provider does not know is a failure that
// the client is not told of, up to the limit.
func TestRateLimitCountsUnknownTokens(t *testing.T) {
	s := newSite(t, limits(2), func(_ *authserver.Config, p *scripted) {
		p.revoke = func(*oauth.Client, authserver.Revocation) error { return oauth.ErrInvalidToken }
	})
	for i, want := range []int{200, 200, 429} {
		if a := s.postForm("/revoke", "client_id=public&token=t"); a.Status != want {
			t.Errorf("request %d: %d", i+1, a.Status)
		}
	}
}

// Config.HardLimitClient: a guessable secret may be tried ten times, then even
// the right one is refused, for that address only.
func TestHardLimit(t *testing.T) {
	s := newSite(t, fromHeader, func(c *authserver.Config, _ *scripted) {
		c.HardLimitClient = func(c *oauth.Client) bool { return c.ClientID == "secret" }
	})
	try := func(client, secret, address string) int {
		return s.postForm("/token", "grant_type=x&client_id="+client+"&client_secret="+secret, "X-Test-Address", address).Status
	}
	for range 30 {
		if got := try("secret", "s3cret", "192.0.2.1"); got != 400 {
			t.Fatalf("the right secret is counted: %d", got)
		}
	}
	for i := range 10 {
		if got := try("secret", "wrong", "192.0.2.1"); got != 401 {
			t.Fatalf("wrong secret %d: %d", i+1, got)
		}
	}
	for name, row := range map[string]struct {
		client, secret, address string
		want                    int
	}{
		"wrong secret":         {"secret", "wrong", "192.0.2.1", 429},
		"right secret":         {"secret", "s3cret", "192.0.2.1", 429},
		"right from elsewhere": {"secret", "s3cret", "192.0.2.2", 400},
		"another client":       {"post", "s3cret", "192.0.2.1", 400},
	} {
		if got := try(row.client, row.secret, row.address); got != row.want {
			t.Errorf("%s: %d, want %d", name, got, row.want)
		}
	}
	for range 100 {
		try("secret", "wrong", "192.0.2.1") // refused ones prolong nothing
	}
	s.clock.advance(15 * time.Minute)
	if got := try("secret", "s3cret", "192.0.2.1"); got != 400 {
		t.Errorf("after the window: %d", got)
	}
}

// Guesses at the same time do not slip through together.
func TestHardLimitConcurrently(t *testing.T) {
	s := newSite(t, func(c *authserver.Config, _ *scripted) {
		c.HardLimitClient = func(*oauth.Client) bool { return true }
	})
	statuses := make(chan int)
	for range 40 {
		go func() { statuses <- s.postForm("/token", "client_id=secret&client_secret=wrong").Status }()
	}
	refused := 0
	for range 40 {
		if <-statuses == 401 {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d guesses were answered, want 10", refused)
	}
}
