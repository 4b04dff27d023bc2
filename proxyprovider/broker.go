package proxyprovider

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/internal/pages"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

const (
	// loginTime is how long a user has from the consent page to the client.
	loginTime = 10 * time.Minute
	// requestTime is the budget of one request, upstream calls included.
	requestTime = 10 * time.Second

	defaultEndpointPrefix = "/mcp-auth"
	defaultRemember       = 90 * 24 * time.Hour
	// maxRemember is what browsers keep a cookie at most (RFC 6265bis §5.5).
	maxRemember = 400 * 24 * time.Hour
)

// BrokerConfig configures NewBroker. Issuer, Grants, ClientStore, Keys,
// Resources and one of Upstream and Accounts are required.
type BrokerConfig struct {
	// Issuer is our issuer, byte for byte. What is sealed is bound to it.
	Issuer string
	// BaseURL is where the endpoints are; the Issuer if empty.
	BaseURL string
	// EndpointPrefix is the path of the browser's endpoints below BaseURL;
	// "/mcp-auth" if empty.
	EndpointPrefix string

	// Upstream is where people sign in.
	Upstream idp.Upstream
	// Accounts are local accounts, in place of Upstream.
	Accounts *idp.Accounts
	// Allow says who may have access. Without rules everybody may who can sign
	// in, which is an error for an upstream where everybody has an account.
	Allow idp.Rules

	// Grants keeps what users allowed.
	Grants *Grants
	// ClientStore finds the clients. If it is an authserver.PreregisteredStore,
	// the clients that it vouches for are not marked as unverified.
	ClientStore authserver.ClientStore
	// Keys returns the key ring. It is called on first use until it succeeds
	// once.
	Keys func() (*seal.Ring, error)

	// Resources are what tokens are issued for.
	Resources *oauth.ResourceSet
	// ResourceNames are for people, by identifier; its host if there is none.
	ResourceNames map[string]string
	// ScopeDescriptions say what a scope allows, by scope.
	ScopeDescriptions map[string]string
	// GrantableScopes returns what a resource can grant. What else a client asks
	// for is dropped, except offline_access. nil means that all can be granted.
	GrantableScopes func(resource string) []string
	// DefaultScopes returns what a client gets that names no scope.
	DefaultScopes func(resource string) []string

	// IntrospectionPath is where the handler of Grants.Introspect stands, below the
	// base URL, for resource servers that authenticate with HTTP Basic. The metadata
	// names it; "" if there is none.
	IntrospectionPath string

	// Consent is about the consent page.
	Consent ConsentConfig

	// ClientIP returns the address of the user, for the throttle of passwords and
	// for logs. Default: the host of RemoteAddr.
	ClientIP func(*http.Request) string
	// Logger gets what only the operator may read; slog.Default() if nil.
	Logger *slog.Logger
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Rand makes ids, nonces and verifiers; crypto/rand if nil.
	Rand io.Reader
}

// ConsentConfig is about the consent page.
type ConsentConfig struct {
	// Remember is how long a browser remembers what its user allowed: 90 days if
	// 0, never if negative, 400 days at most.
	Remember time.Duration
	// Skip names clients that are never asked for, by id: preregistered ones and
	// metadata documents, and only with an https redirect URI.
	Skip []string
	// Title, LogoURL and Color are the look of all pages: a name, the absolute
	// path of an image on this site, and the color of the main button, rrggbb.
	Title, LogoURL, Color string
}

// Broker is an authserver.Provider that signs people in at one identity
// provider, or with local accounts, and gives its own tokens to any number of
// clients. Since all clients share one upstream client, it asks the user for
// each of them (the confused deputy of the MCP security best practices), and
// binds every login to the browser in which that was done.
//
// Until a login has succeeded nothing is stored: the request travels sealed in
// the forms and in a cookie. It is safe for concurrent use and starts no
// goroutine.
type Broker struct {
	*Grants
	*browserFlow

	cfg *BrokerConfig
	// flights makes concurrent loads of one callback share one exchange.
	flights singleflight.Group
}

// NewBroker checks the configuration. It does no I/O.
func NewBroker(cfg BrokerConfig) (*Broker, error) {
	switch {
	case cfg.Issuer == "":
		return nil, errors.New("the broker needs the issuer that it works for")
	case (cfg.Upstream == nil) == (cfg.Accounts == nil):
		return nil, errors.New("the broker needs an upstream or local accounts, and not both")
	case cfg.Grants == nil, cfg.ClientStore == nil, cfg.Keys == nil, cfg.Resources == nil:
		return nil, errors.New("the broker needs grants, a client store, encryption keys and resources")
	}
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	flow, err := newBrowserFlow(&cfg, cfg.Issuer)
	if err != nil {
		return nil, err
	}
	if cfg.Upstream != nil {
		flow.provider = pages.Clean(cfg.Upstream.Name(), maxShownName)
	}
	flow.connections = flow.path(connectionsPath)
	return &Broker{Grants: cfg.Grants, browserFlow: flow, cfg: &cfg}, nil
}

