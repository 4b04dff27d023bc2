package mcpauth

import (
	"cmp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// parseResource parses a protected resource. Syntax:
//
//	resource <path|url> {
//		name <text>
//		documentation <url>
//		scopes <scope...>
//		require <scope...> | none
//		implies <scope> <narrower...>
//		path <path> <scope...>
//		tool|prompt|uri|method <pattern> <scope...>
//		allow email|group|subject|org|hosted_domain <value...>
//		allow claim <name> <value...>
//		when <CEL expression>
//		body_limit <size>
//		mcp_headers trusted
//		upgrade allow
//		describe <scope> <text>
//		origins <origin...>
//		forward identity | jwt [email] [name] [groups]
//		forward upstream_token | access_token | none
//		session_binding off
//		stream_grace <duration>
//		lists filter
//		default
//	}
func parseResource(d *caddyfile.Dispenser) (*Resource, error) {
	start := here(d)
	var target string
	args := d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return nil, d.Errf("resource takes one value, a path such as /mcp or a full URL, and got %d; if it comes from an environment variable, is that set?", len(args))
	}
	target = args[0]
	resource := new(Resource)
	if strings.Contains(target, "://") {
		resource.URL = target
	} else {
		resource.Path = target
	}
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if d.Val() == "default" {
			resource.Default = true
			if err := noValue(d); err != nil {
				return nil, err
			}
			continue
		}
		if ok, err := resourceSetting(d, resource, seen); err != nil {
			return nil, err
		} else if !ok {
			return nil, d.Errf("%s is no setting of resource; there are name, documentation, scopes, require, implies, path, tool, prompt, uri, method, allow, when, body_limit, mcp_headers, upgrade, describe, origins, forward, session_binding, stream_grace, lists and default", d.Val())
		}
	}
	if err := cmp.Or(resource.check(), resource.checkBelowURL()); err != nil {
		return nil, start.errorf("%s", err)
	}
	return resource, nil
}

// resourceSetting parses a setting that resource and mcp_bearer share. It
// reports whether it knows the setting.
func resourceSetting(d *caddyfile.Dispenser, resource *Resource, seen once) (bool, error) {
	name := d.Val()
	switch name {
	case "name", "documentation", "scopes", "require", "origins", "forward":
		if err := seen.check(d); err != nil {
			return true, err
		}
	}
	switch name {
	case "name":
		return true, value(d, &resource.Name)
	case "documentation":
		return true, value(d, &resource.Documentation)
	case "scopes":
		return true, values(d, &resource.Scopes)
	case "require":
		if err := values(d, &resource.Require); err != nil {
			return true, err
		}
		switch {
		case !slices.Contains(resource.Require, "none"):
		case len(resource.Require) > 1:
			return true, d.Errf("require none stands alone; write the scopes that every request needs, or none")
		default:
			resource.Require = []string{}
		}
		return true, nil
	case "implies":
		args := d.RemainingArgs()
		if len(args) < 2 {
			return true, d.Errf("implies takes a scope and the narrower ones that it includes, for example implies mcp:write mcp:read")
		}
		if resource.Implies == nil {
			resource.Implies = make(map[string][]string)
		}
		resource.Implies[args[0]] = append(resource.Implies[args[0]], args[1:]...)
		return true, noBlock(d)
	case "path":
		args := d.RemainingArgs()
		if len(args) < 2 {
			return true, d.Errf("path takes a site path and the scopes that it needs, for example path /mcp/admin* mcp:admin")
		}
		resource.Paths = append(resource.Paths, PathScopes{Path: args[0], Scopes: args[1:]})
		return true, noBlock(d)
	case "describe":
		args := d.RemainingArgs()
		if len(args) != 2 || args[1] == "" {
			return true, d.Errf(`describe takes a scope and a text for people, for example describe mcp:read "Read your notes"`)
		}
		if resource.ScopeDescriptions == nil {
			resource.ScopeDescriptions = make(map[string]string)
		}
		resource.ScopeDescriptions[args[0]] = args[1]
		return true, noBlock(d)
	case "origins":
		return true, values(d, &resource.Origins)
	case "forward":
		return true, parseForward(d, resource)
	case "session_binding", "stream_grace", "lists":
		return true, parseAnswer(d, resource, seen)
	default:
		return policySetting(d, &resource.ResourcePolicy, seen)
	}
}

// parseBearer sets up the handler from Caddyfile tokens. Syntax:
//
//	mcp_bearer {
//		resource <url>
//		authorization_server <issuer...>
//		audience <audience...> | any
//		verify <verifier> {
//			…
//		}
//		insecure_dev
//		… and the settings of resource, except default
//	}
func parseBearer(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	d := h.Dispenser
	d.Next() // the directive's name
	start := here(d)
	if d.NextArg() {
		return nil, d.Errf("mcp_bearer takes no argument and no matcher: it guards the path of its resource; write `resource` inside the block")
	}
	handler := &BearerHandler{Resource: new(Resource)}
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch name := d.Val(); name {
		case "resource":
			if err = seen.check(d); err == nil {
				err = value(d, &handler.Resource.URL)
			}
		case "authorization_server":
			err = values(d, &handler.AuthorizationServers)
		case "audience":
			err = values(d, &handler.Audience)
		case "verify":
			handler.VerifyRaw, err = parseVerify(d, handler.VerifyRaw)
		case "insecure_dev":
			handler.InsecureDev = true
			err = noValue(d)
		default:
			var ok bool
			if ok, err = resourceSetting(d, handler.Resource, seen); err == nil && !ok {
				err = d.Errf("%s is no setting of mcp_bearer; there are resource, authorization_server, audience, verify, name, documentation, scopes, require, implies, path, tool, prompt, uri, method, allow, when, body_limit, mcp_headers, upgrade, describe, origins, forward, session_binding, stream_grace, lists and insecure_dev", name)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if handler.Resource.Forward.kind() == "upstream_token" {
		return nil, start.errorf("mcp_bearer: %s", errNoUpstreamToken)
	}
	if err := cmp.Or(handler.check(), handler.Resource.checkBelowURL()); err != nil {
		return nil, start.errorf("%s", err)
	}
	return h.NewRoute(nil, handler), nil
}
