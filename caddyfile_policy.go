package mcpauth

import (
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// policySetting parses a setting about MCP calls. It reports whether it knows the
// setting. Syntax:
//
//	tool|prompt|uri|method <pattern> <scope...>
//	allow email|group|subject|org|hosted_domain <value...>
//	allow claim <name> <value...>
//	when <CEL expression>
//	body_limit <size>
//	mcp_headers trusted
//	upgrade allow
func policySetting(d *caddyfile.Dispenser, p *ResourcePolicy, seen once) (bool, error) {
	name := d.Val()
	switch name {
	case "when", "body_limit", "mcp_headers", "upgrade":
		if err := seen.check(d); err != nil {
			return true, err
		}
	}
	switch name {
	case "tool":
		return true, namedScopes(d, &p.Tools, "tool delete_* mcp:admin")
	case "prompt":
		return true, namedScopes(d, &p.Prompts, "prompt review_* mcp:review")
	case "uri":
		return true, namedScopes(d, &p.URIs, "uri file:///private/* mcp:private")
	case "method":
		return true, namedScopes(d, &p.Methods, "method resources/* mcp:read")
	case "allow":
		return true, p.parseAllow(d)
	case "when":
		return true, p.parseWhen(d)
	case "body_limit":
		var text string
		if err := value(d, &text); err != nil {
			return true, err
		}
		size, err := humanize.ParseBytes(text)
		if err != nil || size == 0 || size > 1<<30 {
			return true, d.Errf("body_limit takes a size up to 1GiB, for example body_limit 1MiB, and got %s", text)
		}
		p.BodyLimit = int64(size)
		return true, nil
	case "mcp_headers":
		return true, value(d, &p.MCPHeaders)
	case "upgrade":
		var text string
		if err := value(d, &text); err != nil {
			return true, err
		}
		if text != "allow" {
			return true, d.Errf("upgrade takes allow, and got %s; without the line a change of protocol is refused where there are rules on calls", text)
		}
		p.UpgradeAllow = true
		return true, nil
	}
	return false, nil
}

func namedScopes(d *caddyfile.Dispenser, rules *[]NamedScopes, example string) error {
	setting := d.Val()
	args := d.RemainingArgs()
	if len(args) < 2 || args[0] == "" {
		return d.Errf("%s takes a name, in which * stands for any run of characters, and the scopes that it needs, for example %s", setting, example)
	}
	*rules = append(*rules, NamedScopes{Name: args[0], Scopes: args[1:]})
	return noBlock(d)
}

func (p *ResourcePolicy) parseAllow(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) > 0 && args[0] == "claim" {
		if len(args) < 3 || args[1] == "" {
			return d.Errf("allow claim takes the name of a claim and the values that will do, for example allow claim department research")
		}
		for _, value := range args[2:] {
			if value == "" {
				return d.Errf("allow claim %s has an empty value; if it comes from an environment variable, is that set?", args[1])
			}
			p.Allow = append(p.Allow, &ResourceAllowRule{Claim: args[1], Value: value})
		}
		return noBlock(d)
	}
	if len(args) > 0 && args[0] == "any" {
		return d.Errf("allow: %s", errAllowAny)
	}
	rules, err := allowRules(d, args, "write allow email, group, subject, org or hosted_domain with values, for example allow group engineering, or allow claim with a name and values")
	for _, rule := range rules {
		p.Allow = append(p.Allow, &ResourceAllowRule{AllowRule: *rule})
	}
	return err
}

// parseWhen keeps the quotes inside of an expression that is written as it is. One
// that is quoted as a whole is taken without its quotes, as Caddy's expression
// matcher does.
func (p *ResourcePolicy) parseWhen(d *caddyfile.Dispenser) error {
	if d.CountRemainingArgs() > 1 {
		p.When = Expression(strings.Join(d.RemainingArgsRaw(), " "))
	} else if d.NextArg() {
		p.When = Expression(d.Val())
	}
	if p.When == "" {
		return d.Errf(`when takes a CEL expression, for example when method != "tools/call" || "admins" in groups`)
	}
	if _, err := p.When.compile(); err != nil {
		return d.Errf("%s", err)
	}
	return noBlock(d)
}
