package proxyprovider_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

// RFC 7636 appendix B.
const (
	verifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

// identityProvider is a small identity provider with registration: one code,
// rotating refresh tokens, PKCE.
func identityProvider(t *testing.T) http.HandlerFunc {
	t.Helper()
	const tokens = `{"access_token":"good","token_type":"bearer","expires_in":"3600","refresh_token":"NEXT","junk":1}`
	return func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		isClient := r.PostForm.Get("client_id") == "up-1" && r.PostForm.Get("client_secret") == "up-secret"
		switch r.URL.Path {
		case "/register":
			answersJSON(201, `{"client_id":"up-1","client_secret":"up-secret","client_secret_expires_at":0,"token_endpoint_auth_method":"client_secret_post"}`)(w, r)
		case "/authorize":
			to, err := oauth.AppendRedirectParams(r.Form.Get("redirect_uri"), [][2]string{{"code", "c0de"}, {"state", r.Form.Get("state")}, {"iss", "https://idp.example.com"}})
			if err != nil || r.Form.Get("client_id") != "up-1" || r.Form.Get("code_challenge") != challenge {
				answers(400, "text/html", "no")(w, r)
				return
			}
			http.Redirect(w, r, to, http.StatusFound)
		case "/token":
			p := r.PostForm
			switch {
			case !isClient:
				answersJSON(401, `{"error":"invalid_client"}`)(w, r)
			case p.Get("code") == "c0de" && p.Get("code_verifier") == verifier && p.Get("redirect_uri") == loopback && p.Get("resource") == resource:
				answersJSON(200, strings.Replace(tokens, "NEXT", "rt-1", 1))(w, r)
			case p.Get("refresh_token") == "rt-1":
				answersJSON(200, strings.Replace(tokens, "NEXT", "rt-2", 1))(w, r)
			default:
				answersJSON(400, `{"error":"invalid_grant","error_description":"<b>upstream words</b>"}`)(w, r)
			}
		case "/revoke":
			if !isClient || r.PostForm.Get("token") != "rt-2" {
				answersJSON(400, `{"error":"invalid_request"}`)(w, r)
			}
		}
	}
}

