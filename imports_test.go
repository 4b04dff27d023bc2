package mcpauth_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/caddy-mcp/mcpauth"

// imports is who may import whom within this module. The libraries know nothing
// of Caddy; the root package, which is Caddy's side, may import all of them.
var imports = map[string][]string{
	"oauth":                 nil,
	"seal":                  nil,
	"internal/strictjson":   nil,
	"internal/jwks":         {"internal/strictjson"},
	"internal/safehttp":     nil,
	"internal/pages":        nil,
	"store":                 {"seal"},
	"store/internal/cas":    {"store"},
	"store/internal/expiry": nil,
	"store/memory":          {"store", "store/internal/cas", "store/internal/expiry"},
	"store/bolt":            {"store", "store/internal/cas", "store/internal/expiry"},
	"store/redis":           {"store", "store/internal/cas"},
	"store/caddystorage":    {"store", "store/internal/expiry"},
	"store/storetest":       {"store"},
	"bearer":                {"oauth", "internal/jwks", "internal/safehttp", "internal/strictjson"},
	"authserver":            {"oauth", "bearer", "seal", "internal/safehttp", "internal/strictjson", "internal/pages"},
	"idp":                   {"oauth", "internal/jwks", "internal/safehttp", "internal/strictjson"},
	"authclient":            {"oauth", "internal/safehttp", "internal/strictjson"},
	"authclient/gosdk":      {"authclient"},
	"proxyprovider": {
		"authserver", "bearer", "idp", "store", "seal", "oauth",
		"internal/pages", "internal/safehttp", "internal/strictjson",
	},
}

// foreign are modules that no library may depend on, however far down, except
// store/caddystorage, whose storage is certmagic's and logs with zap.
var foreign = []string{"github.com/caddyserver/", "go.uber.org/zap"}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImports(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name, ok := strings.CutPrefix(p.ImportPath, modulePath+"/")
		if !ok || strings.HasPrefix(name, "cmd/") {
			continue // Caddy's side
		}
		seen[name] = true
		allowed, known := imports[name]
		if !known {
			t.Errorf("package %s is not in the table", name)
			continue
		}
		for _, path := range p.Imports {
			if path, ours := strings.CutPrefix(path, modulePath+"/"); ours && !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s", name, path)
			}
		}
		if name == "store/caddystorage" {
			continue
		}
		for _, dep := range p.Deps {
			if slices.ContainsFunc(foreign, func(prefix string) bool { return strings.HasPrefix(dep, prefix) }) {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
	}
	for name := range imports {
		if !seen[name] {
			t.Errorf("package %s is in the table and does not exist", name)
		}
	}
}
