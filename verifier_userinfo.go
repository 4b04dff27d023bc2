package mcpauth

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/bearer"
)

func init() {
	caddy.RegisterModule(UserinfoVerifier{})
}

// UserinfoVerifier asks an identity provider whose an opaque token is, and
// remembers the answer for a short time. It is for providers that issue no JWTs
// and have no introspection endpoint for us: GitHub, Google and others.
//
// Such a provider answers for a token of any application. So that a token that
// somebody else's application got from a user does not open this server, the
// client that the token was issued to is checked: that client id is the audience
// of the token, and `audience` must name it. Tokens that do not tell when they
// expire are accepted, for the provider is asked again and again.
type UserinfoVerifier struct {
	// Provider is `github` or `google`; empty for any other, which needs `url`.
	Provider string `json:"provider,omitempty"`

	// URL is the endpoint, which gets the token as a Bearer token. For github and
	// google it replaces the base URL of the API.
	URL string `json:"url,omitempty"`

	// ClientIDs are the applications whose tokens are accepted. For github it is
	// one, with its secret.
	ClientIDs []string `json:"client_ids,omitempty"`

	// ClientSecret is that of the client, for github.
	ClientSecret string `json:"client_secret,omitempty"`

	// ClientClaim is the member of the answer that holds the client id. For other
	// providers than github and google.
	ClientClaim string `json:"client_claim,omitempty"`

	// AnyClient accepts tokens of every application, so that whoever runs one can
	// use its users' tokens here. It needs `audience any`.
	AnyClient bool `json:"any_client,omitempty"`

	// UserClaim is the member that identifies the user. Default: sub.
	UserClaim string `json:"user_claim,omitempty"`

	// Scopes are granted to every token. Default: what the provider says, for
	// others than github and google in the member `scope_claim`.
	Scopes []string `json:"scopes,omitempty"`

	// ScopeClaim is the member that holds the scopes. Default: scope.
	ScopeClaim string `json:"scope_claim,omitempty"`

	// Prefixes are how the provider's tokens begin; others are not sent to it.
	// Default: github: gho_, ghu_; google: ya29.; others: all but JWTs.
	Prefixes []string `json:"prefixes,omitempty"`

	// Issuer names the provider in what is known of the token. Default:
	// https://github.com, https://accounts.google.com, or the origin of `url`.
	Issuer string `json:"issuer,omitempty"`

	// Cache is how long a positive answer is believed, and so how long a revoked
	// token works. Default: 30s; at most 5m. 0 asks for each request.
	Cache *caddy.Duration `json:"cache,omitempty"`

	resolved *UserinfoVerifier
}

// CaddyModule returns the Caddy module information.
func (UserinfoVerifier) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.verifiers.userinfo", New: func() caddy.Module { return new(UserinfoVerifier) }}
}

// Provision resolves placeholders.
func (v *UserinfoVerifier) Provision(caddy.Context) (err error) {
	if v.resolved, err = resolved(v); err != nil {
		return err
	}
	if err = v.resolved.check(); err != nil {
		return fmt.Errorf("verify userinfo: %w", err)
	}
	return nil
}

// maxUserinfoCache is the most that Cache can be.
const maxUserinfoCache = 5 * time.Minute

// check holds the rules that need nothing but the settings themselves.
func (v *UserinfoVerifier) check() error {
	switch {
	case v.Cache != nil && *v.Cache < 0:
		return errors.New("cache cannot be below 0; write cache 0s to ask for each request")
	case v.Cache != nil && timeDuration(*v.Cache) > maxUserinfoCache:
		return errors.New("cache is 5m at most: so long a revoked token still works")
	case v.Provider == "" && v.URL == "":
		return errors.New("write github or google behind it, or the url of the userinfo endpoint")
	case v.AnyClient && len(v.ClientIDs) > 0:
		return errors.New("client_id checks the application that a token was issued to, any_client leaves that out; choose one")
	case !v.AnyClient && len(v.ClientIDs) == 0:
		return errors.New("write the client_id of your application: without it, a token that any other application got from a user would open this server; if that is meant, write any_client")
	}
	return nil
}

// AllowsNoExpiry tells that tokens need not tell when they expire.
func (*UserinfoVerifier) AllowsNoExpiry() bool { return true }

// NewVerifier implements VerifierModule.
func (v *UserinfoVerifier) NewVerifier(env VerifierEnv) (bearer.Verifier, error) {
	r := v.resolved
	verifier, err := bearer.NewUserinfoVerifier(bearer.UserinfoConfig{
		Provider:     r.Provider,
		URL:          r.URL,
		Issuer:       r.Issuer,
		ClientIDs:    r.ClientIDs,
		ClientSecret: r.ClientSecret,
		ClientClaim:  r.ClientClaim,
		AnyClient:    r.AnyClient,
		UserClaim:    r.UserClaim,
		Scopes:       r.Scopes,
		ScopeClaim:   r.ScopeClaim,
		Prefixes:     r.Prefixes,
		MaxCache:     optionalDuration(r.Cache),
		Logger:       env.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("verify userinfo: %w", err)
	}
	if r.AnyClient {
		env.Logger.Warn("verify userinfo: the application that a token was issued to is not checked (any_client): whoever runs one can use its users' tokens here", "provider", r.Provider, "url", r.URL)
	}
	return verifier, nil
}

// audience returns what the tokens name as their audience; nil means nothing.
func (v *UserinfoVerifier) audience() []string { return v.resolved.ClientIDs }

// Interface guards
var (
	_ VerifierModule    = (*UserinfoVerifier)(nil)
	_ caddy.Provisioner = (*UserinfoVerifier)(nil)
)
