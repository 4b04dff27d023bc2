package caddytest_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-mcp/mcpauth"
)

var update = flag.Bool("update", false, "write what the adapter says into the fixtures")

const fixtureSeparator = "\n----------\n"

// TestAdapt adapts every Caddyfile under testdata/adapt. What follows the
// separator is the JSON it becomes, or a part of the error message.
func TestAdapt(t *testing.T) {
	t.Parallel()
	fixtures, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil {
		t.Fatal(err)
	}
	if len(fixtures) < 20 {
		t.Fatalf("only %d fixtures found", len(fixtures))
	}
	for _, fixture := range fixtures {
		t.Run(strings.TrimSuffix(filepath.Base(fixture), ".caddyfiletest"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(fixture)
			if err != nil {
				t.Fatal(err)
			}
			caddyfile, want, ok := strings.Cut(string(data), fixtureSeparator)
			if !ok {
				t.Fatalf("%s has no separator", fixture)
			}
			got := adapt(t, caddyfile+"\n")
			if *update {
				if err := os.WriteFile(fixture, []byte(caddyfile+fixtureSeparator+got+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(got)); diff != "" {
				t.Errorf("adapted configuration or error (-want +got):\n%s", diff)
			}
		})
	}
}

// adapt returns the JSON that a Caddyfile becomes, indented, or the error.
func adapt(t *testing.T, caddyfile string) string {
	t.Helper()
	adapter := caddyconfig.GetAdapter("caddyfile")
	config, _, err := adapter.Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err.Error()
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, config, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return indented.String()
}
