// Command stack is the program that quickstart builds and runs: an MCP server,
// and Caddy in front of it, in one process.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var o options
	flag.IntVar(&o.port, "port", 8080, "port of Caddy, which MCP clients talk to")
	flag.IntVar(&o.serverPort, "server-port", 3000, "port of the MCP server behind Caddy")
	flag.StringVar(&o.caddyfile, "caddyfile", "quickstart/Caddyfile", "Caddyfile to run")
	flag.StringVar(&o.data, "data", dataFolder, "folder for what outlives a restart")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}