// TestFlow goes through the Server: metadata, registration, authorization at
// the upstream, code, refresh, revocation.
func TestFlow(t *testing.T) {
	u := newUpstream(t, nil)
	u.set(identityProvider(t))
	u.discoverable(nil)
	cfg := config(t, u)
	cfg.UpstreamIssuer, cfg.Clients = u.URL, nil
	cfg.AuthorizationURL, cfg.TokenURL, cfg.RevocationURL, cfg.RegistrationURL = "", "", "", ""
	srv := newServer(t, newProxy(t, cfg), resource)
	browser := newClient(t)
	browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	metadata := srv.call(t, "GET", "/.well-known/oauth-authorization-server", "", "")
	if metadata.m["registration_endpoint"] != issuer+"/register" || metadata.m["revocation_endpoint"] != issuer+"/revoke" {
		t.Errorf("metadata %v", metadata.m)
	}
	if _, ok := metadata.m["authorization_response_iss_parameter_supported"]; ok {
		t.Error("iss is promised, but the upstream redirects")
	}

	registered := srv.call(t, "POST", "/register", "application/json", `{"redirect_uris":["`+loopback+`"],"token_endpoint_auth_method":"client_secret_post","client_name":"C"}`)
	id, _ := registered.m["client_id"].(string)
	if registered.status != 201 || id == "" || registered.m["client_secret"] != "up-secret" || registered.m["client_secret_expires_at"] != 0.0 {
		t.Fatalf("registration %d %v", registered.status, registered.m)
	}

	// The browser: to the Server, to the upstream, to the client.
	query := url.Values{
		"client_id": {id}, "redirect_uri": {loopback}, "response_type": {"code"}, "state": {"xyz"}, "resource": {resource},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}
	there := srv.call(t, "GET", "/authorize?"+query.Encode(), "", "")
	if there.status != 302 || !strings.HasPrefix(there.header.Get("Location"), u.URL+"/authorize?") {
		t.Fatalf("authorization %d %v", there.status, there.header)
	}
	resp, err := browser.Get(there.header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	back, err := resp.Location()
	if err != nil || !strings.HasPrefix(back.String(), loopback+"?") || back.Query().Get("state") != "xyz" {
		t.Fatalf("upstream: %d %v %v", resp.StatusCode, back, err)
	}

	asClient := "&client_id=" + id + "&client_secret=up-secret"
	got := srv.call(t, "POST", "/token", formType, url.Values{
		"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "code_verifier": {verifier}, "redirect_uri": {loopback}, "resource": {resource},
	}.Encode()+asClient)
	if got.status != 200 || got.m["access_token"] != "good" || got.m["expires_in"] != 3600.0 || got.m["junk"] != nil {
		t.Fatalf("code exchange %d %v", got.status, got.m)
	}
	first, _ := got.m["refresh_token"].(string)
	got = srv.call(t, "POST", "/token", formType, "grant_type=refresh_token&refresh_token="+first+asClient)
	second, _ := got.m["refresh_token"].(string)
	if got.status != 200 || second == "" || second == first {
		t.Fatalf("refresh %d %v", got.status, got.m)
	}
	if got := srv.call(t, "POST", "/revoke", formType, "token="+second+asClient); got.status != 200 {
		t.Errorf("revocation %d %v", got.status, got.m)
	}

	// What goes wrong upstream has its meaning here, and our words.
	got = srv.call(t, "POST", "/token", formType, "grant_type=refresh_token&refresh_token="+second+asClient)
	if got.status != 400 || got.m["error"] != "invalid_grant" || strings.Contains(got.body, "upstream words") {
		t.Errorf("dead refresh token %d %s", got.status, got.body)
	}
	if !strings.Contains(srv.log.String(), "upstream words") {
		t.Error("the operator is not told what the upstream said")
	}
	u.set(answers(503, "text/html", "<html>maintenance"))
	got = srv.call(t, "POST", "/token", formType, "grant_type=refresh_token&refresh_token="+second+asClient)
	if got.status != 503 || got.m["error"] != "temporarily_unavailable" || got.header.Get("Retry-After") == "" {
		t.Errorf("upstream in trouble %d %s %v", got.status, got.body, got.header)
	}
	got = srv.call(t, "POST", "/token", formType, "grant_type=refresh_token&refresh_token="+second+"&client_id="+id+"&client_secret=wrong")
	if got.status != 401 || got.m["error"] != "invalid_client" {
		t.Errorf("wrong secret %d %s", got.status, got.body)
	}
	for _, secret := range []string{"up-secret", "rt-1", "rt-2", "c0de", verifier, second, id} {
		if strings.Contains(srv.log.String(), secret) {
			t.Errorf("%.12s… was logged", secret)
		}
	}
}

// TestFlowStatic: without a registration and revocation URL there are no such
// endpoints, and a static client is the same client upstream.
func TestFlowStatic(t *testing.T) {
	u := newUpstream(t, answersJSON(200, `{"access_token":"good"}`))
	cfg := config(t, u)
	cfg.RegistrationURL, cfg.RevocationURL = "", ""
	srv := newServer(t, newProxy(t, cfg), resource)
	metadata := srv.call(t, "GET", "/.well-known/oauth-authorization-server", "", "")
	for _, name := range []string{"registration_endpoint", "revocation_endpoint"} {
		if metadata.m[name] != nil {
			t.Errorf("%s is advertised", name)
		}
	}
	for _, path := range []string{"/register", "/revoke"} {
		if got := srv.call(t, "POST", path, "application/json", `{}`); got.status != 404 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	got := srv.call(t, "POST", "/token", formType, "grant_type=authorization_code&code=x&code_verifier="+verifier+"&client_id=app&client_secret=s3cret-of-app")
	if got.status != 200 || got.m["access_token"] != "good" {
		t.Errorf("code exchange %d %s", got.status, got.body)
	}
	if requests := u.got(); len(requests) != 1 || !strings.Contains(requests[0].Body, "&client_id=app&") {
		t.Errorf("upstream requests %v", requests)
	}
}

// server is a Server around the proxy, over HTTP.
type server struct {
	url    string
	client *http.Client
	log    *logBuffer
}

type answer struct {
	status int
	header http.Header
	body   string
	m      map[string]any
}

func newServer(t *testing.T, p proxyprovider.Proxy, resources ...string) *server {
	t.Helper()
	set, err := oauth.NewResourceSet(slices.Clone(resources), 0)
	if err != nil {
		t.Fatal(err)
	}
	log := &logBuffer{}
	handler, err := authserver.New(authserver.Config{Issuer: issuer, Provider: p, Resources: set, Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	client := newClient(t)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &server{s.URL, client, log}
}

func (s *server) call(t *testing.T, method, path, contentType, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(data)}
	_ = json.Unmarshal(data, &a.m)
	return a
}