func (cfg *BrokerConfig) setDefaults() error {
	if err := cfg.setFlowDefaults(); err != nil {
		return err
	}
	if err := cfg.Allow.Validate(); err != nil {
		return err
	}
	if len(cfg.Allow) == 0 {
		if cfg.Upstream != nil && idp.RequiresAllow(cfg.Upstream) {
			return fmt.Errorf("everybody can have an account at %s: say with allow who may sign in, or allow any", cfg.Upstream.Name())
		}
		cfg.Allow = idp.Rules{{Any: true}}
	}
	return nil
}

// isMetadataDocument reports whether a client id is the URL of a client ID
// metadata document. No other id begins like that. http is for loopback hosts,
// and for those that the operator names.
func isMetadataDocument(clientID string) bool {
	if strings.HasPrefix(clientID, "https://") {
		return true
	}
	u, err := url.Parse(clientID)
	return err == nil && u.Scheme == "http" && oauth.IsLoopbackHost(u.Hostname())
}

// Clients implements authserver.Provider.
func (b *Broker) Clients() authserver.ClientStore { return b.cfg.ClientStore }

// ExtendMetadata implements authserver.MetadataExtender.
func (b *Broker) ExtendMetadata(m *oauth.Metadata) {
	m.JWKSURI = oauth.JoinURL(b.cfg.BaseURL, jwksPath)
	if b.cfg.IntrospectionPath != "" {
		m.IntrospectionEndpoint = oauth.JoinURL(b.cfg.BaseURL, b.cfg.IntrospectionPath)
		m.IntrospectionEndpointAuthMethodsSupported = []string{oauth.AuthMethodClientSecretBasic}
	}
}

// The paths of the endpoints; all but the first stand below the prefix.
const (
	jwksPath        = "/.well-known/jwks.json"
	callbackPath    = "/callback"
	consentPath     = "/consent"
	loginPath       = "/login"
	connectionsPath = "/connections"
)

// Endpoints returns the handlers that stand beside those of authserver.Server,
// by their path below the base URL.
func (b *Broker) Endpoints() map[string]http.Handler {
	prefix := b.cfg.EndpointPrefix
	endpoints := map[string]http.Handler{
		jwksPath:                 b.JWKS(),
		prefix + consentPath:     b.browserEndpoint(b.serveConsent, http.MethodPost),
		prefix + connectionsPath: b.browserEndpoint(b.serveConnections, http.MethodGet, http.MethodPost),
	}
	if b.cfg.Accounts != nil {
		endpoints[prefix+loginPath] = b.browserEndpoint(b.serveLogin, http.MethodGet, http.MethodPost)
	} else {
		endpoints[prefix+callbackPath] = b.browserEndpoint(b.serveCallback, http.MethodGet)
	}
	return endpoints
}

// Authorize implements authserver.Provider: it shows the consent page, or goes
// on at once where the user has allowed this before in this browser.
func (b *Broker) Authorize(w http.ResponseWriter, r *http.Request, c *oauth.Client, p authserver.AuthorizationParams) error {
	seals, err := b.seals.get()
	if err != nil {
		return err
	}
	request, err := b.authRequest(c, p)
	if err != nil {
		return err
	}
	prompts := strings.Fields(p.Prompt)
	if slices.Contains(prompts, "none") {
		if len(prompts) > 1 {
			return oauth.ErrInvalidRequest.Describe("prompt none cannot be combined with another")
		}
		return oauth.NewError("interaction_required", "This server always needs the user to sign in")
	}
	tx := &transaction{purpose: forClient, request: *request, asksAlways: slices.Contains(prompts, "consent")}
	if !tx.asksAlways {
		tx.approval = b.silentApproval(seals, r, c, request)
	}
	if tx.approval == notYet {
		return b.askConsent(w, r, seals, c, tx, nil)
	}
	return b.signIn(w, r, seals, tx)
}

// authRequest narrows the request to what will be granted.
func (b *Broker) authRequest(c *oauth.Client, p authserver.AuthorizationParams) (*authRequest, error) {
	resource, err := b.cfg.Resources.Resolve(p.Resource)
	if err != nil {
		return nil, err
	}
	scopes, err := b.grantedScopes(c, resource, p.Scopes)
	if err != nil {
		return nil, err
	}
	var challenge [sha256.Size]byte
	if !decodeExactly(challenge[:], p.CodeChallenge) {
		return nil, oauth.ErrInvalidRequest.Describe("code_challenge must be the base64url form of a SHA-256 hash (S256)")
	}
	hash, err := metadataHash(c)
	if err != nil {
		return nil, err
	}
	request := &authRequest{
		clientID:        c.ClientID,
		metadataHash:    hash,
		redirectURI:     p.RedirectURI,
		redirectOmitted: p.RedirectURIOmitted,
		state:           p.State,
		challenge:       p.CodeChallenge,
		scopes:          scopes,
		resource:        resource,
	}
	// Only what the upstream may act on; hints that are too long are none.
	for prompt := range strings.FieldsSeq(p.Prompt) {
		if prompt == "login" || prompt == "select_account" {
			request.prompt = prompt
		}
	}
	if len(p.LoginHint) <= maxLoginHint {
		request.loginHint = p.LoginHint
	}
	if len(p.UILocales) <= maxLocales {
		request.locales = p.UILocales
	}
	return request, request.checkSize()
}

