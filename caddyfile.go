package mcpauth

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("mcp_auth", parseGlobal)
	httpcaddyfile.RegisterDirective("mcp_auth", parseAuth)
	httpcaddyfile.RegisterDirective("mcp_bearer", parseBearer)
	httpcaddyfile.RegisterDirective("mcp_auth_metadata", parseMetadata)
	// Each lands right before basic_auth, so they run in this order: after
	// rewrites, before anything that answers or proxies.
	httpcaddyfile.RegisterDirectiveOrder("mcp_auth_metadata", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("mcp_auth", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("mcp_bearer", httpcaddyfile.Before, "basic_auth")
}

// parseAuth sets up the handler from Caddyfile tokens. Syntax:
//
//	mcp_auth <issuer> {
//		upstream <identity provider> [<argument>] {
//			…
//		}
//		accounts {
//			…
//		}
//		proxy {
//			…
//		}
//		authorization_server <issuer> {
//			…
//		}
//		resource <path|url> {
//			…
//		}
//		client <id> {
//			…
//		}
//		registration {
//			…
//		}
//		rate_limit off | <authorize|token|register|revoke> off | <endpoint> <count> <window>
//		base_url <url>
//		service_documentation <url>
//		insecure_dev
//
//		# with upstream and accounts:
//		allow any | <email|group|subject|org|hosted_domain> <value...>
//		consent {
//			…
//		}
//		tokens {
//			…
//		}
//		verify <verifier> [<argument>] {
//			…
//		}
//		endpoint_prefix <path>
//	}
//
// Exactly one of upstream, accounts, proxy and authorization_server is needed.
func parseAuth(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	d := h.Dispenser
	d.Next() // the directive's name
	start := here(d)
	if n := timesInSite(h, "mcp_auth"); n > 1 {
		return nil, start.errorf("this site has %d mcp_auth blocks, and the first would answer for all; put their resources into one", n)
	}
	issuer, err := issuerArgument(d, "mcp_auth")
	if err != nil {
		return nil, err
	}
	handler := &Handler{Issuer: issuer}
	p := authParser{handler: handler, once: once{}}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := p.setting(d); err != nil {
			return nil, err
		}
	}
	if err := p.finish(start); err != nil {
		return nil, err
	}
	if err := handler.check(); err != nil {
		return nil, start.errorf("mcp_auth: %s", err)
	}
	return h.NewRoute(nil, handler), nil
}

// issuerArgument reads the only argument of a directive that names an issuer.
func issuerArgument(d *caddyfile.Dispenser, directive string) (string, error) {
	args := d.RemainingArgs()
	if len(args) > 0 {
		switch first := args[0]; {
		case strings.HasPrefix(first, "/") || strings.HasPrefix(first, "@") || first == "*":
			return "", d.Errf("%s takes no matcher, but %s looks like one: its argument is the issuer, for example %s https://mcp.example.com; name the protected paths with `resource` inside the block", directive, first, directive)
		}
	}
	if len(args) != 1 || args[0] == "" {
		return "", d.Errf("%s takes one argument, the issuer, for example %s https://mcp.example.com, and got %d; if it comes from an environment variable, is that set?", directive, directive, len(args))
	}
	return args[0], nil
}

type authParser struct {
	handler *Handler
	once    once
	// mode is the setting that decides who signs people in, and parsed what it
	// came to.
	mode, modeName string
	parsed         any
	// broker holds the settings that stand beside upstream, accounts or proxy.
	broker BrokerMode
	// brokerSetting is the first that is for upstream and accounts alone, and
	// pageSetting the first about the pages for browsers.
	brokerSetting, pageSetting placedSetting
}

// placedSetting is the name of a setting, "" for none, with its place.
type placedSetting struct {
	name  string
	place position
}

func (s *placedSetting) note(d *caddyfile.Dispenser) {
	if s.name == "" {
		s.name, s.place = d.Val(), here(d)
	}
}

// refuse is the error if the setting is there.
func (s *placedSetting) refuse(mode string) error {
	if s.name == "" {
		return nil
	}
	return s.place.errorf("%s belongs to upstream and accounts, where this server issues the tokens; with %s another server does", s.name, mode)
}

