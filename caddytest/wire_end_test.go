package caddytest_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// endTime is how soon a stream must end after its token.
const endTime = 5 * time.Second

// openStream opens the event stream of a stepper and reads its first event.
func openStream(t *testing.T, client *http.Client, url, token string) (*http.Response, *bufio.Reader) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	body := bufio.NewReader(resp.Body)
	nextEvent(t, body)
	return resp, body
}

func nextEvent(t *testing.T, body *bufio.Reader) {
	t.Helper()
	for line := ""; line != "\n"; {
		var err error
		if line, err = body.ReadString('\n'); err != nil {
			t.Fatalf("the stream ended with %v", err)
		}
	}
}

// ends reads a stream to its end and returns when that was; it must be a proper
// one.
func ends(t *testing.T, body io.Reader) time.Time {
	t.Helper()
	if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
		t.Errorf("the stream ended with %v after %q", err, rest)
	}
	return time.Now()
}

func TestStreamsEndAtExpiry(t *testing.T) {
	s := newStepper(t)
	_, idp, wires := loadWires(t, "", s.Listener.Addr().String())
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) {
			// A minute is for clocks that differ.
			exp := time.Now().Unix() + 3
			short := idp.token(map[string]any{"aud": w.origin + "/mcp", "exp": exp - 60})
			_, stream := openStream(t, w.client, w.origin+"/mcp/events", short)
			_, other := openStream(t, w.client, w.origin+"/mcp/events", w.token)

			polled := make(chan int, 2)
			for _, method := range []string{"GET", "POST"} {
				go func() {
					r, err := http.NewRequestWithContext(t.Context(), method, w.origin+"/mcp/poll", nil)
					if err != nil {
						t.Error(err)
					}
					r.Header.Set("Authorization", "Bearer "+short)
					resp, err := w.client.Do(r)
					if err != nil {
						t.Error(err)
						polled <- 0
						return
					}
					_ = resp.Body.Close()
					if challenge := resp.Header.Get("WWW-Authenticate"); (method == "GET") != strings.Contains(challenge, `error="invalid_token"`) {
						t.Errorf("%s: challenge %q", method, challenge)
					}
					polled <- resp.StatusCode
				}()
			}
			if end := ends(t, stream); end.Before(time.Unix(exp, 0)) || end.After(time.Unix(exp, 0).Add(endTime)) {
				t.Errorf("the stream ended at %s, its token at %s", end, time.Unix(exp, 0))
			}
			if sum := <-polled + <-polled; sum != 401+504 {
				t.Errorf("the long polls ended with statuses whose sum is %d", sum)
			}
			for range 2 { // the server behind has seen the end of its requests
				if got := <-s.got; got != "poll over" {
					t.Errorf("the server said %q", got)
				}
			}
			read := make(chan struct{})
			go func() { // the ended one may take a step before the server sees its end
				for {
					select {
					case s.step <- struct{}{}:
					case <-read:
						return
					}
				}
			}()
			defer close(read)
			nextEvent(t, other) // the other one goes on
		})
	}
}

func TestStreamGraceSetting(t *testing.T) {
	s := newStepper(t)
	_, idp, wires := loadWires(t, "stream_grace 4s", s.Listener.Addr().String())
	exp := time.Now().Unix() + 2
	_, stream := openStream(t, wires[1].client, wires[1].origin+"/mcp/events", idp.token(map[string]any{"aud": wires[1].origin + "/mcp", "exp": exp - 60}))
	if end := ends(t, stream); end.Before(time.Unix(exp+4, 0)) || end.After(time.Unix(exp+4, 0).Add(endTime)) {
		t.Errorf("the stream ended at %s, its token at %s", end, time.Unix(exp, 0))
	}
}

// TestStreamsEndWithTheirGrant revokes the grants of people whose streams are
// open, before and after a reload, which itself ends no stream.
func TestStreamsEndWithTheirGrant(t *testing.T) {
	s := newStepper(t)
	c := newCaddy(t)
	socket := c.dir + "/admin.sock"
	load := func(settings string) {
		t.Helper()
		config := c.adapt("\tmcp_auth {\n\t\tstore memory\n\t}", fmt.Sprintf(accountsSite, hash(t, "correct horse"), hash(t, "b"), settings, s.Listener.Addr().String()))
		config = []byte(strings.Replace(string(config), `"admin":{"disabled":true`, `"admin":{"listen":"unix/`+socket+`"`, 1))
		if err := caddy.Load(config, true); err != nil {
			t.Fatal(err)
		}
	}
	load("")
	open := func(user, password string) (body *bufio.Reader, use func() int) {
		t.Helper()
		id := c.register(testRedirect)
		answer := newBrowser(t).signIn(c.Origin+authorizeTarget(id, "s"), user, password)
		resp, tokens := c.exchange(id, answer.Get("code"))
		if resp.StatusCode != 200 {
			t.Fatalf("token: %d %v", resp.StatusCode, tokens)
		}
		token := fmt.Sprint(tokens["access_token"])
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
		_, body = openStream(t, client, c.Origin+"/mcp/events", token)
		return body, func() int {
			resp, _ := c.send("GET", "/mcp/whole", bearerHeader(token), "")
			return resp.StatusCode
		}
	}
	revoke := func(user string) time.Time {
		t.Helper()
		data, err := json.Marshal(map[string]any{"issuer": c.Origin, "user": user})
		if err != nil {
			t.Fatal(err)
		}
		adminRequest(t, socket, "POST", "/mcp_auth/grants/revoke", string(data), 200)
		return time.Now()
	}
	alice, _ := open("alice", "correct horse")
	bob, use := open("bob", "b")
	start := revoke("alice")
	if took := ends(t, alice).Sub(start); took > endTime {
		t.Errorf("the stream went on for %s", took)
	}

	load("tokens {\n access_ttl 20m\n}")
	if status := use(); status != 200 {
		t.Errorf("a request after the reload: %d", status)
	}
	timer := time.NewTimer(3 * time.Second) // nothing happens in this time
	ended := make(chan error, 1)
	first := make(chan struct{})
	go func() {
		b, err := bob.Peek(1)
		if err == nil && b[0] == 'i' { // the second event
			close(first)
			_, err = io.ReadAll(bob)
		}
		ended <- err
	}()
	select {
	case <-timer.C:
	case err := <-ended:
		t.Fatalf("the reload ended the stream of the old configuration: %v", err)
	}
	s.step <- struct{}{}
	<-first
	start = revoke("bob")
	select {
	case err := <-ended:
		if err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("the stream of the old configuration ended with %v", err)
		}
		if took := time.Since(start); took > endTime {
			t.Errorf("the stream of the old configuration went on for %s", took)
		}
	case <-time.After(30 * time.Second):
		t.Error("the stream of the old configuration goes on for ever")
	}
	if status := use(); status != 401 {
		t.Errorf("a request after the revocation: %d", status)
	}
}
