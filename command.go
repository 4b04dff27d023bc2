package mcpauth

import (
	"github.com/spf13/cobra"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "mcp-auth",
		Short: "Signs in to remote MCP servers, and makes API keys",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(keyCommand(), loginCommand(), logoutCommand(), listCommand())
		},
	})
}
