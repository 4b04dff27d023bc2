package mcpauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/bearer"
)

func init() {
	caddy.RegisterModule(ChainVerifier{})
}

// ChainVerifier hands each token to the first of several verifiers that
// recognises it, which decides alone: a token that it refuses is not tried
// elsewhere. In a Caddyfile, several `verify` make a chain.
//
// jwt recognises JWTs of its issuer; userinfo how the provider's tokens begin;
// static its keys and what looks like one; introspection every token, so that it
// belongs at the end.
type ChainVerifier struct {
	// VerifiersRaw are the verifiers, in order.
	VerifiersRaw []json.RawMessage `json:"verifiers" caddy:"namespace=mcp_auth.verifiers inline_key=type"`

	verifiers []VerifierModule
}

// CaddyModule returns the Caddy module information.
func (ChainVerifier) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "mcp_auth.verifiers.chain", New: func() caddy.Module { return new(ChainVerifier) }}
}

// Provision loads the verifiers.
func (v *ChainVerifier) Provision(ctx caddy.Context) error {
	if len(v.VerifiersRaw) == 0 {
		return errors.New("a chain needs verifiers")
	}
	modules, err := ctx.LoadModule(v, "VerifiersRaw")
	if err != nil {
		return err
	}
	for _, module := range modules.([]any) {
		verifier, ok := module.(VerifierModule)
		if _, nested := module.(*ChainVerifier); !ok || nested {
			return fmt.Errorf("module %T cannot be in a chain", module)
		}
		v.verifiers = append(v.verifiers, verifier)
	}
	return nil
}

// NewVerifier implements VerifierModule.
func (v *ChainVerifier) NewVerifier(env VerifierEnv) (bearer.Verifier, error) {
	chain := make([]bearer.Verifier, len(v.verifiers))
	for i, module := range v.verifiers {
		var err error
		if chain[i], err = module.NewVerifier(env); err != nil {
			return nil, err
		}
	}
	return bearer.Chain(chain...), nil
}

// chain returns the verifiers that the module describes, the JWT one by default,
// and what they are. What is loaded in the background is added to the mode.
func (env ModeEnv) chain(module VerifierModule, venv VerifierEnv, mode *Mode) ([]bearer.Verifier, any, error) {
	modules := []VerifierModule{module}
	switch m := module.(type) {
	case nil:
		modules[0] = &JWTVerifier{resolved: &JWTVerifier{}}
	case *ChainVerifier:
		modules = m.verifiers
	}
	for _, m := range modules {
		mode.AllowNoExpiry = mode.AllowNoExpiry || allowsNoExpiry(m)
		if err := checkAudience(m, mode); err != nil {
			return nil, nil, err
		}
	}
	chain := make([]bearer.Verifier, 0, len(modules))
	identities := make([]any, 0, len(modules))
	for _, m := range modules {
		p, identity, err := env.app.verifier(m, venv)
		if err != nil {
			return nil, nil, err
		}
		mode.Start = append(mode.Start, p.start)
		verifier := p.value.(bearer.Verifier)
		if mode.AllowNoExpiry && !allowsNoExpiry(m) {
			verifier = bearer.RequireExpiry(verifier)
			identity = []any{identity, "require_expiry"}
		}
		chain, identities = append(chain, verifier), append(identities, identity)
	}
	return chain, identities, nil
}

func allowsNoExpiry(module VerifierModule) bool {
	policy, ok := module.(interface{ AllowsNoExpiry() bool })
	return ok && policy.AllowsNoExpiry()
}

// checkAudience finds tokens that no resource would ever accept.
func checkAudience(module VerifierModule, mode *Mode) error {
	v, ok := module.(*UserinfoVerifier)
	if !ok || mode.AnyAudience {
		return nil
	}
	if len(v.audience()) == 0 {
		return errors.New("verify userinfo: with any_client nothing says whom a token is for; if that is meant, write audience any as well")
	}
	for _, id := range v.audience() {
		if !slices.Contains(mode.Audiences, id) {
			return fmt.Errorf("verify userinfo: the tokens name no resource, only the client that they were issued to; write audience %s, so that tokens for it are accepted here", id)
		}
	}
	return nil
}

// Interface guards
var (
	_ VerifierModule    = (*ChainVerifier)(nil)
	_ caddy.Provisioner = (*ChainVerifier)(nil)
)
