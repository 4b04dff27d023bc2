package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-mcp/mcpauth"
	"github.com/caddy-mcp/mcpauth/examples/mcpserver/server"
)

// Ports and the data folder as they stand in the Caddyfile.
const (
	caddyPort  = 8080
	serverPort = 3000
	dataFolder = "build/data"
)

// options are the settings of a run. Ports are TCP ports on localhost.
type options struct {
	port, serverPort int
	caddyfile        string // path
	data             string // folder
}

// run starts everything, tells out how to use it, and ends when ctx does.
func run(ctx context.Context, o options, out io.Writer) error {
	config, err := o.config()
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	stopServer, err := serve(o.serverPort, "server-port", server.New(server.Options{}), failed)
	if err != nil {
		return err
	}
	defer stopServer()

	// Caddy shares ports between processes, so that it would not notice.
	probe, err := listen(o.port, "port")
	if err != nil {
		return err
	}
	if err := probe.Close(); err != nil {
		return err
	}
	if err := caddy.Load(config, true); err != nil {
		return fmt.Errorf("starting Caddy: %w", err)
	}
	defer func() { _ = caddy.Stop() }()

	fmt.Fprintf(out, instructions, "http://"+localhost(o.port), o.caddyfile, o.data)
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// instructions takes the origin, the Caddyfile and the data folder.
const instructions = `
An MCP server with OAuth is running. Give this URL to an MCP client:

    %[1]s/mcp

for example

    claude mcp add --transport http quickstart %[1]s/mcp
    npx mcp-remote %[1]s/mcp

Sign in as alice with the password wonderland. Who has access is shown, and
can be taken away, at %[1]s/mcp-auth/connections.
The configuration is %[2]s; clients stay signed in over a restart, by
what is kept in %[3]s. Ctrl-C stops all.
`

// config adapts the Caddyfile, with the ports of this run, to Caddy's JSON.
func (o options) config() ([]byte, error) {
	text, err := os.ReadFile(o.caddyfile)
	if err != nil {
		return nil, err
	}
	ports := strings.NewReplacer(
		localhost(caddyPort), localhost(o.port),
		localhost(serverPort), localhost(o.serverPort),
		dataFolder, o.data,
	)
	adapter := caddyconfig.GetAdapter("caddyfile")
	config, warnings, err := adapter.Adapt([]byte(ports.Replace(string(text))), map[string]any{"filename": o.caddyfile})
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		return nil, errors.New(w.String())
	}
	return config, nil
}

func localhost(port int) string {
	return net.JoinHostPort("localhost", strconv.Itoa(port))
}

// serve runs a handler on localhost until the returned function is called. A
// later failure goes to failed.
func serve(port int, flag string, h http.Handler, failed chan<- error) (stop func(), err error) {
	l, err := listen(port, flag)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	return func() {
		_ = srv.Close() // open event streams would hold up Shutdown
		<-done
	}, nil
}

// listen takes a port, and names the flag that moves it if it is busy.
func listen(port int, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", localhost(port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d is busy: stop what listens there, or choose another with -%s", port, flag)
	}
	return l, err
}
