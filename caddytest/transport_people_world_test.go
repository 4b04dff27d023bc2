package caddytest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// peopleRemote is a protected MCP server elsewhere where people sign in, with its
// authorization server, at one origin. It asks nobody anything, and is strict: it
// compares redirect URIs as they stand, and refuses clients that it does not know.
type peopleRemote struct {
	*httptest.Server

	mu      sync.Mutex
	issued  int
	clients map[string]string // client_id -> redirect URI
	codes   map[string]string // code -> client_id
	access  map[string]bool
	refresh map[string]string // refresh token -> client_id
	// closed refuses to register clients.
	closed bool
	// noRefresh issues no refresh tokens.
	noRefresh bool
	// expiresIn is that of token responses, in seconds; 0 leaves it out.
	expiresIn int
	calls     int // requests to /mcp
}

func newPeopleRemote(t *testing.T) *peopleRemote {
	t.Helper()
	r := &peopleRemote{clients: map[string]string{}, codes: map[string]string{}, access: map[string]bool{}, refresh: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/oauth-protected-resource/mcp", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{"resource": r.URL + "/mcp", "authorization_servers": []string{r.URL}})
	})
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{
			"issuer": r.URL, "authorization_endpoint": r.URL + "/authorize", "token_endpoint": r.URL + "/token",
			"registration_endpoint": r.URL + "/register", "response_types_supported": []string{"code"},
			"code_challenge_methods_supported": []string{"S256"},
		})
	})
	for path, handler := range map[string]http.HandlerFunc{"/register": r.register, "/authorize": r.authorize, "/token": r.token, "/mcp": r.mcp} {
		mux.HandleFunc(path, func(w http.ResponseWriter, req *http.Request) {
			r.mu.Lock()
			defer r.mu.Unlock()
			handler(w, req)
		})
	}
	r.Server = httptest.NewUnstartedServer(mux)
	r.Start() // which knows the URL before the first request
	t.Cleanup(r.Close)
	return r
}

func (r *peopleRemote) next(kind string) string {
	r.issued++
	return fmt.Sprintf("people-%s-%d", kind, r.issued)
}

func (r *peopleRemote) register(w http.ResponseWriter, req *http.Request) {
	if r.closed {
		writeJSON(w, 403, map[string]any{"error": "access_denied"})
		return
	}
	var metadata oauth.ClientMetadata
	if err := json.NewDecoder(req.Body).Decode(&metadata); err != nil || len(metadata.RedirectURIs) != 1 {
		writeJSON(w, 400, map[string]any{"error": "invalid_client_metadata"})
		return
	}
	id := r.next("client")
	r.clients[id] = metadata.RedirectURIs[0]
	writeJSON(w, 201, map[string]any{"client_id": id, "redirect_uris": metadata.RedirectURIs, "token_endpoint_auth_method": "none"})
}

func (r *peopleRemote) authorize(w http.ResponseWriter, req *http.Request) {
	query := req.URL.Query()
	redirect, known := r.clients[query.Get("client_id")]
	if !known || redirect != query.Get("redirect_uri") {
		http.Error(w, "Unregistered redirect_uri", http.StatusBadRequest)
		return
	}
	code := r.next("code")
	r.codes[code] = query.Get("client_id")
	http.Redirect(w, req, redirect+"?"+url.Values{"code": {code}, "state": {query.Get("state")}}.Encode(), http.StatusFound)
}

func (r *peopleRemote) token(w http.ResponseWriter, req *http.Request) {
	_ = req.ParseForm()
	client := req.Form.Get("client_id")
	if _, known := r.clients[client]; !known {
		writeJSON(w, 401, map[string]any{"error": "invalid_client"})
		return
	}
	code, refresh := req.Form.Get("code"), req.Form.Get("refresh_token")
	if r.codes[code] != client && r.refresh[refresh] != client {
		writeJSON(w, 400, map[string]any{"error": "invalid_grant"})
		return
	}
	delete(r.codes, code)
	delete(r.refresh, refresh)
	answer := map[string]any{"access_token": r.next("access"), "token_type": "Bearer"}
	r.access[fmt.Sprint(answer["access_token"])] = true
	if !r.noRefresh {
		answer["refresh_token"] = r.next("refresh")
		r.refresh[fmt.Sprint(answer["refresh_token"])] = client
	}
	if r.expiresIn > 0 {
		answer["expires_in"] = r.expiresIn
	}
	writeJSON(w, 200, answer)
}

func (r *peopleRemote) mcp(w http.ResponseWriter, req *http.Request) {
	r.calls++
	_, _ = io.Copy(io.Discard, req.Body)
	if !r.access[strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")] {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		writeJSON(w, 401, map[string]any{"error": "invalid_token"})
		return
	}
	_, _ = io.WriteString(w, "people:hello")
}

// set changes the remote while nothing else does.
func (r *peopleRemote) set(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
}

// forget ends all access tokens and drops all clients, as a restart does.
func (r *peopleRemote) forget() {
	r.set(func() {
		clear(r.clients)
		clear(r.access)
	})
}