// finish puts the mode together once the block is read.
func (p *authParser) finish(start position) error {
	if p.parsed == nil {
		return start.errorf("mcp_auth: %s", errNoMode)
	}
	switch mode := p.parsed.(type) {
	case *BrokerMode:
		mode.Allow = p.broker.Allow
		mode.Consent = p.broker.Consent
		mode.Tokens = p.broker.Tokens
		mode.EndpointPrefix = p.broker.EndpointPrefix
		mode.VerifyRaw = p.broker.VerifyRaw
		if err := mode.check(); err != nil {
			return start.errorf("mcp_auth: %s", err)
		}
	case *ProxyMode:
		if err := p.brokerSetting.refuse(p.mode); err != nil {
			return err
		}
		if mode.Callback == "direct" && p.pageSetting.name != "" {
			return p.pageSetting.place.errorf("%s has no effect: with callback direct there are no pages here; it is for callback relay", p.pageSetting.name)
		}
		mode.Consent = p.broker.Consent
		mode.EndpointPrefix = p.broker.EndpointPrefix
		if err := mode.check(); err != nil {
			return start.errorf("mcp_auth: %s", err)
		}
	default:
		for _, setting := range []placedSetting{p.brokerSetting, p.pageSetting} {
			if err := setting.refuse(p.mode); err != nil {
				return err
			}
		}
	}
	if _, broker := p.parsed.(*BrokerMode); !broker || p.mode == "accounts" {
		for _, r := range p.handler.Resources {
			if r.Forward.kind() == "upstream_token" {
				return start.errorf("mcp_auth: resource %s: %s", r.label(), errNoUpstreamToken)
			}
		}
	}
	if err := p.handler.checkMode(p.parsed); err != nil {
		return start.errorf("mcp_auth: %s", err)
	}
	p.handler.ProviderRaw = caddyconfig.JSONModuleObject(p.parsed, "mode", p.modeName, nil)
	return nil
}

func (p *authParser) setting(d *caddyfile.Dispenser) error {
	h := p.handler
	name := d.Val()
	switch name {
	case "resource", "client", "rate_limit", "allow", "verify": // may be repeated
	default:
		if err := p.once.check(d); err != nil {
			return err
		}
	}
	switch name {
	case "proxy":
		return p.setMode(d, parseProxy)
	case "authorization_server":
		return p.setMode(d, parseAuthorizationServer)
	case "resource":
		resource, err := parseResource(d)
		h.Resources = append(h.Resources, resource)
		return err
	case "client":
		client, err := parseClient(d)
		h.Clients = append(h.Clients, client)
		return err
	case "registration":
		registration, err := parseRegistration(d)
		h.Registration = registration
		return err
	case "rate_limit":
		return p.rateLimit(d)
	case "base_url":
		return value(d, &h.BaseURL)
	case "service_documentation":
		return value(d, &h.ServiceDocumentation)
	case "insecure_dev":
		h.InsecureDev = true
		return noValue(d)
	case "upstream":
		return p.setMode(d, parseUpstream)
	case "accounts":
		return p.setMode(d, parseAccounts)
	case "allow", "tokens":
		p.brokerSetting.note(d)
		return p.broker.setting(d)
	case "verify":
		if p.mode == "proxy" || p.mode == "authorization_server" {
			return d.Errf("verify belongs into the block of %s", p.mode)
		}
		p.brokerSetting.note(d)
		raw, err := parseVerify(d, p.broker.VerifyRaw)
		p.broker.VerifyRaw = raw
		return err
	case "consent", "endpoint_prefix":
		p.pageSetting.note(d)
		return p.broker.setting(d)
	default:
		return d.Errf("%s is no setting of mcp_auth; there are upstream, accounts, proxy, authorization_server, allow, resource, client, registration, consent, tokens, verify, rate_limit, base_url, endpoint_prefix, service_documentation and insecure_dev", name)
	}
}

// setMode parses one of the blocks that decide who signs people in.
func (p *authParser) setMode(d *caddyfile.Dispenser, parse func(*caddyfile.Dispenser) (any, string, error)) error {
	if p.mode != "" {
		return d.Errf("%s: %s is there already; exactly one of upstream, accounts, proxy and authorization_server decides who signs people in", d.Val(), p.mode)
	}
	p.mode = d.Val()
	mode, name, err := parse(d)
	if err != nil {
		return err
	}
	p.parsed, p.modeName = mode, name
	return nil
}

