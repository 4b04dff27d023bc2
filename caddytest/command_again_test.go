package caddytest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// stay is a person who has nothing to do: the server asks nothing.
func stay(*browser) {}

// TestLoginCommandAgain: a second login works at a server that compares redirect
// URIs with the port, and at one that has forgotten the client; Caddy's log says
// that a login is needed.
func TestLoginCommandAgain(t *testing.T) {
	r := newPeopleRemote(t)
	cmd := &command{t: t, data: t.TempDir()}
	file := filepath.Join(cmd.data, "people.json")
	resource := r.URL + "/mcp"
	login := func(when string) string {
		t.Helper()
		said, err := cmd.login(stay, "--timeout", "10s", "--out", file, resource)
		if err != nil {
			t.Fatalf("%s: %v\n%s", when, err, said)
		}
		return said
	}
	login("first")
	login("second")
	c := newCaddy(t)
	if err := c.load(memoryStore, fmt.Sprintf(throughSite, r.URL, "login "+file)); err != nil {
		t.Fatal(err)
	}
	use := func(when string, want int) {
		t.Helper()
		if resp, body := c.send("POST", "/mcp", nil, "{}"); resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", when, resp.StatusCode, body, want)
		}
	}
	use("second", 200)
	r.forget()
	use("forgotten", 502)
	if log := c.log(); !strings.Contains(log, "is not known any more") || !strings.Contains(log, "caddy mcp-auth login "+resource+" --out "+file) {
		t.Error("the log does not say what to do")
	}
	login("after the server forgot the client")
	use("after that", 200)

	// Where no other client can be registered the last one serves, on its port.
	r.set(func() { r.closed = true })
	if said := login("closed"); !strings.Contains(said, "that of the last login is used") {
		t.Errorf("closed: %s", said)
	}
	use("closed", 200)
}

// TestLogoutUnusable: a credential that cannot be used can be deleted, and what is
// no credential of that server stays.
func TestLogoutUnusable(t *testing.T) {
	const server = "https://mcp.example.com/mcp"
	const whole = `{"version":1,"server_url":"` + server + `"}`
	cmd := &command{t: t, data: t.TempDir()}
	type row struct {
		content string
		mode    os.FileMode
		gone    bool
	}
	rows := map[string]row{
		"damaged":             {whole[:20], 0o600, true},
		"empty":               {"", 0o600, true},
		"of another server":   {strings.Replace(whole, "mcp.", "other.", 1), 0o600, false},
		"something else":      {"dear diary", 0o600, false},
		"some other settings": {`{"a":1}`, 0o644, false},
	}
	if runtime.GOOS != "windows" { // where files have no mode
		rows["read by others"] = row{whole, 0o644, true}
	}
	for name, test := range rows {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "credential.json")
			if err := os.WriteFile(file, []byte(test.content), test.mode); err != nil {
				t.Fatal(err)
			}
			_, said, err := cmd.run("login", "--no-browser", "--timeout", "1s", "--out", file, server)
			if exitCode(err) != 1 || strings.Contains(said, "caddy mcp-auth logout "+server+" --out "+file) != test.gone {
				t.Errorf("login: %v %s", err, said)
			}
			_, said, err = cmd.run("logout", "--out", file, server)
			_, left := os.Stat(file)
			if os.IsNotExist(left) != test.gone || (exitCode(err) == 0) != test.gone || strings.Contains(said, "Deleted "+file+", which could not be used") != test.gone {
				t.Errorf("logout: %v, then %v: %s", err, left, said)
			}
		})
	}
}

// TestLoginUnwritable: that a credential cannot be stored is said before anybody
// is asked to sign in.
func TestLoginUnwritable(t *testing.T) {
	r := newPeopleRemote(t)
	cmd := &command{t: t, data: t.TempDir()}
	files := map[string]string{"a folder": cmd.data, "a lock of others": filepath.Join(cmd.data, "locked.json")}
	if runtime.GOOS == "linux" {
		files["not writable"] = "/proc/credential.json"
	}
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			if name == "a lock of others" {
				if err := os.Mkdir(file+".lock", 0o700); err != nil {
					t.Fatal(err)
				}
			}
			_, said, err := cmd.run("login", "--no-browser", "--timeout", "1s", "--out", file, r.URL+"/mcp")
			if exitCode(err) != 1 || strings.Contains(said, "To sign in") {
				t.Errorf("%v %s", err, said)
			}
		})
	}
	r.set(func() {
		if len(r.clients) != 0 {
			t.Errorf("%d clients were registered", len(r.clients))
		}
	})
}

// TestKeyRefusals: a key that could not work, or not be told in a log, is not
// made.
func TestKeyRefusals(t *testing.T) {
	cmd := &command{t: t, data: t.TempDir()}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a day in the past":    {[]string{"--user", "u", "--expires", "2001-01-01"}, "is over"},
		"a line break":         {[]string{"--user", "u\nX"}, "cannot be seen"},
		"a line break, client": {[]string{"--user", "u", "--client", "c\x1b[0m"}, "cannot be seen"},
		"no URL":               {[]string{"--user", "u", "--resource", "notaurl"}, "is no URL"},
		"a path":               {[]string{"--user", "u", "--resource", "/mcp"}, "is no URL"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, err := cmd.run(append([]string{"key"}, test.args...)...)
			if exitCode(err) != 1 || !strings.Contains(stderr, test.want) || stdout != "" {
				t.Errorf("%v\nstdout: %s\nstderr: %s", err, stdout, stderr)
			}
		})
	}
	if stdout, stderr, err := cmd.run("key", "--user", "u", "--resource", "https://mcp.example.com/mcp", "--expires", "24h"); err != nil || !strings.Contains(stdout, "sha256:") {
		t.Errorf("%v %s %s", err, stdout, stderr)
	}
}
