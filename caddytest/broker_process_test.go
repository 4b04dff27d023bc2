package caddytest_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// processEnv names the configuration of a process that is to be a Caddy and no
// test.
const processEnv = "CADDYTEST_CONFIG"

func TestMain(m *testing.M) {
	if os.Getenv(commandEnv) != "" {
		runCommand()
	}
	if path := os.Getenv(processEnv); path != "" {
		serveAlone(path)
	}
	os.Exit(m.Run())
}

// serveAlone is a Caddy until its standard input closes, which it does when the
// test that started it ends.
func serveAlone(path string) {
	config, err := os.ReadFile(path)
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err != nil {
		fmt.Println("error:", strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := caddy.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// caddyProcess is a Caddy in a process of its own: this test binary again.
type caddyProcess struct {
	*caddyInstance
	config string // path
	cmd    *exec.Cmd
	stdin  io.Closer
}

// newProcess prepares a process that serves at the port, and stops it when the
// test ends. {ORIGIN} stands for the given origin, which may be another one's.
func newProcess(t *testing.T, origin string, port int, globals, caddyfile string) *caddyProcess {
	t.Helper()
	p := &caddyProcess{caddyInstance: &caddyInstance{t: t, dir: t.TempDir(), Port: port, Origin: origin}}
	p.config = filepath.Join(p.dir, "caddy.json")
	if err := os.WriteFile(p.config, p.adapt(globals, caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("Caddy's log:\n%s", p.log())
		}
	})
	return p
}

// tryStart starts it and waits until it serves. The error is what it says when
// it does not.
func (p *caddyProcess) tryStart() error {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), processEnv+"="+p.config, "XDG_DATA_HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir, "GORACE=halt_on_error=1")
	p.cmd.Stderr = os.Stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.stdin = stdin
	timeout := time.AfterFunc(nodeTimeout, func() { _ = p.cmd.Process.Kill() })
	defer timeout.Stop()
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		switch {
		case line == "ready\n":
			return nil
		case strings.HasPrefix(line, "error: "):
			p.kill()
			return fmt.Errorf("%s", strings.TrimSpace(line))
		case err != nil:
			p.kill()
			return fmt.Errorf("it ended before it served: %w", err)
		}
	}
}

func (p *caddyProcess) start() {
	p.t.Helper()
	if err := p.tryStart(); err != nil {
		p.t.Fatal(err)
	}
}

// kill ends it with SIGKILL.
func (p *caddyProcess) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	_ = p.stdin.Close()
	p.cmd = nil
}

// again kills it and starts it anew.
func (p *caddyProcess) again() {
	p.t.Helper()
	p.kill()
	p.start()
}
