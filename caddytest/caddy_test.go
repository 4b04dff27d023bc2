package caddytest_test

import (
	"fmt"
	"net"
	"net/http/httptest"
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
	t       *testing.T
	storage string // folder

	Port   int
	Origin string // http://localhost:Port
}

// newCaddy takes a free port and stops Caddy when the test ends. Nothing is
// loaded yet, so that the configuration can speak of the port.
func newCaddy(t *testing.T) *caddyInstance {
	t.Helper()
	port := freePort(t)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping Caddy: %v", err)
		}
	})
	return &caddyInstance{
		t:       t,
		storage: t.TempDir(),
		Port:    port,
		Origin:  "http://localhost:" + strconv.Itoa(port),
	}
}

// load replaces the configuration by a Caddyfile without global options; what
// a test adds to those goes into globals. {ORIGIN} and {PORT} in either stand
// for those of the instance.
func (c *caddyInstance) load(globals, caddyfile string) error {
	c.t.Helper()
	text := fmt.Sprintf("{\n\tadmin off\n\tpersist_config off\n\tauto_https off\n\tstorage file_system %q\n%s\n}\n%s",
		c.storage, globals, caddyfile)
	text = strings.NewReplacer("{ORIGIN}", c.Origin, "{PORT}", strconv.Itoa(c.Port)).Replace(text)
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		if !strings.Contains(w.Message, "not formatted") {
			c.t.Logf("adapting: %s", w)
		}
	}
	return caddy.Load(config, true)
}

// loadCaddy is newCaddy and load for the tests that need a configuration once.
func loadCaddy(t *testing.T, caddyfile string) *caddyInstance {
	t.Helper()
	c := newCaddy(t)
	if err := c.load("", caddyfile); err != nil {
		t.Fatal(err)
	}
	return c
}

// freePort is a TCP port on which nothing listened a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startMCPServer runs the example MCP server until the test ends and returns
// its host and port.
func startMCPServer(t *testing.T) (addr string) {
	t.Helper()
	ts := httptest.NewServer(server.New(server.Options{}))
	t.Cleanup(ts.Close)
	return ts.Listener.Addr().String()
}
