package caddytest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestStreamsLoseAccessByReload takes an API key and an account out of the
// configuration, and then the site: what is open of theirs ends. A reload that
// fails ends nothing.
func TestStreamsLoseAccessByReload(t *testing.T) {
	s := newStepper(t)
	c := newCaddy(t)
	leaves, leavesEntry := makeKey(t, "--user", "ci", "--scope", "mcp:read")
	stays, staysEntry := makeKey(t, "--user", "cd", "--scope", "mcp:read")
	key := func(id, entry string) string {
		return fmt.Sprintf("\n key %s {\n hash %s\n user %s\n scopes mcp:read\n }", id, keyHash(t, entry), id)
	}
	site := func(keys string) string {
		return fmt.Sprintf(accountsSite, hash(t, "correct horse"), hash(t, "b"), "verify static {"+keys+"\n}", s.Listener.Addr().String())
	}
	load := func(site string) error { return c.load("\tmcp_auth {\n\t\tstore memory\n\t}", site) }
	if err := load(site(key("ci", leavesEntry) + key("cd", staysEntry))); err != nil {
		t.Fatal(err)
	}
	signIn := func(user, password string) string {
		id := c.register(testRedirect)
		_, tokens := c.exchange(id, newBrowser(t).signIn(c.authorizeURL(id, testRedirect, "s"), user, password).Get("code"))
		return fmt.Sprint(tokens["access_token"])
	}
	alice, bob := signIn("alice", "correct horse"), signIn("bob", "b")

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	open := func(token string) <-chan time.Time {
		_, body := openStream(t, client, c.Origin+"/mcp/events", token)
		ended := make(chan time.Time, 1)
		go func() { ended <- ends(t, body) }()
		return ended
	}
	ending := map[string]<-chan time.Time{"a key": open(leaves), "alice": open(alice)}
	staying := map[string]<-chan time.Time{"another key": open(stays), "bob": open(bob)}
	remain := func(when string, streams map[string]<-chan time.Time) {
		t.Helper()
		over := time.After(3 * time.Second) // nothing happens in this time
		for who, ended := range streams {
			select {
			case <-over:
				return
			case <-ended:
				t.Fatalf("%s ended the stream of %s", when, who)
			case <-time.After(1500 * time.Millisecond):
			}
		}
	}
	end := func(when string, streams map[string]<-chan time.Time) {
		t.Helper()
		start := time.Now()
		for who, ended := range streams {
			select {
			case at := <-ended:
				if at.Before(start.Add(-endTime)) {
					t.Errorf("the stream of %s ended before %s", who, when)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("the stream of %s goes on after %s", who, when)
			}
		}
	}

	without := strings.Replace(site(key("cd", staysEntry)), "email alice@example.com", "email alice@example.com\n disabled", 1)
	failing := "\nhttp://other.localhost:1 {\n mcp_auth_metadata https://nobody.example\n}"
	if err := load(without + failing); err == nil {
		t.Fatal("a configuration that cannot start was loaded")
	}
	remain("a reload that failed", ending)
	if err := load(without); err != nil {
		t.Fatal(err)
	}
	end("access was taken away", ending)
	for _, token := range []string{leaves, alice} {
		if resp, _ := c.send("GET", "/mcp/whole", bearerHeader(token), ""); resp.StatusCode != 401 {
			t.Errorf("a request after the reload: %d", resp.StatusCode)
		}
	}
	remain("a reload that took access from others", staying)
	if err := load("\n{ORIGIN} {\n respond ok\n}"); err != nil {
		t.Fatal(err)
	}
	end("the site was taken away", staying)
}
