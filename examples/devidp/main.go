// Command devidp runs an identity provider for development: it signs anybody
// in as one of its users with one click, keeps everything in memory, and
// answers on loopback only. Never use it for anything that matters.
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

	"github.com/caddy-mcp/mcpauth/examples/devidp/idp"
)

func main() {
	addr := flag.String("addr", "localhost:9400", "loopback address to listen on; the issuer is http:// and this")
	audience := flag.String("audience", "", "audience of tokens for which the client named no resource")
	flag.Parse()

	issuer := "http://" + *addr
	provider, err := idp.New(idp.Options{Issuer: issuer, Audience: *audience})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	srv := &http.Server{
		Addr:              *addr,
		Handler:           provider,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
	}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	log.Printf("FOR DEVELOPMENT ONLY: identity provider %s lets anybody sign in as alice", issuer)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
