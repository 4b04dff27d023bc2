package proxyprovider_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

// grantsProvider is a Provider of Grants whose users always say yes.
type grantsProvider struct {
	*proxyprovider.Grants
	w *grantsWorld
}

func (p *grantsProvider) Clients() authserver.ClientStore { return p }

func (p *grantsProvider) GetClient(_ context.Context, id string) (*oauth.Client, error) {
	if id != "app" && id != "evil" {
		return nil, oauth.ErrInvalidClient.Describe("unknown client")
	}
	return publicClient(id), nil
}

func (p *grantsProvider) Authorize(w http.ResponseWriter, r *http.Request, c *oauth.Client, a authserver.AuthorizationParams) error {
	code, err := p.Create(r.Context(), p.w.newGrant(func(n *proxyprovider.NewGrant) {
		n.Client, n.RedirectURI, n.RedirectURIOmitted = c, a.RedirectURI, a.RedirectURIOmitted
		n.CodeChallenge, n.Scopes, n.Resource = a.CodeChallenge, a.Scopes, a.Resource
	}))
	if err != nil {
		return err
	}
	to, err := oauth.AppendRedirectParams(a.RedirectURI, [][2]string{{"code", code}, {"state", a.State}, {"iss", a.Issuer}})
	if err != nil {
		return err
	}
	http.Redirect(w, r, to, http.StatusFound)
	return nil
}

// grantsNode is a node behind the real Server.
type grantsNode struct {
	handler http.Handler
	grants  *proxyprovider.Grants
}

func newGrantsNode(w *grantsWorld) *grantsNode {
	w.t.Helper()
	resources, err := oauth.NewResourceSet([]string{resource}, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	g := w.node()
	s, err := authserver.New(authserver.Config{
		Issuer: issuer, Provider: &grantsProvider{g, w}, Resources: resources, RateLimits: authserver.RateLimits{Off: true},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return &grantsNode{s, g}
}

func (n *grantsNode) authorize(t testing.TB) (code string) {
	t.Helper()
	q := url.Values{
		"response_type": {"code"}, "client_id": {"app"}, "redirect_uri": {callback}, "state": {"st"}, "scope": {"mcp:read mcp:write"},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"}, "resource": {resource},
	}
	rec := httptest.NewRecorder()
	n.handler.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, issuer+"/authorize?"+q.Encode(), nil))
	to, err := url.Parse(rec.Header().Get("Location"))
	if err != nil || to.Query().Get("code") == "" {
		t.Fatalf("%d %v %s", rec.Code, rec.Header(), rec.Body)
	}
	return to.Query().Get("code")
}

func (n *grantsNode) post(t testing.TB, path string, form ...string) (status int, body string, m map[string]any) {
	t.Helper()
	v := url.Values{"client_id": {"app"}}
	for i := 0; i < len(form); i += 2 {
		v.Set(form[i], form[i+1])
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, issuer+path, strings.NewReader(v.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	n.handler.ServeHTTP(rec, r)
	_ = json.Unmarshal(rec.Body.Bytes(), &m)
	return rec.Code, rec.Body.String(), m
}

func text(m map[string]any, name string) string {
	s, _ := m[name].(string)
	return s
}

// Every step is on the other node than the step before.
func TestFlowOverTwoNodes(t *testing.T) {
	w := newGrantsWorld(t)
	a, b := newGrantsNode(w), newGrantsNode(w)
	code := a.authorize(t)
	redeem := []string{"grant_type", "authorization_code", "code", code, "redirect_uri", callback, "resource", resource}
	status, _, m := a.post(t, "/token", append(redeem, "code_verifier", strings.Repeat("x", 43))...)
	if status != 400 || m["error"] != "invalid_grant" {
		t.Errorf("a wrong verifier: %d %v", status, m)
	}
	status, _, m = a.post(t, "/token", append(redeem, "code_verifier", verifier, "client_id", "evil")...)
	if status != 400 || m["error"] != "invalid_grant" {
		t.Errorf("another client: %d %v", status, m)
	}
	status, _, m = b.post(t, "/token", append(redeem, "code_verifier", verifier)...)
	if status != 200 {
		t.Fatalf("redemption: %d %v", status, m)
	}
	w.wantVerify(a.grants, "access token", text(m, "access_token"), "")

	// The answer of a refresh is the same byte for byte on both nodes.
	refresh := []string{"grant_type", "refresh_token", "refresh_token", text(m, "refresh_token")}
	bodies := make([]string, 64)
	var wg sync.WaitGroup
	for i := range bodies {
		wg.Go(func() {
			status, body, _ := []*grantsNode{a, b}[i%2].post(t, "/token", refresh...)
			if bodies[i] = body; status != 200 {
				t.Errorf("refresh %d: %d %s", i, status, body)
			}
		})
	}
	wg.Wait()
	for i, body := range bodies {
		if body != bodies[0] {
			t.Fatalf("answers 0 and %d differ:\n%s\n%s", i, bodies[0], body)
		}
	}
	status, _, m = b.post(t, "/token", refresh...)
	if status != 200 {
		t.Fatalf("refresh: %d %v", status, m)
	}
	access := text(m, "access_token")
	w.wantVerify(b.grants, "access token", access, "")
	if status, body, _ := a.post(t, "/revoke", "token", text(m, "refresh_token")); status != 200 {
		t.Fatalf("revocation: %d %s", status, body)
	}
	if status, body, _ := a.post(t, "/revoke", "token", "unknown"); status != 200 {
		t.Errorf("revocation of an unknown token: %d %s", status, body)
	}
	w.clock.advance(5 * time.Second)
	w.wantVerify(b.grants, "access token", access, "invalid_token")
	status, _, m = b.post(t, "/token", "grant_type", "refresh_token", "refresh_token", text(m, "refresh_token"))
	if status != 400 || m["error"] != "invalid_grant" {
		t.Errorf("refresh after the revocation: %d %v", status, m)
	}
}

// Somebody who saw the code, but not the verifier, harms nothing even after its
// redemption; somebody with both ends the grant.
func TestCodeReplayThroughTheServer(t *testing.T) {
	w := newGrantsWorld(t)
	a, b := newGrantsNode(w), newGrantsNode(w)
	redeem := []string{"grant_type", "authorization_code", "code", a.authorize(t), "redirect_uri", callback}
	_, _, m := a.post(t, "/token", append(redeem, "code_verifier", verifier)...)
	status, _, _ := b.post(t, "/token", append(redeem, "code_verifier", strings.Repeat("x", 43))...)
	if status != 400 {
		t.Errorf("replay with a wrong verifier: %d", status)
	}
	status, _, next := b.post(t, "/token", "grant_type", "refresh_token", "refresh_token", text(m, "refresh_token"))
	if status != 200 {
		t.Fatalf("refresh after it: %d %v", status, next)
	}
	if status, _, _ := b.post(t, "/token", append(redeem, "code_verifier", verifier)...); status != 400 {
		t.Errorf("replay with the verifier: %d", status)
	}
	status, _, _ = a.post(t, "/token", "grant_type", "refresh_token", "refresh_token", text(next, "refresh_token"))
	if status != 400 {
		t.Errorf("refresh after it: %d", status)
	}
}
