package proxyprovider_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

// TestConsentPageShows what the user decides by.
func TestConsentPageShows(t *testing.T) {
	rows := []struct {
		name, client string
		change       func(*oauth.Client)
		query        []string
		want, lacks  []string
	}{
		{
			name: "a registered client", client: webClient,
			want: []string{
				"<strong>Web client</strong>", "Unverified app", "<bdi>client.example</bdi>", "https://client.example/cb",
				"<strong>Example MCP</strong>", resource, "<strong>Example ID</strong>", "Read your notes", "<code>mcp:read</code>",
				`<code class="alone">mcp:write</code>`, "not be asked again about this for 90 days",
			},
			lacks: []string{"Any program on this device", "Verified", "signed in as"},
		},
		{
			name: "its website is only what it says", client: webClient,
			change: func(c *oauth.Client) { c.ClientURI = "https://bank.example/home" },
			want:   []string{"Claimed website", "<bdi>bank.example</bdi>", "Unverified app"},
		},
		{
			name: "a metadata document", client: documentClient,
			want:  []string{"Verified: published at <bdi><strong>client.example</strong></bdi>"},
			lacks: []string{"Unverified app", "another host"},
		},
		{
			name: "a metadata document on this device, which the operator listed", client: loopbackDocumentClient,
			want:  []string{"Verified: published at <bdi><strong>localhost:8080</strong></bdi>"},
			lacks: []string{"Unverified app"},
		},
		{
			name: "a metadata document with a redirect elsewhere", client: documentClient,
			change: func(c *oauth.Client) { c.RedirectURIs = []string{"https://evil.example/cb"} },
			want:   []string{"Verified: published at", "<bdi>evil.example</bdi>", "goes to another host"},
		},
		{
			name: "a preregistered client", client: knownClient,
			want: []string{"Registered by the operator"}, lacks: []string{"Unverified app"},
		},
		{
			name: "a loopback redirect", client: loopbackClient,
			want:  []string{"An app on this device:", "<bdi>127.0.0.1:33418</bdi>", "Any program on this device could be asking"},
			lacks: []string{"not be asked again"},
		},
		{
			name: "a private-use redirect", client: appClient,
			want:  []string{"An app on this device:", "<bdi>com.example.app:</bdi>", "com.example.app:/cb", "Any program on this device could be asking"},
			lacks: []string{"not be asked again"},
		},
		{
			name: "prompt=consent", client: webClient, query: []string{"prompt", "consent"}, lacks: []string{"not be asked again"},
		},
		{
			name: "HTML in a name", client: webClient,
			change: func(c *oauth.Client) { c.ClientName = `</h1><script>alert(1)</script>"` },
			want:   []string{"&lt;/h1&gt;&lt;script&gt;"}, lacks: []string{"<script"},
		},
		{
			name: "a name that turns the text and hides itself", client: webClient,
			change: func(c *oauth.Client) { c.ClientName = "Gi\u200bt\u202eHub\u2066 \x00\n by\u00a0us\ufeff" },
			want:   []string{"<strong>GitHub by us</strong>"},
		},
		{
			name: "a name without end", client: webClient,
			change: func(c *oauth.Client) { c.ClientName = strings.Repeat("long ", 1000) },
			want:   []string{"…</strong>"}, lacks: []string{strings.Repeat("long ", 20)},
		},
		{
			name: "a name that says who checked it", client: webClient,
			change: func(c *oauth.Client) { c.ClientName = "{resource} {client}" },
			want:   []string{"<strong>{resource} {client}</strong>"},
		},
		{
			name: "no name", client: webClient,
			change: func(c *oauth.Client) { c.ClientName = "\u200b" },
			want:   []string{"An app without a name"},
		},
		{
			name: "a host that looks like another", client: webClient,
			change: func(c *oauth.Client) { c.RedirectURIs = []string{"https://client.example.evil.example/cb"} },
			want:   []string{"<bdi>client.example.evil.example</bdi>"},
		},
		{
			name: "a port of its own", client: webClient,
			change: func(c *oauth.Client) { c.RedirectURIs = []string{"https://client.example:8443/cb"} },
			want:   []string{"<bdi>client.example:8443</bdi>"},
		},
		{
			name: "another resource", client: webClient, query: []string{"resource", secondResource},
			want: []string{"<strong>mcp.example.com</strong>", secondResource},
		},
		{
			name: "the right to stay connected", client: webClient, query: []string{"scope", "mcp:read offline_access"},
			want: []string{"Stay connected while you are away", "<code>offline_access</code>"},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := newBrokerWorld(t)
			if row.change != nil {
				w.clients.set(func(s *brokerClients) { row.change(s.clients[row.client]) })
			}
			page := w.browser().get(w.authorizeURL(row.client, row.query...))
			page.wantConsent()
			for _, want := range row.want {
				if !strings.Contains(page.body, want) {
					t.Errorf("the page lacks %q:\n%s", want, page.body)
				}
			}
			for _, lacks := range row.lacks {
				if strings.Contains(page.body, lacks) {
					t.Errorf("the page has %q:\n%s", lacks, page.body)
				}
			}
		})
	}
}

