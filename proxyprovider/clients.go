package proxyprovider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// clientStore finds the static clients, and the registered ones by opening
// their ids. It is the authserver.ClientStore of a Proxy.
type clientStore struct {
	static map[string]*oauth.Client
	seals  *sealers
	policy *oauth.RedirectPolicy
	auth   string // ProxyConfig.ClientAuth
	// direct and relayed tell which registrations are good: those with the client's
	// own redirect URIs upstream, and those with our callback, which is then this.
	direct  bool
	relayed callbackHash
	now     func() time.Time
}

// newStaticClients checks the static clients.
func newStaticClients(clients []oauth.Client) (map[string]*oauth.Client, error) {
	static := make(map[string]*oauth.Client, len(clients))
	for _, c := range clients {
		switch {
		case c.ClientID == "":
			return nil, errors.New("a static client has no client_id")
		case static[c.ClientID] != nil:
			return nil, fmt.Errorf("client %q is there twice: two clients that share one upstream client could get each other's codes (confused deputy); register each upstream, or use the broker mode", c.ClientID)
		case len(c.RedirectURIs) == 0:
			return nil, fmt.Errorf("client %q has no redirect URI: name the ones that are registered upstream", c.ClientID)
		}
		static[c.ClientID] = &c
	}
	return static, nil
}

// GetClient implements authserver.ClientStore. The redirect policy is applied
// again to a registered client: one that has no redirect URI left is unknown.
func (s *clientStore) GetClient(_ context.Context, clientID string) (*oauth.Client, error) {
	if c := s.static[clientID]; c != nil {
		return c, nil
	}
	sealed, err := s.open(clientID)
	if err != nil {
		return nil, err
	}
	// What is registered upstream must be what we send there: after a change of
	// the callback, clients register again.
	if sealed.callback == (callbackHash{}) && !s.direct || sealed.callback != (callbackHash{}) && sealed.callback != s.relayed {
		return nil, errUnknownClient(errors.New("it is registered upstream with another redirect URI than is used now"))
	}
	kept, _, err := s.policy.Filter(sealed.redirectURIs, sealed.applicationType)
	if err != nil {
		return nil, errUnknownClient(err)
	}
	method := sealed.method
	if sealed.anyMethod {
		method = ""
	}
	return &oauth.Client{
		ClientMetadata: oauth.ClientMetadata{
			RedirectURIs:            kept,
			TokenEndpointAuthMethod: method,
			GrantTypes:              sealed.grantTypes,
			ResponseTypes:           []string{"code"},
			ClientName:              sealed.name,
			Scope:                   sealed.scope,
			ApplicationType:         sealed.applicationType,
		},
		ClientInformation: oauth.ClientInformation{
			ClientID:              clientID,
			ClientSecret:          sealed.secret,
			ClientSecretExpiresAt: sealed.secretExpiresAt,
		},
	}, nil
}

// Preregistered implements authserver.PreregisteredStore.
func (s *clientStore) Preregistered(c *oauth.Client) bool { return s.static[c.ClientID] != nil }

// open opens the id of a registered client.
func (s *clientStore) open(clientID string) (*sealedClient, error) {
	if len(clientID) > maxSealedID {
		return nil, errUnknownClient(seal.ErrInvalid)
	}
	plaintext, err := s.seals.openID(clientID, s.now())
	if errors.Is(err, seal.ErrInvalid) {
		return nil, errUnknownClient(err)
	} else if err != nil {
		return nil, err
	}
	sealed, err := decodeSealedClient(plaintext)
	if err != nil {
		return nil, errUnknownClient(err)
	}
	return sealed, nil
}

func errUnknownClient(cause error) error {
	return oauth.ErrInvalidClient.Describe("The client is unknown to this server; register it again").Because(cause)
}

// clientAuth is a method of client authentication upstream.
type clientAuth int

const (
	authNone clientAuth = iota
	authBasic
	authPost
)

// upstreamClient is an MCP client as the upstream knows it.
type upstreamClient struct {
	clientID string // the id that we know it by
	id       string
	secret   string
	method   clientAuth
	// registered tells that we registered it, so that it can register again.
	registered bool
	// presents tells that the secret is the client's own, which it has presented
	// to us, and not one that only the operator knows.
	presents bool
}

// upstreamClient returns what the client is upstream.
func (s *clientStore) upstreamClient(c *oauth.Client) (*upstreamClient, error) {
	static := s.static[c.ClientID]
	if static == nil {
		sealed, err := s.open(c.ClientID)
		if err != nil {
			return nil, err
		}
		return newUpstreamClient(c.ClientID, sealed.upstreamID, sealed.secret, sealed.method, true), nil
	}
	method := static.TokenEndpointAuthMethod
	switch s.auth {
	case "basic":
		method = oauth.AuthMethodClientSecretBasic
	case "post":
		method = oauth.AuthMethodClientSecretPost
	case "none":
		method = oauth.AuthMethodNone
	}
	u := newUpstreamClient(c.ClientID, static.ClientID, static.ClientSecret, method, false)
	u.presents = static.ClientSecret != "" && static.TokenEndpointAuthMethod != oauth.AuthMethodNone
	return u, nil
}

func newUpstreamClient(clientID, id, secret, method string, registered bool) *upstreamClient {
	u := &upstreamClient{clientID: clientID, id: id, registered: registered, presents: registered}
	switch {
	case secret == "" || method == oauth.AuthMethodNone:
		return u
	case method == oauth.AuthMethodClientSecretBasic:
		u.method = authBasic
	default: // none named: as the SDK does
		u.method = authPost
	}
	u.secret = secret
	return u
}
