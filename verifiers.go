package mcpauth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap/exp/zapslog"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/bearer"
)

func init() {
	caddy.RegisterModule(JWTVerifier{})
	caddy.RegisterModule(IntrospectionVerifier{})
}

// VerifierModule is a module in the namespace mcp_auth.verifiers: it decides
// whether an access token is genuine.
type VerifierModule interface {
	// NewVerifier is called at the end of provisioning. It opens no connection:
	// a verifier that has something to load implements Run(context.Context),
	// which is called in the background and ends with its context, and loads on
	// first use all the same. A module that embeds ExpiryPolicy may accept tokens
	// without an expiry.
	NewVerifier(env VerifierEnv) (bearer.Verifier, error)
}

// ExpiryPolicy is the part of a verifier's configuration that says whether a
// token must tell when it expires.
type ExpiryPolicy struct {
	// RequireExpiryOff accepts tokens that do not tell when they expire, which
	// are refused otherwise.
	RequireExpiryOff bool `json:"require_expiry_off,omitempty"`
}

// AllowsNoExpiry reports whether tokens without an expiry are accepted.
func (p ExpiryPolicy) AllowsNoExpiry() bool { return p.RequireExpiryOff }

// VerifierEnv is what a verifier may know of the site that it works for.
type VerifierEnv struct {
	// Issuer is the authorization server whose tokens are expected; "" if the
	// configuration names none.
	Issuer string
	// Discovery loads that issuer's metadata; nil without an issuer.
	Discovery *bearer.Discovery
	// ClientIDs are client ids known to the configuration. A token whose
	// audience is one of them may be an id_token.
	ClientIDs []string
	// Resources are the identifiers of the site's own resources, sorted.
	Resources []string
	// Logger outlives the configuration, since a verifier is kept over a reload
	// that does not change it.
	Logger *slog.Logger
}

// JWTVerifier checks JSON Web Tokens (RFC 7519, RFC 9068) against the keys that
// their issuer publishes. The keys are loaded in the background, kept over
// reloads, and loaded anew when a token names an unknown one.
//
// A token stays good until it expires: revocation does not reach this verifier.
type JWTVerifier struct {
	// Issuer is what `iss` must be, byte for byte. Default: the issuer of the
	// mode that this verifier belongs to.
	Issuer string `json:"issuer,omitempty"`

	// JWKSURI is where the keys are. Default: as the issuer's metadata says.
	JWKSURI string `json:"jwks_uri,omitempty"`

	// Algorithms are the accepted signature algorithms. Default: RS256, RS384,
	// RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA. `none` and the
	// symmetric ones are always refused.
	Algorithms []string `json:"algorithms,omitempty"`

	// RequireType accepts only tokens of this `typ`, for example at+jwt.
	// Default: at+jwt, JWT, or none.
	RequireType string `json:"require_typ,omitempty"`

	// Skew is how far clocks may differ; 0 is not at all. Default: 1m.
	Skew *caddy.Duration `json:"skew,omitempty"`

	ExpiryPolicy

	resolved *JWTVerifier
}

// CaddyModule returns the Caddy module information.
func (JWTVerifier) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.verifiers.jwt", New: func() caddy.Module { return new(JWTVerifier) }}
}

// Provision resolves placeholders.
func (v *JWTVerifier) Provision(caddy.Context) (err error) {
	if v.resolved, err = resolved(v); err != nil {
		return err
	}
	return v.resolved.check()
}

// check holds the rules that need nothing but the settings themselves.
func (v *JWTVerifier) check() error {
	if v.Skew != nil && *v.Skew < 0 {
		return fmt.Errorf("verify jwt: skew cannot be below 0; write how far clocks may differ, for example skew 30s")
	}
	return nil
}

// NewVerifier implements VerifierModule.
func (v *JWTVerifier) NewVerifier(env VerifierEnv) (bearer.Verifier, error) {
	cfg := bearer.JWTConfig{
		Issuer:      v.resolved.Issuer,
		JWKSURI:     v.resolved.JWKSURI,
		Algorithms:  v.resolved.Algorithms,
		RequireType: v.resolved.RequireType,
		ClientIDs:   env.ClientIDs,
		Skew:        optionalDuration(v.resolved.Skew),
		Logger:      env.Logger,
	}
	if cfg.Issuer == "" {
		cfg.Issuer = env.Issuer
	}
	switch {
	case cfg.JWKSURI != "":
	case env.Discovery != nil && cfg.Issuer == env.Issuer:
		cfg.Discovery = env.Discovery
	case cfg.Issuer == "":
		return nil, fmt.Errorf("verify jwt: name the issuer of the tokens, or their jwks_uri")
	default:
		return nil, fmt.Errorf("verify jwt: write the jwks_uri of issuer %s", cfg.Issuer)
	}
	if cfg.Issuer == "" {
		cfg.AnyIssuer = true
		env.Logger.Warn("verify jwt: the issuer of tokens is not checked, since none is configured; write `issuer` in the verify block", "jwks_uri", cfg.JWKSURI)
	}
	return bearer.NewJWTVerifier(cfg)
}

