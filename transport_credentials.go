package mcpauth

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// RemoteCredentials are how this Caddy gets tokens for a remote MCP server.
type RemoteCredentials struct {
	// Kind is one of:
	//
	// - `client_credentials`: a client of its own, with client_id and client_secret
	// - `private_key_jwt`: the same with a key in place of the secret
	// - `refresh_token`: the grant that a user gave some other way
	// - `login`: the grant that `caddy mcp-auth login` stored
	// - `user`: each user's own grant. The user is known by the mcp_auth site in
	//   front, and connects the account on a page of that site
	// - `upstream_token`: the user's own token at the identity provider of the
	//   mcp_auth site in front, if it was asked for this very resource
	Kind string `json:"kind"`

	// ClientID is this Caddy's client at the authorization server.
	ClientID string `json:"client_id,omitempty"`

	// ClientSecret is its secret. Use a placeholder such as
	// {env.REMOTE_CLIENT_SECRET} or {file./run/secrets/remote_client}.
	ClientSecret string `json:"client_secret,omitempty"`

	// ClientAuth is how the secret is sent: basic or post. Default: as the
	// authorization server's metadata say.
	ClientAuth string `json:"client_auth,omitempty"`

	// Key is the private key of `private_key_jwt`, PEM or JWK. Use a placeholder
	// such as {file./run/secrets/remote_client.pem}.
	Key string `json:"key,omitempty"`

	// Algorithm signs with the key. Default: the usual one for the key, ES256 or
	// RS256.
	Algorithm string `json:"algorithm,omitempty"`

	// KeyID is the kid of the key. Default: that of the JWK, else none.
	KeyID string `json:"key_id,omitempty"`

	// RefreshToken is the one to begin with; use a placeholder. When the
	// authorization server replaces it, the new one is kept in the store of
	// mcp_auth, and used until another one is configured here.
	RefreshToken string `json:"refresh_token,omitempty"`

	// File is where `login` finds the credential. Default: where `caddy mcp-auth
	// login` puts it if it runs as the same user.
	File string `json:"file,omitempty"`

	// Site is the issuer of the mcp_auth site that knows the users, for `user` and
	// `upstream_token`. Default: the only one of this configuration.
	Site string `json:"site,omitempty"`

	// DPoP binds tokens to a key of this process (RFC 9449), for
	// `client_credentials` and `private_key_jwt`.
	DPoP bool `json:"dpop,omitempty"`
}

// The kinds of RemoteCredentials.
const (
	kindClientCredentials = "client_credentials"
	kindPrivateKeyJWT     = "private_key_jwt"
	kindRefreshToken      = "refresh_token"
	kindLogin             = "login"
	kindUser              = "user"
	kindUpstreamToken     = "upstream_token"
)

// credentialRule is what a kind needs and may have.
type credentialRule struct {
	needs, may []string
	// issuer tells that the authorization server has to be named: a secret that
	// is written down here goes to nobody else.
	issuer bool
}

func credentialRules() map[string]credentialRule {
	return map[string]credentialRule{
		kindClientCredentials: {needs: []string{"client_id", "client_secret"}, may: []string{"client_auth", "dpop"}, issuer: true},
		kindPrivateKeyJWT:     {needs: []string{"client_id", "key"}, may: []string{"algorithm", "key_id", "dpop"}, issuer: true},
		kindRefreshToken:      {needs: []string{"client_id", "refresh_token"}, may: []string{"client_secret", "client_auth"}, issuer: true},
		kindLogin:             {may: []string{"file"}},
		kindUser:              {may: []string{"site", "client_id", "client_secret", "client_auth"}},
		kindUpstreamToken:     {may: []string{"site"}, issuer: true},
	}
}

// credentialKinds are the kinds, as messages name them.
func credentialKinds() string {
	names := slices.Sorted(maps.Keys(credentialRules()))
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// set returns the settings that have a value, by name.
func (c *RemoteCredentials) set() map[string]bool {
	set := make(map[string]bool)
	for name, value := range map[string]string{
		"client_id": c.ClientID, "client_secret": c.ClientSecret, "client_auth": c.ClientAuth, "key": c.Key, "algorithm": c.Algorithm,
		"key_id": c.KeyID, "refresh_token": c.RefreshToken, "file": c.File, "site": c.Site,
	} {
		if value != "" {
			set[name] = true
		}
	}
	if c.DPoP {
		set["dpop"] = true
	}
	return set
}

// checkCredentials finds settings that are missing or without effect.
func (r *RemoteServer) checkCredentials() error {
	c := r.Credentials
	if c == nil || c.Kind == "" {
		return fmt.Errorf("say how this Caddy gets tokens for the MCP server: there are %s", credentialKinds())
	}
	rule, ok := credentialRules()[c.Kind]
	if !ok {
		return fmt.Errorf("credentials: %q is no kind; there are %s", c.Kind, credentialKinds())
	}
	set := c.set()
	for _, name := range rule.needs {
		if !set[name] {
			return fmt.Errorf("%s: %s is missing", c.Kind, name)
		}
		delete(set, name)
	}
	for _, name := range rule.may {
		delete(set, name)
	}
	if extra := slices.Sorted(maps.Keys(set)); len(extra) > 0 {
		return fmt.Errorf("%s has no setting %s; there are %s", c.Kind, extra[0], strings.Join(slices.Concat(rule.needs, rule.may), ", "))
	}
	if rule.issuer && r.AuthorizationServer == "" {
		return fmt.Errorf("%s: write the issuer that the credential is for, authorization_server https://auth.example.com; otherwise the MCP server could name any other and get it", c.Kind)
	}
	switch {
	case c.ClientAuth != "" && c.ClientAuth != "basic" && c.ClientAuth != "post":
		return fmt.Errorf("%s: client_auth %q is unknown; there are basic and post", c.Kind, c.ClientAuth)
	case c.ClientAuth != "" && c.ClientSecret == "":
		return fmt.Errorf("%s: client_auth is about a client_secret, and there is none", c.Kind)
	case c.ClientSecret != "" && c.ClientID == "":
		return fmt.Errorf("%s: client_secret needs a client_id", c.Kind)
	case c.Kind == kindUser && c.ClientID != "" && r.AuthorizationServer == "":
		return errors.New("user: a client_id is known at one issuer: write it, authorization_server https://auth.example.com")
	}
	return nil
}
