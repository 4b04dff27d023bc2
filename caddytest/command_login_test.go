package caddytest_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

// commandEnv makes this test binary a caddy: its arguments are those of caddy.
const commandEnv = "CADDYTEST_COMMAND"

// runCommand is caddy with the arguments of this process.
func runCommand() {
	caddycmd.Main()
	os.Exit(0)
}

// command is `caddy mcp-auth …` with a data directory of its own.
type command struct {
	t    *testing.T
	data string
}

func (c *command) cmd(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.t.Context(), os.Args[0], append([]string{"mcp-auth"}, args...)...)
	cmd.Env = append(os.Environ(), commandEnv+"=1", "XDG_DATA_HOME="+c.data, "XDG_CONFIG_HOME="+c.data, "HOME="+c.data)
	return cmd
}

// run runs it to its end.
func (c *command) run(args ...string) (stdout, stderr string, err error) {
	c.t.Helper()
	var out, said bytes.Buffer
	cmd := c.cmd(args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	return out.String(), said.String(), err
}

var signInURL = regexp.MustCompile(`https?://\S+`)

// login runs the login with the browser of a person, who does what person does
// once the URL is open.
func (c *command) login(person func(b *browser), args ...string) (said string, err error) {
	c.t.Helper()
	cmd := c.cmd(append([]string{"login", "--no-browser", "--timeout", "30s"}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	kill := time.AfterFunc(nodeTimeout, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	var all strings.Builder
	lines := bufio.NewReader(stderr)
	for {
		line, readErr := lines.ReadString('\n')
		all.WriteString(line)
		if found := signInURL.FindString(line); found != "" && person != nil {
			b := newBrowser(c.t)
			b.open(found)
			person(b)
			person = nil
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			c.t.Fatal(readErr)
		}
	}
	return all.String(), cmd.Wait()
}

// asCarol signs in at remoteSite.
func asCarol(b *browser) {
	b.allow()
	b.submit(url.Values{"username": {"carol"}, "password": {"remote password"}})
}

// TestLoginCommand: sign in from a terminal; then the proxy has the grant.
func TestLoginCommand(t *testing.T) {
	origin, remote := newRemoteSite(t)
	c := newCaddy(t)
	cmd := &command{t: t, data: t.TempDir()}
	resource := origin + "/mcp"
	files := func() []string {
		found, err := filepath.Glob(filepath.Join(cmd.data, "caddy", "mcp_auth", "credentials", "localhost-*.json"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	file := filepath.Join(cmd.data, "caddy", "mcp_auth", "credentials", "elsewhere.json")
	load := func() {
		t.Helper()
		if err := c.load(memoryStore, fmt.Sprintf(throughSite, origin, "login "+file)+remote); err != nil {
			t.Fatal(err)
		}
	}
	load()
	if resp, body := c.send("POST", "/mcp", nil, initialize); resp.StatusCode != 502 || !strings.Contains(body, "server_error") {
		t.Errorf("before the login: %d %s", resp.StatusCode, body)
	}
	if !strings.Contains(c.log(), "caddy mcp-auth login "+resource) {
		t.Error("the log does not say what to do")
	}

	said, err := cmd.login(asCarol, "--out", file, resource)
	if err != nil || !strings.Contains(said, "Signed in to "+resource) || !strings.Contains(said, file) {
		t.Fatalf("login: %v\n%s", err, said)
	}
	stored, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	for _, token := range regexp.MustCompile(`"(?:access|refresh)_token": "([^"]+)"`).FindAllStringSubmatch(string(stored), -1) {
		if strings.Contains(said, token[1]) {
			t.Error("a token was printed")
		}
	}
	session, err := plainClient(t, c.Origin+"/mcp", nil)
	if err != nil {
		t.Fatal(err)
	}
	if id := whoamiAt(t.Context(), t, session); id.User != "carol" || id.Authorization {
		t.Errorf("at the remote we are %+v", id)
	}

	// A login that fails changes nothing.
	said, err = cmd.login(func(b *browser) { b.submit(b.button("Deny")) }, "--out", file, resource)
	if code := exitCode(err); code != 1 || !strings.Contains(said, "access_denied") {
		t.Errorf("denied login: %v\n%s", err, said)
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != string(stored) {
		t.Errorf("a denied login changed the credential: %v", err)
	}
	if id := whoamiAt(t.Context(), t, session); id.User != "carol" {
		t.Errorf("after a denied login we are %+v", id)
	}

	// The default place, list and logout.
	if said, err := cmd.login(asCarol, resource); err != nil || len(files()) != 1 {
		t.Fatalf("login: %v %v\n%s", err, files(), said)
	}
	stdout, _, err := cmd.run("list")
	if err != nil || strings.Count(stdout, resource) != 2 || strings.Contains(stdout, "access") {
		t.Errorf("list: %v\n%s", err, stdout)
	}
	if _, said, err := cmd.run("logout", resource); err != nil || len(files()) != 0 {
		t.Errorf("logout: %v %s", err, said)
	}
	if _, said, err := cmd.run("logout", resource); exitCode(err) != 1 || !strings.Contains(said, "there is no credential") {
		t.Errorf("second logout: %v %s", err, said)
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// TestLoginCommandRefusals: what is wrong is said in a way that helps.
func TestLoginCommandRefusals(t *testing.T) {
	plain := newBackend(t)
	plain.answer = func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
	cmd := &command{t: t, data: t.TempDir()}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no URL":            {[]string{"login"}, "takes the URL of the MCP server"},
		"not a URL":         {[]string{"login", "mcp"}, "is not the URL of an MCP server"},
		"http":              {[]string{"login", "http://mcp.example.com/mcp"}, "allow the origin with --allow-origin"},
		"secret without id": {[]string{"login", "--client-secret-file", "x", plain.URL}, "--client-id"},
		"secret for anyone": {[]string{"login", "--client-id", "a", "--client-secret-file", "x", plain.URL}, "--authorization-server"},
		"nothing listens":   {[]string{"login", fmt.Sprintf("http://localhost:%d/mcp", freePort(t))}, "nothing listens"},
		"bad port":          {[]string{"login", "--port", "70000", plain.URL}, "port"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, err := cmd.run(test.args...)
			if exitCode(err) != 1 || !strings.Contains(stderr, test.want) || stdout != "" {
				t.Errorf("%v\nstdout: %s\nstderr: %s", err, stdout, stderr)
			}
		})
	}
	if stdout, _, err := cmd.run("--help"); err != nil || !strings.Contains(stdout, "login") || !strings.Contains(stdout, "logout") || !strings.Contains(stdout, "list") {
		t.Errorf("help: %v %s", err, stdout)
	}
}