// grantedScopes drops what is not known here (RFC 6749 §3.3).
func (b *Broker) grantedScopes(c *oauth.Client, resource string, requested []string) ([]string, error) {
	if len(requested) == 0 && b.cfg.DefaultScopes != nil {
		requested = b.cfg.DefaultScopes(resource)
	}
	if len(requested) == 0 {
		return nil, nil
	}
	may := func(string) bool { return true }
	if b.cfg.GrantableScopes != nil {
		grantable := b.cfg.GrantableScopes(resource)
		may = func(scope string) bool { return slices.Contains(grantable, scope) }
	}
	// What the operator wrote of a client binds it. What a client registered by
	// itself does not: clients step up to scopes that they learn of later.
	confined := map[string]bool(nil)
	if b.preregistered(c) && c.Scope != "" {
		confined = make(map[string]bool)
		for scope := range strings.FieldsSeq(c.Scope) {
			confined[scope] = true
		}
	}
	granted := slices.DeleteFunc(slices.Clone(requested), func(scope string) bool {
		return scope != offlineAccess && (!may(scope) || confined != nil && !confined[scope])
	})
	if len(granted) == 0 {
		return nil, oauth.ErrInvalidScope.Describe("The resource grants none of the requested scopes; see scopes_supported of its metadata")
	}
	return granted, nil
}

// offlineAccess is the scope that asks for a refresh token. It is no resource's.
const offlineAccess = "offline_access"

// signIn takes the user to the sign-in, once the client is approved.
func (b *Broker) signIn(w http.ResponseWriter, r *http.Request, seals *brokerSeals, tx *transaction) error {
	if err := tx.start(b.cfg.Rand, b.cfg.Now()); err != nil {
		return err
	}
	if b.cfg.Accounts != nil {
		return b.goToPassword(w, r, seals, tx)
	}
	prompt := tx.request.prompt
	again := len(r.CookiesNamed(b.jar.again)) > 0
	if again && prompt == "" {
		// Somebody has just been refused. Their session upstream would bring the
		// same account again, for ever.
		prompt = "select_account"
	}
	to, err := b.cfg.Upstream.AuthorizationURL(r.Context(), idp.AuthRequest{
		RedirectURI:  b.callbackURL(),
		State:        tx.state(),
		Nonce:        tx.nonce,
		CodeVerifier: tx.verifier,
		Prompt:       prompt,
		LoginHint:    tx.request.loginHint,
		MinimalScope: tx.purpose == forConnections,
	})
	if err != nil {
		return temporarily("The identity provider cannot be reached, try again", err)
	}
	if err := b.setTransaction(w, r, seals, tx); err != nil {
		return err
	}
	if again {
		b.jar.clear(w, b.jar.again)
	}
	return seeOther(w, to)
}

// grantID is derived from the transaction, so that it makes one grant at most,
// whichever key sealed it.
func (b *Broker) grantID(tx *transaction) (id grantID, err error) {
	derived, err := hkdf.Key(sha256.New, tx.id[:], nil, "mcpauth grant id "+b.cfg.Issuer, len(id))
	if err != nil {
		return id, err
	}
	return grantID(derived), nil
}

// createGrant ends a login: it returns where the browser goes with the code.
func (b *Broker) createGrant(ctx context.Context, c *oauth.Client, tx *transaction, who *idp.Identity, tokens *idp.Tokens) (location string, err error) {
	id, err := b.grantID(tx)
	if err != nil {
		return "", err
	}
	request := &tx.request
	code, err := b.cfg.Grants.Create(ctx, NewGrant{
		ID:                 id,
		Client:             c,
		ClientMetadataHash: request.metadataHash[:],
		RedirectURI:        request.redirectURI,
		RedirectURIOmitted: request.redirectOmitted,
		CodeChallenge:      request.challenge,
		Scopes:             request.scopes,
		Resource:           request.resource,
		Identity:           who,
		Upstream:           tokens,
	})
	if err != nil {
		return "", err
	}
	b.cfg.Logger.Info("access granted", "client_hash", hashID(request.clientID), "user", accountLabel(who),
		"resource", request.resource, "scope", oauth.JoinScope(request.scopes))
	return b.answerTo(request).SuccessURL(code)
}

// accountLabel names a user in the log and on pages.
func accountLabel(who *idp.Identity) string {
	for _, label := range []string{who.Email, who.Name, who.Subject} {
		if label = pages.Clean(label, 80); label != "" {
			return label
		}
	}
	return "?"
}

// suffixOf tells apart the cookies of issuers that share a host.
func suffixOf(issuer string) string {
	sum := sha256.Sum256([]byte(issuer))
	return hex.EncodeToString(sum[:3])
}

// Interface guards
var (
	_ authserver.Provider         = (*Broker)(nil)
	_ authserver.Revoker          = (*Broker)(nil)
	_ authserver.MetadataExtender = (*Broker)(nil)
)
