// Command caddy is a Caddy server with the standard modules and mcpauth
// built in. It serves those who want to try the plugin with "go run"; for
// production, build with xcaddy.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-mcp/mcpauth"
)

func main() {
	caddycmd.Main()
}
