package authclient_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// scripted is an MCP server and its authorization server on one origin, each
// of whose answers a test may replace, and which writes down what it is asked.
type scripted struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc // by path
	requests []recorded

	// as is what the metadata say; a nil value takes a member away.
	as, prm map[string]any
	// valid are the access tokens that the MCP server takes.
	valid map[string]bool
	// granted are the scopes of the tokens.
	granted map[string]string
	// scopes are the scopes that it wants.
	scopes string
	issued int
	codes  map[string]url.Values // authorization requests by code
}

type recorded struct {
	Method, Path, Query string
	Header              http.Header
	Form                url.Values
	Body                string
}

func newScripted(t *testing.T) *scripted {
	t.Helper()
	s := &scripted{
		t: t, handlers: make(map[string]http.HandlerFunc), valid: make(map[string]bool), granted: make(map[string]string),
		codes: make(map[string]url.Values), as: make(map[string]any), prm: make(map[string]any),
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Server.Close)
	s.handlers["/.well-known/oauth-protected-resource/mcp"] = s.resourceMetadata
	s.handlers["/.well-known/oauth-authorization-server"] = s.serverMetadata
	s.handlers["/register"] = s.register
	s.handlers["/authorize"] = s.authorize
	s.handlers["/token"] = s.token
	s.handlers["/mcp"] = s.mcp
	return s
}

// mcpURL is the URL of the MCP server.
func (s *scripted) mcpURL() string { return s.URL + "/mcp" }

func (s *scripted) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	s.mu.Lock()
	s.requests = append(s.requests, recorded{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), form, string(body)})
	handler := s.handlers[r.URL.Path]
	s.mu.Unlock()
	if handler == nil {
		http.NotFound(w, r)
		return
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	handler(w, r)
}

// handle replaces the answers of a path; nil makes it 404.
func (s *scripted) handle(path string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[path] = h
}

