package authserver_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// memory is a complete provider that keeps everything in maps and signs
// everybody in as alice. A real one shows a login page in Authorize.
type memory struct {
	mu      sync.Mutex
	clients map[string]*oauth.Client
	grants  map[string]*grant // by code
	access  map[string]*grant // by access token
	refresh map[string]*grant // by refresh token
}

type grant struct {
	clientID, redirectURI, challenge, resource string
	redirectURIOmitted                         bool
	scopes                                     []string
	expires                                    time.Time
}

func newMemory() *memory {
	return &memory{
		clients: make(map[string]*oauth.Client),
		grants:  make(map[string]*grant),
		access:  make(map[string]*grant),
		refresh: make(map[string]*grant),
	}
}

func (m *memory) Clients() authserver.ClientStore { return m }

func (m *memory) GetClient(_ context.Context, id string) (*oauth.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.clients[id]; ok {
		return c, nil
	}
	return nil, oauth.ErrInvalidClient
}

func (m *memory) RegisterClient(_ context.Context, c *oauth.Client) (*oauth.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clients[c.ClientID] = c
	return c, nil
}

func (m *memory) Authorize(w http.ResponseWriter, r *http.Request, c *oauth.Client, p authserver.AuthorizationParams) error {
	code := rand.Text()
	location, err := p.SuccessURL(code)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.grants[code] = &grant{
		clientID: c.ClientID, redirectURI: p.RedirectURI, redirectURIOmitted: p.RedirectURIOmitted,
		challenge: p.CodeChallenge, resource: p.Resource, scopes: p.Scopes,
	}
	m.mu.Unlock()
	authserver.Redirect(w, r, location)
	return nil
}

func (m *memory) ChallengeForCode(_ context.Context, c *oauth.Client, code string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.grants[code]
	if g == nil || g.clientID != c.ClientID {
		return "", oauth.ErrInvalidGrant.Describe("The authorization code is not valid")
	}
	return g.challenge, nil
}

func (m *memory) ExchangeCode(_ context.Context, c *oauth.Client, x authserver.CodeExchange) (*oauth.Tokens, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.grants[x.Code]
	switch {
	case g == nil || g.clientID != c.ClientID:
		return nil, oauth.ErrInvalidGrant.Describe("The authorization code is not valid")
	case x.RedirectURI != g.redirectURI && (x.RedirectURI != "" || !g.redirectURIOmitted):
		return nil, oauth.ErrInvalidGrant.Describe("redirect_uri is not the one of the authorization request")
	case x.Resource != "" && x.Resource != g.resource:
		return nil, oauth.ErrInvalidTarget.Describe("resource is not the one of the authorization request")
	}
	delete(m.grants, x.Code)
	return m.issue(g), nil
}

func (m *memory) ExchangeRefreshToken(_ context.Context, c *oauth.Client, x authserver.RefreshExchange) (*oauth.Tokens, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.refresh[x.RefreshToken]
	if g == nil || g.clientID != c.ClientID {
		return nil, oauth.ErrInvalidGrant.Describe("The refresh token is not valid")
	}
	delete(m.refresh, x.RefreshToken)
	return m.issue(g), nil
}

// issue makes tokens; m.mu is held.
func (m *memory) issue(g *grant) *oauth.Tokens {
	life := time.Hour
	tokens := &oauth.Tokens{
		AccessToken: rand.Text(), TokenType: "Bearer", ExpiresIn: &life,
		Scope: oauth.JoinScope(g.scopes), RefreshToken: rand.Text(),
	}
	issued := *g
	issued.expires = time.Now().Add(life)
	m.access[tokens.AccessToken], m.refresh[tokens.RefreshToken] = &issued, &issued
	return tokens
}

func (m *memory) RevokeToken(_ context.Context, c *oauth.Client, x authserver.Revocation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, tokens := range []map[string]*grant{m.access, m.refresh} {
		if g := tokens[x.Token]; g != nil && g.clientID == c.ClientID {
			delete(tokens, x.Token)
		}
	}
	return nil
}

func (m *memory) VerifyAccessToken(_ context.Context, token string) (*oauth.TokenInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.access[token]
	if g == nil {
		return nil, oauth.ErrInvalidToken.Describe("The access token is not valid")
	}
	return &oauth.TokenInfo{
		Token: token, ClientID: g.clientID, UserID: "alice", Scopes: g.scopes, Resource: g.resource, ExpiresAt: g.expires,
	}, nil
}

// A whole authorization server in memory, and a client that goes through it.
func Example() {
	var handler http.Handler
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	defer site.Close()

	provider := newMemory()
	server, err := authserver.New(authserver.Config{
		Issuer:          site.URL, // http is accepted on loopback only
		Provider:        provider,
		ScopesSupported: []string{"mcp:read", "offline_access"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	handler = server

	// The client registers.
	browser := site.Client()
	browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := browser.Post(server.Metadata().RegistrationEndpoint, "application/json", strings.NewReader(
		`{"redirect_uris": ["http://localhost/callback"], "token_endpoint_auth_method": "none", "client_name": "Example"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	var client oauth.Client
	err = json.NewDecoder(resp.Body).Decode(&client)
	resp.Body.Close()
	fmt.Println("registered:", resp.StatusCode, client.ClientName, err)

	// The browser goes to the authorization endpoint and comes back with a code.
	verifier := rand.Text() + rand.Text()
	resp, err = browser.Get(server.Metadata().AuthorizationEndpoint + "?" + url.Values{
		"client_id":             {client.ClientID},
		"redirect_uri":          {"http://localhost:33418/callback"},
		"response_type":         {"code"},
		"code_challenge":        {oauth.ChallengeS256(verifier)},
		"code_challenge_method": {"S256"},
		"scope":                 {"mcp:read"},
		"state":                 {"af0ifjsldkj"},
	}.Encode())
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	callback, err := resp.Location()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("redirected:", resp.StatusCode, callback.Host, callback.Query().Get("state"))

	// The client redeems the code.
	resp, err = browser.PostForm(server.Metadata().TokenEndpoint, url.Values{
		"grant_type":    {"authorization_code"},
		"client_id":     {client.ClientID},
		"code":          {callback.Query().Get("code")},
		"redirect_uri":  {"http://localhost:33418/callback"},
		"code_verifier": {verifier},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	var tokens oauth.Tokens
	err = json.NewDecoder(resp.Body).Decode(&tokens)
	resp.Body.Close()
	fmt.Println("tokens:", resp.StatusCode, tokens.TokenType, tokens.Scope, err)

	// The MCP server asks whose token it is.
	info, err := provider.VerifyAccessToken(context.Background(), tokens.AccessToken)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("user:", info.UserID)
	// Output:
	// registered: 201 Example <nil>
	// redirected: 302 localhost:33418 af0ifjsldkj
	// tokens: 200 Bearer mcp:read <nil>
	// user: alice
}
