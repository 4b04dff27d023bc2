package authserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// ClientsConfig are the options of NewClients. Issuer and Keys are required.
type ClientsConfig struct {
	// Issuer is the one that sealed ids are bound to, byte for byte.
	Issuer string
	// Keys returns the key ring. It is called on first use, and again after an
	// error.
	Keys func() (*seal.Ring, error)
	// Preregistered are the clients that the operator registered by hand.
	Preregistered []oauth.Client
	// Dynamic turns dynamic registration on. When it is off, ids that were handed
	// out before are not accepted either.
	Dynamic bool
	// Documents are the metadata documents; nil turns them off.
	Documents *Documents
	// Policy says which redirect URIs a registered client may use. It is applied
	// again each time, since the registration may be older. nil is the default.
	Policy *oauth.RedirectPolicy
	// SecretExpiry is the life of the secrets of confidential clients; 0 means
	// that they do not expire. A secret keeps the life that it was given.
	SecretExpiry time.Duration
	// Blocked reports whether the client with this ClientHash was revoked by the
	// operator. It may do I/O; its error is the answer to the request. It is not
	// asked about pre-registered clients. nil: none is.
	Blocked func(ctx context.Context, hash [32]byte) (bool, error)
	// SeenAssertion remembers the assertion with this hash until the time, and
	// reports whether it had been there before, for servers that run on several
	// nodes. nil: a bounded memory in this process.
	SeenAssertion func(ctx context.Context, hash [32]byte, until time.Time) (seen bool, err error)
	// Logger gets what the operator should know. Default: none.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Rand makes confidential clients different from each other. Default:
	// crypto/rand.
	Rand io.Reader
}

// Clients knows the clients of an authorization server and stores none: the
// pre-registered are configured, metadata documents are fetched, and what was
// registered dynamically is sealed into the client_id.
//
// A public client gets the same id each time that it registers the same
// metadata under the same key. The secret of a confidential client is a MAC over
// its id. Dropping a key from the ring forgets the clients sealed with it.
//
// Use Store as the ClientStore of a Provider.
type Clients struct {
	config        ClientsConfig
	preregistered map[string]*oauth.Client
	keys          map[string]*clientKeys // of the pre-registered
	packer        *textPacker
	used          *assertionIDs

	mu      sync.Mutex
	sealers *clientSealers // nil until the keys could be opened
}

type clientSealers struct{ id, secret *seal.Sealer }

