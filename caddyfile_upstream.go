package mcpauth

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// parseUpstream parses an identity provider. Syntax:
//
//	upstream <oidc|google|github|entra|okta|auth0|keycloak|cognito|oauth2> [<argument>] {
//		client_id <id>
//		client_secret <secret>
//		client_auth basic | post | none
//		scopes <scope...>
//		param <name> <value>
//		… and the settings of the provider
//	}
func parseUpstream(d *caddyfile.Dispenser) (any, string, error) {
	const there = "there are oidc, google, github, entra, okta, auth0, keycloak, cognito and oauth2"
	if !d.NextArg() {
		return nil, "", d.Errf("upstream: write which identity provider; %s", there)
	}
	name := d.Val()
	if _, err := caddy.GetModule("mcp_auth.upstreams." + name); err != nil || name == "accounts" {
		return nil, "", d.Errf("upstream %s is unknown; %s", name, there)
	}
	module, err := caddyfile.UnmarshalModule(d, "mcp_auth.upstreams."+name)
	if err != nil {
		return nil, "", err
	}
	mode := &BrokerMode{UpstreamRaw: caddyconfig.JSONModuleObject(module, "type", name, nil)}
	return mode, "broker", nil
}

// upstreamSettings parses the block of an upstream: what all have, and the
// settings given. argument, if it is not nil, is what stands behind the name;
// meaning says what that is.
func (c *UpstreamClient) upstreamSettings(d *caddyfile.Dispenser, argument *string, meaning string, settings map[string]*string) error {
	d.Next() // the provider's name
	name := d.Val()
	args := d.RemainingArgs()
	switch {
	case argument == nil && len(args) > 0:
		return d.Errf("upstream %s takes a block and no further value, and got %s", name, args[0])
	case argument != nil && (len(args) != 1 || args[0] == ""):
		return d.Errf("upstream %s takes one value, %s, and got %d; if it comes from an environment variable, is that set?", name, meaning, len(args))
	case argument != nil:
		*argument = args[0]
	}
	seen := once{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		setting := d.Val()
		if setting != "param" {
			if err := seen.check(d); err != nil {
				return err
			}
		}
		var err error
		switch setting {
		case "client_id":
			err = value(d, &c.ClientID)
		case "client_secret":
			err = value(d, &c.ClientSecret)
		case "client_auth":
			err = value(d, &c.ClientAuth)
		case "scopes":
			err = values(d, &c.Scopes)
		case "param":
			args := d.RemainingArgs()
			if len(args) != 2 {
				return d.Errf("param takes a name and a value, for example param prompt select_account")
			}
			if c.Params == nil {
				c.Params = make(map[string]string)
			}
			c.Params[args[0]] = args[1]
			err = noBlock(d)
		default:
			target, ok := settings[setting]
			if !ok {
				return d.Errf("%s is no setting of upstream %s", setting, name)
			}
			err = value(d, target)
		}
		if err != nil {
			return err
		}
	}
	if c.ClientID == "" {
		return d.Errf("upstream %s: client_id is missing: register this server at the identity provider, with the redirect URI <issuer>/mcp-auth/callback, and write what it gives", name)
	}
	return nil
}

// UnmarshalCaddyfile parses upstream oidc <issuer>; groups_claim is its setting.
func (u *OIDCUpstream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return u.upstreamSettings(d, &u.Issuer, "the issuer", map[string]*string{"groups_claim": &u.GroupsClaim})
}

// UnmarshalCaddyfile parses upstream oauth2 with the URLs and claims as
// settings.
func (u *OAuth2Upstream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return u.upstreamSettings(d, nil, "", map[string]*string{
		"authorization_url": &u.AuthorizationURL, "token_url": &u.TokenURL, "userinfo_url": &u.UserInfoURL,
		"revocation_url": &u.RevocationURL, "issuer": &u.Issuer, "subject_claim": &u.SubjectClaim, "email_claim": &u.EmailClaim,
		"email_verified_claim": &u.EmailVerifiedClaim, "name_claim": &u.NameClaim, "groups_claim": &u.GroupsClaim,
	})
}

