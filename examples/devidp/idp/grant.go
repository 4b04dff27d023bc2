package idp

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	codeTTL    = time.Minute
	maxClients = 10_000
	maxGrants  = 10_000
)

// grant is one consent of one user to one client.
type grant struct {
	clientID string
	user     string
	scope    []string
	resource string
	nonce    string
	revoked  bool
}

// code is an authorization code, used once.
type code struct {
	grant       *grant
	redirectURI string
	challenge   string
	expires     time.Time
	used        bool
}

// refresh is a refresh token, rotated with every use.
type refresh struct {
	grant   *grant
	expires time.Time
	used    bool
}

// grants is all state of the provider.
type grants struct {
	now func() time.Time

	mu      sync.Mutex // guards the rest, and the fields of what it holds
	clients map[string]*client
	codes   map[string]*code
	refresh map[string]*refresh
}

func newGrants(now func() time.Time) *grants {
	return &grants{
		now:     now,
		clients: map[string]*client{},
		codes:   map[string]*code{},
		refresh: map[string]*refresh{},
	}
}

func (g *grants) addClient(c *client) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.clients) >= maxClients {
		return &oauthError{"temporarily_unavailable", "too many clients, restart this provider"}
	}
	g.clients[c.ID] = c
	return nil
}

// client returns nil for an unknown id.
func (g *grants) client(id string) *client {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.clients[id]
}

func (g *grants) addCode(a *authorization, user string) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetExpired()
	if len(g.codes) >= maxGrants {
		return "", &oauthError{"temporarily_unavailable", "too many codes, try again in a minute"}
	}
	id := rand.Text()
	g.codes[id] = &code{
		grant: &grant{
			clientID: a.client.ID,
			user:     user,
			scope:    a.scope,
			resource: a.resource,
			nonce:    a.nonce,
		},
		redirectURI: a.redirectURI,
		challenge:   a.challenge,
		expires:     g.now().Add(codeTTL),
	}
	return id, nil
}

// redeem takes a code (RFC 6749 §4.1.3). A second use revokes the grant
// (RFC 9700 §4.5).
func (g *grants) redeem(id, clientID, redirectURI, verifier, resource string) (*grant, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.codes[id]
	if c == nil || c.grant.clientID != clientID || g.now().After(c.expires) {
		return nil, &oauthError{"invalid_grant", "the code is unknown or expired"}
	}
	if c.redirectURI != redirectURI {
		return nil, &oauthError{"invalid_grant", "redirect_uri differs from that of the authorization request"}
	}
	sum := sha256.Sum256([]byte(verifier))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	if subtle.ConstantTimeCompare([]byte(challenge), []byte(c.challenge)) == 0 {
		return nil, &oauthError{"invalid_grant", "code_verifier does not match the code_challenge"}
	}
	if resource != "" && resource != c.grant.resource {
		return nil, &oauthError{"invalid_target", "resource differs from that of the authorization request"}
	}
	if c.used {
		c.grant.revoked = true
		return nil, &oauthError{"invalid_grant", "the code was used before"}
	}
	c.used = true
	return c.grant, nil
}

// addRefresh issues a refresh token of a grant.
func (g *grants) addRefresh(gr *grant, ttl time.Duration) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetExpired()
	if len(g.refresh) >= maxGrants {
		return "", &oauthError{"temporarily_unavailable", "too many refresh tokens, restart this provider"}
	}
	token := rand.Text()
	g.refresh[token] = &refresh{grant: gr, expires: g.now().Add(ttl)}
	return token, nil
}

// rotate takes a refresh token (RFC 6749 §6) and returns its grant, narrowed
// to scope if there is one. A second use revokes the grant (RFC 9700 §4.14).
func (g *grants) rotate(token, clientID, resource string, scope []string) (*grant, []string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.refresh[token]
	if t == nil || t.grant.clientID != clientID || t.grant.revoked || g.now().After(t.expires) {
		return nil, nil, &oauthError{"invalid_grant", "the refresh token is unknown, expired or revoked"}
	}
	if resource != "" && resource != t.grant.resource {
		return nil, nil, &oauthError{"invalid_target", "resource differs from that of the grant"}
	}
	if len(scope) == 0 {
		scope = t.grant.scope
	}
	if !all(scope, func(s string) bool { return slices.Contains(t.grant.scope, s) }) {
		return nil, nil, &oauthError{"invalid_scope", "a refresh cannot widen the scope: " + strings.Join(t.grant.scope, " ")}
	}
	if t.used {
		t.grant.revoked = true
		return nil, nil, &oauthError{"invalid_grant", "the refresh token was used before"}
	}
	t.used = true
	return t.grant, scope, nil
}

// revoke ends the grant of a refresh token. Other tokens, and those of other
// clients, change nothing (RFC 7009 §2.2).
func (g *grants) revoke(token, clientID string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.refresh[token]; t != nil && t.grant.clientID == clientID {
		t.grant.revoked = true
	}
}

// forgetExpired needs the lock.
func (g *grants) forgetExpired() {
	now := g.now()
	for id, c := range g.codes {
		if now.After(c.expires) {
			delete(g.codes, id)
		}
	}
	for token, t := range g.refresh {
		if now.After(t.expires) {
			delete(g.refresh, token)
		}
	}
}
