package mcpauth

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// parseProxy parses the proxy mode. Syntax:
//
//	proxy {
//		issuer <url>
//		authorization_url <url>
//		token_url <url>
//		revocation_url <url>
//		registration_url <url>
//		client_auth basic | post | none
//		callback direct | relay
//		audience <audience...> | any
//		scopes <scope...>
//		drop_scopes <scope...>
//		omit_resource
//		verify <verifier> [<argument>] {
//			…
//		}
//	}
func parseProxy(d *caddyfile.Dispenser) (any, string, error) {
	start := here(d)
	if d.NextArg() {
		return nil, "", d.Errf("proxy takes a block and no value; write issuer %s inside it", d.Val())
	}
	mode := new(ProxyMode)
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		if d.Val() != "verify" { // several make a chain
			if err := seen.check(d); err != nil {
				return nil, "", err
			}
		}
		var err error
		switch name {
		case "issuer":
			err = value(d, &mode.Issuer)
		case "authorization_url":
			err = value(d, &mode.AuthorizationURL)
		case "token_url":
			err = value(d, &mode.TokenURL)
		case "revocation_url":
			err = value(d, &mode.RevocationURL)
		case "registration_url":
			err = value(d, &mode.RegistrationURL)
		case "client_auth":
			err = value(d, &mode.ClientAuth)
		case "callback":
			err = value(d, &mode.Callback)
		case "audience":
			err = values(d, &mode.Audience)
		case "scopes":
			err = values(d, &mode.Scopes)
		case "drop_scopes":
			err = values(d, &mode.DropScopes)
		case "omit_resource":
			mode.OmitResource = true
			err = noValue(d)
		case "verify":
			mode.VerifyRaw, err = parseVerify(d, mode.VerifyRaw)
		case "client_id", "client_secret":
			err = d.Errf("%s: in proxy mode every MCP client is a client of its own at the identity provider; with one client for all, a user's consent to one would hand the others a token (the confused deputy problem). Write `client` blocks for clients registered there, or let clients register; for an identity provider that can do neither, use upstream in place of proxy", name)
		default:
			err = d.Errf("%s is no setting of proxy; there are issuer, authorization_url, token_url, revocation_url, registration_url, client_auth, callback, audience, scopes, drop_scopes, omit_resource and verify", name)
		}
		if err != nil {
			return nil, "", err
		}
	}
	if err := mode.check(); err != nil {
		return nil, "", start.errorf("%s", err)
	}
	return mode, "proxy", nil
}

// parseAuthorizationServer parses the resource-server mode. Syntax:
//
//	authorization_server <issuer> {
//		audience <audience...> | any
//		verify <verifier> [<argument>] {
//			…
//		}
//	}
func parseAuthorizationServer(d *caddyfile.Dispenser) (any, string, error) {
	args := d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return nil, "", d.Errf("authorization_server takes one value, the issuer, and got %d; if it comes from an environment variable, is that set?", len(args))
	}
	mode := &ResourceServerMode{AuthorizationServer: args[0]}
	start := here(d)
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if d.Val() != "verify" { // several make a chain
			if err := seen.check(d); err != nil {
				return nil, "", err
			}
		}
		var err error
		switch name := d.Val(); name {
		case "audience":
			err = values(d, &mode.Audience)
		case "verify":
			mode.VerifyRaw, err = parseVerify(d, mode.VerifyRaw)
		default:
			err = d.Errf("%s is no setting of authorization_server; there are audience and verify", name)
		}
		if err != nil {
			return nil, "", err
		}
	}
	if err := mode.check(); err != nil {
		return nil, "", start.errorf("%s", err)
	}
	return mode, "resource_server", nil
}

