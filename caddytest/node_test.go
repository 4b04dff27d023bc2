package caddytest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// nodeTimeout bounds a client program, and the start of the identity provider.
const nodeTimeout = time.Minute

// npmPackages installs the packages in npm.
var npmPackages = sync.OnceValue(func() error { return installPackages("npm") })

// installPackages puts the packages of package-lock.json in the folder into its
// node_modules, unless that is done: npm writes its own lock file there when it
// is.
func installPackages(folder string) error {
	lock, err := os.Stat(filepath.Join(folder, "package-lock.json"))
	if err != nil {
		return err
	}
	installed, err := os.Stat(filepath.Join(folder, "node_modules", ".package-lock.json"))
	if err == nil && !installed.ModTime().Before(lock.ModTime()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-progress")
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return nil
}

// idpOptions are the options of npm/idp.mjs, documented there.
type idpOptions struct {
	Port      int              `json:"port,omitempty"`
	Resource  string           `json:"resource,omitempty"`
	Resources []string         `json:"resources,omitempty"`
	AccessTTL int              `json:"accessTTL,omitempty"` // seconds
	Scope     string           `json:"scope,omitempty"`
	User      string           `json:"user,omitempty"`
	Deny      bool             `json:"deny,omitempty"`
	NoIss     bool             `json:"-"`
	Clients   []map[string]any `json:"clients,omitempty"`
}

// MarshalJSON writes iss only when it is not the default.
func (o idpOptions) MarshalJSON() ([]byte, error) {
	type plain idpOptions
	return json.Marshal(struct {
		plain
		Iss bool `json:"iss"`
	}{plain(o), !o.NoIss})
}

// startIDP runs oidc-provider until the test ends and returns its issuer.
func startIDP(t *testing.T, opts idpOptions) (issuer string) {
	t.Helper()
	if err := npmPackages(); err != nil {
		t.Fatal(err)
	}
	arg, err := json.Marshal(opts)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "idp.mjs", string(arg))
	cmd.Dir = "npm"
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(nodeTimeout, func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	kill.Stop()
	t.Cleanup(func() {
		_ = stdin.Close() // it ends then
		kill := time.AfterFunc(nodeTimeout, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("idp.mjs: %v", err)
		}
		if t.Failed() {
			t.Logf("idp.mjs said:\n%s", &stderr)
		}
	})
	var ready struct{ Issuer string }
	if err != nil || json.Unmarshal(line, &ready) != nil || ready.Issuer == "" {
		t.Fatalf("idp.mjs printed %q instead of its issuer: %v", line, err)
	}
	return ready.Issuer
}

// runNode runs one of the programs in npm and decodes its answer into out. It
// returns what the program said on standard error, and an error unless it
// ended with status 0.
func runNode(t *testing.T, script string, args, out any) (stderr string, err error) {
	t.Helper()
	if err := npmPackages(); err != nil {
		t.Fatal(err)
	}
	arg, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), nodeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", script, string(arg))
	cmd.Dir = "npm"
	var stdout, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, ctx.Err())
		}
		return said.String(), err
	}
	if err := json.NewDecoder(&stdout).Decode(out); err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("%s printed what is not JSON: %v", script, err)
	}
	return said.String(), nil
}
