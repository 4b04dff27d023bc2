package proxyprovider_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestBrokerLogin is the straight way, twice: the second client gets nothing
// from the first one's consent, whatever session the user has upstream.
func TestBrokerLogin(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	for _, client := range []string{webClient, otherClient, loopbackClient, appClient, documentClient, knownClient} {
		page := b.get(w.authorizeURL(client))
		page.wantConsent()
		if len(b.cookiesNamed("__Host-mcp_t")) != 0 {
			t.Error("there is a cookie for the callback before the approval")
		}
		sent := page.allow()
		sent.wantSilent()
		if strings.Contains(sent.location, "client.example") || strings.Contains(sent.location, "st%26te") {
			t.Errorf("the provider learns of the client: %s", sent.location)
		}
		if w.grantCount() != 0 {
			t.Error("something is stored before the login")
		}
		end := b.get(w.upstream.signIn(t, sent.location, "alice"))
		if end.status != http.StatusSeeOther {
			t.Errorf("status %d", end.status)
		}
		tokens, err := w.redeem(client, end.code(client))
		if err != nil {
			t.Fatal(err)
		}
		info, err := w.broker.VerifyAccessToken(t.Context(), tokens.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		if info.UserID != "alice" || info.ClientID != client || info.Resource != resource {
			t.Errorf("user %q, client %q, resource %q", info.UserID, info.ClientID, info.Resource)
		}
		if diff := cmp.Diff([]string{"mcp:read", "mcp:write"}, info.Scopes); diff != "" {
			t.Errorf("scopes (-want +got):\n%s", diff)
		}
		if len(b.cookiesNamed("__Host-mcp_t")) != 0 {
			t.Error("the transaction's cookie is still there")
		}
		if w.grantCount() != 1 {
			t.Errorf("%d grants", w.grantCount())
		}
		if err := w.broker.RevokeAll(t.Context(), subjectOf("alice")); err != nil {
			t.Fatal(err)
		}
		w.clock.advance(91 * 24 * time.Hour) // the tombstones go, and what is remembered with them
	}
	secrets := []string{"st&te", "st%26te", "code-", challenge, verifier}
	for _, secret := range secrets {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// TestBrokerCookies: names, attributes, and that only two kinds are ever set.
func TestBrokerCookies(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	page := b.get(w.authorizeURL(webClient))
	sent := page.allow()
	end := b.get(w.upstream.signIn(t, sent.location, "alice"))
	suffix := "_" + issuerSuffix(w.issuer)
	all := slices.Concat(page.cookies, sent.cookies, end.cookies)
	var names []string
	for _, c := range all {
		if !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
			t.Errorf("%s: %+v", c.Name, c)
		}
		if !strings.HasPrefix(c.Name, "__Host-mcp_") || !strings.HasSuffix(c.Name, suffix) {
			t.Errorf("name %s", c.Name)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(c.Name, "__Host-mcp_"), suffix)
		names = append(names, name[:1])
	}
	if diff := cmp.Diff([]string{"b", "t", "t", "c"}, names); diff != "" {
		t.Errorf("cookies (-want +got):\n%s", diff)
	}
	if all[1].MaxAge != 600 || all[2].MaxAge != -1 || all[3].MaxAge != 90*24*3600 {
		t.Errorf("lives %d, %d, %d", all[1].MaxAge, all[2].MaxAge, all[3].MaxAge)
	}
}
