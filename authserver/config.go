package authserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// DefaultTimeout is the time that one request may take, its body and all that
// the provider does included.
const DefaultTimeout = 9500 * time.Millisecond

// Config is what a Server is made of. Issuer and Provider are required.
type Config struct {
	// Issuer identifies this authorization server (RFC 8414 §2). It is published
	// byte for byte. An https URL without query and fragment, or http on
	// loopback. A path is honoured.
	Issuer string
	// BaseURL is where the endpoints are: BaseURL + "/authorize" and so on. A
	// path is honoured. Default: the Issuer.
	BaseURL string
	// InsecureIssuer allows http URLs on any host, for development.
	InsecureIssuer bool

	// Provider decides what the protocol leaves open.
	Provider Provider

	// ServiceDocumentation is the URL of a page for developers, "" for none.
	ServiceDocumentation string
	// ScopesSupported is advertised as it is; offline_access may be among them.
	// Requests for other scopes are the Provider's matter.
	ScopesSupported []string
	// Resources are the resources that tokens can be asked for (RFC 8707). If
	// nil, the resource parameter reaches the provider verbatim once it has been
	// found to be an absolute URI without fragment.
	Resources *oauth.ResourceSet
	// ResourcePaths are site paths of protected resources, for example "/mcp".
	// The metadata is served at the well-known locations of each of them too,
	// since clients look for it there.
	ResourcePaths []string
	// ResourceServerURL, if set, makes the Server publish protected-resource
	// metadata (RFC 9728) for this resource, as the SDK's router does. It is at
	// the well-known location of the URL's path and at the bare one.
	ResourceServerURL string
	// ResourceName is the resource_name in that document.
	ResourceName string

	// RedirectPolicy says which redirect URIs a client may register and use;
	// nil is the default policy.
	RedirectPolicy *oauth.RedirectPolicy
	// ClientSecretExpiry is the life of the secrets given out at registration.
	// 0 means that they do not expire; the SDK's default of 30 days is not taken
	// over, because clients do not register again in time.
	ClientSecretExpiry time.Duration
	// NoClientIDGeneration leaves client_id and client_id_issued_at to the
	// Registrar, the SDK's clientIdGeneration: false.
	NoClientIDGeneration bool
	// InitialAccessToken, if set, is needed as Bearer token at /register
	// (RFC 7591 §3).
	InitialAccessToken string

	// RateLimits are the limits per network address.
	RateLimits RateLimits
	// HardLimitClient reports whether the client's secret was chosen by a person
	// and may be guessable. Of such a client an address may try 10 wrong
	// secrets in 15 minutes; then it is refused, whatever it sends.
	HardLimitClient func(*oauth.Client) bool
	// ClientIP returns the address of the client, for rate limits and logs.
	// Default: the host of RemoteAddr. Behind a proxy this must be the address
	// that the trusted proxy tells.
	ClientIP func(*http.Request) string

	// Timeout is the time for one request. Default: DefaultTimeout.
	Timeout time.Duration
	// Logger gets refusals (info) and failures (warn, error). Default: none.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Rand makes client ids and secrets. Default: crypto/rand.
	Rand io.Reader
}

// MetadataReviser is a Provider that learns only at run time what it can do, for
// example from an upstream's own metadata.
type MetadataReviser interface {
	// ReviseMetadata changes a copy of the metadata for one request. It may wait
	// for what it has to learn, until ctx ends, and then leaves m as it is. It
	// must not change what the slices and maps of m hold.
	ReviseMetadata(ctx context.Context, m *oauth.Metadata)
}

// MetadataExtender is a Provider that has more to say in the metadata, for
// example its jwks_uri. It is called once, by New, with the finished document.
type MetadataExtender interface {
	ExtendMetadata(m *oauth.Metadata)
}

// PreregisteredStore is a ClientStore that knows which clients the operator
// registered by hand. Their redirect URIs are trusted as they are written, and
// need only a scheme that cannot run code.
type PreregisteredStore interface {
	Preregistered(c *oauth.Client) bool
}

// withDefaults checks the configuration and fills in what is not set.
func (c Config) withDefaults() (Config, error) {
	if c.Provider == nil || c.Provider.Clients() == nil {
		return c, errors.New("authserver: Config.Provider is needed, with a client store")
	}
	if err := oauth.CheckIssuer(c.Issuer, c.InsecureIssuer); err != nil {
		return c, fmt.Errorf("authserver: %w", err)
	}
	if c.BaseURL == "" {
		c.BaseURL = c.Issuer
	}
	if err := oauth.CheckIssuer(c.BaseURL, c.InsecureIssuer); err != nil {
		return c, fmt.Errorf("authserver: base URL: %w", err)
	}
	if c.ServiceDocumentation != "" && !isWebURL(c.ServiceDocumentation) {
		return c, errors.New("authserver: Config.ServiceDocumentation must be an http or https URL")
	}
	for _, scope := range c.ScopesSupported {
		if !oauth.ValidScope(scope) {
			return c, fmt.Errorf("authserver: %q in Config.ScopesSupported is no scope (RFC 6749 section 3.3)", scope)
		}
	}
	for _, path := range c.ResourcePaths {
		if !strings.HasPrefix(path, "/") {
			return c, fmt.Errorf("authserver: %q in Config.ResourcePaths must begin with a slash", path)
		}
	}
	if c.ResourceServerURL != "" {
		if _, err := oauth.NewResourceSet([]string{c.ResourceServerURL}, 0); err != nil {
			return c, fmt.Errorf("authserver: %w", err)
		}
	}
	if c.ResourceName != "" && c.ResourceServerURL == "" {
		return c, errors.New("authserver: Config.ResourceName needs Config.ResourceServerURL")
	}
	if c.ClientSecretExpiry < 0 {
		return c, errors.New("authserver: Config.ClientSecretExpiry must not be negative")
	}
	if err := c.RedirectPolicy.Validate(); err != nil {
		return c, fmt.Errorf("authserver: %w", err)
	}
	if err := c.RateLimits.check(); err != nil {
		return c, fmt.Errorf("authserver: %w", err)
	}
	c.ScopesSupported = slices.Clone(c.ScopesSupported)
	if c.ClientIP == nil {
		c.ClientIP = remoteHost
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
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
	return c, nil
}

func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// isWebURL reports whether s is an absolute http or https URL without userinfo.
func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil
}
