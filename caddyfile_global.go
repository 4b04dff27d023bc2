package mcpauth

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// parseGlobal sets up the app from Caddyfile tokens. Syntax:
//
//	mcp_auth {
//		store memory
//		encryption_key <key...>
//	}
//
// Several blocks add up.
func parseGlobal(d *caddyfile.Dispenser, previous any) (any, error) {
	app := new(App)
	if previous, ok := previous.(httpcaddyfile.App); ok {
		if err := json.Unmarshal(previous.Value, app); err != nil {
			return nil, err
		}
	}
	d.Next() // the option's name
	if d.NextArg() {
		return nil, d.Errf("the global option mcp_auth takes a block; the directive of a site takes the issuer")
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "store":
			if app.StoreRaw != nil {
				return nil, d.Errf("store is there already; write it once")
			}
			if err := parseStore(d, app); err != nil {
				return nil, err
			}
		case "encryption_key":
			if err := values(d, &app.EncryptionKeys); err != nil {
				return nil, err
			}
		default:
			return nil, d.Errf("%s is no setting of the global option mcp_auth; there are store and encryption_key", d.Val())
		}
	}
	return httpcaddyfile.App{Name: "mcp_auth", Value: caddyconfig.JSON(app, nil)}, nil
}

func parseStore(d *caddyfile.Dispenser, app *App) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("store: write which one; there is memory")
	}
	switch args[0] {
	case "memory":
		if len(args) > 1 {
			return d.Errf("store memory takes no value, and got %s", args[1])
		}
		app.StoreRaw = caddyconfig.JSONModuleObject(MemoryStore{}, "module", "memory", nil)
		return noBlock(d)
	case "bbolt", "redis", "caddy_storage":
		return d.Errf("store %s is not available in this version: nothing but the encryption key is kept, and without a store line that is in Caddy's storage", args[0])
	default:
		return d.Errf("store %s is unknown; there is memory", args[0])
	}
}
