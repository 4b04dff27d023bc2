package mcpauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/idp"
	"github.com/caddy-mcp/mcpauth/oauth"
)

// ResourcePolicy says who may make which MCP calls to a resource. Where there are
// rules on calls or `when`, a POST must be JSON-RPC that can be read in one way
// only, and all calls of a batch must pass.
type ResourcePolicy struct {
	// Tools are further scopes for tools, by name.
	Tools []NamedScopes `json:"tools,omitempty"`

	// Prompts are further scopes for prompts, by name.
	Prompts []NamedScopes `json:"prompts,omitempty"`

	// URIs are further scopes for MCP resources, by URI.
	URIs []NamedScopes `json:"uris,omitempty"`

	// Methods are further scopes for JSON-RPC methods.
	Methods []NamedScopes `json:"methods,omitempty"`

	// Allow says who may use the resource at all: whoever one of the rules fits.
	// Default: whoever has a token for it.
	Allow []*ResourceAllowRule `json:"allow,omitempty"`

	// When is a condition that every call has to fulfil.
	When Expression `json:"when,omitempty"`

	// BodyLimit is the size of the largest call, in bytes. Default: 1048576.
	BodyLimit int64 `json:"body_limit,omitempty"`

	// MCPHeaders `trusted` says that the MCP server compares Mcp-Method and Mcp-Name
	// with the body, as revision 2026-07-28 demands. For clients of that revision and
	// later the body is then left alone, unless `when` reads the arguments.
	MCPHeaders string `json:"mcp_headers,omitempty"`

	// UpgradeAllow lets WebSocket and CONNECT requests through, though the calls in
	// them are not seen.
	UpgradeAllow bool `json:"upgrade_allow,omitempty"`
}

// NamedScopes are scopes that are needed for what a pattern matches.
type NamedScopes struct {
	// Name is a name, compared exactly; a * stands for any run of characters.
	Name string `json:"name"`
	// Scopes are needed besides the resource's own.
	Scopes []string `json:"scopes"`
}

// ResourceAllowRule lets somebody use a resource. Exactly one of its fields is
// set, or `claim` and `value`.
type ResourceAllowRule struct {
	AllowRule
	// Claim is the name of a claim of the token; dots lead into objects.
	Claim string `json:"claim,omitempty"`
	// Value is what the claim is, or holds if it is a list. A number is written in
	// decimal digits.
	Value string `json:"value,omitempty"`
}

// check holds the rules that need nothing but the settings themselves.
func (p *ResourcePolicy) check() error {
	for _, list := range []struct {
		setting, example string
		rules            []NamedScopes
	}{
		{"tool", "delete_*", p.Tools},
		{"prompt", "review_*", p.Prompts},
		{"uri", "file:///private/*", p.URIs},
		{"method", "resources/*", p.Methods},
	} {
		for _, rule := range list.rules {
			if rule.Name == "" || len(rule.Scopes) == 0 {
				return fmt.Errorf("%s takes a name and the scopes that it needs, for example %s %s mcp:admin", list.setting, list.setting, list.example)
			}
			if err := checkScopes(list.setting, rule.Scopes); err != nil {
				return err
			}
		}
	}
	if _, err := p.allow(); err != nil {
		return fmt.Errorf("allow: %w", err)
	}
	if p.When != "" {
		if _, err := p.When.compile(); err != nil {
			return err
		}
	}
	if p.BodyLimit < 0 {
		return fmt.Errorf("body_limit: write a size, for example body_limit 1MiB")
	}
	if p.MCPHeaders != "" && p.MCPHeaders != "trusted" {
		return fmt.Errorf("mcp_headers takes trusted, which says that the MCP server checks Mcp-Method and Mcp-Name itself, and got %s", p.MCPHeaders)
	}
	return nil
}

// grantable are the scopes that the rules name.
func (p *ResourcePolicy) grantable() []string {
	var scopes []string
	for _, rule := range slices.Concat(p.Tools, p.Prompts, p.URIs, p.Methods) {
		scopes = append(scopes, rule.Scopes...)
	}
	return scopes
}

// claims are those that tokens have to carry for the policy.
func (p *ResourcePolicy) claims() []string {
	var claims []string
	for _, rule := range p.Allow {
		switch {
		case rule.Email != "":
			claims = append(claims, "email", "email_verified", "hd")
		case rule.Group != "", rule.Org != "":
			claims = append(claims, "groups")
		case rule.HostedDomain != "":
			claims = append(claims, "hd")
		case rule.Claim != "":
			claims = append(claims, rule.Claim)
		}
	}
	if p.When != "" {
		if c, err := p.When.compile(); err == nil {
			claims = append(claims, c.claims...)
		}
	}
	return claims
}

