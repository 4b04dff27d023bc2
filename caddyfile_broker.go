package mcpauth

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// setting parses a setting of mcp_auth that belongs to upstream and accounts; of
// these, consent and endpoint_prefix also to proxy.
func (m *BrokerMode) setting(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "allow":
		return m.parseAllow(d)
	case "consent":
		return m.parseConsent(d)
	case "tokens":
		return m.parseTokens(d)
	default:
		return value(d, &m.EndpointPrefix)
	}
}

// parseAllow parses who may have access. Syntax:
//
//	allow any
//	allow email|group|subject|org|hosted_domain <value...>
func (m *BrokerMode) parseAllow(d *caddyfile.Dispenser) error {
	const advice = "write allow any, or allow email, group, subject, org or hosted_domain with values, for example allow email *@example.com"
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("allow: %s", advice)
	}
	if args[0] == "any" {
		if len(args) > 1 {
			return d.Errf("allow any takes no value, and got %s", args[1])
		}
		m.Allow = append(m.Allow, &AllowRule{Any: true})
		return noBlock(d)
	}
	rules, err := allowRules(d, args, advice)
	m.Allow = append(m.Allow, rules...)
	return err
}

// allowRules turns the arguments of an allow line into rules, one for each value.
func allowRules(d *caddyfile.Dispenser, args []string, advice string) ([]*AllowRule, error) {
	if len(args) == 0 {
		return nil, d.Errf("allow: %s", advice)
	}
	if len(args) < 2 {
		return nil, d.Errf("allow %s: %s; if the value comes from an environment variable, is that set?", args[0], advice)
	}
	var rules []*AllowRule
	for _, arg := range args[1:] {
		if arg == "" {
			return nil, d.Errf("allow %s has an empty value; if it comes from an environment variable, is that set?", args[0])
		}
		rule := new(AllowRule)
		switch args[0] {
		case "email":
			rule.Email = arg
		case "group":
			rule.Group = arg
		case "subject":
			rule.Subject = arg
		case "org":
			rule.Org = arg
		case "hosted_domain":
			rule.HostedDomain = arg
		default:
			return nil, d.Errf("allow %s: %s", args[0], advice)
		}
		rules = append(rules, rule)
	}
	return rules, noBlock(d)
}

// parseConsent parses what concerns the consent page. Syntax:
//
//	consent {
//		remember <duration> | off
//		skip <client id...>
//		title <text>
//		logo <path>
//		color <rrggbb>
//	}
func (m *BrokerMode) parseConsent(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("consent takes a block and no value")
	}
	c := new(Consent)
	m.Consent = c
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.check(d); err != nil {
			return err
		}
		var err error
		switch name := d.Val(); name {
		case "remember":
			err = durationOrOff(d, &c.Remember)
		case "skip":
			err = values(d, &c.Skip)
		case "title":
			err = value(d, &c.Title)
		case "logo":
			err = value(d, &c.Logo)
		case "color":
			if err = value(d, &c.Color); err != nil {
				// An unquoted # begins a comment.
				err = d.Errf("color takes one value; write it without #, as in color 2454d6")
			}
		default:
			err = d.Errf("%s is no setting of consent; there are remember, skip, title, logo and color", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseTokens parses what concerns the tokens. Syntax:
//
//	tokens {
//		access_ttl <duration>
//		refresh_ttl <duration>
//		refresh_idle <duration>
//		grace <duration> | off
//		signing_alg ES256 | EdDSA | RS256
//		rotate_keys <duration>
//		upstream_check <duration> | always
//		claims <claim...>
//	}
func (m *BrokerMode) parseTokens(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("tokens takes a block and no value")
	}
	t := new(Tokens)
	m.Tokens = t
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.check(d); err != nil {
			return err
		}
		var err error
		switch name := d.Val(); name {
		case "access_ttl":
			err = duration(d, &t.AccessTTL)
		case "refresh_ttl":
			err = duration(d, &t.RefreshTTL)
		case "refresh_idle":
			err = duration(d, &t.RefreshIdle)
		case "grace":
			err = durationOrOff(d, &t.Grace)
		case "signing_alg":
			if err = value(d, &t.SigningAlg); err == nil && !hasPlaceholder(t.SigningAlg) {
				switch t.SigningAlg {
				case "ES256", "EdDSA", "RS256":
				default:
					err = d.Errf("signing_alg %s is not available; there are ES256, EdDSA and RS256", t.SigningAlg)
				}
			}
		case "rotate_keys":
			err = duration(d, &t.RotateKeys)
		case "upstream_check":
			err = parseUpstreamCheck(d, &t.UpstreamCheck)
		case "claims":
			err = values(d, &t.Claims)
		default:
			err = d.Errf("%s is no setting of tokens; there are access_ttl, refresh_ttl, refresh_idle, grace, signing_alg, rotate_keys, upstream_check and claims", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseUpstreamCheck parses a time, or always, which is a negative one.
func parseUpstreamCheck(d *caddyfile.Dispenser, target *caddy.Duration) error {
	var text string
	if err := value(d, &text); err != nil {
		return err
	}
	switch text {
	case "always":
		*target = -1
		return nil
	case "off", "never":
		return d.Errf("upstream_check cannot be %s: whoever leaves the identity provider would keep access until refresh_ttl ends; write a longer time, up to 30d, or always to ask at each refresh", text)
	}
	parsed, err := caddy.ParseDuration(text)
	if err != nil || parsed <= 0 {
		return d.Errf("upstream_check: %q is no time; write for example 1h, or always to ask at each refresh", text)
	}
	*target = caddy.Duration(parsed)
	return nil
}

// durationOrOff is duration with off, which is a negative time.
func durationOrOff(d *caddyfile.Dispenser, target *caddy.Duration) error {
	name := d.Val()
	var text string
	if err := value(d, &text); err != nil {
		return err
	}
	if text == "off" {
		*target = -1
		return nil
	}
	parsed, err := caddy.ParseDuration(text)
	if err != nil || parsed < 0 {
		return d.Errf("%s: %q is no time; write for example 30s or 90d, or off", name, text)
	}
	if parsed == 0 {
		parsed = -1
	}
	*target = caddy.Duration(parsed)
	return nil
}
