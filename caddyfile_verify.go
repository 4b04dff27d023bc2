package mcpauth

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-mcp/mcpauth/bearer"
)

// parseVerify parses a verifier, and puts it behind those that are there
// already. Syntax:
//
//	verify <jwt|introspection|userinfo|static|…> [<argument>] {
//		…
//	}
func parseVerify(d *caddyfile.Dispenser, previous json.RawMessage) (json.RawMessage, error) {
	const there = "there are jwt, introspection, userinfo and static"
	if !d.NextArg() {
		return nil, d.Errf("verify: write which verifier; %s", there)
	}
	name := d.Val()
	if name == "chain" {
		return nil, d.Errf("verify chain: write several verify, one after the other")
	}
	if _, err := caddy.GetModule("mcp_auth.verifiers." + name); err != nil {
		return nil, d.Errf("verify %s is unknown; %s", name, there)
	}
	module, err := caddyfile.UnmarshalModule(d, "mcp_auth.verifiers."+name)
	if err != nil {
		return nil, err
	}
	verifier := caddyconfig.JSONModuleObject(module, "type", name, nil)
	if previous == nil {
		return verifier, nil
	}
	var chain struct {
		Type      string            `json:"type"`
		Verifiers []json.RawMessage `json:"verifiers"`
	}
	if err := json.Unmarshal(previous, &chain); err != nil {
		return nil, err
	}
	if chain.Type != "chain" {
		chain.Verifiers = []json.RawMessage{previous}
	}
	return caddyconfig.JSONModuleObject(&ChainVerifier{VerifiersRaw: append(chain.Verifiers, verifier)}, "type", "chain", nil), nil
}

// UnmarshalCaddyfile sets up the verifier from Caddyfile tokens. Syntax:
//
//	verify jwt {
//		issuer <url>
//		jwks_uri <url>
//		algorithms <algorithm...>
//		require_typ <typ>
//		skew <duration>
//		require_expiry on | off
//	}
func (v *JWTVerifier) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the verifier's name
	if d.NextArg() {
		return d.Errf("verify jwt takes a block and no further value")
	}
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.check(d); err != nil {
			return err
		}
		var err error
		switch name := d.Val(); name {
		case "issuer":
			err = value(d, &v.Issuer)
		case "jwks_uri":
			err = value(d, &v.JWKSURI)
		case "algorithms":
			err = values(d, &v.Algorithms)
		case "require_typ":
			err = value(d, &v.RequireType)
		case "skew":
			v.Skew, err = durationOrNone(d)
		case "require_expiry":
			err = requireExpiry(d, &v.ExpiryPolicy)
		default:
			err = d.Errf("%s is no setting of verify jwt; there are issuer, jwks_uri, algorithms, require_typ, skew and require_expiry", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// UnmarshalCaddyfile sets up the verifier from Caddyfile tokens. Syntax:
//
//	verify introspection {
//		url <url>
//		client_id <id>
//		client_secret <secret>
//		client_auth basic | post
//		issuer <url>
//		user_claim <member>
//		cache <duration>
//		require_expiry on | off
//	}
func (v *IntrospectionVerifier) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the verifier's name
	if d.NextArg() {
		return d.Errf("verify introspection takes a block and no further value")
	}
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.check(d); err != nil {
			return err
		}
		var err error
		switch name := d.Val(); name {
		case "url":
			err = value(d, &v.URL)
		case "client_id":
			err = value(d, &v.ClientID)
		case "client_secret":
			err = value(d, &v.ClientSecret)
		case "client_auth":
			err = value(d, &v.ClientAuth)
		case "issuer":
			err = value(d, &v.Issuer)
		case "user_claim":
			err = value(d, &v.UserClaim)
		case "cache":
			start := here(d)
			if v.Cache, err = durationOrNone(d); err == nil {
				if err = v.check(); err != nil {
					err = start.errorf("%s", err)
				}
			}
		case "require_expiry":
			err = requireExpiry(d, &v.ExpiryPolicy)
		default:
			err = d.Errf("%s is no setting of verify introspection; there are url, client_id, client_secret, client_auth, issuer, user_claim, cache and require_expiry", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// UnmarshalCaddyfile sets up the verifier from Caddyfile tokens. Syntax:
//
//	verify userinfo [github|google] {
//		url <url>
//		client_id <id...>
//		client_secret <secret>
//		client_claim <member>
//		any_client
//		user_claim <member>
//		scopes <scope...>
//		scope_claim <member>
//		prefixes <prefix...>
//		issuer <url>
//		cache <duration>
//	}
func (v *UserinfoVerifier) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the verifier's name
	args := d.RemainingArgs()
	if len(args) > 1 || len(args) == 1 && args[0] != "github" && args[0] != "google" {
		return d.Errf("verify userinfo takes github, google, or nothing and a url in its block")
	}
	if len(args) == 1 {
		v.Provider = args[0]
	}
	start := here(d)
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.check(d); err != nil {
			return err
		}
		var err error
		switch name := d.Val(); name {
		case "url":
			err = value(d, &v.URL)
		case "client_id":
			err = values(d, &v.ClientIDs)
		case "client_secret":
			err = value(d, &v.ClientSecret)
		case "client_claim":
			err = value(d, &v.ClientClaim)
		case "any_client":
			v.AnyClient = true
			err = noValue(d)
		case "user_claim":
			err = value(d, &v.UserClaim)
		case "scopes":
			err = values(d, &v.Scopes)
		case "scope_claim":
			err = value(d, &v.ScopeClaim)
		case "prefixes":
			err = values(d, &v.Prefixes)
		case "issuer":
			err = value(d, &v.Issuer)
		case "cache":
			v.Cache, err = durationOrNone(d)
		default:
			err = d.Errf("%s is no setting of verify userinfo; there are url, client_id, client_secret, client_claim, any_client, user_claim, scopes, scope_claim, prefixes, issuer and cache", name)
		}
		if err != nil {
			return err
		}
	}
	if err := v.check(); err != nil {
		return start.errorf("verify userinfo: %s", err)
	}
	return nil
}

// UnmarshalCaddyfile sets up the verifier from Caddyfile tokens. Syntax:
//
//	verify static {
//		key <id> {
//			hash <hash>
//			key <key>
//			user <user>
//			client <client id>
//			scopes <scope...>
//			expires <day|time>
//			resources <url...>
//			email <address>
//			name <text>
//			groups <group...>
//		}
//		file <path>
//		hmac_key <secret>
//	}
func (v *StaticVerifier) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the verifier's name
	if d.NextArg() {
		return d.Errf("verify static takes a block and no further value")
	}
	start := here(d)
	seen := once{}
	var places []position
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch name := d.Val(); name {
		case "key":
			places = append(places, here(d))
			var key *StaticKey
			key, err = parseStaticKey(d)
			v.Keys = append(v.Keys, key)
		case "file", "hmac_key":
			if err = seen.check(d); err != nil {
				break
			}
			target := &v.File
			if name == "hmac_key" {
				target = &v.HMACKey
			}
			err = value(d, target)
		default:
			err = d.Errf("%s is no setting of verify static; there are key, file and hmac_key", name)
		}
		if err != nil {
			return err
		}
	}
	if len(v.Keys) == 0 && v.File == "" {
		return start.errorf("verify static: name keys, or a file with them; caddy mcp-auth key makes one")
	}
	if i, err := v.checkWritten(); err != nil {
		if i >= 0 {
			start = places[i]
		}
		return start.errorf("verify static: %s", err)
	}
	return nil
}

