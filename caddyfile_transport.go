package mcpauth

import (
	"fmt"
	"math"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile sets up the transport from Caddyfile tokens. Syntax:
//
//	transport mcp_oauth {
//		resource <url>
//		authorization_server <issuer>
//
//		# one of:
//		client_credentials {
//			client_id <id>
//			client_secret <secret>
//			client_auth basic | post
//			dpop
//		}
//		private_key_jwt {
//			client_id <id>
//			key <PEM or JWK>
//			algorithm <alg>
//			key_id <kid>
//			dpop
//		}
//		refresh_token <token> {
//			client_id <id>
//			client_secret <secret>
//			client_auth basic | post
//		}
//		login [<file>]
//		user [<issuer of the site>] {
//			client_id <id>
//			client_secret <secret>
//			client_auth basic | post
//		}
//		upstream_token [<issuer of the site>]
//
//		scopes <scope...>
//		step_up on | off
//		allow_origins <origin...>
//		replay_limit <size> | off
//
//		# and all settings of transport http
//	}
func (t *Transport) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the transport's name
	name, start := d.Token(), here(d)
	if d.NextArg() {
		return d.Errf("transport mcp_oauth takes no argument, but got %s; its settings stand in a block", d.Val())
	}
	seen := once{}
	var others []caddyfile.Token
	for d.NextBlock(0) {
		ours, err := t.setting(d, seen)
		if err != nil {
			return err
		}
		if !ours {
			others = append(others, d.NextSegment()...)
		}
	}
	if err := t.httpSettings(name, others); err != nil {
		return err
	}
	r := t.RemoteServer
	if err := r.checkCredentials(); err != nil {
		return start.errorf("transport mcp_oauth: %s", err)
	}
	return nil
}

// httpSettings lets Caddy's transport read what it knows.
func (t *Transport) httpSettings(name caddyfile.Token, settings []caddyfile.Token) error {
	if len(settings) == 0 {
		return nil
	}
	open, end := name, settings[len(settings)-1]
	open.Text, end.Text = "{", "}"
	end.Line++
	block := append([]caddyfile.Token{name, open}, settings...)
	err := t.HTTPTransport.UnmarshalCaddyfile(caddyfile.NewDispenser(append(block, end)))
	if err != nil && strings.Contains(err.Error(), "unrecognized subdirective") {
		return fmt.Errorf("transport mcp_oauth has the settings of transport http, and besides resource, authorization_server, %s, scopes, step_up, allow_origins and replay_limit: %w", strings.ReplaceAll(credentialKinds(), " and ", ", "), err)
	}
	return err
}

// setting reads one of our own settings; ours is false if it is none.
func (t *Transport) setting(d *caddyfile.Dispenser, seen once) (ours bool, err error) {
	r := &t.RemoteServer
	name := d.Val()
	switch name {
	case "resource", "authorization_server", "scopes", "step_up", "allow_origins", "replay_limit",
		kindClientCredentials, kindPrivateKeyJWT, kindRefreshToken, kindLogin, kindUser, kindUpstreamToken:
		if err := seen.check(d); err != nil {
			return true, err
		}
	default:
		return false, nil
	}
	switch name {
	case "resource":
		return true, value(d, &r.Resource)
	case "authorization_server":
		return true, value(d, &r.AuthorizationServer)
	case "scopes":
		return true, values(d, &r.Scopes)
	case "step_up":
		on, err := onOff(d)
		r.StepUpOff = !on
		return true, err
	case "allow_origins":
		return true, values(d, &r.AllowOrigins)
	case "replay_limit":
		return true, replayLimit(d, &r.ReplayLimit)
	}
	if r.Credentials != nil {
		return true, d.Errf("%s: %s is there already; tokens come from one place", name, r.Credentials.Kind)
	}
	r.Credentials, err = parseCredentials(d)
	return true, err
}

// replayLimit reads a size, or off.
func replayLimit(d *caddyfile.Dispenser, limit *int64) error {
	var text string
	if err := value(d, &text); err != nil {
		return err
	}
	if text == "off" {
		*limit = -1
		return nil
	}
	size, err := humanize.ParseBytes(text)
	if err != nil || size == 0 || size > math.MaxInt32 {
		return d.Errf("replay_limit %s: write a size such as 1MiB, or off", text)
	}
	*limit = int64(size)
	return nil
}

// parseCredentials reads how tokens are to be had.
func parseCredentials(d *caddyfile.Dispenser) (*RemoteCredentials, error) {
	c := &RemoteCredentials{Kind: d.Val()}
	argument := map[string]*string{kindRefreshToken: &c.RefreshToken, kindLogin: &c.File, kindUser: &c.Site, kindUpstreamToken: &c.Site}[c.Kind]
	args := d.RemainingArgs()
	switch {
	case len(args) == 1 && argument != nil && args[0] != "":
		*argument = args[0]
	case len(args) > 0 && argument != nil:
		return nil, d.Errf("%s takes one value and got %d; if it comes from an environment variable, is that set?", c.Kind, len(args))
	case len(args) > 0:
		return nil, d.Errf("%s takes no value, but got %s; its settings stand in a block", c.Kind, args[0])
	}
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.check(d); err != nil {
			return nil, err
		}
		targets := map[string]*string{
			"client_id": &c.ClientID, "client_secret": &c.ClientSecret, "client_auth": &c.ClientAuth,
			"key": &c.Key, "algorithm": &c.Algorithm, "key_id": &c.KeyID,
		}
		var err error
		switch target := targets[d.Val()]; {
		case d.Val() == "dpop":
			c.DPoP = true
			err = noValue(d)
		case target != nil:
			err = value(d, target)
		default:
			err = d.Errf("%s is no setting of %s", d.Val(), c.Kind)
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

var _ caddyfile.Unmarshaler = (*Transport)(nil)
