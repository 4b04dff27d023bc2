package caddytest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"testing"
	"time"
)

// nodeTimeout bounds a client program, and the start of the identity provider.
const nodeTimeout = time.Minute

// idpOptions are the options of npm/idp.mjs, documented there.
type idpOptions struct {
	Port      int              `json:"port,omitempty"`
	Resource  string           `json:"resource,omitempty"`
	Resources []string         `json:"resources,omitempty"`
	AccessTTL int              `json:"accessTTL,omitempty"` // seconds
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
