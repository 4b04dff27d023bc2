// Package caddytest_test drives real clients through a real Caddy: its tests
// load a Caddyfile into this process, start the example MCP server and the
// npm package oidc-provider behind it, and let MCP clients in Go and
// JavaScript do what their users would.
//
// A process has one active Caddy configuration, so no test here is parallel.
package caddytest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-mcp/mcpauth"
	"github.com/caddy-mcp/mcpauth/examples/mcpserver/server"
)

// caddyInstance is the Caddy of this process.
type caddyInstance struct {
	t   testing.TB
	dir string // for storage and log

	Port   int
	Origin string // http://localhost:Port
}

// newCaddy takes a free port and stops Caddy when the test ends. Nothing is
// loaded yet, so that the configuration can speak of the port.
func newCaddy(t testing.TB) *caddyInstance {
	t.Helper()
	port := freePort(t)
	c := &caddyInstance{
		t:      t,
		dir:    t.TempDir(),
		Port:   port,
		Origin: "http://localhost:" + strconv.Itoa(port),
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping Caddy: %v", err)
		}
		if t.Failed() {
			t.Logf("Caddy's log:\n%s", c.log())
		}
	})
	return c
}

// globalOptions take the folder for storage and the log file; more may follow.
const globalOptions = `{
	admin off
	persist_config off
	auto_https off
	storage file_system %q
	log {
		output file %q
		format json
		level DEBUG
	}
`

// log is everything that Caddy has logged, at level DEBUG, one JSON object a
// line.
func (c *caddyInstance) log() string {
	c.t.Helper()
	b, err := os.ReadFile(c.logFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.t.Fatal(err)
	}
	return string(b)
}

func (c *caddyInstance) logFile() string { return filepath.Join(c.dir, "caddy.log") }

// load replaces the configuration by a Caddyfile without global options; what
// a test adds to those goes into globals. {ORIGIN} and {PORT} in either stand
// for those of the instance.
func (c *caddyInstance) load(globals, caddyfile string) error {
	c.t.Helper()
	config, err := c.tryAdapt(globals, caddyfile)
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

// adapt returns the configuration that load would load.
func (c *caddyInstance) adapt(globals, caddyfile string) []byte {
	c.t.Helper()
	config, err := c.tryAdapt(globals, caddyfile)
	if err != nil {
		c.t.Fatal(err)
	}
	return config
}

func (c *caddyInstance) tryAdapt(globals, caddyfile string) ([]byte, error) {
	c.t.Helper()
	text := fmt.Sprintf(globalOptions, filepath.Join(c.dir, "storage"), c.logFile()) + globals + "\n}\n" + caddyfile
	text = strings.NewReplacer("{ORIGIN}", c.Origin, "{PORT}", strconv.Itoa(c.Port)).Replace(text)
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		if !strings.Contains(w.Message, "not formatted") {
			c.t.Logf("adapting: %s", w)
		}
	}
	return config, nil
}

// loadCaddy is newCaddy and load for the tests that need a configuration once.
func loadCaddy(t testing.TB, caddyfile string) *caddyInstance {
	t.Helper()
	c := newCaddy(t)
	if err := c.load("", caddyfile); err != nil {
		t.Fatal(err)
	}
	return c
}

// freePort is a TCP port on which nothing listened a moment ago. It is below those
// that systems hand out by themselves, to servers of the test and to connections.
func freePort(t testing.TB) int {
	t.Helper()
	var err error
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", "localhost:"+strconv.Itoa(20_000+rand.IntN(12_000))); err == nil {
			defer l.Close()
			return l.Addr().(*net.TCPAddr).Port
		}
	}
	t.Fatal(err)
	return 0
}

// startMCPServer runs the example MCP server until the test ends and returns
// its host and port.
func startMCPServer(t *testing.T) (addr string) {
	t.Helper()
	ts := httptest.NewServer(server.New(server.Options{}))
	t.Cleanup(ts.Close)
	return ts.Listener.Addr().String()
}
