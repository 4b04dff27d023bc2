package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestConnectionReadsAnswers(t *testing.T) {
	long := strings.Repeat("x", 40_000)
	mux := http.NewServeMux()
	mux.HandleFunc("/sized", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "sized") })
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/chunked", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "one,")
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, long)
	})
	mux.HandleFunc("/close", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "last")
	})
	mux.HandleFunc("/body", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	server := httptest.NewServer(mux)
	defer server.Close()
	addr := server.Listener.Addr().String()
	c := &connection{addr: addr}
	defer c.close()
	for _, test := range []struct {
		request []byte
		status  int
		body    string
	}{
		{get(addr, "/sized", ""), 200, "sized"},
		{get(addr, "/chunked", ""), 200, "one," + long},
		{get(addr, "/empty", "Accept: text/html\r\n"), 204, ""},
		{get(addr, "/close", ""), 200, "last"},
		{post(nil, addr, "/body", "X: y\r\n", "text/plain", "echo"), 200, "echo"},
		{get(addr, "/none", ""), 404, "404 page not found\n"},
	} {
		status, body, err := c.do(test.request)
		if err != nil || status != test.status || string(body) != test.body {
			t.Errorf("%.30q: %d %.60q %v", test.request, status, body, err)
		}
	}
}

func TestLoadEndsWithTheLastRequest(t *testing.T) {
	var served atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
	defer server.Close()
	addr := server.Listener.Addr().String()
	left := [2]int{3, 4}
	l := newLoad(addr, len(left), func(i int) conversation {
		return conversation{
			next: func([]byte) []byte {
				if left[i]--; left[i] < 0 {
					return nil
				}
				return get(addr, "/", "")
			},
			got: wantStatus(200),
		}
	})
	defer l.close()
	n, _, err := l.run(context.Background(), time.Minute)
	if err != nil || n != 7 || served.Load() != 7 {
		t.Errorf("%d requests, %d served, %v", n, served.Load(), err)
	}
}

func TestLoadTellsOfAnAnswerThatIsNotWanted(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	addr := server.Listener.Addr().String()
	l := repeat(addr, 1, 200, get(addr, "/", ""))
	defer l.close()
	if n, _, err := l.run(context.Background(), time.Minute); err == nil || n != 0 {
		t.Errorf("%d requests, error %v", n, err)
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	s := func(cpu time.Duration) sample { return sample{cpu: cpu} }
	m := &measurement{samples: []sample{s(30), s(150), s(10)}, before: []sample{s(10), s(100), s(20)}, after: []sample{s(30), s(100), s(20)}}
	if got := m.ratio(cpuOf); got != 1.5 {
		t.Errorf("the ratio is %v", got)
	}
	if got := m.self(cpuOf); got != 1 {
		t.Errorf("the base's own ratio is %v", got)
	}
}

func TestTargets(t *testing.T) {
	for want, got := range map[string]string{
		"≤ 0.80 ✓": target{atMost: 0.8}.of(0.8), "≤ 0.80 ✗": target{atMost: 0.8}.of(0.81),
		"≥ 0.90 ✓": target{atLeast: 0.9}.of(0.9), "≥ 0.90 ✗": target{atLeast: 0.9}.of(0.89),
		"": target{}.of(1),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTokenRequestsAreCounted(t *testing.T) {
	code, refresh, err := writesPerRequest(t.Context())
	if err != nil || code < 1 || refresh < 1 {
		t.Errorf("%v writes for a code, %v for a refresh, %v", code, refresh, err)
	}
}

func TestConnectionRefusesWhatIsNoHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(conn, bytes.NewBufferString("SMTP ready\r\n"))
		_ = conn.Close()
	}))
	defer server.Close()
	addr := server.Listener.Addr().String()
	c := &connection{addr: addr}
	defer c.close()
	if _, _, err := c.do(get(addr, "/", "")); !errors.Is(err, errAnswer) {
		t.Errorf("error %v", err)
	}
}
