package mcpauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
	"github.com/caddy-mcp/mcpauth/seal"
)

// Forward says what the server behind a resource learns of the caller.
type Forward struct {
	// Kind is one of:
	//
	// - `identity` (default): headers X-MCP-User, X-MCP-Client and X-MCP-Scope
	// - `jwt`: a signed assertion of the same in the header X-MCP-Identity, which
	//   the server can verify with the keys at <base URL>/mcp-auth/jwks.json
	// - `upstream_token`: the headers of `identity`, and as Authorization the
	//   user's own access token at the identity provider, refreshed when due. Only
	//   with an upstream
	// - `access_token`: the headers of `identity`, and the Authorization header stays
	// - `none`: nothing
	//
	// Except with `access_token`, the Authorization header of the request never
	// reaches the server.
	Kind string `json:"kind,omitempty"`

	// Fields adds to `identity` and `jwt`: `email` (X-MCP-User-Email), `name`
	// (X-MCP-User-Name), `groups` (X-MCP-User-Groups).
	Fields []string `json:"fields,omitempty"`

	// Audience is `aud` of a `jwt`. Default: the resource's identifier.
	Audience string `json:"audience,omitempty"`

	// TTL is how long a `jwt` is good, 30s to 1h, and never longer than the access
	// token. Default: 5m.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// Header carries the `jwt`: X-MCP-Identity (default), or Authorization, where
	// it is a bearer token.
	Header string `json:"header,omitempty"`
}

// forwardKinds are the kinds, as messages name them.
const forwardKinds = "identity, jwt, upstream_token, access_token and none"

func (f *Forward) check() error {
	if f == nil {
		return nil
	}
	switch f.Kind {
	case "", "identity", "jwt":
		for _, field := range f.Fields {
			if field != "email" && field != "name" && field != "groups" {
				return fmt.Errorf("forward %s: %q is no field; there are email, name and groups", f.kind(), field)
			}
		}
	case "none", "access_token", "upstream_token":
		if len(f.Fields) > 0 {
			return fmt.Errorf("forward %s takes no fields", f.Kind)
		}
	default:
		return fmt.Errorf("forward %q is unknown; there are %s", f.Kind, forwardKinds)
	}
	if f.Kind != "jwt" {
		if f.Audience != "" || f.TTL != 0 || f.Header != "" {
			return fmt.Errorf("forward %s: audience, ttl and header belong to forward jwt", f.kind())
		}
		return nil
	}
	if ttl := timeDuration(f.TTL); ttl != 0 && (ttl < 30*time.Second || ttl > time.Hour) {
		return fmt.Errorf("forward jwt: ttl must be between 30s and 1h")
	}
	if f.Header != "" && !hasPlaceholder(f.Header) && !strings.EqualFold(f.Header, bearer.AssertionHeader) && !strings.EqualFold(f.Header, "Authorization") {
		return fmt.Errorf("forward jwt: header %q is not possible; there are X-MCP-Identity and Authorization, which clients cannot send themselves", f.Header)
	}
	return nil
}

func (f *Forward) kind() string {
	if f == nil || f.Kind == "" {
		return "identity"
	}
	return f.Kind
}

const errNoUpstreamToken = "forward upstream_token needs `upstream`: only there this server has a token of the user's at an identity provider; there are identity, jwt, access_token and none"

// forwarding is a resolved Forward.
type forwarding struct {
	identity      bool
	fields        bearer.IdentityFields
	accessToken   bool
	upstreamToken bool
	assertions    *bearer.Assertions // nil if none are sent
}

func (f *Forward) fields() bearer.IdentityFields {
	if f == nil {
		return bearer.IdentityFields{}
	}
	return bearer.IdentityFields{
		Email:  slices.Contains(f.Fields, "email"),
		Name:   slices.Contains(f.Fields, "name"),
		Groups: slices.Contains(f.Fields, "groups"),
	}
}

// and returns what both allow. Assertions of two resources differ at least in
// their audience.
func (f forwarding) and(g forwarding) forwarding {
	return forwarding{
		identity:      f.identity && g.identity,
		accessToken:   f.accessToken && g.accessToken,
		upstreamToken: f.upstreamToken && g.upstreamToken,
		fields: bearer.IdentityFields{
			Email:  f.fields.Email && g.fields.Email,
			Name:   f.fields.Name && g.fields.Name,
			Groups: f.fields.Groups && g.fields.Groups,
		},
	}
}

