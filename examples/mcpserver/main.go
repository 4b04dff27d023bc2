// Command mcpserver runs the example MCP server. It has no authentication:
// put it behind Caddy with mcp_auth, and let it listen on loopback only.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/caddy-mcp/mcpauth/examples/mcpserver/server"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:3000", "address to listen on")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	srv := &http.Server{
		Addr:              *addr,
		Handler:           server.New(server.Options{}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	// Close, not Shutdown: event streams would hold it up.
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	log.Printf("MCP server on http://%s/mcp, without authentication", *addr)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