// library returns the policy for the bearer package.
func (p *ResourcePolicy) library() (bearer.Policy, error) {
	policy := bearer.Policy{
		Tools: nameRules(p.Tools), Prompts: nameRules(p.Prompts), URIs: nameRules(p.URIs), Methods: nameRules(p.Methods),
		BodyLimit: p.BodyLimit, TrustHeaders: p.MCPHeaders == "trusted", AllowUpgrade: p.UpgradeAllow,
	}
	var err error
	if policy.Allow, err = p.allow(); err != nil {
		return policy, fmt.Errorf("allow: %w", err)
	}
	if p.When != "" {
		c, err := p.When.compile()
		if err != nil {
			return policy, err
		}
		policy.When, policy.WhenIgnoresArguments = c.permits, !c.readsArguments
	}
	return policy, nil
}

func nameRules(rules []NamedScopes) []bearer.NameRule {
	library := make([]bearer.NameRule, len(rules))
	for i, rule := range rules {
		library[i] = bearer.NameRule{Pattern: rule.Name, Scopes: rule.Scopes}
	}
	return library
}

var errAllowAny = errors.New("leave out allow any: whoever has a token for the resource may use it if there is no allow line")

// allow returns the allow rules as a function, nil if there are none.
func (p *ResourcePolicy) allow() (func(*oauth.TokenInfo) (bool, string), error) {
	if len(p.Allow) == 0 {
		return nil, nil
	}
	var people idp.Rules
	var claims []*ResourceAllowRule
	for _, rule := range p.Allow {
		switch {
		case rule == nil:
			return nil, errors.New("a rule is empty")
		case rule.Any:
			return nil, errAllowAny
		case rule.Claim == "" && rule.Value == "":
			people = append(people, rule.idp())
		case rule.Claim == "" || rule.Value == "" || rule.AllowRule != AllowRule{}:
			return nil, errors.New("a claim stands alone and has a value, for example allow claim department research")
		default:
			claims = append(claims, rule)
		}
	}
	// Placeholders have their values at provisioning.
	if !slices.ContainsFunc(people, func(r idp.Rule) bool { return hasPlaceholder(r.Email) || hasPlaceholder(r.HostedDomain) }) {
		if err := people.Validate(); err != nil {
			return nil, err
		}
	}
	return func(info *oauth.TokenInfo) (bool, string) {
		for _, rule := range claims {
			if rule.fits(info.Extra) {
				return true, ""
			}
		}
		if len(people) == 0 {
			return false, "no allow rule matches"
		}
		return people.Allows(tokenIdentity(info))
	}, nil
}

// tokenIdentity is who a token says that somebody is.
func tokenIdentity(info *oauth.TokenInfo) *idp.Identity {
	id := &idp.Identity{Issuer: info.Issuer, Subject: info.UserID, Groups: textClaims(info.Extra["groups"])}
	if email := verifiedEmail(info.Extra); email != "" {
		id.Email, id.EmailVerified = email, true
	} else {
		id.Email, _ = info.Extra["email"].(string)
	}
	id.HostedDomain, _ = info.Extra["hd"].(string)
	return id
}

// fits reports whether the claim is the value, or a list that holds it.
func (r *ResourceAllowRule) fits(claims map[string]any) bool {
	switch value := claimAt(claims, r.Claim).(type) {
	case []string:
		return slices.Contains(value, r.Value)
	case []any:
		return slices.ContainsFunc(value, r.is)
	default:
		return r.is(value)
	}
}

// maxExactFloat is the first whole number whose neighbours a float64 lacks.
const maxExactFloat = 1 << 53

// is compares one value. A number is its shortest decimal form, so that 42.0 is 42.
func (r *ResourceAllowRule) is(value any) bool {
	switch value := value.(type) {
	case string:
		return value == r.Value
	case bool:
		return strconv.FormatBool(value) == r.Value
	case int64:
		return strconv.FormatInt(value, 10) == r.Value
	case float64:
		return math.Abs(value) < maxExactFloat && strconv.FormatFloat(value, 'f', -1, 64) == r.Value
	case json.Number:
		return value.String() == r.Value
	}
	return false
}

// claimAt is the claim of that name, or else the one that the name leads to, its
// dots taken as steps: realm_access.roles.
func claimAt(claims map[string]any, name string) any {
	if value, ok := claims[name]; ok {
		return value
	}
	first, rest, dotted := strings.Cut(name, ".")
	if inner, ok := claims[first].(map[string]any); ok && dotted {
		return claimAt(inner, rest)
	}
	return nil
}
