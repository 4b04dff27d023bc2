package idp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-mcp/mcpauth/internal/safehttp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// Common is the part of the options that all providers share. Only ClientID is
// required.
type Common struct {
	// ClientID and ClientSecret are what the provider gave us. Without a secret
	// we are a public client.
	ClientID, ClientSecret string
	// ClientAuth is how the secret is sent: basic, post, or empty for what the
	// provider's metadata prefers, basic if it says nothing. none sends none.
	ClientAuth string
	// Scopes to ask for; the preset's default if nil.
	Scopes []string
	// Groups says that groups are needed: the preset asks for the scopes that
	// give them, and looks in userinfo if the id_token has none.
	Groups bool
	// Params are added to the authorization URL, such as prompt or audience.
	Params map[string]string
	// Claims are the names of further claims to keep in Identity.Claims; a few
	// of the profile if nil. Dots lead into objects.
	Claims []string
	// Insecure allows http beyond loopback hosts, for development.
	Insecure bool
	// Client makes the requests; nil is a client bounded in time and size. Its
	// redirect policy is not used: redirects are never followed.
	Client *http.Client
	// Logger gets what the operator has to set right, and what happens in the
	// background; nil discards it.
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// ours are the parameters of an authorization request that no option may set.
var ours = [...]string{
	"client_id", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce",
	"code_challenge", "code_challenge_method", "request", "request_uri", "client_secret",
}

// prepare checks the options and fills in the defaults.
func (c *Common) prepare(scopes ...string) error {
	if c.ClientID == "" {
		return errors.New("client_id is empty: write the id that the identity provider gave this server (is the environment variable set?)")
	}
	switch c.ClientAuth {
	case "", "none":
	case "basic", "post":
		if c.ClientSecret == "" {
			return fmt.Errorf("client authentication %s needs a client_secret (is the environment variable set?)", c.ClientAuth)
		}
	default:
		return fmt.Errorf("client authentication %q is unknown: write basic, post or none", c.ClientAuth)
	}
	if c.Scopes == nil {
		c.Scopes = scopes
	}
	c.Scopes = slices.Clone(c.Scopes)
	for _, s := range c.Scopes {
		if !oauth.ValidScope(s) {
			return fmt.Errorf("scope %q is not one scope (RFC 6749 section 3.3)", s)
		}
	}
	for name := range c.Params {
		if slices.Contains(ours[:], name) {
			return fmt.Errorf("the authorization parameter %s is set by this server: drop it", name)
		}
	}
	if c.Claims == nil {
		c.Claims = defaultClaims[:]
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Client = noRedirects(c.Client)
	return nil
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

// checkHost says what is wrong with a host that is to become part of an
// issuer.
func checkHost(name, host, example string) error {
	host, port, hasPort := strings.Cut(host, ":")
	if !isDomain(host) || hasPort && (port == "" || strings.Trim(port, "0123456789") != "") {
		return fmt.Errorf("%s %q is not a host: write one such as %s, without https:// and path", name, host, example)
	}
	return nil
}
