package bearer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// liveTokens is a Verifier whose mind can change, and that counts how often it
// is asked. Its tokens live for an hour unless Life says otherwise.
type liveTokens struct {
	Life  time.Duration
	mu    sync.Mutex
	start time.Time // the first question
	asked atomic.Int64
	// verdict is asked first; nil means that all is well.
	verdict func(token string, age time.Duration) error
}

func (v *liveTokens) VerifyAccessToken(_ context.Context, token string) (*oauth.TokenInfo, error) {
	v.asked.Add(1)
	now := time.Now()
	v.mu.Lock()
	if v.start.IsZero() {
		v.start = now
	}
	start := v.start
	v.mu.Unlock()
	if v.verdict != nil {
		if err := v.verdict(token, now.Sub(start)); err != nil {
			return nil, err
		}
	}
	info := guardToken("mcp:read")
	info.Token, info.ExpiresAt = token, time.Time{}
	if v.Life > 0 {
		info.ExpiresAt = start.Add(v.Life)
		if !now.Before(info.ExpiresAt) {
			return nil, oauth.ErrInvalidToken.Describe("Token has expired")
		}
	}
	return &info, nil
}

func newLiveGuard(t testing.TB, v bearer.Verifier, change func(*bearer.Resource)) *bearer.Guard {
	t.Helper()
	resource := guardResource()
	if change != nil {
		change(&resource)
	}
	guard, err := bearer.NewGuard(bearer.GuardConfig{
		Resources: []bearer.Resource{resource}, AuthorizationServers: []string{guardIssuer}, Verifier: v, AllowNoExpiry: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return guard
}

// eventStream answers with an event, and then waits for the end of the request.
func eventStream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	_, _ = io.WriteString(w, "data: {}\n\n")
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// serveLive serves one request with the token through the guard and returns
// what came of it, also a panic, and how long it took. Inside a synctest bubble.
func serveLive(t testing.TB, guard *bearer.Guard, method, token string, handler http.HandlerFunc) (rec *httptest.ResponseRecorder, panicked any, took time.Duration) {
	t.Helper()
	rec = httptest.NewRecorder()
	r := httptest.NewRequest(method, "/mcp", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	start := time.Now()
	defer func() { panicked, took = recover(), time.Since(start) }()
	bearer.Middleware(guard, bearer.MiddlewareOptions{})(handler).ServeHTTP(rec, r)
	return rec, nil, 0
}

func between(d, least, most time.Duration) bool { return d >= least && d <= most }

func TestRequestsEndWithTheirToken(t *testing.T) {
	waits := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, row := range []struct {
		rule, method string
		handler      http.HandlerFunc
		status       int
		body         string
		aborted      bool
	}{
		{"event stream", "GET", eventStream, 200, "data: {}\n\n", false},
		{"event stream of a POST", "POST", eventStream, 200, "data: {}\n\n", false},
		{"event stream that its proxy aborts", "GET", func(w http.ResponseWriter, r *http.Request) {
			eventStream(w, r)
			panic(http.ErrAbortHandler)
		}, 200, "data: {}\n\n", false},
		{"long poll", "GET", waits, 401, `"error":"invalid_token"`, false},
		{"long poll that its proxy takes for a client that went away", "GET", func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			w.WriteHeader(499)
		}, 401, `"error":"invalid_token"`, false},
		{"call that may have taken effect", "POST", waits, 504, `"error":"gateway_timeout"`, false},
		{"half of an answer", "POST", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"result":`)
			<-r.Context().Done()
			if _, err := io.WriteString(w, "{}}"); err == nil {
				t.Error("the rest of the answer was accepted")
			}
			panic(http.ErrAbortHandler)
		}, 200, `{"result":`, true},
		{"a handler that says nothing of the end", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for {
				if _, err := io.WriteString(w, ":\n"); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}, 200, ":\n", false},
	} {
		for _, end := range []struct {
			how         string
			verifier    *liveTokens
			least, most time.Duration
			reason      string
		}{
			{"expiry", &liveTokens{Life: 10 * time.Second}, 10 * time.Second, 11100 * time.Millisecond, "Token has expired"},
			{"revocation", &liveTokens{Life: time.Hour, verdict: func(_ string, age time.Duration) error {
				if age >= 7500*time.Millisecond {
					return oauth.ErrInvalidToken.Describe("Token has been revoked")
				}
				return nil
			}}, 7500 * time.Millisecond, 8600 * time.Millisecond, "Token has been revoked"},
		} {
			t.Run(row.rule+", "+end.how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					end.verifier.start = time.Time{}
					rec, panicked, took := serveLive(t, newLiveGuard(t, end.verifier, nil), row.method, "a", row.handler)
					if !between(took, end.least, end.most) {
						t.Errorf("the request ran for %s", took)
					}
					if rec == nil || (panicked != nil) != row.aborted {
						t.Fatalf("panic %v", panicked)
					}
					if rec.Code != row.status || !strings.Contains(rec.Body.String(), row.body) {
						t.Errorf("%d %s", rec.Code, rec.Body)
					}
					if row.status == 401 {
						if !strings.Contains(rec.Body.String(), end.reason) || !strings.Contains(rec.Header().Get("WWW-Authenticate"), guardMetadataURL) ||
							!strings.Contains(rec.Header().Get("WWW-Authenticate"), `scope="mcp:read"`) {
							t.Errorf("challenge %q, body %s", rec.Header().Get("WWW-Authenticate"), rec.Body)
						}
					}
					if row.status == 504 && rec.Header().Get("WWW-Authenticate") != "" {
						t.Error("the client is told to send the call once more")
					}
				})
			})
		}
	}
}

func TestPanicsOfOthersStayPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for rule, value := range map[string]any{"an error": io.ErrUnexpectedEOF, "what cannot be compared": []int{1}} {
			guard := newLiveGuard(t, &liveTokens{Life: time.Second}, nil)
			_, panicked, _ := serveLive(t, guard, "GET", "a", func(_ http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				panic(value)
			})
			if fmt.Sprint(panicked) != fmt.Sprint(value) {
				t.Errorf("%s became %v", rule, panicked)
			}
		}
	})
}

func TestStreamGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &liveTokens{Life: 10 * time.Second}
		guard := newLiveGuard(t, v, func(r *bearer.Resource) { r.StreamGrace = 20 * time.Second })
		if _, _, took := serveLive(t, guard, "GET", "a", eventStream); !between(took, 30*time.Second, 31100*time.Millisecond) {
			t.Errorf("an expired token's stream ran for %s", took)
		}
		v.start, v.verdict = time.Now(), func(_ string, age time.Duration) error {
			if age >= 3*time.Second {
				return oauth.ErrInvalidToken.Describe("Token has been revoked")
			}
			return nil
		}
		if _, _, took := serveLive(t, guard, "GET", "a", eventStream); !between(took, 3*time.Second, 4100*time.Millisecond) {
			t.Errorf("a revoked token's stream ran for %s", took)
		}
	})
	if _, err := bearer.NewGuard(bearer.GuardConfig{
		Resources: []bearer.Resource{{Identifier: guardIdentifier, StreamGrace: -1}}, AuthorizationServers: []string{guardIssuer}, Verifier: &liveTokens{},
	}); err == nil || !strings.Contains(err.Error(), "stream grace") {
		t.Errorf("a grace below 0: %v", err)
	}
}

// A store that does not answer does not end streams at once, and not never.
func TestStreamsWhileTokensCannotBeJudged(t *testing.T) {
	trouble := func(from, to time.Duration) func(string, time.Duration) error {
		return func(_ string, age time.Duration) error {
			if age >= from && age < to {
				return oauth.ErrTemporarilyUnavailable.Describe("no store")
			}
			return nil
		}
	}
	for _, row := range []struct {
		rule        string
		verdict     func(string, time.Duration) error
		least, most time.Duration
	}{
		{"trouble that passes", trouble(5*time.Second, 30*time.Second), time.Minute, 62 * time.Second},
		{"trouble that stays", trouble(5*time.Second, time.Hour), 34 * time.Second, 37 * time.Second},
		{"a verifier that panics", func(_ string, age time.Duration) error {
			if age > 0 {
				panic("oh")
			}
			return nil
		}, 30 * time.Second, 33 * time.Second},
		{"a verifier that errs in its own way", func(_ string, age time.Duration) error {
			if age > 0 {
				return errors.New("oh")
			}
			return nil
		}, 30 * time.Second, 33 * time.Second},
	} {
		t.Run(row.rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				guard := newLiveGuard(t, &liveTokens{Life: time.Minute, verdict: row.verdict}, nil)
				if _, _, took := serveLive(t, guard, "GET", "a", eventStream); !between(took, row.least, row.most) {
					t.Errorf("the stream ran for %s", took)
				}
			})
		})
	}
}

// Many streams cost one question a second for each token, and none when they
// are gone.
func TestStreamsShareQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &liveTokens{}
		guard := newLiveGuard(t, v, nil)
		ctx, cancel := context.WithCancel(t.Context())
		handler := bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(eventStream))
		var streams sync.WaitGroup
		for i := range 500 {
			streams.Go(func() {
				r := httptest.NewRequest("GET", "/mcp", nil).WithContext(ctx)
				r.Header.Set("Authorization", fmt.Sprintf("Bearer t%d", i%50))
				handler.ServeHTTP(httptest.NewRecorder(), r)
			})
		}
		synctest.Wait()
		v.asked.Store(0)
		time.Sleep(10500 * time.Millisecond)
		if asked := v.asked.Load(); asked < 8*50 || asked > 11*50 {
			t.Errorf("500 streams of 50 tokens asked %d times in ten seconds", asked)
		}
		cancel()
		streams.Wait()
		time.Sleep(2 * time.Second)
		v.asked.Store(0)
		time.Sleep(time.Minute)
		if asked := v.asked.Load(); asked != 0 {
			t.Errorf("no stream asked %d times in a minute", asked)
		}
		// And it begins again.
		v.verdict = func(string, time.Duration) error { return nil }
		v.Life, v.start = 5*time.Second, time.Now()
		if _, _, took := serveLive(t, guard, "GET", "a", eventStream); !between(took, 5*time.Second, 6100*time.Millisecond) {
			t.Errorf("a later stream ran for %s", took)
		}
	})
}

// The stream of one user ends, that of another does not.
func TestOnlyTheRevokedEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &liveTokens{Life: time.Minute, verdict: func(token string, age time.Duration) error {
			if token == "bad" && age > 5*time.Second {
				return oauth.ErrInvalidToken.Describe("Token has been revoked")
			}
			return nil
		}}
		guard := newLiveGuard(t, v, nil)
		var streams sync.WaitGroup
		for token, end := range map[string]time.Duration{"good": time.Minute, "bad": 5 * time.Second} {
			streams.Go(func() {
				if _, _, took := serveLive(t, guard, "GET", token, eventStream); !between(took, end, end+2*time.Second) {
					t.Errorf("the stream of the %s token ran for %s", token, took)
				}
			})
		}
		streams.Wait()
	})
}

// A server sees that the request is over, and the client that the answer is.
func TestStreamEndsOnTheWire(t *testing.T) {
	v := &liveTokens{Life: 1500 * time.Millisecond}
	over := make(chan struct{})
	server := serveHandler(t, bearer.Middleware(newLiveGuard(t, v, nil), bearer.MiddlewareOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		eventStream(w, r)
		close(over)
	})))
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/mcp", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer a")
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "data: {}\n\n" {
		t.Errorf("the stream was %q and ended with %v", body, err)
	}
	<-over
}

// A client that leaves ends its own request only.
func TestClientThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := newLiveGuard(t, &liveTokens{}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		rec := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/mcp", nil).WithContext(ctx)
		r.Header.Set("Authorization", "Bearer a")
		bearer.Middleware(guard, bearer.MiddlewareOptions{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			w.WriteHeader(499)
		})).ServeHTTP(rec, r)
		if rec.Code != 499 {
			t.Errorf("status %d", rec.Code)
		}
	})
}