// UnmarshalCaddyfile parses upstream google; hosted_domain is its setting.
func (u *GoogleUpstream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return u.upstreamSettings(d, nil, "", map[string]*string{"hosted_domain": &u.HostedDomain})
}

// UnmarshalCaddyfile parses upstream github; base_url is its setting.
func (u *GitHubUpstream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return u.upstreamSettings(d, nil, "", map[string]*string{"base_url": &u.BaseURL})
}

// UnmarshalCaddyfile parses upstream entra <tenant>; groups_claim and base_url
// are its settings.
func (u *EntraUpstream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return u.upstreamSettings(d, &u.Tenant, "the tenant", map[string]*string{"groups_claim": &u.GroupsClaim, "base_url": &u.BaseURL})
}

// UnmarshalCaddyfile parses upstream okta <domain>; authorization_server and
// groups_claim are its settings.
func (u *OktaUpstream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return u.upstreamSettings(d, &u.Domain, "the domain", map[string]*string{"authorization_server": &u.AuthorizationServer, "groups_claim": &u.GroupsClaim})
}

// UnmarshalCaddyfile parses upstream auth0 <domain>; audience and groups_claim
// are its settings.
func (u *Auth0Upstream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return u.upstreamSettings(d, &u.Domain, "the domain", map[string]*string{"audience": &u.Audience, "groups_claim": &u.GroupsClaim})
}

// UnmarshalCaddyfile parses upstream keycloak <realm URL>; groups_claim is its
// setting.
func (u *KeycloakUpstream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return u.upstreamSettings(d, &u.RealmURL, "the URL of the realm", map[string]*string{"groups_claim": &u.GroupsClaim})
}

// UnmarshalCaddyfile parses upstream cognito <pool URL>.
func (u *CognitoUpstream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return u.upstreamSettings(d, &u.PoolURL, "the URL of the user pool", nil)
}

// parseAccounts parses local accounts. Syntax:
//
//	accounts {
//		<name> <hash> {
//			email <address>
//			groups <group...>
//			disabled
//		}
//	}
func parseAccounts(d *caddyfile.Dispenser) (any, string, error) {
	if d.NextArg() {
		return nil, "", d.Errf("accounts takes a block and no value")
	}
	upstream := &AccountsUpstream{Accounts: make(map[string]*Account)}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		if upstream.Accounts[name] != nil {
			return nil, "", d.Errf("account %s is there already", name)
		}
		args := d.RemainingArgs()
		if len(args) != 1 || args[0] == "" {
			return nil, "", d.Errf("account %s: write the hash of its password behind the name; caddy hash-password makes one", name)
		}
		account := &Account{Hash: args[0]}
		upstream.Accounts[name] = account
		for nesting := d.Nesting(); d.NextBlock(nesting); {
			var err error
			switch setting := d.Val(); setting {
			case "email":
				err = value(d, &account.Email)
			case "groups":
				err = values(d, &account.Groups)
			case "disabled":
				account.Disabled = true
				err = noValue(d)
			default:
				err = d.Errf("%s is no setting of an account; there are email, groups and disabled", setting)
			}
			if err != nil {
				return nil, "", err
			}
		}
	}
	if len(upstream.Accounts) == 0 {
		return nil, "", d.Errf("accounts: name at least one account")
	}
	return &BrokerMode{UpstreamRaw: caddyconfig.JSONModuleObject(upstream, "type", "accounts", nil)}, "broker", nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*OIDCUpstream)(nil)
	_ caddyfile.Unmarshaler = (*OAuth2Upstream)(nil)
	_ caddyfile.Unmarshaler = (*GoogleUpstream)(nil)
	_ caddyfile.Unmarshaler = (*GitHubUpstream)(nil)
	_ caddyfile.Unmarshaler = (*EntraUpstream)(nil)
	_ caddyfile.Unmarshaler = (*OktaUpstream)(nil)
	_ caddyfile.Unmarshaler = (*Auth0Upstream)(nil)
	_ caddyfile.Unmarshaler = (*KeycloakUpstream)(nil)
	_ caddyfile.Unmarshaler = (*CognitoUpstream)(nil)
)