// IntrospectionVerifier asks the authorization server about each token
// (RFC 7662) and remembers the answer for a short time. It works with opaque
// tokens and sees revocation.
type IntrospectionVerifier struct {
	// URL is the introspection endpoint. Default: as the issuer's metadata says.
	URL string `json:"url,omitempty"`

	// ClientID and ClientSecret are this server's credentials at the endpoint.
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`

	// ClientAuth is how they are sent: basic (default) or post.
	ClientAuth string `json:"client_auth,omitempty"`

	// Issuer is what `iss` of an answer must be if it has one. Default: the
	// issuer of the mode that this verifier belongs to.
	Issuer string `json:"issuer,omitempty"`

	// UserClaim is the member of the answer that identifies the user, a string or a
	// whole number. Default: sub, and where there is none username, behind
	// `username:`.
	UserClaim string `json:"user_claim,omitempty"`

	// Cache is how long a positive answer is believed, at most 30s, which is
	// the default, and never beyond the token's expiry. 0 asks for each request.
	Cache *caddy.Duration `json:"cache,omitempty"`

	ExpiryPolicy

	resolved *IntrospectionVerifier
}

// CaddyModule returns the Caddy module information.
func (IntrospectionVerifier) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.verifiers.introspection", New: func() caddy.Module { return new(IntrospectionVerifier) }}
}

// Provision resolves placeholders.
func (v *IntrospectionVerifier) Provision(caddy.Context) (err error) {
	if v.resolved, err = resolved(v); err != nil {
		return err
	}
	return v.resolved.check()
}

// maxIntrospectionCache is the most that Cache can be.
const maxIntrospectionCache = 30 * time.Second

// check holds the rules that need nothing but the settings themselves.
func (v *IntrospectionVerifier) check() error {
	switch {
	case v.Cache == nil:
	case *v.Cache < 0:
		return fmt.Errorf("verify introspection: cache cannot be below 0; write cache 0s to ask for each request")
	case timeDuration(*v.Cache) > maxIntrospectionCache:
		return fmt.Errorf("verify introspection: cache is 30s at most: so long a revoked token still works")
	}
	return nil
}

// optionalDuration is a setting of which 0 means none, as the library has it: 0 for
// its default, below 0 for none.
func optionalDuration(d *caddy.Duration) time.Duration {
	switch {
	case d == nil:
		return 0
	case *d == 0:
		return -1
	}
	return timeDuration(*d)
}

// NewVerifier implements VerifierModule.
func (v *IntrospectionVerifier) NewVerifier(env VerifierEnv) (bearer.Verifier, error) {
	r := v.resolved
	if r.URL == "" && env.Discovery == nil {
		return nil, fmt.Errorf("verify introspection: write the url of the introspection endpoint")
	}
	if r.ClientID == "" {
		return nil, fmt.Errorf("verify introspection: client_id and client_secret are needed: RFC 7662 section 2.1 has the endpoint ask for them")
	}
	cfg := bearer.IntrospectionConfig{
		URL:          r.URL,
		ClientID:     r.ClientID,
		ClientSecret: r.ClientSecret,
		AuthMethod:   r.ClientAuth,
		Issuer:       r.Issuer,
		UserClaim:    r.UserClaim,
		MaxCache:     optionalDuration(r.Cache),
		Logger:       env.Logger,
	}
	if cfg.URL == "" {
		cfg.Discovery = env.Discovery
	}
	if cfg.Issuer == "" {
		cfg.Issuer = env.Issuer
	}
	return bearer.NewIntrospectionVerifier(cfg)
}

// runner is what has something to load in the background.
type runner interface{ Run(ctx context.Context) }

// pooled is a verifier or a discovery that is kept over reloads: identity
// providers are not asked again because an unrelated setting changed, and a
// reload while one is down locks nobody out.
type pooled struct {
	value  any
	once   sync.Once
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// start lets the value load in the background; more than the first call does
// nothing.
func (p *pooled) start() {
	p.once.Do(func() {
		if r, ok := p.value.(runner); ok {
			ctx, cancel := context.WithCancel(context.Background())
			p.cancel = cancel
			p.done.Go(func() { r.Run(ctx) })
		}
	})
}

// Destruct ends what start began.
func (p *pooled) Destruct() error {
	p.once.Do(func() {}) // from here on start does nothing
	if p.cancel != nil {
		p.cancel()
		p.done.Wait()
	}
	if f, ok := p.value.(interface{ Forget() }); ok {
		f.Forget()
	}
	return nil
}

// pools holds the pooled values of all configurations of this process.
var pools = caddy.NewUsagePool()

// acquire returns the pooled value for the identity, made by construct if there
// is none, and lets the app's Cleanup give it back.
func (a *App) acquire(kind string, identity any, construct func() (any, error)) (*pooled, error) {
	data, err := json.Marshal(identity)
	if err != nil {
		return nil, err
	}
	// Hashed, since the identity may hold a secret.
	key := fmt.Sprintf("%s:%x", kind, sha256.Sum256(data))
	value, _, err := pools.LoadOrNew(key, func() (caddy.Destructor, error) {
		value, err := construct()
		if err != nil {
			return nil, err
		}
		return &pooled{value: value}, nil
	})
	if err != nil {
		return nil, err
	}
	a.acquired = append(a.acquired, func() { _, _ = pools.Delete(key) })
	return value.(*pooled), nil
}

// discovery returns the pooled discovery of an issuer.
func (a *App) discovery(issuer string) (*bearer.Discovery, *pooled, error) {
	p, err := a.acquire("discovery", issuer, func() (any, error) {
		return bearer.NewDiscovery(bearer.DiscoveryConfig{Issuer: issuer, Logger: pooledLogger("mcp_auth.discovery")})
	})
	if err != nil {
		return nil, nil, err
	}
	return p.value.(*bearer.Discovery), p, nil
}

// verifier returns the pooled verifier that module describes, and what it is.
func (a *App) verifier(module VerifierModule, env VerifierEnv) (p *pooled, identity any, err error) {
	env.ClientIDs = slices.Sorted(slices.Values(env.ClientIDs))
	env.Logger = pooledLogger("mcp_auth.verifiers")
	description := []any{fmt.Sprintf("%T", module), resolvedConfig(module), env.Issuer, env.ClientIDs}
	switch module.(type) {
	case *JWTVerifier, *IntrospectionVerifier, *UserinfoVerifier: // the resources do not matter
	default:
		description = append(description, env.Resources)
	}
	p, err = a.acquire("verifier", description, func() (any, error) { return module.NewVerifier(env) })
	return p, description, err
}

// resolvedConfig is the part of a verifier module that makes it what it is.
func resolvedConfig(module VerifierModule) any {
	switch m := module.(type) {
	case *JWTVerifier:
		return m.resolved
	case *IntrospectionVerifier:
		return m.resolved
	case *UserinfoVerifier:
		return m.resolved
	case *StaticVerifier:
		return m.resolved
	default:
		return module
	}
}

// pooledLogger returns a logger that writes to whatever Caddy's default logger
// is at the time: a logger of one configuration is closed with it.
func pooledLogger(name string) *slog.Logger {
	return slog.New(currentLog{}).With("logger_name", name)
}

type currentLog struct {
	attrs []slog.Attr
}

func (currentLog) Enabled(_ context.Context, level slog.Level) bool {
	return zapslog.NewHandler(caddy.Log().Core()).Enabled(context.Background(), level)
}

func (l currentLog) Handle(ctx context.Context, record slog.Record) error {
	return zapslog.NewHandler(caddy.Log().Core(), zapslog.AddStacktraceAt(slog.Level(127))).WithAttrs(l.attrs).Handle(ctx, record)
}

func (l currentLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return currentLog{attrs: slices.Concat(l.attrs, attrs)}
}

func (l currentLog) WithGroup(string) slog.Handler { return l }

// Interface guards
var (
	_ VerifierModule    = (*JWTVerifier)(nil)
	_ VerifierModule    = (*IntrospectionVerifier)(nil)
	_ caddy.Provisioner = (*JWTVerifier)(nil)
	_ caddy.Provisioner = (*IntrospectionVerifier)(nil)
	_ caddy.Destructor  = (*pooled)(nil)
)
