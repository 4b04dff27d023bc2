package authclient

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// Options are the options of Auth. Only ServerURL is required.
type Options struct {
	// ServerURL is the URL of the MCP server, https or on a loopback host.
	ServerURL string
	// Callback are the query parameters of the callback, after REDIRECT. State,
	// issuer and error in them are checked.
	Callback url.Values
	// AuthorizationCode, and Iss if there was one, are the other form: the
	// caller has checked state and error.
	AuthorizationCode, Iss string

	// Scope is what the server's challenge asks for, space-separated.
	Scope string
	// ResourceMetadataURL is that of the server's challenge.
	ResourceMetadataURL string
	// RefusedToken is the access token that the server has refused: the stored
	// one is used if it is another, for somebody else has refreshed it then.
	RefusedToken string
	// ForceRefresh refreshes tokens that have not expired.
	ForceRefresh bool
	// ForceReauthorization asks the user again in place of a refresh, which
	// cannot widen the scope.
	ForceReauthorization bool

	// ClientMetadataURL is the client metadata document, an https URL with a
	// path, that is the client_id where the authorization server supports it.
	ClientMetadataURL string
	// ExpectedIssuer is the only authorization server that is accepted; "" for
	// any that the server names.
	ExpectedIssuer string
	// SkipIssuerMetadataValidation accepts metadata whose issuer is not the URL
	// by which they were found. It weakens security: only for a server that is
	// known to be configured wrongly.
	SkipIssuerMetadataValidation bool
	// AssumePKCE accepts an authorization server whose metadata do not say that
	// it supports PKCE with S256.
	AssumePKCE bool

	// HTTPClient replaces the client for discovery, registration and tokens. Its
	// redirects are not followed to another origin. The addresses to which it
	// connects are its own affair: those of URLs that a server named are then
	// checked only as far as they stand in the URL.
	HTTPClient *http.Client
	// AllowOrigins are origins (https://host[:port], or http://) that the
	// server may name although their addresses are private or they are not
	// https.
	AllowOrigins []string
	// ProtocolVersion is sent as MCP-Protocol-Version in discovery. Default:
	// DefaultProtocolVersion.
	ProtocolVersion string
	// Logger receives warnings about what was recovered from. Default: none.
	Logger *slog.Logger
	// Now replaces the clock.
	Now func() time.Time

	network *network
	// lock stands in for that of a provider that is no Locker; nil for none.
	lock func(ctx context.Context) (unlock func(), err error)
	// unsaved keeps tokens that could not be saved; nil for nobody.
	unsaved *unsaved
	// forbidden: RefusedToken is good, but for what was asked.
	forbidden bool
}

// DefaultProtocolVersion is what discovery sends unless Options say otherwise.
const DefaultProtocolVersion = "2025-11-25"

// Status is how far Auth has come.
type Status string

// The results of the SDK's auth().
const (
	Authorized Status = "AUTHORIZED"
	Redirect   Status = "REDIRECT"
)

// Result is what Auth has reached, and what it used.
type Result struct {
	Status Status
	// Tokens is set if Status is Authorized.
	Tokens *Tokens
	// AuthorizationURL is where the user was sent if Status is Redirect.
	AuthorizationURL *url.URL
	// Client is the client that was used; nil if stored tokens were enough.
	Client *ClientInformation
	// Issuer is the authorization server's.
	Issuer string
	// Resource is the resource parameter; "" if there was none.
	Resource string
	// Scope is what was asked for; "" if nothing was.
	Scope string
	// AuthorizationServer and ProtectedResource are the metadata; nil if the
	// server publishes none, or stored tokens were enough.
	AuthorizationServer *oauth.Metadata
	ProtectedResource   *oauth.ProtectedResourceMetadata
}

// connected returns the network of the options, and what to call when it is not
// needed any more. serverURL stands in for a ServerURL that is not set.
func (o *Options) connected(serverURL string) (*network, func(), error) {
	if o.network != nil {
		return o.network, func() {}, nil
	}
	if o.ServerURL == "" {
		o.ServerURL = serverURL
	}
	n, err := newNetwork(o)
	if err != nil {
		return nil, nil, err
	}
	return n, func() { n.close(o) }, nil
}

func (o *Options) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

func (o *Options) protocolVersion() string {
	if o.ProtocolVersion != "" {
		return o.ProtocolVersion
	}
	return DefaultProtocolVersion
}

func (o *Options) logger() *slog.Logger {
	if o.Logger != nil {
		return o.Logger
	}
	return slog.New(slog.DiscardHandler)
}