// addForwards decides what the servers behind the resources learn.
func (c *siteConfig) addForwards(s *site, p *plan, app *App, mode *Mode) error {
	s.forwards = make(map[string]forwarding, len(p.forwards))
	s.upstreamToken = mode.UpstreamToken
	var keys *bearer.AssertionKeys
	for identifier, f := range p.forwards {
		resolved := forwarding{fields: f.fields()}
		switch f.kind() {
		case "none":
		case "jwt":
			var err error
			if keys == nil {
				if keys, err = c.addAssertionKeys(s, app, mode); err != nil {
					return err
				}
			}
			resolved.assertions, err = bearer.NewAssertions(bearer.AssertionConfig{
				Issuer:          c.assertionIssuer(),
				Audience:        cmp.Or(f.Audience, identifier),
				Keys:            keys,
				TTL:             timeDuration(f.TTL),
				Fields:          resolved.fields,
				InAuthorization: strings.EqualFold(f.Header, "Authorization"),
			})
			if err != nil {
				return fmt.Errorf("resource %s: forward jwt: %w", identifier, err)
			}
		case "upstream_token":
			if mode.UpstreamToken == nil {
				return fmt.Errorf("resource %s: %s", identifier, errNoUpstreamToken)
			}
			resolved.identity, resolved.upstreamToken = true, true
		default:
			resolved.identity, resolved.accessToken = true, f.kind() == "access_token"
		}
		s.forwards[identifier] = resolved
	}
	return nil
}

// addAssertionKeys publishes the keys that sign assertions. They belong to the
// URL where they are published, so that all handlers of an origin have the same.
func (c *siteConfig) addAssertionKeys(s *site, app *App, mode *Mode) (*bearer.AssertionKeys, error) {
	base, err := url.Parse(c.base)
	if err != nil {
		return nil, err
	}
	path := oauth.JoinURL(base.Path, cmp.Or(mode.endpointPrefix, defaultEndpointPrefix)+"/jwks.json")
	published := *base
	published.Path, published.RawPath = path, ""
	keys, err := bearer.NewAssertionKeys(bearer.AssertionKeysConfig{Secrets: func() ([][seal.KeySize]byte, error) {
		ring, err := app.keys()
		if err != nil {
			return nil, err
		}
		return ring.Secrets(seal.PurposeAssertion, published.String()), nil
	}})
	if err != nil {
		return nil, err
	}
	if s.extra == nil {
		s.extra = make(map[string]http.Handler)
	}
	if s.extra[path] != nil {
		return nil, fmt.Errorf("%s is an endpoint already; change endpoint_prefix", path)
	}
	s.extra[path] = keys
	s.needsKeys = true
	return keys, nil
}

// assertionIssuer is who vouches for assertions: this site.
func (c *siteConfig) assertionIssuer() string { return cmp.Or(c.vouches, c.issuer) }

// defaultEndpointPrefix is below the base URL.
const defaultEndpointPrefix = "/mcp-auth"

// forward tells the server behind who calls, as the resource's forward says.
func (h *served) forward(r *http.Request, decision bearer.Decision) error {
	f := h.site.forwards[decision.Resource.Identifier]
	if decision.Also != nil {
		f = f.and(h.site.forwards[decision.Also.Identifier])
	}
	if !f.accessToken {
		bearer.RemoveAuthorization(r)
	}
	info := decision.Info
	if info == nil {
		return nil
	}
	if f.assertions != nil {
		return f.assertions.SetHeader(r.Header, info)
	}
	if f.upstreamToken {
		token, err := h.site.upstreamToken(r.Context(), info)
		if err != nil {
			return err
		}
		r.Header["Authorization"] = []string{"Bearer " + token}
	}
	if !f.identity {
		return nil
	}
	return decision.SetIdentity(r.Header, f.fields)
}

// cannotForward answers a request whose caller cannot be made known to the
// server behind. What the client can act on is a challenge, or try again later.
func (h *served) cannotForward(w http.ResponseWriter, r *http.Request, decision bearer.Decision, err error) error {
	if refusal, ok := errors.AsType[*oauth.Error](err); ok {
		h.site.guard.Refuse(w, r, decision, refusal)
		return nil
	}
	h.logger.Error("the caller's identity cannot be sent", zap.Error(err))
	return caddyhttp.Error(http.StatusInternalServerError, err)
}

// UpstreamToken returns the access token that the user behind a verified access
// token has at the identity provider. Errors are those of bearer.Verifier.
type UpstreamToken func(ctx context.Context, info *oauth.TokenInfo) (string, error)
