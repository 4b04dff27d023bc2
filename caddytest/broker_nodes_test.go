package caddytest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/store/storetest"
)

// nodes are two Caddys behind a balancer, with one Redis for both.
type nodes struct {
	*caddyInstance // the balancer
	redis          *storetest.Redis
	node           [2]*caddyProcess
	// requests counts: each goes to the other node than the one before.
	requests atomic.Int64
	// pinned, if not nil, is the node that all go to.
	pinned atomic.Pointer[caddyProcess]
}

func newNodes(t *testing.T, idp *signInIDP) *nodes {
	t.Helper()
	n := &nodes{redis: storetest.StartRedis(t)}
	balancer := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		node := n.pinned.Load()
		if node == nil {
			node = n.node[n.requests.Add(1)%2]
		}
		r.SetURL(&url.URL{Scheme: "http", Host: fmt.Sprintf("localhost:%d", node.Port)})
		r.Out.Host = r.In.Host
	}})
	t.Cleanup(balancer.Close)
	_, port, _ := strings.Cut(balancer.Listener.Addr().String(), ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	n.caddyInstance = &caddyInstance{t: t, dir: t.TempDir(), Port: number, Origin: "http://localhost:" + port}
	site := fmt.Sprintf(upstreamSite, idp.URL, "allow any\nrate_limit off", newBackend(t).addr())
	var starting sync.WaitGroup
	for i := range n.node {
		n.node[i] = newProcess(t, n.Origin, freePort(t), n.globals(thePhrase), strings.Replace(site, "{ORIGIN} {", "http://localhost:{PORT} {", 1))
	}
	for _, node := range n.node {
		starting.Go(func() {
			if err := node.tryStart(); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return n
}

func (n *nodes) globals(phrase string) string {
	return "\tmcp_auth {\n\t\tstore redis " + n.redis.Address + "\n\t\tencryption_key " + phrase + "\n\t}"
}

// TestTwoNodes: with every step at the other node than the step before, a login,
// refreshes and a revocation go as on one.
func TestTwoNodes(t *testing.T) {
	idp := newSignInIDP(t)
	n := newNodes(t, idp)
	id := n.register(testRedirect)
	b := newBrowser(t)
	b.open(n.Origin + authorizeTarget(id, "s"))
	tokens := n.mustExchange(id, mustArrive(t, n.caddyInstance, b.allow(), url.Values{"state": {"s"}}))
	use := func(tokens map[string]any, want int) {
		t.Helper()
		for range n.node {
			if status := n.uses(tokens); status != want {
				t.Errorf("a node answers %d, want %d", status, want)
			}
		}
	}
	use(tokens, 200)
	var keys []string
	for range n.node {
		_, body := n.send("GET", "/.well-known/jwks.json", nil, "")
		keys = append(keys, body)
	}
	if keys[0] != keys[1] {
		t.Errorf("the nodes publish other keys:\n%s\n%s", keys[0], keys[1])
	}

	// A code is good once, whichever node it is shown to.
	code := mustArrive(t, n.caddyInstance, signedIn(b, n.caddyInstance, id), nil)
	replayed := n.mustExchange(id, code)
	if resp, answer := n.exchange(id, code.Get("code")); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("code replay: %d %v", resp.StatusCode, answer)
	}
	n.eventually(t, replayed, 401)

	// 64 refreshes at once, half of them at either node, have one answer.
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {fmt.Sprint(tokens["refresh_token"])}}
	answers := make([]string, 64)
	var wait sync.WaitGroup
	for i := range answers {
		wait.Go(func() {
			resp, body := n.send("POST", "/token", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
			answers[i] = fmt.Sprint(resp.StatusCode, " ", body)
		})
	}
	wait.Wait()
	for _, answer := range answers {
		if answer != answers[0] || !strings.HasPrefix(answer, "200 ") {
			t.Fatalf("two answers:\n%s\n%s", answers[0], answer)
		}
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(answers[0], "200 ")), &tokens); err != nil {
		t.Fatal(err)
	}
	use(tokens, 200)

	// Redis goes, and comes back with what it had.
	before := n.refreshed(t, id, tokens)
	use(before, 200)
	n.redis.Kill()
	for range n.node {
		wait.Go(func() {
			if resp, answer := n.refresh(id, before["refresh_token"]); resp.StatusCode != 503 || answer["error"] != "temporarily_unavailable" {
				t.Errorf("refresh without Redis: %d %v", resp.StatusCode, answer)
			}
		})
	}
	wait.Wait()
	use(before, 200) // what is known is young enough
	n.redis.Start()
	n.eventually(t, before, 200)
	tokens = n.refreshed(t, id, before)
	use(tokens, 200)

	// What one node revokes the other refuses within 5 s, this one at once.
	n.pinned.Store(n.node[1])
	use(tokens, 200) // its status is cached there
	n.pinned.Store(n.node[0])
	revoke(t, n.Origin+"/revoke", id, fmt.Sprint(tokens["refresh_token"]))
	revokedAt := time.Now()
	use(tokens, 401)
	n.pinned.Store(n.node[1])
	n.eventually(t, tokens, 401)
	if took := time.Since(revokedAt); took > 5*time.Second {
		t.Errorf("the revocation took %s to the other node", took)
	}
	if resp, answer := n.refresh(id, tokens["refresh_token"]); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("refresh after revocation: %d %v", resp.StatusCode, answer)
	}
}

// eventually waits until both nodes, or the pinned one, give the token this
// status, 6 s at most.
func (n *nodes) eventually(t *testing.T, tokens map[string]any, want int) {
	t.Helper()
	status := [2]int{}
	for deadline := time.Now().Add(6 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if status = [2]int{n.uses(tokens), n.uses(tokens)}; status == [2]int{want, want} {
			return
		}
	}
	t.Errorf("the nodes answer %v, want %d", status, want)
}

// refreshed refreshes; Redis may have come back just now.
func (n *nodes) refreshed(t *testing.T, id string, tokens map[string]any) map[string]any {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, next := n.refresh(id, tokens["refresh_token"])
		switch {
		case resp.StatusCode == 200:
			return next
		case resp.StatusCode != 503 || time.Now().After(deadline):
			t.Fatalf("refresh: %d %v", resp.StatusCode, next)
		}
	}
}

// TestNodesNeedOneKey: a node with another key would read nothing and revoke
// everything, so it does not start, and says why; nor does one without a key.
func TestNodesNeedOneKey(t *testing.T) {
	redis := storetest.StartRedis(t)
	site := fmt.Sprintf(upstreamSite, newSignInIDP(t).URL, "allow any", "localhost:1")
	start := func(settings string) error {
		port := freePort(t)
		p := newProcess(t, fmt.Sprintf("http://localhost:%d", port), port, "\tmcp_auth {\n\t\tstore redis "+redis.Address+"\n"+settings+"\n\t}", site)
		return p.tryStart()
	}
	if err := start("encryption_key " + thePhrase); err != nil {
		t.Fatal(err)
	}
	for settings, want := range map[string]string{
		"encryption_key " + otherPhrase: "another encryption_key",
		"":                              "encryption_key",
	} {
		if err := start(settings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %q it ended with %v, want a word about %s", settings, err, want)
		}
	}
	for _, settings := range []string{"encryption_key " + thePhrase, "encryption_key " + thePhrase + " " + otherPhrase, "encryption_key " + otherPhrase + " " + thePhrase} {
		if err := start(settings); err != nil {
			t.Errorf("with %q: %v", settings, err)
		}
	}
}
