// Package caddytest_test drives real clients through a real Caddy: its tests
// load a Caddyfile into this process, start the example MCP server and the
// npm package oidc-provider behind it, and let MCP clients in Go and
// JavaScript do what their users would.
//
// A process has one active Caddy configuration, so no test here is parallel.
package caddytest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if err := installNPM(); err != nil {
		fmt.Fprintln(os.Stderr, "caddytest:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// installNPM puts the packages of npm/package-lock.json into npm/node_modules
// unless that is done: npm writes its own lock file there when it is.
func installNPM() error {
	lock, err := os.Stat(filepath.Join("npm", "package-lock.json"))
	if err != nil {
		return err
	}
	installed, err := os.Stat(filepath.Join("npm", "node_modules", ".package-lock.json"))
	if err == nil && !installed.ModTime().Before(lock.ModTime()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-progress")
	cmd.Dir = "npm"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return nil
}
