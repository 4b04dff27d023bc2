package caddytest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// TestExampleCaddyfiles formats, adapts and validates the examples.
func TestExampleCaddyfiles(t *testing.T) {
	files, err := filepath.Glob("../examples/caddyfiles/*.Caddyfile")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if formatted := string(caddyfile.Format(data)); strings.TrimSpace(formatted) != strings.TrimSpace(string(data)) {
				t.Errorf("caddy fmt makes of it:\n%s", formatted)
			}
			config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(provideValues(t, string(data))), map[string]any{"filename": file})
			if err != nil {
				t.Fatal(err)
			}
			validate(t, config)
		})
	}
}
