package caddytest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/store/bolt"
)

// TestFlood sends floodRequests to /register and to /authorize, without a rate
// limit. None of them may leave anything behind: no record, no byte in the
// store's file, no memory.
func TestFlood(t *testing.T) {
	c := newCaddy(t)
	file := filepath.Join(c.dir, "grants.db")
	site := fmt.Sprintf(brokerSite, aliceAccount(t), "rate_limit off", newBackend(t).addr())
	if err := c.load("\tmcp_auth {\n\t\tstore bbolt "+file+"\n\t}", site); err != nil {
		t.Fatal(err)
	}
	// A session, so that keys and a grant are there.
	id := c.register(testRedirect)
	answer := newBrowser(t).signIn(c.Origin+authorizeTarget(id, "s"), aliceName, alicePassword)
	tokens := c.mustExchange(id, answer)

	c.flood(t, 300) // fills what is bounded
	records, size, heap := countRecords(t, file), fileSize(t, file), heapInUse()
	start := time.Now()
	c.flood(t, floodRequests)
	t.Logf("%d requests in %s", 2*floodRequests, time.Since(start))
	if n := countRecords(t, file); n != records {
		t.Errorf("the store had %d records, and has %d", records, n)
	}
	if n := fileSize(t, file); n != size {
		t.Errorf("the store's file had %d bytes, and has %d", size, n)
	}
	if after := heapInUse(); after > heap+4<<20 {
		t.Errorf("the heap had %d KiB, and has %d KiB", heap>>10, after>>10)
	}
	if status := c.uses(tokens); status != 200 {
		t.Errorf("the session gets %d", status)
	}
}

// flood registers n clients, each of its own name, and sends n authorization
// requests: half with an id just registered, half with one that is none.
func (c *caddyInstance) flood(t *testing.T, n int64) {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	send := func(method, target, accept, body string) (int, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), method, c.Origin+target, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", accept)
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return resp.StatusCode, text
	}
	var next atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for i := next.Add(1); i <= n && !t.Failed(); i = next.Add(1) {
				status, body := send("POST", "/register", "application/json",
					fmt.Sprintf(`{"redirect_uris":[%q],"token_endpoint_auth_method":"none","client_name":"Flood %d of %s"}`, testRedirect, i, t.Name()))
				var registered struct {
					ClientID string `json:"client_id"`
				}
				if status != 201 || json.Unmarshal(body, &registered) != nil {
					t.Errorf("register: %d %s", status, body)
					return
				}
				want, id := 200, registered.ClientID
				if i%2 == 0 {
					want, id = 400, fmt.Sprintf("nobody-%d", i)
				}
				if status, body := send("GET", authorizeTarget(id, fmt.Sprint("s", i)), "text/html", ""); status != want {
					t.Errorf("authorize: %d %s, want %d", status, body, want)
					return
				}
			}
		})
	}
	wait.Wait()
}

// countRecords counts those of a bbolt file, in a copy: the file itself is
// locked.
func countRecords(t *testing.T, file string) int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	duplicate := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(duplicate, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bolt.Open(t.Context(), bolt.Options{Path: duplicate})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := s.Scan(t.Context(), "", func(string, []byte) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Fatal("there is no record, not even that of the session")
	}
	return n
}

func fileSize(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// heapInUse is what is reachable, in bytes.
func heapInUse() uint64 {
	var stats runtime.MemStats
	for range 3 { // finalizers and pools need more than one
		runtime.GC()
		time.Sleep(50 * time.Millisecond)
	}
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
