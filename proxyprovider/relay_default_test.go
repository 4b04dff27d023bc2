package proxyprovider_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

// TestCallbackByDefault: relay for an upstream that announces iss.
func TestCallbackByDefault(t *testing.T) {
	unset := func(c *proxyprovider.ProxyConfig) { c.Callback = "" }
	t.Run("announced", func(t *testing.T) {
		w := newRelayWorld(t, announcesIss, unset)
		if w.metadata()["authorization_response_iss_parameter_supported"] != true {
			t.Error("iss is not announced")
		}
		id := w.register(desktop)
		for _, client := range []string{id, "app"} {
			b := w.browser()
			if _, err := w.redeem(client, b.get(w.up.signIn(t, b.allowed(client))).code(client)); err != nil {
				t.Error(err)
			}
			b.get(w.authorizeURL(client, "response_type", "token")).wantError(client, "unsupported_response_type")
		}
		if n := strings.Count(w.log.String(), "register the redirect_uri"); n != 1 || !strings.Contains(w.log.String(), "level=WARN") {
			t.Errorf("the operator is told %d times what to register", n)
		}
	})
	t.Run("not announced", func(t *testing.T) {
		w := newRelayWorld(t, nil, unset)
		if w.metadata()["authorization_response_iss_parameter_supported"] != nil {
			t.Error("iss is announced")
		}
		id := w.register(desktop)
		if got := w.up.registered[0]["redirect_uris"]; !slices.Equal(got.([]any), []any{desktop}) {
			t.Errorf("registered upstream: %v", got)
		}
		for _, client := range []string{id, "app"} {
			p := w.browser().get(w.authorizeURL(client))
			if p.status != 302 || !strings.Contains(p.location, url.QueryEscape(w.redirectOf(client))) || len(p.cookies) != 0 {
				t.Errorf("%d %s", p.status, p.location)
			}
			// SECURITY §9: with callback direct our own error redirects carry no iss.
			p = w.browser().get(w.authorizeURL(client, "response_type", "token"))
			if !strings.Contains(p.location, "error=unsupported_response_type") || strings.Contains(p.location, "iss=") {
				t.Errorf("error redirect: %s", p.location)
			}
		}
		if strings.Contains(w.log.String(), "register the redirect_uri") {
			t.Error("the operator is told to register what is not used")
		}
	})
	t.Run("nothing is discovered", func(t *testing.T) {
		w := newRelayWorld(t, announcesIss, func(c *proxyprovider.ProxyConfig) {
			c.Callback, c.UpstreamIssuer = "", ""
			c.AuthorizationURL, c.TokenURL = "https://idp.example.com/a", "https://idp.example.com/t"
		})
		if w.proxy.Endpoints() != nil {
			t.Error("there are endpoints of a relay")
		}
	})
}

// TestCallbackChanges: what is registered upstream stays what is used.
func TestCallbackChanges(t *testing.T) {
	w := newRelayWorld(t, nil, func(c *proxyprovider.ProxyConfig) { c.Callback = "" })
	direct := w.register(desktop)
	known := func(id string) bool {
		_, err := w.proxy.Clients().GetClient(t.Context(), id)
		return err == nil
	}
	set := func(callback string) func(*proxyprovider.ProxyConfig) {
		return func(c *proxyprovider.ProxyConfig) { c.Callback = callback }
	}
	w.up.discoverable(announcesIss)
	w.restart() // fetches the metadata anew
	relayed := w.register("https://other.example/cb")
	if p := w.browser().get(w.authorizeURL(direct)); p.status != 302 || !strings.Contains(p.location, url.QueryEscape(desktop)) {
		t.Errorf("a client that registered before: %d %s", p.status, p.location)
	}
	w.browser().get(w.authorizeURL(relayed)).wantConsent()
	for callback, want := range map[string][2]bool{"": {true, true}, "direct": {true, false}, "relay": {false, true}} {
		w.restart(set(callback))
		if got := [2]bool{known(direct), known(relayed)}; got != want {
			t.Errorf("callback %q: knows the direct and the relayed client: %v, want %v", callback, got, want)
		}
	}
	w.restart(set("relay"), func(c *proxyprovider.ProxyConfig) { c.EndpointPrefix = "/elsewhere" })
	if known(relayed) {
		t.Error("a client is known whose registered callback is another one")
	}
	w.restart(set(""), func(c *proxyprovider.ProxyConfig) { c.EndpointPrefix = "" })
	if !known(relayed) {
		t.Error("a client is unknown whose callback is the same again")
	}
}
