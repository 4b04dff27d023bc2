#!/usr/bin/env bash
# Builds Caddy with this plugin as a user does, with xcaddy, into the file
# that is named.
source "$(dirname "$0")/env.sh"

output=${1:?usage: build.sh OUTPUT}
caddy=$(go list -m -f '{{.Version}}' github.com/caddyserver/caddy/v2)
# A version, or the go command would look for the versions of this module.
go tool xcaddy build "$caddy" --with github.com/caddy-mcp/mcpauth@v0.0.0=. --output "$output"
