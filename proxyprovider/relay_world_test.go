package proxyprovider_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

// relayUpstream is an identity provider with registration. Its codes are good
// once, for one client, redirect URI and challenge.
type relayUpstream struct {
	*fakeUpstream
	mu         sync.Mutex
	registered []map[string]any
	codes      map[string]url.Values // the authorization request, by code
	next       int
}

func newRelayUpstream(t testing.TB, metadata map[string]any) *relayUpstream {
	t.Helper()
	u := &relayUpstream{codes: make(map[string]url.Values)}
	u.fakeUpstream = newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		defer u.mu.Unlock()
		switch r.URL.Path {
		case "/register":
			var m map[string]any
			_ = json.NewDecoder(r.Body).Decode(&m)
			u.registered = append(u.registered, m)
			m["client_id"] = fmt.Sprintf("up-%d", len(u.registered))
			data, _ := json.Marshal(m)
			answersJSON(201, string(data))(w, r)
		case "/token":
			_ = r.ParseForm()
			p := r.PostForm
			asked, ok := u.codes[p.Get("code")]
			if !ok || asked.Get("client_id") != p.Get("client_id") || asked.Get("redirect_uri") != p.Get("redirect_uri") ||
				asked.Has("code_challenge") != p.Has("code_verifier") ||
				asked.Has("code_challenge") && !oauth.VerifyS256(p.Get("code_verifier"), asked.Get("code_challenge")) {
				answersJSON(400, `{"error":"invalid_grant"}`)(w, r)
				return
			}
			delete(u.codes, p.Get("code"))
			answersJSON(200, `{"access_token":"good","token_type":"Bearer","refresh_token":"rt"}`)(w, r)
		}
	})
	u.discoverable(metadata)
	return u
}

// asked returns the authorization request with which a browser comes.
func (u *relayUpstream) asked(t testing.TB, p *brokerPage) url.Values {
	t.Helper()
	to, err := url.Parse(p.location)
	if err != nil || p.status != http.StatusSeeOther || !strings.HasPrefix(p.location, u.URL+"/authorize?") {
		t.Fatalf("status %d, location %q is not the upstream\n%.400s", p.status, p.location, p.body)
	}
	return to.Query()
}

// signIn is what the user does there: it returns where the browser is sent.
func (u *relayUpstream) signIn(t testing.TB, p *brokerPage, change ...string) string {
	t.Helper()
	asked := u.asked(t, p)
	u.mu.Lock()
	u.next++
	code := fmt.Sprintf("upstream-code-%d", u.next)
	u.codes[code] = asked
	u.mu.Unlock()
	answer := url.Values{"code": {code}, "state": {asked.Get("state")}, "iss": {u.URL}}
	for i := 0; i < len(change); i += 2 {
		answer.Del(change[i])
		if change[i+1] != "" {
			answer.Set(change[i], change[i+1])
		}
	}
	return asked.Get("redirect_uri") + "?" + answer.Encode()
}

// relayWorld is a proxy with relay behind an authserver.Server, over real HTTPS.
// Its methods for browsers are those of the broker's.
type relayWorld struct {
	*brokerWorld
	up    *relayUpstream
	cfg   proxyprovider.ProxyConfig
	proxy proxyprovider.Proxy
}

var announcesIss = map[string]any{"authorization_response_iss_parameter_supported": true, "code_challenge_methods_supported": []string{"S256"}}

func newRelayWorld(t testing.TB, metadata map[string]any, change ...func(*proxyprovider.ProxyConfig)) *relayWorld {
	t.Helper()
	w := &relayWorld{
		brokerWorld: &brokerWorld{t: t, clock: newBrokerClock(), log: &brokerLog{}, clients: &brokerClients{clients: make(map[string]*oauth.Client)}},
		up:          newRelayUpstream(t, metadata),
	}
	w.server = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*w.handler.Load()).ServeHTTP(rw, r) }))
	t.Cleanup(w.server.Close)
	w.issuer = w.server.URL
	resources, err := oauth.NewResourceSet([]string{resource, secondResource}, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = config(t, w.up.fakeUpstream)
	w.cfg.Issuer, w.cfg.UpstreamIssuer = w.issuer, w.up.URL
	w.cfg.AuthorizationURL, w.cfg.TokenURL, w.cfg.RevocationURL, w.cfg.RegistrationURL = "", "", "", ""
	w.cfg.Clients = []oauth.Client{staticClient("app", "", oauth.AuthMethodNone)}
	w.cfg.Resources, w.cfg.ResourceNames = resources, map[string]string{resource: "Example MCP"}
	w.cfg.ScopeDescriptions = map[string]string{"mcp:read": "Read your notes"}
	w.cfg.Callback = "relay"
	w.cfg.Now = w.clock.now
	w.cfg.Logger = slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.restart(change...)
	return w
}

// restart begins a process with another configuration.
func (w *relayWorld) restart(change ...func(*proxyprovider.ProxyConfig)) {
	w.t.Helper()
	for _, c := range change {
		c(&w.cfg)
	}
	w.proxy = newProxy(w.t, w.cfg)
	server, err := authserver.New(authserver.Config{
		Issuer: w.issuer, Provider: w.proxy, Resources: w.cfg.Resources, RateLimits: authserver.RateLimits{Off: true},
		Logger: w.cfg.Logger, Now: w.clock.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	endpoints := w.proxy.Endpoints()
	handler := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if h := endpoints[r.URL.Path]; h != nil {
			h.ServeHTTP(rw, r)
			return
		}
		server.ServeHTTP(rw, r)
	}))
	w.handler.Store(&handler)
	w.clients.set(func(s *brokerClients) {
		for _, c := range w.cfg.Clients {
			s.clients[c.ClientID] = &c
		}
	})
}

// register registers a client and returns its id.
func (w *relayWorld) register(redirectURI string, members ...string) string {
	w.t.Helper()
	body := `{"client_name":"Desk<b>top","token_endpoint_auth_method":"none","redirect_uris":["` + redirectURI + `"]` + strings.Join(members, "") + `}`
	resp, err := w.server.Client().Post(w.issuer+"/register", "application/json", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	c := new(oauth.Client)
	if err := json.NewDecoder(resp.Body).Decode(c); err != nil || resp.StatusCode != http.StatusCreated {
		w.t.Fatalf("registration: %d %v", resp.StatusCode, err)
	}
	if diff := cmp.Diff([]string{redirectURI}, c.RedirectURIs); diff != "" {
		w.t.Errorf("the client's redirect URIs (-want +got):\n%s", diff)
	}
	w.clients.set(func(s *brokerClients) { s.clients[c.ClientID] = c })
	return c.ClientID
}

func (w *relayWorld) callbackURL() string { return w.issuer + "/mcp-auth/callback" }

func (w *relayWorld) metadata() map[string]any {
	w.t.Helper()
	resp, err := w.server.Client().Get(w.issuer + "/.well-known/oauth-authorization-server")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var m map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// allowed takes the browser over the consent page to the upstream.
func (b *brokerBrowser) allowed(client string, change ...string) *brokerPage {
	b.w.t.Helper()
	return b.get(b.w.authorizeURL(client, change...)).allow()
}

const desktop = "https://desktop.example/cb"