func (p *authParser) rateLimit(d *caddyfile.Dispenser) error {
	const advice = "write rate_limit off, rate_limit token off, or rate_limit token 50 15m"
	args := d.RemainingArgs()
	if p.handler.RateLimits == nil {
		p.handler.RateLimits = new(RateLimits)
	}
	limits := p.handler.RateLimits
	if len(args) == 1 && args[0] == "off" {
		if *limits != (RateLimits{}) {
			return d.Errf("rate_limit off stands alone")
		}
		limits.Off = true
		return noBlock(d)
	}
	if len(args) < 2 || len(args) > 3 {
		return d.Errf("rate_limit: %s", advice)
	}
	if limits.Off {
		return d.Errf("rate_limit off stands alone")
	}
	var target **RateLimit
	switch args[0] {
	case "authorize":
		target = &limits.Authorize
	case "token":
		target = &limits.Token
	case "register":
		target = &limits.Register
	case "revoke":
		target = &limits.Revoke
	default:
		return d.Errf("rate_limit: %s is no endpoint with a limit; there are authorize, token, register and revoke", args[0])
	}
	if *target != nil {
		return d.Errf("rate_limit %s is there already", args[0])
	}
	if len(args) == 2 {
		if args[1] != "off" {
			return d.Errf("rate_limit: %s", advice)
		}
		*target = new(RateLimit)
		return noBlock(d)
	}
	count, err := strconv.Atoi(args[1])
	if err != nil || count <= 0 {
		return d.Errf("rate_limit %s: %q is no number of events above 0", args[0], args[1])
	}
	window, err := caddy.ParseDuration(args[2])
	if err != nil || window <= 0 {
		return d.Errf("rate_limit %s: %q is no time; write for example 15m", args[0], args[2])
	}
	*target = &RateLimit{Count: count, Window: caddy.Duration(window)}
	return noBlock(d)
}

// parseMetadata sets up the handler from Caddyfile tokens. Syntax:
//
//	mcp_auth_metadata <issuer>
func parseMetadata(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	d := h.Dispenser
	d.Next()
	issuer, err := issuerArgument(d, "mcp_auth_metadata")
	if err != nil {
		return nil, err
	}
	if err := noBlock(d); err != nil {
		return nil, err
	}
	return h.NewRoute(nil, &MetadataHandler{Issuer: issuer}), nil
}

// position is a place in a Caddyfile, for errors that are found later.
type position struct {
	file string
	line int
}

func here(d *caddyfile.Dispenser) position { return position{d.File(), d.Line()} }

func (p position) errorf(format string, args ...any) error {
	return fmt.Errorf("%s, at %s:%d", fmt.Sprintf(format, args...), p.file, p.line)
}

// once finds settings that are written twice.
type once map[string]bool

func (o once) check(d *caddyfile.Dispenser) error {
	if o[d.Val()] {
		return d.Errf("%s is there already; write it once", d.Val())
	}
	o[d.Val()] = true
	return nil
}

// value reads a setting's only argument.
func value(d *caddyfile.Dispenser, target *string) error {
	name := d.Val()
	args := d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return d.Errf("%s takes one value and got %d; if it comes from an environment variable, is that set?", name, len(args))
	}
	*target = args[0]
	return noBlock(d)
}

// values reads a setting's arguments, at least one.
func values(d *caddyfile.Dispenser, target *[]string) error {
	name := d.Val()
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("%s takes at least one value; if it comes from an environment variable, is that set?", name)
	}
	if slices.Contains(args, "") {
		return d.Errf("%s has an empty value; if it comes from an environment variable, is that set?", name)
	}
	*target = append(*target, args...)
	return noBlock(d)
}

// noValue makes sure that a setting has no argument.
func noValue(d *caddyfile.Dispenser) error {
	name := d.Val()
	if args := d.RemainingArgs(); len(args) > 0 {
		return d.Errf("%s takes no value, and got %s", name, args[0])
	}
	return noBlock(d)
}

// onOff reads a setting's argument, on or off.
func onOff(d *caddyfile.Dispenser) (bool, error) {
	name := d.Val()
	args := d.RemainingArgs()
	if len(args) != 1 || args[0] != "on" && args[0] != "off" {
		return false, d.Errf("%s: write on or off", name)
	}
	return args[0] == "on", noBlock(d)
}

// noBlock makes sure that no block follows.
func noBlock(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		return d.Errf("%s: no block belongs here", d.Val())
	}
	return nil
}

// timesInSite counts how often the site block of h has the directive, at its top
// level or in blocks inside; 1 if that cannot be told. The helper keeps the site
// block to itself, so this looks at it by reflection. Should Caddy rename the
// field, only the message gets later: the probe at start still finds the
// blocked one.
func timesInSite(h httpcaddyfile.Helper, directive string) int {
	block := reflect.ValueOf(h).FieldByName("parentBlock")
	if block.Kind() != reflect.Struct {
		return 1
	}
	segments := block.FieldByName("Segments")
	if segments.Kind() != reflect.Slice {
		return 1
	}
	n := 0
	for i := range segments.Len() {
		segment, line := segments.Index(i), int64(-1)
		if segment.Kind() != reflect.Slice {
			return 1
		}
		for j := range segment.Len() {
			text, at := segment.Index(j).FieldByName("Text"), segment.Index(j).FieldByName("Line")
			if text.Kind() != reflect.String || !at.CanInt() {
				return 1
			}
			if at.Int() != line && text.String() == directive { // the first word of a line
				n++
			}
			line = at.Int()
		}
	}
	return max(n, 1)
}
