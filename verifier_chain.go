package mcpauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-mcp/mcpauth/bearer"
	"github.com/caddy-mcp/mcpauth/oauth"
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
// issuedFor, if it is not nil, is what tokens are for that name only a client:
// the resources of a site that has no setting for their audience.
func (env ModeEnv) chain(module VerifierModule, venv VerifierEnv, issuedFor []string, mode *Mode) ([]bearer.Verifier, any, error) {
	modules := []VerifierModule{module}
	switch m := module.(type) {
	case nil:
		modules[0] = &JWTVerifier{resolved: &JWTVerifier{}}
	case *ChainVerifier:
		modules = m.verifiers
	}
	venv.ClientIDs = slices.Concat(venv.ClientIDs, clientIDs(modules))
	for _, m := range modules {
		mode.AllowNoExpiry = mode.AllowNoExpiry || allowsNoExpiry(m)
		if err := checkAudience(m, mode, issuedFor); err != nil {
			return nil, nil, err
		}
	}
	chain := make([]bearer.Verifier, 0, len(modules))
	identities := make([]any, 0, len(modules))
	order := chainOrder{issuer: venv.Issuer}
	for _, m := range modules {
		verifier, identity, err := env.linked(m, venv, mode)
		if err != nil {
			return nil, nil, err
		}
		if err := order.add(m, verifier); err != nil {
			return nil, nil, err
		}
		if _, ok := m.(*UserinfoVerifier); ok && issuedFor != nil {
			verifier = bearer.IssuedFor(verifier, issuedFor...)
			identity = []any{identity, "issued_for", issuedFor}
		}
		if mode.AllowNoExpiry && !allowsNoExpiry(m) {
			verifier = bearer.RequireExpiry(verifier)
			identity = []any{identity, "require_expiry"}
		}
		chain, identities = append(chain, verifier), append(identities, identity)
	}
	return chain, identities, nil
}

// linked returns one verifier of a chain, and what it is.
func (env ModeEnv) linked(module VerifierModule, venv VerifierEnv, mode *Mode) (bearer.Verifier, any, error) {
	if m, ok := module.(*JWTVerifier); ok && m.resolved.JWKSURI == "" && m.resolved.Issuer != "" && m.resolved.Issuer != venv.Issuer {
		if err := oauth.CheckIssuer(m.resolved.Issuer, env.InsecureDev); err != nil {
			return nil, nil, fmt.Errorf("verify jwt: issuer: %w; where its keys are, jwks_uri can say as well", err)
		}
		discovery, p, err := env.app.discovery(m.resolved.Issuer)
		if err != nil {
			return nil, nil, fmt.Errorf("verify jwt: issuer: %w", err)
		}
		venv.Issuer, venv.Discovery = m.resolved.Issuer, discovery
		mode.Start = append(mode.Start, p.start)
	}
	p, identity, err := env.app.verifier(module, venv)
	if err != nil {
		return nil, nil, err
	}
	mode.Start = append(mode.Start, p.start)
	return p.value.(bearer.Verifier), identity, nil
}

// clientIDs are the clients that verifiers know: a JWT for one of them may be an
// id_token, whichever of the verifiers it goes to.
func clientIDs(modules []VerifierModule) []string {
	var ids []string
	for _, module := range modules {
		switch m := module.(type) {
		case *UserinfoVerifier:
			ids = append(ids, m.resolved.ClientIDs...)
		case *IntrospectionVerifier:
			if m.resolved.ClientID != "" {
				ids = append(ids, m.resolved.ClientID)
			}
		}
	}
	return ids
}

// chainOrder finds verifiers that no token would ever reach.
type chainOrder struct {
	issuer string // of the mode
	// jwts and opaque are the verifiers that take all such tokens; "" for none.
	jwts, opaque string
	// keys tells that there is a static one, which takes all API keys.
	keys bool
}

// add is the error if those before leave nothing to the verifier.
func (o *chainOrder) add(module VerifierModule, verifier bearer.Verifier) error {
	_, recognizer := verifier.(bearer.Recognizer)
	needsJWTs, needsOpaque, takesJWTs, takesOpaque := true, true, !recognizer, !recognizer
	name := fmt.Sprintf("%T", module)
	switch m := module.(type) {
	case *JWTVerifier:
		name, needsOpaque, takesJWTs = "jwt", false, m.resolved.Issuer == "" && o.issuer == ""
	case *UserinfoVerifier:
		name, needsJWTs, takesOpaque = "userinfo", false, m.resolved.Provider == "" && len(m.resolved.Prefixes) == 0
	case *StaticVerifier:
		if o.keys {
			return errors.New("verify static: there is one already, which takes all API keys; write the keys and the file into one verify static")
		}
		name, needsJWTs, o.keys = "static", false, true
	case *IntrospectionVerifier:
		name = "introspection"
	}
	if (!needsJWTs || o.jwts != "") && (!needsOpaque || o.opaque != "") {
		before := o.jwts
		if needsOpaque {
			before = o.opaque
		}
		return fmt.Errorf("verify %s: it never gets a token, since verify %s before it takes them all; move verify %s to the end", name, before, before)
	}
	if takesJWTs && o.jwts == "" {
		o.jwts = name
	}
	if takesOpaque && o.opaque == "" {
		o.opaque = name
	}
	return nil
}

func allowsNoExpiry(module VerifierModule) bool {
	policy, ok := module.(interface{ AllowsNoExpiry() bool })
	return ok && policy.AllowsNoExpiry()
}

// checkAudience finds tokens that no resource would ever accept.
func checkAudience(module VerifierModule, mode *Mode, issuedFor []string) error {
	v, ok := module.(*UserinfoVerifier)
	switch {
	case !ok || mode.AnyAudience:
		return nil
	case len(v.audience()) == 0 && issuedFor != nil:
		return errors.New("verify userinfo: any_client is not possible beside upstream and accounts, since nothing would say whom a token is for; write client_id")
	case issuedFor != nil:
		return nil
	case len(v.audience()) == 0:
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
