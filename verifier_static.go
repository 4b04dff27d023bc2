package mcpauth

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/bearer"
)

func init() {
	caddy.RegisterModule(StaticVerifier{})
}

// StaticVerifier accepts API keys that the operator hands out, for scripts and
// machines that cannot sign in. `caddy mcp-auth key` makes a key with the entry
// for it. A key is for all resources of its site unless it names some.
//
// Keys are known by their hash. A key that the command made is random, so that a
// quick hash does; for one that somebody chose use argon2id.
type StaticVerifier struct {
	// Keys are accepted besides those of `file`.
	Keys []*StaticKey `json:"keys,omitempty"`

	// File is a JSON file with more of them: {"keys": [{"id": …}]}, with the same
	// members as here except `key`, and no placeholders. It is read anew within 2
	// seconds after it has changed; if it then holds a mistake, that is logged, and
	// the keys from before stay.
	File string `json:"file,omitempty"`

	// HMACKey is the secret of hashes that begin with hmac-sha256: at least 32
	// characters.
	HMACKey string `json:"hmac_key,omitempty"`

	resolved *StaticVerifier
}

// StaticKey is an API key.
type StaticKey struct {
	// ID names the key in logs: letters, digits and hyphens.
	ID string `json:"id"`

	// Hash of the whole key: sha256:<hex> or hmac-sha256:<hex> for a random one,
	// or $argon2id$…; a key with argon2id begins with its id and an underscore.
	Hash string `json:"hash,omitempty"`

	// Key is the key itself in place of its hash, at least 32 characters. Use a
	// placeholder such as {env.CI_KEY}.
	Key string `json:"key,omitempty"`

	// User is whom the key acts for.
	User string `json:"user"`

	// Client is the OAuth client that it stands for. Default: the id.
	Client string `json:"client,omitempty"`

	// Scopes are granted.
	Scopes []string `json:"scopes,omitempty"`

	// Expires is when the key ends: a day (2027-01-31, when it begins, in UTC) or
	// a time (2027-01-31T12:00:00Z). Default: never.
	Expires string `json:"expires,omitempty"`

	// Resources are the URLs of those that the key is for. Default: all of the
	// site.
	Resources []string `json:"resources,omitempty"`

	// Email, Name and Groups are claims about the user.
	Email  string   `json:"email,omitempty"`
	Name   string   `json:"name,omitempty"`
	Groups []string `json:"groups,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (StaticVerifier) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.verifiers.static", New: func() caddy.Module { return new(StaticVerifier) }}
}

// Provision resolves placeholders.
func (v *StaticVerifier) Provision(caddy.Context) (err error) {
	v.resolved, err = resolved(v)
	return err
}

// AllowsNoExpiry tells that a key need not expire.
func (*StaticVerifier) AllowsNoExpiry() bool { return true }

// NewVerifier implements VerifierModule. It reads the file.
func (v *StaticVerifier) NewVerifier(env VerifierEnv) (bearer.Verifier, error) {
	r := v.resolved
	cfg := bearer.StaticConfig{File: r.File, HMACKey: r.HMACKey, Audience: env.Resources, Logger: env.Logger}
	for _, k := range r.Keys {
		if k == nil {
			return nil, fmt.Errorf("verify static: a key is empty")
		}
		key := bearer.APIKey{
			ID: k.ID, Hash: k.Hash, Key: k.Key, User: k.User, Client: k.Client, Scopes: k.Scopes, Resources: k.Resources,
			Email: k.Email, Name: k.Name, Groups: k.Groups,
		}
		if k.Expires != "" {
			var err error
			if key.Expires, err = bearer.ParseKeyExpiry(k.Expires); err != nil {
				return nil, fmt.Errorf("verify static: key %s: %w", k.ID, err)
			}
		}
		cfg.Keys = append(cfg.Keys, key)
	}
	verifier, err := bearer.NewStaticVerifier(cfg)
	if err != nil {
		return nil, fmt.Errorf("verify static: %w", err)
	}
	return verifier, nil
}

// Interface guards
var (
	_ VerifierModule    = (*StaticVerifier)(nil)
	_ caddy.Provisioner = (*StaticVerifier)(nil)
)
