package bearer

import (
	"fmt"

	"github.com/caddy-mcp/mcpauth/oauth"
)

// NotAlone tells the guard, before its first request, that there are resources of
// other guards at its origin. The audience of a token is then not taken for a
// resource above it.
func (g *Guard) NotAlone() {
	for _, res := range g.resources {
		res.notAlone.Store(true)
	}
}

// checkTogether checks what concerns more than one resource.
func (g *Guard) checkTogether() error {
	identifiers := make([]string, 0, len(g.resources))
	defaultResource := ""
	byPath := map[string]string{}
	for _, res := range g.resources {
		identifiers = append(identifiers, res.Identifier)
		if other, taken := byPath[res.path]; taken {
			return fmt.Errorf("resources %q and %q guard the same path %q (case is ignored); give each its own", other, res.Identifier, res.path)
		}
		byPath[res.path] = res.Identifier
		if !res.Default {
			continue
		}
		if defaultResource != "" {
			return fmt.Errorf("resources %q and %q are both the default; mark one only", defaultResource, res.Identifier)
		}
		defaultResource = res.Identifier
	}
	set, err := oauth.NewResourceSet(identifiers, -1)
	if err != nil {
		return err
	}
	if len(g.resources) == 1 {
		g.resources[0].alone = set
	}
	return nil
}
