package proxyprovider

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/authserver"
	"github.com/caddy-mcp/mcpauth/internal/pages"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// browserFlow is the way of a browser from the authorization request over the
// consent page to the callback, as far as it is the same for the Broker and for
// the relay of a Proxy.
type browserFlow struct {
	cfg    *BrokerConfig // a relay's holds no more than it has
	site   *pages.Site
	base   string // path of the base URL, without a trailing slash
	origin string // of the base URL
	jar    cookieNames
	seals  *firstSuccess[*brokerSeals]
	// provider is who signs people in, "" for local accounts.
	provider string
	// connections is the path of the page of connected apps, "" if there is none.
	connections string
	// unnamed is what a request is about that names no resource.
	unnamed string
}

// brokerSeals seal what the browser carries.
type brokerSeals struct{ form, transaction, memory, session *seal.Sealer }

// newBrowserFlow makes what the configuration, with its defaults, tells. What is
// sealed opens only where bound is the same.
func newBrowserFlow(cfg *BrokerConfig, bound string) (*browserFlow, error) {
	base, err := url.Parse(cfg.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("base URL: %w", err)
	}
	origin, err := oauth.Origin(cfg.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("base URL: %w", err)
	}
	site, err := pages.NewSite(pages.Brand{Title: cfg.Consent.Title, Logo: cfg.Consent.LogoURL, Color: cfg.Consent.Color})
	if err != nil {
		return nil, fmt.Errorf("consent: %w", err)
	}
	return &browserFlow{
		cfg:    cfg,
		site:   site,
		base:   strings.TrimRight(base.Path, "/"),
		origin: origin,
		jar:    newCookieNames(cfg.Issuer, base.Scheme == "https"),
		seals: newFirstSuccess(func() (*brokerSeals, error) {
			ring, err := cfg.Keys()
			if err != nil {
				return nil, oauth.ErrServerError.Describe("The server cannot open its encryption key").Because(err)
			}
			return &brokerSeals{
				form:        ring.Sealer(seal.PurposeConsentForm, bound),
				transaction: ring.Sealer(seal.PurposeTransaction, bound),
				memory:      ring.Sealer(seal.PurposeConsentMemory, bound),
				session:     ring.Sealer(seal.PurposeSession, bound),
			}, nil
		}),
	}, nil
}

// setFlowDefaults sets and checks what a browserFlow needs.
func (cfg *BrokerConfig) setFlowDefaults() error {
	if cfg.BaseURL == "" {
		cfg.BaseURL = cfg.Issuer
	}
	switch prefix := cfg.EndpointPrefix; {
	case prefix == "":
		cfg.EndpointPrefix = defaultEndpointPrefix
	case !strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") || strings.ContainsAny(prefix, "?#%;\\ "):
		return fmt.Errorf("the endpoint prefix %q is not a path such as %s", prefix, defaultEndpointPrefix)
	}
	switch remember := &cfg.Consent.Remember; {
	case *remember == 0:
		*remember = defaultRemember
	case *remember > maxRemember:
		return errors.New("consent is remembered for 400 days at most: browsers keep no cookie longer")
	case *remember > 0 && *remember < 24*time.Hour:
		// The page counts in days, and would not offer it at all.
		return errors.New("consent is remembered for a day at least, or not at all (remember off)")
	}
	preregistered, _ := cfg.ClientStore.(authserver.PreregisteredStore)
	for _, id := range cfg.Consent.Skip {
		known := preregistered != nil &&
			preregistered.Preregistered(&oauth.Client{ClientInformation: oauth.ClientInformation{ClientID: id}})
		if !known && !isMetadataDocument(id) {
			return fmt.Errorf("consent cannot be skipped for %q: name a preregistered client, or one by the URL of its metadata document", id)
		}
	}
	if cfg.ClientIP == nil {
		cfg.ClientIP = remoteAddress
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	return nil
}

func remoteAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// path is where the browser finds an endpoint on this site.
func (b *browserFlow) path(endpoint string) string { return b.base + b.cfg.EndpointPrefix + endpoint }

// callbackURL is our redirect URI at the upstream. Each issuer has its own.
func (b *browserFlow) callbackURL() string {
	return oauth.JoinURL(b.cfg.BaseURL, b.cfg.EndpointPrefix+callbackPath)
}

// preregistered reports whether the operator vouches for the client.
func (b *browserFlow) preregistered(c *oauth.Client) bool {
	store, ok := b.cfg.ClientStore.(authserver.PreregisteredStore)
	return ok && store.Preregistered(c)
}

// metadataHash is of what a client says about itself: if that changes, consent
// is asked for again.
func metadataHash(c *oauth.Client) (digest, error) {
	data, err := json.Marshal(c.ClientMetadata)
	if err != nil {
		return digest{}, fmt.Errorf("the metadata of a client: %w", err)
	}
	return sha256.Sum256(data), nil
}

// answerTo is what an answer to the client needs.
func (b *browserFlow) answerTo(request *authRequest) authserver.AuthorizationParams {
	return authserver.AuthorizationParams{RedirectURI: request.redirectURI, State: request.state, Issuer: b.cfg.Issuer}
}

// currentClient returns the client of a request as it is now. It must be what
// the user saw.
func (b *browserFlow) currentClient(ctx context.Context, request *authRequest) (*oauth.Client, error) {
	c, err := b.cfg.ClientStore.GetClient(ctx, request.clientID)
	if err != nil {
		if errors.Is(err, oauth.ErrInvalidClient) {
			return nil, problem("client.gone", http.StatusBadRequest, err)
		}
		return nil, err
	}
	hash, err := metadataHash(c)
	switch {
	case err != nil:
		return nil, err
	case hash != request.metadataHash, !oauth.MatchRedirectURI(c.RedirectURIs, request.redirectURI):
		return nil, problem("client.gone", http.StatusBadRequest, errors.New("the client's metadata changed during the login"))
	}
	return c, nil
}
