package mcpauth

import "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

// parseAnswer parses the settings of a resource that are about the answers of
// the server behind. Syntax:
//
//	session_binding off
//	stream_grace <duration>
//	lists filter
func parseAnswer(d *caddyfile.Dispenser, resource *Resource, seen once) error {
	if err := seen.check(d); err != nil {
		return err
	}
	switch d.Val() {
	case "session_binding":
		on, err := onOff(d)
		resource.SessionBindingOff = !on
		return err
	case "stream_grace":
		grace, err := durationOrNone(d)
		if err == nil {
			resource.StreamGrace = *grace
		}
		return err
	default: // lists
		var what string
		if err := value(d, &what); err != nil {
			return err
		}
		if what != "filter" {
			return d.Errf("lists %s is unknown; write lists filter to leave out of lists what the token cannot call", what)
		}
		resource.FilterLists = true
		return nil
	}
}
