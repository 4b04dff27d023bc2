package proxyprovider_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
	"github.com/caddy-mcp/mcpauth/seal"
)

const loopback = "http://127.0.0.1:8765/cb"

// asked is a registration as the Server hands it over, with credentials that
// were made here and must stay here.
func asked(method string) *oauth.Client {
	return &oauth.Client{
		ClientMetadata: oauth.ClientMetadata{
			RedirectURIs:            []string{callback, loopback},
			TokenEndpointAuthMethod: method,
			GrantTypes:              []string{"authorization_code", "refresh_token"},
			ResponseTypes:           []string{"code"},
			ClientName:              "My <app>",
			Scope:                   "mcp:read mcp:write",
			ApplicationType:         "native",
			Extra:                   map[string]json.RawMessage{"unknown": json.RawMessage(`1`)},
		},
		ClientInformation: oauth.ClientInformation{ClientID: "local-id", ClientSecret: "local-secret", ClientIDIssuedAt: 5, ClientSecretExpiresAt: 6},
	}
}

func register(t testing.TB, p proxyprovider.Proxy, c *oauth.Client) *oauth.Client {
	t.Helper()
	got, err := registrar(t, p).RegisterClient(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestRegister follows one client from its registration to its tokens.
func TestRegister(t *testing.T) {
	const answer = `{"client_id":"up-1","client_secret":"up-secret","client_id_issued_at":1899999999,"client_secret_expires_at":1950000000,
		"redirect_uris":["https://app.example.com/callback","http://127.0.0.1:8765/cb","https://evil.example/"],
		"token_endpoint_auth_method":"client_secret_basic","client_name":"Renamed","grant_types":["authorization_code","refresh_token"],
		"registration_access_token":"rat","registration_client_uri":"https://idp.example.com/c/1","unknown":{"a":1},"logo_uri":null,"contacts":"not a list"}`
	u := newUpstream(t, answersJSON(201, answer))
	p := newProxy(t, config(t, u))
	in := asked("client_secret_basic")
	got := register(t, p, in)

	wantRequest := []request{{
		"POST", "/register", "application/json", "application/json", "",
		`{"redirect_uris":["https://app.example.com/callback","http://127.0.0.1:8765/cb"],"token_endpoint_auth_method":"client_secret_basic",` +
			`"grant_types":["authorization_code","refresh_token"],"response_types":["code"],"client_name":"My \u003capp\u003e","scope":"mcp:read mcp:write","application_type":"native"}`,
	}}
	if diff := cmp.Diff(wantRequest, u.got()); diff != "" {
		t.Errorf("upstream request: %s", diff)
	}
	want := &oauth.Client{
		ClientMetadata: oauth.ClientMetadata{
			RedirectURIs:            []string{callback, loopback},
			TokenEndpointAuthMethod: "client_secret_basic",
			GrantTypes:              []string{"authorization_code", "refresh_token"},
			ResponseTypes:           []string{"code"},
			ClientName:              "Renamed",
			Scope:                   "mcp:read mcp:write",
			ApplicationType:         "native",
		},
		ClientInformation: oauth.ClientInformation{
			ClientID: got.ClientID, ClientSecret: "up-secret", ClientIDIssuedAt: 1899999999, ClientSecretExpiresAt: 1950000000,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("registration response: %s", diff)
	}
	if len(got.ClientID) > 1024 || strings.HasPrefix(got.ClientID, "https://") || strings.Contains(got.ClientID, "up-1") {
		t.Errorf("client_id %q", got.ClientID)
	}
	if in.ClientID != "local-id" || in.Extra == nil {
		t.Error("the caller's value was changed")
	}

	// Another process with the same keys knows the client by its id alone.
	p = newProxy(t, config(t, u))
	stored := client(t, p, got.ClientID)
	want.ClientIDIssuedAt = 0
	if diff := cmp.Diff(want, stored); diff != "" {
		t.Errorf("GetClient: %s", diff)
	}

	// Upstream it is always the upstream's client.
	location := authorize(t, p, got.ClientID, authserver.AuthorizationParams{RedirectURI: loopback, CodeChallenge: "c"})
	if !strings.HasPrefix(location, u.URL+"/authorize?client_id=up-1&") {
		t.Errorf("Location %s", location)
	}
	token := refreshToken(t, u, p, stored, "rt")
	if _, err := p.ExchangeRefreshToken(t.Context(), stored, authserver.RefreshExchange{RefreshToken: token}); err != nil {
		t.Error(err)
	}
	if err := revoker(t, p).RevokeToken(t.Context(), stored, authserver.Revocation{Token: token}); err != nil {
		t.Error(err)
	}
	// base64 of up-1:up-secret
	wantRequests := []request{
		{"POST", "/token", formType, "application/json", "Basic dXAtMTp1cC1zZWNyZXQ=", "grant_type=refresh_token&refresh_token=rt"},
		{"POST", "/revoke", formType, "application/json", "Basic dXAtMTp1cC1zZWNyZXQ=", "token=rt"},
	}
	if diff := cmp.Diff(wantRequests, u.got()); diff != "" {
		t.Error(diff)
	}

	// Who registered here can register again.
	u.set(answersJSON(401, `{"error":"invalid_client"}`))
	if _, err := p.ExchangeCode(t.Context(), stored, authserver.CodeExchange{Code: "x"}); code(err) != "invalid_client Unauthorized" {
		t.Errorf("a client that the upstream has forgotten: %v", err)
	}
}

func TestRegistrationRefused(t *testing.T) {
	const text = `,"error_description":"<script>leak</script>"`
	rows := []struct {
		name   string
		script http.HandlerFunc
		want   string
		log    string
	}{
		{"redirect URI", answersJSON(400, `{"error":"invalid_redirect_uri"`+text+`}`), "invalid_redirect_uri Bad Request", ""},
		{"redirect URI with 200", answersJSON(200, `{"error":"invalid_redirect_uri"`+text+`}`), "invalid_redirect_uri Bad Request", ""},
		{"metadata", answersJSON(400, `{"error":"invalid_client_metadata"`+text+`}`), "invalid_client_metadata Bad Request", ""},
		{"software statement", answersJSON(400, `{"error":"invalid_software_statement"`+text+`}`), "invalid_client_metadata Bad Request", ""},
		{"another error", answersJSON(400, `{"error":"slow_down"`+text+`}`), "temporarily_unavailable Service Unavailable", ""},
		{"needs a token", answersJSON(401, `{"error":"invalid_token"`+text+`}`), "access_denied Forbidden", "takes no registrations"},
		{"forbidden", answers(403, "text/html", "<script>leak"), "access_denied Forbidden", "takes no registrations"},
		{"not there", answers(404, "text/html", "<script>leak"), "temporarily_unavailable Service Unavailable", ""},
		{"form", answers(200, formType, "client_id=x"), "temporarily_unavailable Service Unavailable", ""},
		{"no client_id", answersJSON(201, `{"client_secret":"s"}`), "temporarily_unavailable Service Unavailable", ""},
		{"client_id null", answersJSON(201, `{"client_id":null}`), "temporarily_unavailable Service Unavailable", ""},
		{"client_id number", answersJSON(201, `{"client_id":5}`), "temporarily_unavailable Service Unavailable", ""},
		{"client_id with a line break", answersJSON(201, `{"client_id":"a\r\nb"}`), "temporarily_unavailable Service Unavailable", ""},
		{"secret of a type", answersJSON(201, `{"client_id":"u","client_secret":["s"]}`), "temporarily_unavailable Service Unavailable", ""},
		{"redirect_uris of a type", answersJSON(201, `{"client_id":"u","redirect_uris":"https://evil.example/"}`), "temporarily_unavailable Service Unavailable", ""},
		{"other redirect URIs", answersJSON(201, `{"client_id":"u","redirect_uris":["https://evil.example/"]}`), "invalid_redirect_uri Bad Request", ""},
		{"method that cannot be relayed", answersJSON(201, `{"client_id":"u","token_endpoint_auth_method":"private_key_jwt"}`), "invalid_client_metadata Bad Request", ""},
		{"client_id too long", answersJSON(201, `{"client_id":"`+strings.Repeat("x", 900)+`"}`), "invalid_client_metadata Bad Request", ""},
		{"client_id far too long", answersJSON(201, `{"client_id":"`+strings.Repeat("x", 90_000)+`"}`), "invalid_client_metadata Bad Request", ""},
		{"a static client's id", answersJSON(201, `{"client_id":"app"}`), "server_error Internal Server Error", "broker mode"},
		{"HTML", answers(200, "text/html", "<script>leak"), "temporarily_unavailable Service Unavailable", ""},
		{"reset", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "temporarily_unavailable Service Unavailable", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			u := newUpstream(t, row.script)
			var log logBuffer
			cfg := config(t, u)
			cfg.Logger = log.logger()
			p := newProxy(t, cfg)
			for range 2 {
				_, err := registrar(t, p).RegisterClient(t.Context(), asked("none"))
				if code(err) != row.want {
					t.Errorf("RegisterClient: %v, want %q", err, row.want)
				}
				if s := seen(t, err); strings.Contains(s, "leak") {
					t.Errorf("the client sees %s", s)
				}
			}
			if row.log == "" && log.String() != "" || strings.Count(log.String(), "level=ERROR") > 1 || !strings.Contains(log.String(), row.log) {
				t.Errorf("the operator reads %s", log.String())
			}
		})
	}
	t.Run("a method that cannot be relayed is not sent", func(t *testing.T) {
		u := newUpstream(t, answersJSON(201, `{"client_id":"u"}`))
		_, err := registrar(t, newProxy(t, config(t, u))).RegisterClient(t.Context(), asked("private_key_jwt"))
		if code(err) != "invalid_client_metadata Bad Request" || len(u.got()) > 0 {
			t.Error(err)
		}
	})
}

// TestSharedUpstreamClient: an upstream whose registration gives everybody the
// same client is the confused deputy (R44).
func TestSharedUpstreamClient(t *testing.T) {
	u := newUpstream(t, answersJSON(201, `{"client_id":"everybody"}`))
	var log logBuffer
	cfg := config(t, u)
	cfg.Logger = log.logger()
	p := newProxy(t, cfg)
	register(t, p, asked("none"))
	register(t, p, asked("none")) // the same client again, which the upstream recognised

	attacker := asked("none")
	attacker.RedirectURIs = []string{"https://evil.example/"}
	for range 2 {
		_, err := registrar(t, p).RegisterClient(t.Context(), attacker)
		if code(err) != "server_error Internal Server Error" {
			t.Errorf("RegisterClient: %v", err)
		}
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "broker mode") {
		t.Errorf("the operator is told %d times: %s", n, log.String())
	}
	if strings.Contains(log.String(), "everybody") {
		t.Error("the client id was logged")
	}
}

// TestSharedUpstreamClientMemory: what is remembered is bounded, and the id
// that comes back again and again stays.
func TestSharedUpstreamClientMemory(t *testing.T) {
	next := ""
	u := newUpstream(t, nil)
	u.set(func(w http.ResponseWriter, r *http.Request) { answersJSON(201, `{"client_id":"`+next+`"}`)(w, r) })
	p := newProxy(t, config(t, u))
	registerAs := func(id, name string) error {
		next = id
		c := asked("none")
		c.ClientName = name
		_, err := registrar(t, p).RegisterClient(t.Context(), c)
		return err
	}
	for _, err := range []error{registerAs("old", "a"), registerAs("shared", "a")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1024 {
		if i == 500 {
			if err := registerAs("shared", "a"); err != nil {
				t.Fatal(err)
			}
		}
		if err := registerAs("id-"+strconv.Itoa(i), "a"); err != nil {
			t.Fatal(err)
		}
	}
	if err := registerAs("shared", "b"); code(err) != "server_error Internal Server Error" {
		t.Errorf("the id that was seen within the last 1024: %v", err)
	}
	if err := registerAs("old", "b"); err != nil {
		t.Errorf("the memory is not bounded: %v", err)
	}
}

// TestClientIDs: ids that are not ours, or not for here, are unknown.
func TestClientIDs(t *testing.T) {
	u := newUpstream(t, answersJSON(201, `{"client_id":"up-1","client_secret":"up-secret","token_endpoint_auth_method":"client_secret_post"}`))
	cfg := config(t, u)
	p := newProxy(t, cfg)
	id := register(t, p, asked("client_secret_post")).ClientID

	elsewhere, otherUpstream, otherKeys, otherPolicy, discovered := cfg, cfg, cfg, cfg, cfg
	elsewhere.Issuer = "https://other.example.com"
	otherUpstream.TokenURL += "2"
	otherKeys.Keys = func() (*seal.Ring, error) { return seal.NewRing(seal.GenerateKey()) }
	otherPolicy.RedirectPolicy = &oauth.RedirectPolicy{Patterns: []string{"https://only.example.com/*"}}
	discovered.UpstreamIssuer = u.URL
	rows := []struct {
		name string
		cfg  proxyprovider.ProxyConfig
		id   string
	}{
		{"another issuer", elsewhere, id},
		{"another upstream", otherUpstream, id},
		{"an upstream of another name", discovered, id},
		{"other keys", otherKeys, id},
		{"empty", cfg, ""},
		{"the upstream's own id", cfg, "up-1"},
		{"a metadata document", cfg, "https://app.example.com/client.json"},
		{"padded", cfg, id + "="},
		{"a line break", cfg, id + "\n"},
		{"longer than any", cfg, id + strings.Repeat("A", 1024)},
		{"a store value", cfg, sealAs(t, seal.PurposeStoreValue, "\x01")},
	}
	for i := range id {
		flipped := []byte(id)
		flipped[i] = 'A' + (flipped[i]-'A'+1)%26
		rows = append(rows, struct {
			name string
			cfg  proxyprovider.ProxyConfig
			id   string
		}{fmt.Sprintf("character %d altered", i), cfg, string(flipped)})
	}
	for _, row := range rows {
		got, err := newProxy(t, row.cfg).Clients().GetClient(t.Context(), row.id)
		if code(err) != "invalid_client Unauthorized" || got != nil {
			t.Errorf("%s: %v, %v", row.name, got, err)
		}
	}

	// A policy that refuses one URI leaves the others; loopback always stays.
	c := client(t, newProxy(t, otherPolicy), id)
	if diff := cmp.Diff([]string{loopback}, c.RedirectURIs); diff != "" {
		t.Errorf("redirect URIs under a stricter policy: %s", diff)
	}
	u.set(answersJSON(201, `{"client_id":"up-2"}`))
	webOnly := asked("none")
	webOnly.RedirectURIs = []string{callback}
	id = register(t, p, webOnly).ClientID
	if _, err := newProxy(t, otherPolicy).Clients().GetClient(t.Context(), id); code(err) != "invalid_client Unauthorized" {
		t.Errorf("a client without a redirect URI left: %v", err)
	}
}

func sealAs(t testing.TB, purpose seal.Purpose, plaintext string) string {
	t.Helper()
	ring, err := keys()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := ring.Sealer(purpose, issuer).Seal([]byte(plaintext), time.Time{}, "https://idp.example.com/token")
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// TestLongMetadata: what is optional is dropped before a registration is
// refused, and no id is longer than 1 KiB.
func TestLongMetadata(t *testing.T) {
	u := newUpstream(t, nil)
	p := newProxy(t, config(t, u))
	n := 0
	try := func(name, scope string, uris ...string) (*oauth.Client, error) {
		n++
		u.set(answersJSON(201, fmt.Sprintf(`{"client_id":"up-%d"}`, n)))
		c := asked("none")
		c.ClientName, c.Scope, c.RedirectURIs = name, scope, uris
		got, err := registrar(t, p).RegisterClient(t.Context(), c)
		if err != nil {
			return nil, err
		}
		if len(got.ClientID) > 1024 {
			t.Errorf("an id of %d characters", len(got.ClientID))
		}
		return client(t, p, got.ClientID), nil
	}
	long := strings.Repeat("n", 500)
	scope := strings.Repeat("s", 500)
	uri := callback + strings.Repeat("u", 500)

	if c, err := try("name", "scope", callback); err != nil || c.ClientName != "name" || c.Scope != "scope" {
		t.Errorf("a short one: %v, %v", c, err)
	}
	if c, err := try(long, scope, callback); err != nil || c.ClientName != "" || c.Scope != scope {
		t.Errorf("the name goes first: %v, %v", c, err)
	}
	if c, err := try(long, scope, uri); err != nil || c.ClientName != "" || c.Scope != "" || c.RedirectURIs[0] != uri {
		t.Errorf("then the scope: %v, %v", c, err)
	}
	if _, err := try("", "", uri, uri+"2"); code(err) != "invalid_client_metadata Bad Request" {
		t.Errorf("redirect URIs never: %v", err)
	}
}

// TestRegistrationScopes: a client is registered for what it may have to step up
// to, if the upstream takes that.
func TestRegistrationScopes(t *testing.T) {
	const created = `{"client_id":"u","scope":%q}`
	refusing := func(status int, body string) func(scope string) (int, string) {
		return func(scope string) (int, string) {
			if strings.Contains(scope, "mcp:admin") {
				return status, body
			}
			return 201, fmt.Sprintf(created, scope)
		}
	}
	taking := func(scope string) (int, string) { return 201, fmt.Sprintf(created, scope) }
	for _, row := range []struct {
		name, asked string
		upstream    func(scope string) (status int, body string)
		sent        []string
		answer      string
	}{
		{"widened", "mcp:read openid", taking, []string{"mcp:read openid mcp:admin mcp:write"}, "mcp:read openid"},
		{"what the client asks for stays its own", "mcp:write", taking, []string{"mcp:write mcp:admin mcp:read"}, "mcp:write"},
		{"what the upstream drops is gone", "mcp:read openid", func(string) (int, string) { return 201, fmt.Sprintf(created, "mcp:read mcp:admin") }, []string{"mcp:read openid mcp:admin mcp:write"}, "mcp:read"},
		{"dropped for the upstream", "mcp:read profile", taking, []string{"mcp:read mcp:admin mcp:write"}, "mcp:read"},
		{"without a scope", "", func(string) (int, string) { return 201, `{"client_id":"u"}` }, []string{""}, ""},
		{"refused as metadata", "mcp:read", refusing(400, `{"error":"invalid_client_metadata"}`), []string{"mcp:read mcp:admin mcp:write", "mcp:read"}, "mcp:read"},
		{"refused as scope", "mcp:read", refusing(400, `{"error":"invalid_scope"}`), []string{"mcp:read mcp:admin mcp:write", "mcp:read"}, "mcp:read"},
		{"refused, and dropped for the upstream", "mcp:read profile", refusing(400, `{"error":"invalid_client_metadata"}`), []string{"mcp:read mcp:admin mcp:write", "mcp:read"}, "mcp:read"},
		{"forbidden", "mcp:read", refusing(403, `{"error":"insufficient_scope"}`), []string{"mcp:read mcp:admin mcp:write", "mcp:read"}, "mcp:read"},
		{"nothing to widen", "mcp:read mcp:admin mcp:write", refusing(400, `{"error":"invalid_client_metadata"}`), []string{"mcp:read mcp:admin mcp:write"}, "invalid_client_metadata Bad Request"},
		{"down", "mcp:read", func(string) (int, string) { return 503, `{}` }, []string{"mcp:read mcp:admin mcp:write"}, "temporarily_unavailable Service Unavailable"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var sent []string
			u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
				var m struct{ Scope string }
				if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
					t.Error(err)
				}
				sent = append(sent, m.Scope)
				status, body := row.upstream(m.Scope)
				answersJSON(status, body)(w, r)
			})
			cfg := config(t, u)
			cfg.RegistrationScopes = []string{"mcp:admin", "mcp:read", "mcp:write"}
			cfg.DropScopes = []string{"profile"}
			var log logBuffer
			cfg.Logger = log.logger()
			in := asked("none")
			in.Scope = row.asked
			got, err := registrar(t, newProxy(t, cfg)).RegisterClient(t.Context(), in)
			answer := code(err)
			if err == nil {
				answer = got.Scope
			}
			if diff := cmp.Diff(row.answer, answer); diff != "" {
				t.Errorf("answer: %s", diff)
			}
			if diff := cmp.Diff(row.sent, sent); diff != "" {
				t.Errorf("sent upstream: %s", diff)
			}
			if strings.Contains(log.String(), "takes no registrations") {
				t.Errorf("the operator reads %s", log.String())
			}
		})
	}
}
