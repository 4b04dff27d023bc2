package caddytest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newCrashing starts a Caddy in a process of its own, with a bbolt file.
func newCrashing(t *testing.T, site string) *caddyProcess {
	t.Helper()
	port := freePort(t)
	dir := t.TempDir()
	p := newProcess(t, fmt.Sprintf("http://localhost:%d", port), port,
		fmt.Sprintf("\tmcp_auth {\n\t\tstore bbolt %s\n\t}", filepath.Join(dir, "grants.db")), site)
	p.start()
	return p
}

// TestKillBetweenSteps: the process is killed and started again between any two
// steps of the flow, and the flow goes on as if nothing had been.
func TestKillBetweenSteps(t *testing.T) {
	t.Run("identity provider", func(t *testing.T) {
		idp := newSignInIDP(t)
		p := newCrashing(t, fmt.Sprintf(upstreamSite, idp.URL, "allow any", newBackend(t).addr()))
		id := p.register(testRedirect)
		p.again()
		b := newBrowser(t)
		stop := b.client.CheckRedirect
		b.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
			if req.URL.Path == "/mcp-auth/callback" {
				return http.ErrUseLastResponse
			}
			return stop(req, via)
		}
		b.mustStay(b.open(p.Origin+authorizeTarget(id, "s")), 200)
		p.again()
		b.allow()
		callback := b.resp.Header.Get("Location")
		p.again()
		p.session(t, id, mustArrive(t, p.caddyInstance, b.open(callback), url.Values{"state": {"s"}}))
	})
	t.Run("local accounts", func(t *testing.T) {
		p := newCrashing(t, fmt.Sprintf(brokerSite, aliceAccount(t), "", newBackend(t).addr()))
		id := p.register(testRedirect)
		b := newBrowser(t)
		b.open(p.Origin + authorizeTarget(id, "s"))
		p.again()
		b.mustStay(b.allow(), 200)
		p.again()
		p.session(t, id, mustArrive(t, p.caddyInstance,
			b.submit(url.Values{"username": {aliceName}, "password": {alicePassword}}), url.Values{"state": {"s"}}))
	})
}

// session goes on from the code to the revocation, with a kill before every
// step.
func (p *caddyProcess) session(t *testing.T, id string, answer url.Values) {
	t.Helper()
	p.again()
	tokens := p.mustExchange(id, answer)
	p.again()
	if status := p.uses(tokens); status != 200 {
		t.Errorf("use: %d", status)
	}
	p.again()
	resp, next := p.refresh(id, tokens["refresh_token"])
	if resp.StatusCode != 200 {
		t.Fatalf("refresh: %d %v", resp.StatusCode, next)
	}
	p.again()
	// The client has lost the answer, and asks again.
	if resp, again := p.refresh(id, tokens["refresh_token"]); resp.StatusCode != 200 || fmt.Sprint(again) != fmt.Sprint(next) {
		t.Errorf("the same refresh after a kill: %d %v, want %v", resp.StatusCode, again, next)
	}
	if status := p.uses(next); status != 200 {
		t.Errorf("use after the refresh: %d", status)
	}
	p.again()
	revoke(t, p.Origin+"/revoke", id, fmt.Sprint(next["refresh_token"]))
	p.again()
	if status := p.uses(next); status != 401 {
		t.Errorf("use after the revocation: %d", status)
	}
	if resp, answer := p.refresh(id, next["refresh_token"]); resp.StatusCode != 400 || answer["error"] != "invalid_grant" {
		t.Errorf("refresh after the revocation: %d %v", resp.StatusCode, answer)
	}
}

// TestKillDuringStep: the process is killed while it answers, at ever other
// moments. What the client was told holds, and asked again it gets tokens, or,
// for a code, the word to begin anew; it is never stuck.
func TestKillDuringStep(t *testing.T) {
	p := newCrashing(t, fmt.Sprintf(brokerSite, aliceAccount(t), "rate_limit off", newBackend(t).addr()))
	id := p.register(testRedirect)
	signIn := func() url.Values {
		t.Helper()
		return newBrowser(t).signIn(p.Origin+authorizeTarget(id, "s"), aliceName, alicePassword)
	}
	// interrupted sends the form and kills the process after a while. It returns
	// what came back, nil if nothing did.
	interrupted := func(form url.Values, after time.Duration) (tokens map[string]any) {
		t.Helper()
		done := make(chan map[string]any, 1)
		go func() {
			var answer map[string]any
			resp, body, err := rawRequest(p.Port, "POST", "/token", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
			if err == nil && resp.StatusCode == 200 && json.Unmarshal([]byte(body), &answer) == nil {
				done <- answer
				return
			}
			done <- nil
		}()
		time.Sleep(after)
		p.kill()
		tokens = <-done
		p.start()
		return tokens
	}
	outcomes := map[string]int{}
	tokens := p.mustExchange(id, signIn())
	for i := range 8 {
		form := url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {fmt.Sprint(tokens["refresh_token"])}}
		told := interrupted(form, time.Duration(i)*time.Millisecond)
		resp, next := p.token(form)
		if resp.StatusCode != 200 {
			t.Fatalf("round %d: the same refresh after a kill: %d %v", i, resp.StatusCode, next)
		}
		outcome := "not answered"
		if told != nil {
			outcome = "answered"
			if fmt.Sprint(told) != fmt.Sprint(next) {
				t.Errorf("round %d: the answer was %v, and then %v", i, told, next)
			}
		}
		outcomes[outcome]++
		if status := p.uses(next); status != 200 {
			t.Errorf("round %d: use: %d", i, status)
		}
		tokens = next
	}
	for i := range 4 {
		form := codeForm(id)
		form.Set("code", signIn().Get("code"))
		told := interrupted(form, time.Duration(2*i)*time.Millisecond)
		if told != nil {
			if status := p.uses(told); status != 200 {
				t.Errorf("code, round %d: use: %d", i, status)
			}
			continue
		}
		resp, next := p.token(form)
		switch {
		case resp.StatusCode == 200 && p.uses(next) == 200:
		case resp.StatusCode == 400 && next["error"] == "invalid_grant": // redeemed, and nobody was told
			if next = p.mustExchange(id, signIn()); p.uses(next) != 200 {
				t.Errorf("code, round %d: a new login does not work", i)
			}
		default:
			t.Errorf("code, round %d: %d %v", i, resp.StatusCode, next)
		}
	}
	if !strings.Contains(fmt.Sprint(outcomes), "not answered") {
		t.Errorf("no kill came in time: %v", outcomes)
	}
	t.Logf("refreshes: %v", outcomes)
}
