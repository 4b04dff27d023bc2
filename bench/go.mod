module github.com/caddy-mcp/mcpauth/bench

go 1.26.0

replace github.com/caddy-mcp/mcpauth => ../