// status makes a path answer with a status and nothing else.
func (s *scripted) status(path string, status int) {
	s.handle(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// json makes a path answer with a document.
func (s *scripted) json(path string, status int, v any) {
	s.handle(path, func(w http.ResponseWriter, _ *http.Request) { sendJSON(w, status, v) })
}

func sendJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// accept makes the MCP server take the token.
func (s *scripted) accept(token string, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.valid[token] = yes
}

// seen are the requests so far.
func (s *scripted) seen() []recorded {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// to are the requests to a path so far.
func (s *scripted) to(path string) (requests []recorded) {
	for _, r := range s.seen() {
		if r.Path == path {
			requests = append(requests, r)
		}
	}
	return requests
}

// lines are the requests so far as METHOD path?query.
func (s *scripted) lines() (lines []string) {
	for _, r := range s.seen() {
		line := r.Method + " " + r.Path
		if r.Query != "" {
			line += "?" + r.Query
		}
		lines = append(lines, line)
	}
	return lines
}

// forget drops the requests so far.
func (s *scripted) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

func merged(document, changes map[string]any) map[string]any {
	for name, value := range changes {
		if document[name] = value; value == nil {
			delete(document, name)
		}
	}
	return document
}

func (s *scripted) metadataDocument() map[string]any {
	return merged(map[string]any{
		"issuer": s.URL, "authorization_endpoint": s.URL + "/authorize", "token_endpoint": s.URL + "/token",
		"registration_endpoint": s.URL + "/register", "response_types_supported": []string{"code"},
		"code_challenge_methods_supported": []string{"S256"},
	}, s.as)
}

func (s *scripted) serverMetadata(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sendJSON(w, http.StatusOK, s.metadataDocument())
}

func (s *scripted) resourceMetadata(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sendJSON(w, http.StatusOK, merged(map[string]any{
		"resource": s.URL + "/mcp", "authorization_servers": []string{s.URL},
	}, s.prm))
}

// set changes the metadata of the authorization server.
func (s *scripted) set(name string, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.as[name] = value
}

// setResource changes the metadata of the MCP server.
func (s *scripted) setResource(name string, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prm[name] = value
}

func (s *scripted) register(w http.ResponseWriter, r *http.Request) {
	var metadata map[string]any
	_ = json.NewDecoder(r.Body).Decode(&metadata)
	sendJSON(w, http.StatusCreated, merged(metadata, map[string]any{"client_id": "registered-1"}))
}

// authorize signs the user in at once.
func (s *scripted) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.mu.Lock()
	code := fmt.Sprintf("code-%d", len(s.codes)+1)
	s.codes[code] = q
	_, promised := s.as["authorization_response_iss_parameter_supported"]
	s.mu.Unlock()
	back := url.Values{"code": {code}}
	if q.Has("state") {
		back.Set("state", q.Get("state"))
	}
	if promised {
		back.Set("iss", s.URL)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

// token issues token-1, token-2, … with refresh-1, refresh-2, …
func (s *scripted) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued++
	answer := map[string]any{"access_token": fmt.Sprintf("token-%d", s.issued), "token_type": "Bearer", "expires_in": 3600}
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		request := s.codes[r.PostForm.Get("code")]
		if !oauth.VerifyS256(r.PostForm.Get("code_verifier"), request.Get("code_challenge")) {
			sendJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
			return
		}
		delete(s.codes, r.PostForm.Get("code"))
		if scope := request.Get("scope"); scope != "" {
			answer["scope"] = scope
			s.granted[fmt.Sprintf("token-%d", s.issued)] = scope
		}
		answer["refresh_token"] = fmt.Sprintf("refresh-%d", s.issued)
	case "refresh_token":
		answer["refresh_token"] = fmt.Sprintf("refresh-%d", s.issued)
	}
	s.valid[fmt.Sprintf("token-%d", s.issued)] = true
	sendJSON(w, http.StatusOK, answer)
}

// mcp echoes the request body to whoever has a token.
func (s *scripted) mcp(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	valid, scopes := s.valid[token], s.scopes
	s.mu.Unlock()
	if !valid {
		challenge := [][2]string{{"resource_metadata", s.URL + "/.well-known/oauth-protected-resource/mcp"}, {"scope", scopes}}
		if token != "" {
			challenge = append(challenge, [2]string{"error", "invalid_token"})
		}
		w.Header().Set("WWW-Authenticate", oauth.FormatChallenge("Bearer", challenge...))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = io.Copy(w, r.Body)
}

const callbackURL = "https://client.example.com/callback"

// web is a provider for a program with a callback, over a store in memory.
func web(t *testing.T, change func(*authclient.WebOptions)) (*authclient.Web, *authclient.MemoryStore) {
	t.Helper()
	o := authclient.WebOptions{RedirectURL: callbackURL, Metadata: oauth.ClientMetadata{ClientName: "Test"}}
	if change != nil {
		change(&o)
	}
	store := authclient.NewMemoryStore()
	p, err := authclient.NewWeb(store, o)
	if err != nil {
		t.Fatal(err)
	}
	return p, store
}

// browse opens the URL and returns the query of the callback.
func browse(t *testing.T, u *url.URL) url.Values {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Get(u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return back.Query()
}

// signIn is the whole login.
func signIn(t *testing.T, p authclient.Provider, o authclient.Options) authclient.Result {
	t.Helper()
	result, err := authclient.Auth(t.Context(), p, o)
	if err != nil || result.Status != authclient.Redirect {
		t.Fatalf("status %q, error %v", result.Status, err)
	}
	o.Callback = browse(t, result.AuthorizationURL)
	o.RefusedToken = ""
	if result, err = authclient.Auth(t.Context(), p, o); err != nil || result.Status != authclient.Authorized {
		t.Fatalf("after the callback: status %q, error %v", result.Status, err)
	}
	return result
}

// saved puts tokens into a store, bound to the server.
func (s *scripted) saved(t *testing.T, store authclient.Store, access, refresh string) {
	t.Helper()
	client := &authclient.ClientInformation{Issuer: s.URL}
	client.ClientID = "client-1"
	tokens := &authclient.Tokens{Issuer: s.URL}
	tokens.AccessToken, tokens.RefreshToken, tokens.TokenType = access, refresh, "Bearer"
	if err := store.SaveClientInformation(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if err := store.SaveTokens(t.Context(), tokens); err != nil {
		t.Fatal(err)
	}
}

func query(t *testing.T, raw string) url.Values {
	t.Helper()
	q, err := url.ParseQuery(raw)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func object(t *testing.T, raw string) (o map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(raw), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// singleSlot is a provider that hands out what it has, whoever is asked about.
type singleSlot struct {
	*authclient.Web
	client *authclient.ClientInformation
	tokens *authclient.Tokens
}

func (s singleSlot) ClientInformation(context.Context, string) (*authclient.ClientInformation, error) {
	return s.client, nil
}

func (s singleSlot) Tokens(context.Context, string) (*authclient.Tokens, error) { return s.tokens, nil }

// failing cannot read its tokens.
type failing struct{ *authclient.Web }

func (failing) Tokens(context.Context, string) (*authclient.Tokens, error) { return nil, errDisk }
