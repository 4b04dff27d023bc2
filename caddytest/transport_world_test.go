package caddytest_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// remote is a protected MCP server elsewhere with its authorization server, at
// one origin. It has one client, machine with the secret machine-secret, and one
// user's grant, which begins with the refresh token seed.
type remote struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	issued  int
	valid   map[string]string // access token -> scope
	refresh string            // the only one that is good
	// expiresIn is that of token responses, in seconds; 0 leaves it out.
	expiresIn int
	// scope is what every request to /mcp needs.
	scope string
	// asks is the scope that a challenge asks for.
	asks string
	// hidden has the metadata where only the challenge says.
	hidden bool
	// issuer is the authorization server if it is another one.
	issuer string
	// token, if set, answers at the token endpoint in place of us.
	token http.HandlerFunc
	// serve answers requests with a good token.
	serve http.HandlerFunc

	tokenForms []url.Values
	seen       []*http.Request // at /mcp, with any token
	bodies     []string
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	r := &remote{t: t, valid: map[string]string{}, refresh: "seed", expiresIn: 3600}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/oauth-protected-resource/mcp", func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		hidden, issuer := r.hidden, r.issuer
		r.mu.Unlock()
		if hidden && !req.URL.Query().Has("here") {
			http.NotFound(w, req)
			return
		}
		writeJSON(w, 200, map[string]any{"resource": r.URL + "/mcp", "authorization_servers": []string{cmp.Or(issuer, r.URL)}})
	})
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{
			"issuer": r.URL, "authorization_endpoint": r.URL + "/authorize", "token_endpoint": r.URL + "/token",
			"registration_endpoint":            r.URL + "/register",
			"response_types_supported":         []string{"code"},
			"code_challenge_methods_supported": []string{"S256"},
		})
	})
	mux.HandleFunc("/register", func(w http.ResponseWriter, _ *http.Request) {
		t.Error("the proxy registers a client")
		w.WriteHeader(http.StatusInternalServerError)
	})
	mux.HandleFunc("/token", r.serveToken)
	mux.HandleFunc("/", r.serveMCP)
	r.Server = httptest.NewServer(mux)
	t.Cleanup(r.Close)
	return r
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (r *remote) serveToken(w http.ResponseWriter, req *http.Request) {
	_ = req.ParseForm()
	r.mu.Lock()
	r.tokenForms = append(r.tokenForms, req.Form)
	override := r.token
	r.mu.Unlock()
	if override != nil {
		override(w, req)
		return
	}
	r.answerToken(w, req)
}

func (r *remote) answerToken(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, secret, _ := req.BasicAuth()
	if id == "" {
		id, secret = req.Form.Get("client_id"), req.Form.Get("client_secret")
	}
	if id != "machine" || secret != "machine-secret" {
		writeJSON(w, 401, map[string]any{"error": "invalid_client"})
		return
	}
	answer := map[string]any{"token_type": "Bearer"}
	switch req.Form.Get("grant_type") {
	case "client_credentials":
	case "refresh_token":
		if req.Form.Get("refresh_token") != r.refresh {
			writeJSON(w, 400, map[string]any{"error": "invalid_grant"})
			return
		}
		r.refresh = fmt.Sprintf("refresh-%d", r.issued+1)
		answer["refresh_token"] = r.refresh
	default:
		writeJSON(w, 400, map[string]any{"error": "unsupported_grant_type"})
		return
	}
	r.issued++
	access := fmt.Sprintf("remote-access-%d", r.issued)
	r.valid[access] = req.Form.Get("scope")
	answer["access_token"] = access
	if r.expiresIn > 0 {
		answer["expires_in"] = r.expiresIn
	}
	writeJSON(w, 200, answer)
}

func (r *remote) serveMCP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	r.seen = append(r.seen, req)
	r.bodies = append(r.bodies, string(body))
	scope, good := r.valid[strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")]
	needed, asks, serve := r.scope, r.asks, r.serve
	r.mu.Unlock()
	challenge := fmt.Sprintf(`resource_metadata="%s/.well-known/oauth-protected-resource/mcp?here"`, r.URL)
	switch {
	case !good:
		if asks != "" {
			challenge += fmt.Sprintf(`, scope="%s"`, asks)
		}
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", `+challenge)
		writeJSON(w, 401, map[string]any{"error": "invalid_token", "error_description": "remote says no"})
	case needed != "" && !strings.Contains(" "+scope+" ", " "+needed+" "):
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="insufficient_scope", scope="%s", %s`, needed, challenge))
		writeJSON(w, 403, map[string]any{"error": "insufficient_scope"})
	case serve != nil:
		serve(w, req)
	default:
		_, _ = io.WriteString(w, "remote:"+string(body))
	}
}

// expire ends all access tokens.
func (r *remote) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.valid)
}

// set changes the remote while nothing else does.
func (r *remote) set(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
}

// takeForms returns the token requests since the last call.
func (r *remote) takeForms() []url.Values {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.tokenForms
	r.tokenForms = nil
	return taken
}

// take returns the requests to the MCP server since the last call.
func (r *remote) take() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.seen
	r.seen, r.bodies = nil, nil
	return taken
}

// takeBodies returns the bodies that the MCP server got since the last call.
func (r *remote) takeBodies() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.bodies
	r.bodies = nil
	return taken
}

// throughSite is a site that passes everything on to the remote; %s are the
// upstream and the settings of the transport.
const throughSite = `
{ORIGIN} {
	reverse_proxy %s {
		flush_interval -1
		transport mcp_oauth {
			%s
		}
	}
}
`

// machineCredentials are those of the remote's client.
func (r *remote) machineCredentials() string {
	return fmt.Sprintf("authorization_server %s\nclient_credentials {\nclient_id machine\nclient_secret machine-secret\n}\n", r.URL)
}

func (r *remote) refreshCredentials(token string) string {
	return fmt.Sprintf("authorization_server %s\nrefresh_token %s {\nclient_id machine\nclient_secret machine-secret\n}\n", r.URL, token)
}

// proxyTo loads a Caddy with a proxy to the remote.
func proxyTo(t *testing.T, r *remote, settings string) *caddyInstance {
	t.Helper()
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(throughSite, r.URL, settings)); err != nil {
		t.Fatal(err)
	}
	return c
}
