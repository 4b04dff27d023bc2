package proxyprovider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// endpoint is one of the upstream's endpoints, named as the log names it.
type endpoint string

const (
	authorizationEndpoint endpoint = "authorization"
	tokenEndpoint         endpoint = "token"
	revocationEndpoint    endpoint = "revocation"
	registrationEndpoint  endpoint = "registration"
)

// errNoEndpoint tells that the upstream's metadata does not name the endpoint.
var errNoEndpoint = errors.New("the upstream's metadata names no such endpoint")

// upstream is the identity provider: where its endpoints are, and how it is
// called.
type upstream struct {
	// identity is what sealed values are bound to: the upstream's issuer, or its
	// token endpoint if that is all we know.
	identity      string
	configured    map[endpoint]string
	discovery     *bearer.Discovery // nil if nothing is discovered
	ownsDiscovery bool
	insecure      bool
	client        *http.Client
	log           *slog.Logger
	missing       map[endpoint]*onceLog
}

func newUpstream(cfg *ProxyConfig) (*upstream, error) {
	u := &upstream{
		identity: cfg.UpstreamIssuer,
		configured: map[endpoint]string{
			authorizationEndpoint: cfg.AuthorizationURL, tokenEndpoint: cfg.TokenURL,
			revocationEndpoint: cfg.RevocationURL, registrationEndpoint: cfg.RegistrationURL,
		},
		discovery: cfg.Discovery,
		insecure:  cfg.AllowInsecureUpstream,
		client:    noRedirects(cfg.Client),
		log:       cfg.Logger,
		missing:   make(map[endpoint]*onceLog),
	}
	switch cfg.ClientAuth {
	case "", "basic", "post", "none":
	default:
		return nil, fmt.Errorf("client authentication %q is unknown: write basic, post or none", cfg.ClientAuth)
	}
	for _, name := range []endpoint{authorizationEndpoint, tokenEndpoint, revocationEndpoint, registrationEndpoint} {
		u.missing[name] = &onceLog{}
		if raw := u.configured[name]; raw != "" {
			if err := oauth.CheckEndpoint(raw, u.insecure); err != nil {
				return nil, fmt.Errorf("the upstream's %s URL: %w", name, err)
			}
		}
	}
	if cfg.UpstreamIssuer == "" {
		if cfg.Discovery != nil {
			return nil, errors.New("a shared discovery needs the upstream issuer beside it")
		}
		if cfg.AuthorizationURL == "" || cfg.TokenURL == "" {
			return nil, errors.New("the proxy needs the upstream's issuer, or both its authorization URL and its token URL")
		}
		u.identity = cfg.TokenURL
		return u, nil
	}
	if err := oauth.CheckIssuer(cfg.UpstreamIssuer, cfg.AllowInsecureUpstream); err != nil {
		return nil, fmt.Errorf("the upstream's issuer: %w", err)
	}
	if u.discovery == nil {
		d, err := bearer.NewDiscovery(bearer.DiscoveryConfig{Issuer: cfg.UpstreamIssuer, Client: u.client, Logger: cfg.Logger})
		if err != nil {
			return nil, fmt.Errorf("the upstream's issuer: %w", err)
		}
		u.discovery, u.ownsDiscovery = d, true
	}
	return u, nil
}

// noRedirects returns a client that follows none: a redirect would carry codes
// and secrets to another URL.
func noRedirects(client *http.Client) *http.Client {
	if client == nil {
		return safehttp.NewClient()
	}
	c := *client
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Timeout == 0 || c.Timeout > safehttp.Timeout {
		c.Timeout = safehttp.Timeout
	}
	return &c
}

// url returns where the endpoint is: as configured, else as discovered. It is
// errNoEndpoint if the upstream's metadata does not name it.
func (u *upstream) url(ctx context.Context, name endpoint) (string, error) {
	if raw := u.configured[name]; raw != "" {
		return raw, nil
	}
	if u.discovery == nil { // an endpoint that is not offered is not asked for
		return "", errNoEndpoint
	}
	metadata, err := u.metadata(ctx)
	if err != nil {
		return "", err
	}
	raw := map[endpoint]string{
		authorizationEndpoint: metadata.AuthorizationEndpoint, tokenEndpoint: metadata.TokenEndpoint,
		revocationEndpoint: metadata.RevocationEndpoint, registrationEndpoint: metadata.RegistrationEndpoint,
	}[name]
	if raw == "" {
		if u.missing[name].first() {
			u.log.Error("the upstream identity provider names no such endpoint in its metadata; turn off what needs it, or configure its URL",
				"endpoint", string(name), "upstream", u.identity)
		}
		return "", errNoEndpoint
	}
	if err := oauth.CheckEndpoint(raw, u.insecure); err != nil {
		if u.missing[name].first() {
			u.log.Error("the upstream identity provider's metadata names an endpoint that cannot be used",
				"endpoint", string(name), "upstream", u.identity, "error", err)
		}
		return "", unavailable(fmt.Errorf("discovered %s endpoint: %w", name, err))
	}
	u.missing[name].gone()
	return raw, nil
}

// metadata returns the discovered metadata, or an error for the client.
func (u *upstream) metadata(ctx context.Context) (*oauth.Metadata, error) {
	metadata, err := u.discovery.Metadata(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	return metadata, nil
}

// requiredURL is url for an endpoint without which nothing works.
func (u *upstream) requiredURL(ctx context.Context, name endpoint) (string, error) {
	raw, err := u.url(ctx, name)
	if errors.Is(err, errNoEndpoint) {
		return "", oauth.ErrServerError.Describe("The identity provider behind this server lacks an endpoint; the operator has to configure it").Because(err)
	}
	return raw, err
}

// refusesOfflineAccess reports whether the discovered metadata lists scopes and
// offline_access is none of them, as with Google and Amazon Cognito.
func (u *upstream) refusesOfflineAccess(ctx context.Context) bool {
	if u.discovery == nil {
		return false
	}
	metadata, err := u.discovery.Metadata(ctx)
	return err == nil && len(metadata.ScopesSupported) > 0 && !slices.Contains(metadata.ScopesSupported, "offline_access")
}

// do sends a request to an endpoint and reads the whole answer. A 404 or 410
// asks for fresh metadata: the endpoint may have moved.
func (u *upstream) do(ctx context.Context, name endpoint, req *http.Request) (*safehttp.Answer, error) {
	req.Header.Set("Accept", "application/json")
	answer, err := safehttp.Do(u.client, req, 0)
	if err != nil {
		return nil, unavailable(fmt.Errorf("%s endpoint: %w", name, err))
	}
	if (answer.Status == http.StatusNotFound || answer.Status == http.StatusGone) && u.configured[name] == "" && u.discovery != nil {
		// Throttled there; its trouble is logged there too. This request has failed
		// either way.
		_ = u.discovery.Refresh(ctx)
	}
	return answer, nil
}

// unavailable is the answer when the upstream cannot be asked now.
func unavailable(cause error) error {
	return oauth.ErrTemporarilyUnavailable.Describe("The identity provider behind this server does not answer as it should; try again later").Because(cause)
}