// TestDeny tells the client, as often as it is clicked, and begins nothing.
func TestDeny(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	page := b.get(w.authorizeURL(webClient))
	for range 2 {
		answer := page.submit("decision", "deny")
		answer.wantError(webClient, "access_denied")
		if len(answer.cookies) != 0 || answer.status != http.StatusSeeOther {
			t.Errorf("status %d, cookies %v", answer.status, answer.cookies)
		}
	}
	b.get(w.authorizeURL(webClient)).wantConsent()
}

// TestDoubleSubmitOfConsent begins two logins, each of which is good.
func TestDoubleSubmitOfConsent(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	page := b.get(w.authorizeURL(webClient))
	first, second := page.allow(), page.allow()
	if first.location == second.location {
		t.Error("two logins share a state")
	}
	b.get(w.upstream.signIn(t, second.location, "alice")).code(webClient)
	b.get(w.upstream.signIn(t, first.location, "alice")).code(webClient)
}

// TestPrompt: none never works, consent always asks, the others go upstream.
func TestPrompt(t *testing.T) {
	w := newBrokerWorld(t, func(w *brokerWorld) { w.config.Consent.Skip = []string{knownClient} })
	b := w.browser()
	b.login(webClient, "alice").code(webClient)
	b.get(w.authorizeURL(webClient)).wantSilent()
	b.get(w.authorizeURL(webClient, "prompt", "none")).wantError(webClient, "interaction_required")
	b.get(w.authorizeURL(webClient, "prompt", "none login")).wantError(webClient, "invalid_request")
	b.get(w.authorizeURL(webClient, "prompt", "consent")).wantConsent()
	b.get(w.authorizeURL(webClient, "prompt", "login consent")).wantConsent()
	b.get(w.authorizeURL(knownClient, "prompt", "consent")).wantConsent()
	for prompt, want := range map[string]string{"login": "login", "select_account": "select_account", "create": ""} {
		sent := b.get(w.authorizeURL(webClient, "prompt", prompt, "login_hint", "alice@example.com"))
		sent.wantSilent()
		r := w.upstream.request(query(sent.location).Get("state"))
		if r.Prompt != want || r.LoginHint != "alice@example.com" || r.MinimalScope {
			t.Errorf("prompt %s goes upstream as %+v", prompt, r)
		}
	}
}

// TestGrantedScopes: what is not known is dropped.
func TestGrantedScopes(t *testing.T) {
	rows := []struct {
		name, client, scope string
		want                string
	}{
		{"all known", webClient, "mcp:write mcp:read", "mcp:write mcp:read"},
		{"some unknown", webClient, "openid mcp:read profile", "mcp:read"},
		{"offline_access beside", webClient, "mcp:read offline_access", "mcp:read offline_access"},
		{"offline_access alone", webClient, "offline_access", "offline_access"},
		{"none named", webClient, "", "mcp:read"},
		{"none left", webClient, "openid profile", "error"},
		{"confined by the operator", knownClient, "mcp:read mcp:write offline_access", "mcp:read offline_access"},
		{"none left of what the operator allows", knownClient, "mcp:write", "error"},
		{"not confined by its own registration", otherClient, "mcp:admin", "mcp:admin"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := newBrokerWorld(t)
			w.clients.set(func(s *brokerClients) {
				s.clients[knownClient].Scope = "mcp:read"
				s.clients[otherClient].Scope = "mcp:read"
			})
			b := w.browser()
			page := b.get(w.authorizeURL(row.client, "scope", row.scope))
			if row.want == "error" {
				page.wantError(row.client, "invalid_scope")
				return
			}
			end := b.get(w.upstream.signIn(t, page.allow().location, "alice"))
			tokens, err := w.redeem(row.client, end.code(row.client))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, tokens.Scope); diff != "" {
				t.Errorf("scope (-want +got):\n%s", diff)
			}
		})
	}
}