func parseStaticKey(d *caddyfile.Dispenser) (*StaticKey, error) {
	start := here(d)
	args := d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return nil, d.Errf("key takes one value, its id, and got %d", len(args))
	}
	key := &StaticKey{ID: args[0]}
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.check(d); err != nil {
			return nil, err
		}
		var err error
		switch name := d.Val(); name {
		case "hash":
			err = value(d, &key.Hash)
		case "key":
			err = value(d, &key.Key)
		case "user":
			err = value(d, &key.User)
		case "client":
			err = value(d, &key.Client)
		case "scopes":
			err = values(d, &key.Scopes)
		case "expires":
			if err = value(d, &key.Expires); err == nil && !hasPlaceholder(key.Expires) {
				if _, parseErr := bearer.ParseKeyExpiry(key.Expires); parseErr != nil {
					err = d.Errf("%s", parseErr)
				}
			}
		case "resources":
			err = values(d, &key.Resources)
		case "email":
			err = value(d, &key.Email)
		case "name":
			err = value(d, &key.Name)
		case "groups":
			err = values(d, &key.Groups)
		default:
			err = d.Errf("%s is no setting of key; there are hash, key, user, client, scopes, expires, resources, email, name and groups", name)
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case (key.Hash == "") == (key.Key == ""):
		return nil, start.errorf("key %s: write its hash, or the key itself as key {env.…}; caddy mcp-auth key makes one with its hash", key.ID)
	case key.User == "":
		return nil, start.errorf("key %s: write the user whom it acts for", key.ID)
	}
	return key, nil
}

func requireExpiry(d *caddyfile.Dispenser, policy *ExpiryPolicy) error {
	on, err := onOff(d)
	policy.RequireExpiryOff = !on
	return err
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*JWTVerifier)(nil)
	_ caddyfile.Unmarshaler = (*IntrospectionVerifier)(nil)
	_ caddyfile.Unmarshaler = (*UserinfoVerifier)(nil)
	_ caddyfile.Unmarshaler = (*StaticVerifier)(nil)
)