// parseClient parses a client that the operator registers. Syntax:
//
//	client <id> {
//		name <text>
//		secret <secret>
//		redirect_uris <uri...>
//		scopes <scope...>
//		introspect <resource url>
//	}
func parseClient(d *caddyfile.Dispenser) (*Client, error) {
	start := here(d)
	client := new(Client)
	args := d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return nil, d.Errf("client takes one value, its client_id, and got %d; if it comes from an environment variable, is that set?", len(args))
	}
	client.ID = args[0]
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.check(d); err != nil {
			return nil, err
		}
		var err error
		switch name := d.Val(); name {
		case "name":
			err = value(d, &client.Name)
		case "secret":
			err = value(d, &client.Secret)
		case "redirect_uris":
			err = values(d, &client.RedirectURIs)
		case "scopes":
			err = values(d, &client.Scopes)
		case "introspect":
			err = value(d, &client.Introspect)
		default:
			err = d.Errf("%s is no setting of client; there are name, secret, redirect_uris, scopes and introspect", name)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := client.check(); err != nil {
		return nil, start.errorf("%s", err)
	}
	return client, nil
}

// parseRegistration parses who may register. Syntax:
//
//	registration {
//		dynamic on | off
//		metadata_documents on | off
//		document_hosts <host...>
//		private_document_origins <origin...>
//		private_schemes on | off
//		client_sets <name...>
//		redirect_uris <pattern...>
//		storage sealed
//		secret_expiry <duration>
//		initial_access_token <token>
//	}
func parseRegistration(d *caddyfile.Dispenser) (*Registration, error) {
	start := here(d)
	if d.NextArg() {
		return nil, d.Errf("registration takes a block and no value")
	}
	registration := new(Registration)
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.check(d); err != nil {
			return nil, err
		}
		var err error
		switch name := d.Val(); name {
		case "dynamic":
			var on bool
			on, err = onOff(d)
			registration.DynamicOff = !on
		case "private_schemes":
			var on bool
			on, err = onOff(d)
			registration.PrivateSchemesOff = !on
		case "client_sets":
			err = values(d, &registration.ClientSets)
		case "redirect_uris":
			err = values(d, &registration.RedirectURIs)
		case "initial_access_token":
			err = value(d, &registration.InitialAccessToken)
		case "metadata_documents":
			var on bool
			on, err = onOff(d)
			registration.MetadataDocumentsOff = !on
		case "document_hosts":
			err = values(d, &registration.DocumentHosts)
		case "private_document_origins":
			err = values(d, &registration.PrivateDocumentOrigins)
		case "secret_expiry":
			err = duration(d, &registration.SecretExpiry)
		case "storage":
			var kind string
			if err = value(d, &kind); err == nil && kind != "sealed" {
				err = d.Errf("registration: storage %s is not available in this version; registrations are sealed into the client_id, and nothing is stored (storage sealed)", kind)
			}
		default:
			err = d.Errf("%s is no setting of registration; there are dynamic, metadata_documents, document_hosts, private_document_origins, private_schemes, client_sets, redirect_uris, storage, secret_expiry and initial_access_token", name)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := registration.check(); err != nil {
		return nil, start.errorf("%s", err)
	}
	return registration, nil
}

// duration reads a setting's only argument, a time such as 30s or 7d. It is not 0,
// which in JSON means the default.
func duration(d *caddyfile.Dispenser, target *caddy.Duration) error {
	name := d.Val()
	parsed, err := durationOrNone(d)
	if err != nil {
		return err
	}
	if *parsed == 0 {
		return d.Errf("%s cannot be 0; write for example 30s or 15m, or leave it out for the default", name)
	}
	*target = *parsed
	return nil
}

// durationOrNone is duration for a setting of which 0 means none.
func durationOrNone(d *caddyfile.Dispenser) (*caddy.Duration, error) {
	name := d.Val()
	var text string
	if err := value(d, &text); err != nil {
		return nil, err
	}
	parsed, err := caddy.ParseDuration(text)
	if err != nil || parsed < 0 {
		return nil, d.Errf("%s: %q is no time; write for example 30s or 15m", name, text)
	}
	target := caddy.Duration(parsed)
	return &target, nil
}