// TestChallengesThatCannotBeKept are refused before anybody signs in.
func TestChallengesThatCannotBeKept(t *testing.T) {
	w := newBrokerWorld(t)
	w.browser().get(w.authorizeURL(webClient, "code_challenge", challenge[:42]+"B")).wantError(webClient, "invalid_request")
}

func TestNewBrokerRefuses(t *testing.T) {
	rows := []struct {
		name   string
		change func(*proxyprovider.BrokerConfig)
		want   string
	}{
		{"no issuer", func(c *proxyprovider.BrokerConfig) { c.Issuer = "" }, "needs the issuer"},
		{"nobody to sign in with", func(c *proxyprovider.BrokerConfig) { c.Upstream = nil }, "upstream or local accounts"},
		{"no grants", func(c *proxyprovider.BrokerConfig) { c.Grants = nil }, "needs grants"},
		{"no clients", func(c *proxyprovider.BrokerConfig) { c.ClientStore = nil }, "a client store"},
		{"no keys", func(c *proxyprovider.BrokerConfig) { c.Keys = nil }, "encryption keys"},
		{"no resources", func(c *proxyprovider.BrokerConfig) { c.Resources = nil }, "resources"},
		{"a prefix that is no path", func(c *proxyprovider.BrokerConfig) { c.EndpointPrefix = "mcp" }, "not a path"},
		{"a prefix with a slash at its end", func(c *proxyprovider.BrokerConfig) { c.EndpointPrefix = "/mcp/" }, "not a path"},
		{"a base URL without host", func(c *proxyprovider.BrokerConfig) { c.BaseURL = "/x" }, "base URL"},
		{"faulty rules", func(c *proxyprovider.BrokerConfig) { c.Allow[0].Email = "x" }, "no address"},
		{"a logo elsewhere", func(c *proxyprovider.BrokerConfig) { c.Consent.LogoURL = "https://cdn.example/logo.png" }, "absolute path on this site"},
		{"a logo elsewhere in short", func(c *proxyprovider.BrokerConfig) { c.Consent.LogoURL = "//cdn.example/logo.png" }, "absolute path on this site"},
		{"a color that is more", func(c *proxyprovider.BrokerConfig) { c.Consent.Color = "#fff;}" }, "of the form"},
		{"too short a memory", func(c *proxyprovider.BrokerConfig) { c.Consent.Remember = 23 * 3600e9 }, "a day at least"},
		{"too long a memory", func(c *proxyprovider.BrokerConfig) { c.Consent.Remember = 401 * 24 * 3600e9 }, "400 days"},
		{"skipping a registered client", func(c *proxyprovider.BrokerConfig) { c.Consent.Skip = []string{webClient} }, "cannot be skipped"},
	}
	w := newBrokerWorld(t)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cfg := w.config
			cfg.Allow = append(cfg.Allow[:0:0], cfg.Allow...)
			row.change(&cfg)
			if _, err := proxyprovider.NewBroker(cfg); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}

// TestBrokerMetadata: the keys are announced where they are.
func TestBrokerMetadata(t *testing.T) {
	w := newBrokerWorld(t)
	b := w.browser()
	metadata := b.get(w.issuer + "/.well-known/oauth-authorization-server")
	for _, want := range []string{`"jwks_uri":"` + w.issuer + `/.well-known/jwks.json"`, `"authorization_response_iss_parameter_supported":true`, `"revocation_endpoint"`} {
		if !strings.Contains(metadata.body, want) {
			t.Errorf("the metadata lacks %s: %s", want, metadata.body)
		}
	}
	if keys := b.get(w.issuer + "/.well-known/jwks.json"); keys.status != http.StatusOK || !strings.Contains(keys.body, `"kty"`) {
		t.Errorf("%d %s", keys.status, keys.body)
	}
}
