// Command stack is the program that quickstart builds and runs: identity
// provider, MCP server and Caddy in one process.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("quickstart: ")
	var o options
	flag.IntVar(&o.port, "port", 8080, "port of Caddy, which MCP clients talk to")
	flag.IntVar(&o.idpPort, "idp-port", 9400, "port of the identity provider for development")
	flag.IntVar(&o.serverPort, "server-port", 3000, "port of the MCP server behind Caddy")
	flag.StringVar(&o.caddyfile, "caddyfile", "quickstart/Caddyfile", "Caddyfile to run")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		log.Fatal(err)
	}
}
