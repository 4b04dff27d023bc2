package authserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

func TestDocumentFreshness(t *testing.T) {
	base := time.Unix(1_800_000_000, 0)
	for _, test := range []struct {
		rule   string
		header map[string]string
		life   time.Duration
	}{
		{"nothing said", nil, time.Hour},
		{"max-age", map[string]string{"Cache-Control": "public, max-age=7200"}, 2 * time.Hour},
		{"below the least", map[string]string{"Cache-Control": "max-age=0"}, 5 * time.Minute},
		{"above the most", map[string]string{"Cache-Control": "max-age=31536000"}, 24 * time.Hour},
		{"no-store", map[string]string{"Cache-Control": "no-store, max-age=7200"}, 5 * time.Minute},
		{"no-cache", map[string]string{"Cache-Control": "No-Cache"}, 5 * time.Minute},
		{"s-maxage wins", map[string]string{"Cache-Control": "s-maxage=7200, max-age=600"}, 2 * time.Hour},
		{"age in a cache before", map[string]string{"Cache-Control": "max-age=7200", "Age": "3600"}, time.Hour},
		{"expires", map[string]string{"Date": base.UTC().Format(http.TimeFormat), "Expires": base.Add(3 * time.Hour).UTC().Format(http.TimeFormat)}, 3 * time.Hour},
		{"expires in the past", map[string]string{"Date": base.UTC().Format(http.TimeFormat), "Expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, 5 * time.Minute},
		{"garbage", map[string]string{"Cache-Control": "max-age=x, ,=,", "Age": "x", "Expires": "0"}, time.Hour},
		{"negative", map[string]string{"Cache-Control": "max-age=-1"}, 5 * time.Minute},
	} {
		t.Run(test.rule, func(t *testing.T) {
			w, now := newWeb(t), &clock{now: base}
			w.put(documentURL, page{body: document(t), header: test.header})
			d := newDocuments(t, w, now.Now)
			get := func() {
				t.Helper()
				if _, err := d.Get(t.Context(), documentURL); err != nil {
					t.Fatal(err)
				}
			}
			get()
			now.advance(test.life - time.Second)
			get()
			if got := w.hitsOf(documentURL); got != 1 {
				t.Errorf("%d fetches while it is fresh", got)
			}
			now.advance(time.Second)
			get()
			if got := w.hitsOf(documentURL); got != 2 {
				t.Errorf("%d fetches after that", got)
			}
		})
	}
}

func TestDocumentStale(t *testing.T) {
	for _, test := range []struct {
		rule  string
		then  page
		stale bool
	}{
		{"connection reset", page{reset: true}, true},
		{"500", page{status: 500}, true},
		{"503", page{status: 503}, true},
		{"429", page{status: 429}, true},
		{"404 counts at once", page{status: 404}, false},
		{"410 counts at once", page{status: 410}, false},
		{"403 counts at once", page{status: 403}, false},
		{"redirect counts at once", page{status: 301}, false},
		{"invalid counts at once", page{body: "{}"}, false},
		{"other type counts at once", page{body: document(t), contentType: "text/html"}, false},
		{"other method counts at once", page{body: document(t, "token_endpoint_auth_method", "tls_client_auth")}, false},
	} {
		t.Run(test.rule, func(t *testing.T) {
			w, now := newWeb(t), &clock{now: time.Unix(1_800_000_000, 0)}
			d := newDocuments(t, w, now.Now)
			w.put(documentURL, page{body: document(t)})
			if _, err := d.Get(t.Context(), documentURL); err != nil {
				t.Fatal(err)
			}
			w.put(documentURL, test.then)
			now.advance(2 * time.Hour)
			_, err := d.Get(t.Context(), documentURL)
			if test.stale != (err == nil) || !test.stale && !errors.Is(err, oauth.ErrInvalidClient) {
				t.Fatalf("error %v", err)
			}
			if !test.stale {
				// Gone for good: trouble later does not bring it back.
				w.put(documentURL, page{status: 500})
				if _, err := d.Get(t.Context(), documentURL); !errors.Is(err, oauth.ErrTemporarilyUnavailable) {
					t.Errorf("error %v", err)
				}
				return
			}
			// The host in trouble is left alone for a while.
			hits := w.hitsOf(documentURL)
			for range 100 {
				if _, err := d.Get(t.Context(), documentURL); err != nil {
					t.Fatal(err)
				}
			}
			if got := w.hitsOf(documentURL); got != hits {
				t.Errorf("%d fetches more", got-hits)
			}
			// 24 hours after the last good fetch it is over.
			now.advance(22 * time.Hour)
			if _, err := d.Get(t.Context(), documentURL); err != nil {
				t.Errorf("after 24 hours: %v", err)
			}
			now.advance(time.Minute)
			if _, err := d.Get(t.Context(), documentURL); !errors.Is(err, oauth.ErrTemporarilyUnavailable) {
				t.Errorf("after more than 24 hours: %v", err)
			}
			// And it comes back, for errors are not kept.
			w.put(documentURL, page{body: document(t, "client_name", "New")})
			if doc, err := d.Get(t.Context(), documentURL); err != nil || doc.Client.ClientName != "New" {
				t.Errorf("after the trouble: %v", err)
			}
		})
	}
}

func TestDocumentFailuresAreThrottled(t *testing.T) {
	at := func(i int) string { return fmt.Sprintf("https://client.example/%d", i) }
	t.Run("per host", func(t *testing.T) {
		w, now := newWeb(t), &clock{now: time.Unix(1_800_000_000, 0)}
		d := newDocuments(t, w, now.Now)
		w.put(documentURL, page{body: document(t), header: map[string]string{"Cache-Control": "max-age=300"}})
		if _, err := d.Get(t.Context(), documentURL); err != nil {
			t.Fatal(err)
		}
		now.advance(5*time.Minute - 30*time.Second)
		for i := range 20 {
			ctx := authserver.ContextWithCaller(t.Context(), fmt.Sprintf("192.0.2.%d", i))
			if _, err := d.Get(ctx, at(i)); !errors.Is(err, oauth.ErrInvalidClient) {
				t.Fatal(i, err)
			}
		}
		hits := w.allHits()
		ctx := authserver.ContextWithCaller(t.Context(), "192.0.2.100")
		if _, err := d.Get(ctx, at(20)); !errors.Is(err, oauth.ErrTooManyRequests) || w.allHits() != hits {
			t.Errorf("the 21st: %v, %d fetches more", err, w.allHits()-hits)
		}
		other := "https://other.example/c"
		w.put(other, page{body: document(t, "client_id", other)})
		if _, err := d.Get(ctx, other); err != nil {
			t.Errorf("another host: %v", err)
		}
		// Nobody can keep out a client that was good before.
		now.advance(31 * time.Second)
		for i := range 20 {
			_, _ = d.Get(authserver.ContextWithCaller(t.Context(), fmt.Sprintf("192.0.2.%d", 100+i)), at(i))
		}
		if _, err := d.Get(ctx, documentURL); err != nil || w.hitsOf(documentURL) != 2 {
			t.Errorf("a known document: %v, %d fetches", err, w.hitsOf(documentURL))
		}
		now.advance(time.Minute)
		if _, err := d.Get(ctx, at(21)); !errors.Is(err, oauth.ErrInvalidClient) {
			t.Errorf("a minute later: %v", err)
		}
	})
	t.Run("per caller", func(t *testing.T) {
		s := newClientsSite(t)
		authorize := func(i int) int {
			id := fmt.Sprintf("https://client%d.example/c", i)
			return s.do("GET", "/authorize?"+authorization("client_id", id), "").Status
		}
		for i := range 20 {
			if got := authorize(i); got != http.StatusBadRequest {
				t.Fatal(i, got)
			}
		}
		hits := s.web.allHits()
		if got := authorize(20); got != http.StatusTooManyRequests || s.web.allHits() != hits {
			t.Errorf("status %d, %d fetches more", got, s.web.allHits()-hits)
		}
	})
	t.Run("successes do not count", func(t *testing.T) {
		w, now := newWeb(t), &clock{now: time.Unix(1_800_000_000, 0)}
		d := newDocuments(t, w, now.Now)
		for i := range 50 {
			w.put(at(i), page{body: document(t, "client_id", at(i))})
			if _, err := d.Get(t.Context(), at(i)); err != nil {
				t.Fatal(i, err)
			}
		}
	})
}

// Trouble is 503, so that the client does not forget its registration.
func TestDocumentTroubleIsPassing(t *testing.T) {
	s := newClientsSite(t)
	for _, p := range []page{{status: 500}, {status: 429}, {reset: true}} {
		s.web.put(documentURL, p)
		a := s.do("GET", "/authorize?"+authorization("client_id", documentURL), "")
		if code, _ := a.oauthError(t); a.Status != http.StatusServiceUnavailable || code != "temporarily_unavailable" || a.Header.Get("Retry-After") == "" {
			t.Errorf("%+v: %d %s", p, a.Status, code)
		}
	}
	if got := s.web.hitsOf(documentURL); got < 3 {
		t.Errorf("%d fetches: an error was kept", got)
	}
}

func TestDocumentFetchesAtOnce(t *testing.T) {
	wait := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(wait) })
	w := newWeb(t)
	t.Cleanup(goOn)
	d := newDocuments(t, w, time.Now)
	var all sync.WaitGroup
	get := func(id, caller string) {
		all.Go(func() {
			ctx := authserver.ContextWithCaller(context.Background(), caller)
			if _, err := d.Get(ctx, id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	// 8 for one host, of which 4 run, and 40 for 40 hosts, of which 28 run.
	for i := range 8 {
		id := fmt.Sprintf("https://client.example/%d", i)
		w.put(id, page{body: document(t, "client_id", id), wait: wait})
		get(id, fmt.Sprintf("192.0.2.%d", i))
	}
	w.inUse(t, 4)
	for i := range 40 {
		id := fmt.Sprintf("https://client%d.example/c", i)
		w.put(id, page{body: document(t, "client_id", id), wait: wait})
		get(id, fmt.Sprintf("198.51.100.%d", i))
	}
	w.inUse(t, 32)
	// Everybody who wants a document that is on its way waits for it.
	for range 20 {
		get("https://client0.example/c", "203.0.113.1")
	}
	goOn()
	all.Wait()
	if w.most != 32 || w.hitsOf("https://client0.example/c") != 1 {
		t.Errorf("%d at once, %d fetches of one document", w.most, w.hitsOf("https://client0.example/c"))
	}
}

// inUse waits until n requests are inside the server.
func (w *web) inUse(t *testing.T, n int) {
	t.Helper()
	deadline := time.Now().Add(4 * time.Second)
	for time.Now().Before(deadline) {
		w.mu.Lock()
		inside := w.inside
		w.mu.Unlock()
		if inside == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("never %d requests at once, at most %d", n, w.most)
}

// A caller who goes away does not take the document from those who wait.
func TestDocumentLeaderGoesAway(t *testing.T) {
	wait := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(wait) })
	w := newWeb(t)
	t.Cleanup(goOn)
	w.put(documentURL, page{body: document(t), wait: wait})
	d := newDocuments(t, w, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _, _ = d.Get(ctx, documentURL) })
	w.inUse(t, 1)
	cancel()
	all.Go(func() {
		if _, err := d.Get(t.Context(), documentURL); err != nil {
			t.Error(err)
		}
	})
	gone, stop := context.WithCancel(t.Context())
	stop()
	if _, err := d.Get(gone, documentURL); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits and goes away: %v", err)
	}
	goOn()
	all.Wait()
}

func TestDocumentCacheIsBounded(t *testing.T) {
	w := newWeb(t)
	at := func(i int) string { return fmt.Sprintf("https://client.example/%d", i) }
	fill := func(configure func(*authserver.DocumentsConfig), filling int) *authserver.Documents {
		d := newDocuments(t, w, time.Now, configure)
		for i := range 6 {
			w.put(at(i), page{body: document(t, "client_id", at(i), "x", strings.Repeat("x", filling))})
			if _, err := d.Get(t.Context(), at(i)); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	kept := func(d *authserver.Documents) (n int) {
		for i := 5; i >= 0; i-- {
			hits := w.hitsOf(at(i))
			if _, err := d.Get(t.Context(), at(i)); err != nil {
				t.Fatal(err)
			}
			if w.hitsOf(at(i)) > hits {
				return n
			}
			n++
		}
		return n
	}
	if got := kept(fill(func(c *authserver.DocumentsConfig) { c.MaxEntries = 3 }, 0)); got != 3 {
		t.Errorf("%d documents kept of at most 3", got)
	}
	if got := kept(fill(func(c *authserver.DocumentsConfig) { c.MaxBytes = 40 << 10 }, 8000)); got != 2 {
		t.Errorf("%d documents kept of at most 40 KiB", got)
	}
}
