// Command quickstart builds and starts everything that it takes to try
// mcp_auth: an MCP server, and Caddy in front of it with the Caddyfile in this
// folder, which signs in a local account. From the root of the repository:
//
//	go run -C examples ./quickstart
//
// It needs Go and nothing else. Flags go through to ./quickstart/stack, which
// is the program proper: this one is small, so that it can say what takes so
// long before the go command starts to compile Caddy.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if _, exited := errors.AsType[*exec.ExitError](err); !exited { // the program has said why
			fmt.Fprintln(os.Stderr, "quickstart:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if _, err := os.Stat(filepath.Join("quickstart", "Caddyfile")); err != nil {
		return errors.New("run me in the folder examples: go run -C examples ./quickstart")
	}
	fmt.Println("Building Caddy with mcp_auth. The first build takes about two minutes, later ones seconds.")
	binary := filepath.Join("build", "quickstart")
	// The tags are xcaddy's: they leave out databases that nobody here needs.
	if err := command(ctx, "go", "build", "-tags", "nobadger,nomysql,nopgx", "-o", binary, "./quickstart/stack"); err != nil {
		return err
	}
	return command(ctx, binary, args...)
}

// command runs a program on our terminal. When ctx ends it is interrupted.
func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}
