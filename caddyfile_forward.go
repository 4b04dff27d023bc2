package mcpauth

import "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

// parseForward parses what the server behind a resource learns. Syntax:
//
//	forward identity | jwt [email] [name] [groups] {
//		audience <audience>
//		ttl <duration>
//		header X-MCP-Identity | Authorization
//	}
//	forward upstream_token | access_token | none
//
// The block belongs to jwt.
func parseForward(d *caddyfile.Dispenser, resource *Resource) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("forward takes a value; there are %s", forwardKinds)
	}
	start := here(d)
	forward := &Forward{Kind: args[0], Fields: args[1:]}
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		if err := seen.check(d); err != nil {
			return err
		}
		var err error
		switch name {
		case "audience":
			err = value(d, &forward.Audience)
		case "ttl":
			err = duration(d, &forward.TTL)
		case "header":
			err = value(d, &forward.Header)
		default:
			err = d.Errf("%s is no setting of forward; forward jwt has audience, ttl and header", name)
		}
		if err != nil {
			return err
		}
	}
	if err := forward.check(); err != nil {
		return start.errorf("%s", err)
	}
	resource.Forward = forward
	return nil
}
