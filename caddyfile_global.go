package mcpauth

import (
	"encoding/json"
	"strconv"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// parseGlobal sets up the app from Caddyfile tokens. Syntax:
//
//	mcp_auth {
//		store bbolt [<path>] | memory | caddy_storage
//		store redis <address...> {
//			username <name>
//			password <password>
//			tls
//			prefix <prefix>
//			database <number>
//		}
//		encryption_key <key...>
//		token_cache <size> | off
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
		case "token_cache":
			if app.TokenCache != nil {
				return nil, d.Errf("token_cache is there already; write it once")
			}
			var err error
			if app.TokenCache, err = parseTokenCache(d); err != nil {
				return nil, err
			}
		default:
			return nil, d.Errf("%s is no setting of the global option mcp_auth; there are store, encryption_key and token_cache", d.Val())
		}
	}
	return httpcaddyfile.App{Name: "mcp_auth", Value: caddyconfig.JSON(app, nil)}, nil
}

func parseTokenCache(d *caddyfile.Dispenser) (*TokenCache, error) {
	var text string
	if err := value(d, &text); err != nil {
		return nil, err
	}
	if text == "off" {
		return &TokenCache{Off: true}, nil
	}
	size, err := humanize.ParseBytes(text)
	if err != nil || size > 1<<40 {
		return nil, d.Errf("token_cache: %q is no size; write for example 256MiB, or off", text)
	}
	cache := &TokenCache{Size: int64(size)} //nolint:gosec // bounded above
	if size == 0 || cache.check() != nil {
		return nil, d.Errf("token_cache: the size must be at least 1MiB; write off for none")
	}
	return cache, nil
}

func parseStore(d *caddyfile.Dispenser, app *App) error {
	const there = "there are bbolt, memory, redis and caddy_storage"
	if !d.NextArg() {
		return d.Errf("store: write which one; %s", there)
	}
	name := d.Val()
	var module any
	var err error
	switch name {
	case "memory":
		module, err = new(MemoryStore), noValue(d)
	case "caddy_storage":
		module, err = new(CaddyStorageStore), noValue(d)
	case "bbolt":
		args := d.RemainingArgs()
		if len(args) > 1 {
			return d.Errf("store bbolt takes one path, and got %d", len(args))
		}
		bbolt := new(BboltStore)
		if len(args) == 1 {
			bbolt.Path = args[0]
		}
		module, err = bbolt, noBlock(d)
	case "redis":
		module, err = parseRedis(d)
	default:
		return d.Errf("store %s is unknown; %s", name, there)
	}
	if err != nil {
		return err
	}
	app.StoreRaw = caddyconfig.JSONModuleObject(module, "module", name, nil)
	return nil
}

func parseRedis(d *caddyfile.Dispenser) (*RedisStore, error) {
	redis := new(RedisStore)
	redis.Addresses = d.RemainingArgs()
	if len(redis.Addresses) == 0 {
		return nil, d.Errf("store redis: write the address, for example localhost:6379")
	}
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.check(d); err != nil {
			return nil, err
		}
		var err error
		switch name := d.Val(); name {
		case "username":
			err = value(d, &redis.Username)
		case "password":
			err = value(d, &redis.Password)
		case "tls":
			redis.TLS = true
			err = noValue(d)
		case "prefix":
			err = value(d, &redis.Prefix)
		case "database":
			var text string
			if err = value(d, &text); err == nil {
				if redis.Database, err = strconv.Atoi(text); err != nil || redis.Database < 0 {
					err = d.Errf("database: %q is no number", text)
				}
			}
		default:
			err = d.Errf("%s is no setting of store redis; there are username, password, tls, prefix and database", name)
		}
		if err != nil {
			return nil, err
		}
	}
	return redis, nil
}
