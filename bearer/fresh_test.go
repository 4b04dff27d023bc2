package bearer_test

import (
	"context"
	"crypto/elliptic"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// inProcess is a transport without a network, for tests whose time is faked.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// Run loads in the background with growing pauses until the server is up, then
// at the interval, and ends with its context.
func TestRunOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newEC("k", elliptic.P256())
		var mu sync.Mutex
		up, start := false, time.Now()
		var at []time.Duration
		c := &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(start))
			if !up {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write([]byte(jwks(s.jwk(nil))))
		})}}
		var lines logLines
		v, err := bearer.NewJWTVerifier(bearer.JWTConfig{
			Issuer: "https://idp.example", JWKSURI: "https://idp.example/jwks", Client: c,
			Logger: slog.New(slog.NewTextHandler(&lines, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			v.Run(ctx)
			close(ended)
		}()
		loads := func() []time.Duration {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return at
		}
		time.Sleep(10 * time.Minute)
		// 0, 1, 3, 7, 15, 31, 63, 123, 183, … s, each pause up to a tenth shorter.
		failed := loads()
		if len(failed) < 15 || len(failed) > 18 {
			t.Errorf("%d attempts in 10 min: %v", len(failed), failed)
		}
		for n := 1; n < len(failed); n++ {
			want := min(time.Second<<(n-1), time.Minute)
			if pause := failed[n] - failed[n-1]; pause > want || pause < want*9/10 {
				t.Errorf("pause %d is %s, want %s or up to a tenth less", n, pause, want)
			}
		}
		token := s.token(nil, object{"iss": "https://idp.example", "sub": "alice"})
		mu.Lock()
		up = true
		mu.Unlock()
		time.Sleep(time.Minute)
		before := len(loads())
		if _, err := v.VerifyAccessToken(ctx, token); err != nil {
			t.Errorf("once the server is up: %v", err)
		}
		if n := len(loads()); n != before {
			t.Error("the keys were there already, but the request loaded them")
		}
		time.Sleep(time.Hour)
		if n := len(loads()) - before; n < 4 || n > 5 {
			t.Errorf("%d loads in an hour, want one every 15 min", n)
		}
		// While the server is down again, requests do not add to the attempts.
		mu.Lock()
		up = false
		mu.Unlock()
		time.Sleep(20 * time.Minute)
		before = len(loads())
		for range 30 {
			time.Sleep(11 * time.Second)
			if _, err := v.VerifyAccessToken(ctx, token); err != nil {
				t.Errorf("with the old keys: %v", err)
			}
		}
		if n := len(loads()) - before; n < 4 || n > 8 {
			t.Errorf("%d attempts in 5.5 min, want about one a minute", n)
		}
		for _, line := range []string{"cannot load, trying again", "loaded after earlier failures"} {
			if !strings.Contains(lines.String(), line) {
				t.Errorf("not logged: %s", line)
			}
		}
		cancel()
		<-ended
		before = len(loads())
		time.Sleep(time.Hour)
		if n := len(loads()); n != before {
			t.Error("it goes on after its context has ended")
		}
	})
}

// Without Run, keys are replaced when they are used after their interval, and
// nobody waits for that.
func TestKeysAreRefreshedWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newEC("k", elliptic.P256())
		var loads atomic.Int32
		c := &http.Client{Transport: inProcess{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if loads.Add(1) > 1 {
				time.Sleep(5 * time.Second)
			}
			_, _ = w.Write([]byte(jwks(s.jwk(nil))))
		})}}
		v, err := bearer.NewJWTVerifier(bearer.JWTConfig{Issuer: "https://idp.example", JWKSURI: "https://idp.example/jwks", Client: c})
		if err != nil {
			t.Fatal(err)
		}
		token := s.token(nil, object{"iss": "https://idp.example"})
		for n, want := range []int32{1, 1, 2, 2, 2, 3} {
			before := time.Now()
			if _, err := v.VerifyAccessToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(before); waited > 0 {
				t.Errorf("use %d waited %s", n, waited)
			}
			synctest.Wait()
			if got := loads.Load(); got != want {
				t.Errorf("use %d: %d loads, want %d", n, got, want)
			}
			time.Sleep([]time.Duration{14 * time.Minute, 2 * time.Minute, time.Second, 6 * time.Second, 16 * time.Minute, 10 * time.Second}[n])
		}
	})
}
