package mcpauth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
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

// checkWritten finds what is wrong with a key however its placeholders are filled.
// keyed tells that there is an hmac_key.
func (k *StaticKey) checkWritten(keyed bool) error {
	key := bearer.APIKey{ID: k.ID, Hash: k.Hash, Key: k.Key, User: k.User}
	if hasPlaceholder(k.ID) {
		key.ID = "placeholder"
	}
	if hasPlaceholder(k.Hash) {
		key.Hash = "sha256:" + strings.Repeat("0", 64)
	}
	if hasPlaceholder(k.Key) {
		key.Key = strings.Repeat("0", 32)
	}
	for _, scope := range k.Scopes {
		if !hasPlaceholder(scope) {
			key.Scopes = append(key.Scopes, scope)
		}
	}
	return key.Check(keyed)
}

// checkWritten finds what is wrong with keys together. It returns the index of
// the key, -1 if it is none.
func (v *StaticVerifier) checkWritten() (int, error) {
	if v.HMACKey != "" && len(v.HMACKey) < 32 && !hasPlaceholder(v.HMACKey) {
		return -1, errors.New("hmac_key has less than 32 characters; make one with: openssl rand -base64 32")
	}
	ids := make(map[string]bool, len(v.Keys))
	for i, key := range v.Keys {
		if err := key.checkWritten(v.HMACKey != ""); err != nil {
			return i, fmt.Errorf("key %s: %w", key.ID, err)
		}
		if ids[key.ID] {
			return i, fmt.Errorf("key %s is there twice; give each key an id of its own", key.ID)
		}
		ids[key.ID] = true
	}
	return -1, nil
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
		for _, resource := range k.Resources {
			if !slices.ContainsFunc(env.Resources, func(own string) bool { return oauth.SameResource(resource, own) }) {
				return nil, fmt.Errorf("verify static: key %s: %s is no resource of this site; there are %s", k.ID, resource, strings.Join(env.Resources, ", "))
			}
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