// NewClients checks the configuration. It does no I/O.
func NewClients(c ClientsConfig) (*Clients, error) {
	switch {
	case c.Issuer == "":
		return nil, errors.New("the clients need the issuer that they are bound to")
	case c.Keys == nil:
		return nil, errors.New("the clients need the encryption keys")
	case c.SecretExpiry < 0:
		return nil, errors.New("the life of client secrets must not be negative")
	case c.SecretExpiry%time.Second != 0:
		return nil, errors.New("the life of client secrets must be whole seconds")
	}
	if err := c.Policy.Validate(); err != nil {
		return nil, err
	}
	s := &Clients{
		preregistered: make(map[string]*oauth.Client, len(c.Preregistered)),
		keys:          make(map[string]*clientKeys),
		packer:        newTextPacker(),
		used:          newAssertionIDs(),
	}
	for _, client := range c.Preregistered {
		if err := s.preregister(&client); err != nil {
			return nil, err
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	s.config = c
	return s, nil
}

// preregister checks and adds a client of the operator.
func (s *Clients) preregister(c *oauth.Client) error {
	switch {
	case c.ClientID == "":
		return errors.New("a client has no client_id")
	case hasControl(c.ClientID):
		return fmt.Errorf("client %q: the client_id holds a control character", c.ClientID)
	case s.preregistered[c.ClientID] != nil:
		return fmt.Errorf("client %q is there twice", c.ClientID)
	case len(c.RedirectURIs) == 0:
		return fmt.Errorf("client %q has no redirect URI", c.ClientID)
	}
	for _, uri := range c.RedirectURIs {
		if err := oauth.CheckSafeScheme(uri); err != nil {
			return fmt.Errorf("client %q: redirect URI %q: %w", c.ClientID, uri, err)
		}
	}
	switch c.TokenEndpointAuthMethod {
	case "", oauth.AuthMethodNone:
		if c.TokenEndpointAuthMethod == oauth.AuthMethodNone && c.ClientSecret != "" {
			return fmt.Errorf("client %q has a secret and the method none: drop one of them", c.ClientID)
		}
	case oauth.AuthMethodClientSecretBasic, oauth.AuthMethodClientSecretPost:
		if c.ClientSecret == "" {
			return fmt.Errorf("client %q has no secret, which its method %s needs", c.ClientID, c.TokenEndpointAuthMethod)
		}
	case oauth.AuthMethodPrivateKeyJWT:
		keys, err := parseClientKeys(c.JWKS)
		if err != nil || c.ClientSecret != "" {
			return fmt.Errorf("client %q: private_key_jwt needs jwks with a public key, and no secret", c.ClientID)
		}
		s.keys[c.ClientID] = keys
	default:
		return fmt.Errorf("client %q: the method of client authentication %q is not supported", c.ClientID, c.TokenEndpointAuthMethod)
	}
	s.preregistered[c.ClientID] = c
	return nil
}

// Store returns the ClientStore. It is a Registrar only if dynamic
// registration is on.
func (s *Clients) Store() ClientStore {
	if s.config.Dynamic {
		return &registeringClients{s}
	}
	return s
}

// GetClient implements ClientStore: a pre-registered client, else a metadata
// document, else a sealed registration.
func (s *Clients) GetClient(ctx context.Context, clientID string) (*oauth.Client, error) {
	if c := s.preregistered[clientID]; c != nil {
		return c, nil
	}
	if !isDocumentID(clientID) {
		return s.sealedClient(ctx, clientID)
	}
	doc, err := s.document(ctx, clientID)
	if err != nil {
		return nil, err
	}
	return doc.Client, nil
}

// GetTokenClient implements TokenClientStore. For a metadata document nothing
// is fetched: somebody who does not authenticate is taken for the public client
// with this id, of which nothing more is known. The grant remembers what the
// document said and how the client must authenticate.
func (s *Clients) GetTokenClient(ctx context.Context, clientID string) (*oauth.Client, error) {
	if s.preregistered[clientID] != nil || !isDocumentID(clientID) {
		return s.GetClient(ctx, clientID)
	}
	if err := s.checkDocumentID(ctx, clientID); err != nil {
		return nil, err
	}
	return &oauth.Client{
		ClientMetadata:    oauth.ClientMetadata{TokenEndpointAuthMethod: oauth.AuthMethodNone},
		ClientInformation: oauth.ClientInformation{ClientID: clientID},
	}, nil
}

// Preregistered implements PreregisteredStore.
func (s *Clients) Preregistered(c *oauth.Client) bool { return s.preregistered[c.ClientID] != nil }

// SupportsDocuments implements DocumentStore.
func (s *Clients) SupportsDocuments() bool { return s.config.Documents != nil }

// checkDocumentID tells whether a document with this id would be accepted.
func (s *Clients) checkDocumentID(ctx context.Context, clientID string) error {
	if s.config.Documents == nil {
		return oauth.ErrInvalidClient.Describe("This server accepts no client metadata documents; register the client")
	}
	if err := s.config.Documents.Check(clientID); err != nil {
		return err
	}
	return s.checkBlocked(ctx, &oauth.Client{ClientInformation: oauth.ClientInformation{ClientID: clientID}})
}

func (s *Clients) document(ctx context.Context, clientID string) (*Document, error) {
	if err := s.checkDocumentID(ctx, clientID); err != nil {
		return nil, err
	}
	return s.config.Documents.Get(ctx, clientID)
}

// checkBlocked returns invalid_client if the operator revoked the client.
func (s *Clients) checkBlocked(ctx context.Context, c *oauth.Client) error {
	blocked, err := s.blocked(ctx, c)
	if err == nil && blocked {
		err = oauth.ErrInvalidClient.Describe("The operator of this server has blocked the client")
	}
	return err
}

func (s *Clients) blocked(ctx context.Context, c *oauth.Client) (bool, error) {
	if s.config.Blocked == nil {
		return false, nil
	}
	return s.config.Blocked(ctx, ClientHash(c))
}

// open returns the sealers, opening the keys if that has not succeeded yet.
func (s *Clients) open() (*clientSealers, error) {
	s.mu.Lock()
	sealers := s.sealers
	s.mu.Unlock()
	if sealers != nil {
		return sealers, nil
	}
	ring, err := s.config.Keys()
	if err != nil {
		return nil, oauth.ErrServerError.Describe("The server cannot open its encryption key").Because(err)
	}
	sealers = &clientSealers{
		id:     ring.Sealer(seal.PurposeClientID, s.config.Issuer),
		secret: ring.Sealer(seal.PurposeClientSecret, s.config.Issuer),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealers = sealers
	return sealers, nil
}

// Interface guards
var (
	_ ClientStore        = (*Clients)(nil)
	_ TokenClientStore   = (*Clients)(nil)
	_ PreregisteredStore = (*Clients)(nil)
	_ DocumentStore      = (*Clients)(nil)
	_ SecretChecker      = (*Clients)(nil)
	_ AssertionVerifier  = (*Clients)(nil)
	_ Registrar          = (*registeringClients)(nil)
)
