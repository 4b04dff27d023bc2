package authclient_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-mcp/mcpauth/authclient"
	"github.com/caddy-mcp/mcpauth/oauth"
)

const mcpServer = "https://mcp.example.com/mcp"

func fileStore(t *testing.T, path string) *authclient.FileStore {
	t.Helper()
	store, err := authclient.OpenFileStore(path, authclient.FileOptions{ServerURL: mcpServer})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// Both stores keep the same, the file also beyond the process.
func TestStores(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "deep", "credentials.json")
	file := fileStore(t, path)
	memory := authclient.NewMemoryStore()
	for name, store := range map[string]struct{ written, read authclient.Store }{
		"memory": {memory, memory},
		"file":   {file, fileStore(t, path)},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			client := clientWith("secret", "client_secret_basic")
			client.Issuer, client.RedirectURIs = "https://as.example", []string{callbackURL}
			tokens := &authclient.Tokens{
				Tokens: oauth.Tokens{AccessToken: "a", TokenType: "Bearer", RefreshToken: "r", Scope: "x"},
				Issuer: "https://as.example", ExpiresAt: time.Unix(1767323045, 0),
			}
			state := &authclient.DiscoveryState{
				AuthorizationServerURL: "https://as.example", Scope: "x", FoundAt: time.Unix(1767323045, 0).UTC(),
				AuthorizationServer: metadata(), ProtectedResource: &oauth.ProtectedResourceMetadata{Resource: mcpServer},
			}
			w, r := store.written, store.read
			if err := errors.Join(w.SaveClientInformation(ctx, client), w.SaveTokens(ctx, tokens), w.SaveCodeVerifier(ctx, "v"), w.SaveDiscoveryState(ctx, state)); err != nil {
				t.Fatal(err)
			}
			gotClient, err1 := r.ClientInformation(ctx, "https://as.example/")
			gotTokens, err2 := r.Tokens(ctx, "")
			gotVerifier, err3 := r.CodeVerifier(ctx)
			gotState, err4 := r.DiscoveryState(ctx)
			if err := errors.Join(err1, err2, err3, err4); err != nil || gotVerifier != "v" {
				t.Fatal(gotVerifier, err)
			}
			emptyExtra := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Extra" }, cmp.Ignore())
			if diff := cmp.Diff(client, gotClient, emptyExtra) + cmp.Diff(tokens, gotTokens, emptyExtra) + cmp.Diff(state, gotState, emptyExtra); diff != "" {
				t.Error(diff)
			}
			if other, err := r.Tokens(ctx, "https://other.example"); other != nil || err != nil {
				t.Errorf("of another issuer: %+v, %v", other, err)
			}
			if err := w.InvalidateCredentials(ctx, authclient.CredentialsTokens, "https://other.example"); err != nil {
				t.Fatal(err)
			}
			if kept, _ := r.Tokens(ctx, ""); kept == nil {
				t.Error("the tokens of another issuer were forgotten")
			}
			if err := w.InvalidateCredentials(ctx, authclient.CredentialsAll, ""); err != nil {
				t.Fatal(err)
			}
			gotClient, _ = r.ClientInformation(ctx, "")
			gotTokens, _ = r.Tokens(ctx, "")
			gotVerifier, _ = r.CodeVerifier(ctx)
			gotState, _ = r.DiscoveryState(ctx)
			if gotClient != nil || gotTokens != nil || gotVerifier != "" || gotState != nil {
				t.Error("not everything was forgotten")
			}
		})
	}
}

// A store is of one MCP server; credentials of many authorization servers do
// not pile up.
func TestStoresAreBounded(t *testing.T) {
	t.Parallel()
	store := authclient.NewMemoryStore()
	kept := 0
	for i := range 20 {
		tokens := &authclient.Tokens{Issuer: "https://as.example/" + strings.Repeat("x", i)}
		if err := store.SaveTokens(t.Context(), tokens); err != nil {
			t.Fatal(err)
		}
		if last, err := store.Tokens(t.Context(), ""); err != nil || last != tokens {
			t.Fatalf("the last ones are lost: %v", err)
		}
	}
	for i := range 20 {
		if tokens, _ := store.Tokens(t.Context(), "https://as.example/"+strings.Repeat("x", i)); tokens != nil {
			kept++
		}
	}
	if kept > 8 {
		t.Errorf("%d are kept", kept)
	}
}

func TestFileIsForItsOwner(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("there are no modes")
	}
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, "credentials.json")
	store := fileStore(t, path)
	if err := store.SaveCodeVerifier(t.Context(), "v"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{dir: 0o700, path: 0o600} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := store.CodeVerifier(t.Context()); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("error %v", err)
	}
}

func TestFileIsReadStrictly(t *testing.T) {
	t.Parallel()
	const good = `{"version":1,"server_url":"` + mcpServer + `","code_verifier":"v"}`
	for _, test := range []struct {
		name, content, says string
	}{
		{"good", good, ""},
		{"empty", "", "damaged"},
		{"cut off", good[:30], "damaged"},
		{"a member twice", `{"version":1,"version":1,"server_url":"` + mcpServer + `"}`, "damaged"},
		{"something after it", good + "x", "damaged"},
		{"a list", "[]", "damaged"},
		{"too large", `{"version":1,"server_url":"` + mcpServer + `","code_verifier":"` + strings.Repeat("v", 1<<20) + `"}`, "damaged"},
		{"a later version", strings.Replace(good, ":1", ":2", 1), "version 2"},
		{"of another server", strings.Replace(good, "mcp.example", "other.example", 1), "other.example"},
		{"tokens without an access token", `{"version":1,"server_url":"` + mcpServer + `","tokens":{"https://as.example":{"token_type":"Bearer"}}}`, "damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "credentials.json")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := authclient.OpenFileStore(path, authclient.FileOptions{ServerURL: mcpServer})
			if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v", err)
			}
			after, err := os.ReadFile(path)
			if err != nil || string(after) != test.content {
				t.Error("the file was changed")
			}
		})
	}
}

// The lock holds between processes: this test is run as a second one.
func TestFileLockBetweenProcesses(t *testing.T) {
	const variable = "AUTHCLIENT_LOCK_TEST"
	if path := os.Getenv(variable); path != "" {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		unlock, err := fileStore(t, path).Lock(ctx)
		if err == nil {
			unlock()
			t.Fatal("the lock was had")
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		return
	}
	path := filepath.Join(t.TempDir(), "credentials.json")
	unlock, err := fileStore(t, path).Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again := func() ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFileLockBetweenProcesses$")
		cmd.Env = append(os.Environ(), variable+"="+path)
		return cmd.CombinedOutput()
	}
	if out, err := again(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	unlock()
	if out, err := again(); err == nil || !strings.Contains(string(out), "the lock was had") {
		t.Errorf("after the unlock: %v: %s", err, out)
	}
}

// A crash in the middle of writing leaves the old file.
func TestFileIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "credentials.json")
	store := fileStore(t, path)
	if err := store.SaveCodeVerifier(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := store.SaveCodeVerifier(t.Context(), "v2"); err != nil {
		t.Fatal(err)
	}
	before, err1 := old.Stat()
	after, err2 := os.Stat(path)
	if err := errors.Join(err1, err2); err != nil || os.SameFile(before, after) {
		t.Errorf("the file was written in place: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".credentials*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}
