package mcpauth

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/proxyprovider"
)

// maxUserClients bounds how many users' clients are kept. One that is dropped is
// made again; what it knows is in the store.
const maxUserClients = 4096

// userGrants is the source that has a grant of each user.
type userGrants struct {
	t       *Transport
	r       *RemoteServer
	site    *site
	connect *connectPage

	mu      sync.Mutex
	clients map[string]*grantClient
}

// userSource finds the site that knows the users and adds its page.
func (t *Transport) userSource(r *RemoteServer) (tokenSource, error) {
	s, err := t.app.siteInFront(kindUser, r.Credentials.Site)
	if err != nil {
		return nil, err
	}
	t.app.callers.Store(true)
	t.app.expectStore()
	page, err := newConnectPage(t, r, s)
	if err != nil {
		return nil, err
	}
	return &userGrants{t: t, r: r, site: s, connect: page, clients: make(map[string]*grantClient)}, nil
}

// client returns that of the user who sends the request.
func (u *userGrants) client(r *http.Request) (remoteClient, error) {
	c, err := callerOf(r, u.site)
	if err != nil {
		return nil, err
	}
	info := c.decision.Info
	if info.UserID == "" || info.UserID == info.ClientID {
		return nil, &connectError{server: u.r.Resource, machine: true}
	}
	subject := proxyprovider.SubjectKey(u.site.control.userIssuer, info.UserID)
	u.mu.Lock()
	defer u.mu.Unlock()
	if known, ok := u.clients[subject]; ok {
		return known, nil
	}
	made, err := u.newClient(subject)
	if err != nil {
		return nil, err
	}
	for other := range u.clients {
		if len(u.clients) < maxUserClients {
			break
		}
		delete(u.clients, other)
	}
	u.clients[subject] = made
	return made, nil
}

func (u *userGrants) closeIdle() {
	u.mu.Lock()
	clients := slices.Collect(maps.Values(u.clients))
	u.mu.Unlock()
	for _, c := range clients {
		c.CloseIdleConnections()
	}
}

func (u *userGrants) newClient(subject string) (*grantClient, error) {
	kept := userStore(u.t.grants(u.r), subject)
	s := newPatientStore(kept)
	connect := &connectError{server: u.r.Resource, link: u.connect.url}
	client, err := u.t.newClient(u.r, &userGrant{storedGrant{store: s, scopes: u.r.Scopes, fixed: u.r.client(), signIn: connect}}, s, false)
	if err != nil || u.r.client() != nil {
		return client, err
	}
	client.advise = func(ctx context.Context, err error) error {
		if !clientRefused(err) {
			return nil
		}
		u.t.logger.Warn("the authorization server does not know the client any more; registering another one when a user connects an account",
			zap.String("resource", u.r.Resource), zap.Error(err))
		if err := kept.forgetClient(ctx); err != nil {
			return err
		}
		return connect
	}
	return client, nil
}

// userGrant is the grant of one user, who can be asked for a new one: tokens that
// the server has refused for good are forgotten.
type userGrant struct{ storedGrant }

// Tokens implements authclient.Provider. Those that have run out and cannot be
// renewed are none: the server would only say so after the request is sent.
func (g *userGrant) Tokens(ctx context.Context, issuer string) (*authclient.Tokens, error) {
	t, err := g.storedGrant.Tokens(ctx, issuer)
	if err == nil && issuer == "" && t != nil && t.RefreshToken == "" && t.Expired(time.Now()) {
		return nil, g.signIn
	}
	return t, err
}

// RedirectToAuthorization forgets tokens that were refused and cannot be renewed,
// and fails. It is called with the lock held.
func (g *userGrant) RedirectToAuthorization(ctx context.Context, u *url.URL) error {
	t, err := g.store.Tokens(ctx, "")
	if err != nil {
		return err
	}
	if t != nil && t.RefreshToken == "" {
		if err := g.store.InvalidateCredentials(ctx, authclient.CredentialsTokens, ""); err != nil {
			return err
		}
	}
	return g.storedGrant.RedirectToAuthorization(ctx, u)
}

// InvalidateCredentials implements authclient.CredentialInvalidator.
func (g *userGrant) InvalidateCredentials(ctx context.Context, scope authclient.CredentialScope, issuer string) error {
	if scope != authclient.CredentialsTokens {
		return nil
	}
	return g.store.InvalidateCredentials(ctx, scope, issuer)
}

// connectError says that the user has to connect an account.
type connectError struct {
	server, link string
	// machine tells that there is no user who could.
	machine bool
}

func (e *connectError) Error() string {
	if e.machine {
		return "the caller is a program without a user, who could have a grant at " + e.server
	}
	return "the user has no grant at " + e.server + " yet"
}

// text is for the user.
func (e *connectError) text() string {
	if e.machine {
		return "This MCP server needs the account of a user, and the caller is a program"
	}
	return fmt.Sprintf("Connect your account at %s first, then try again: open %s", hostOf(e.server), e.link)
}

// answer tells a client how its user gets on. A JSON-RPC request is answered with
// the error that MCP has for this (URLElicitationRequiredError, revision
// 2025-11-25), which clients show to the user, some as a link.
func (e *connectError) answer(r *http.Request) *http.Response {
	id := requestID(r)
	if e.machine || id == nil {
		return answer(r, oauth.ErrAccessDenied.Describe(e.text()).WithURI(e.link), 0)
	}
	body, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0",
		"id":      id,
		"error": map[string]any{
			"code":    urlElicitationRequired,
			"message": e.text(),
			"data": map[string]any{"elicitations": []any{map[string]any{
				"mode": "url", "elicitationId": rand.Text(), "url": e.link,
				"message": "Connect your account at " + hostOf(e.server),
			}}},
		},
	})
	if err != nil {
		return answer(r, oauth.AsError(err), 0)
	}
	return jsonAnswer(r, http.StatusOK, body)
}

// urlElicitationRequired is the JSON-RPC error code of that name.
const urlElicitationRequired = -32042

func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL
	}
	return u.Host
}

// maxPeek bounds how much of a request is read for its id, in bytes.
const maxPeek = 1 << 20

// requestID returns the id of a JSON-RPC request, nil if it is none, or its body
// has been sent already.
func requestID(r *http.Request) json.RawMessage {
	if r.Method != http.MethodPost || r.Body == nil {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxPeek))
	if err != nil {
		return nil
	}
	var request struct {
		ID     json.RawMessage `json:"id"`
		Method string          `json:"method"`
	}
	if json.Unmarshal(body, &request) != nil || request.Method == "" || len(request.ID) == 0 || bytes.Equal(request.ID, []byte("null")) {
		return nil
	}
	return request.ID
}
