#!/usr/bin/env bash
# Builds Caddy with xcaddy and sees that the plugin is in it: modules,
# adapting and validating the example configurations, their formatting.
source "$(dirname "$0")/env.sh"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# Nothing may end up in the user's own folders.
export XDG_CONFIG_HOME=$dir/config XDG_DATA_HOME=$dir/data

step "xcaddy build"
scripts/build.sh "$dir/caddy"

step "list-modules"
"$dir/caddy" list-modules >"$dir/modules"
for module in mcp_auth http.handlers.mcp_auth http.handlers.mcp_bearer \
	http.authentication.providers.mcp_bearer http.reverse_proxy.transport.mcp_oauth; do
	grep -qxF "$module" "$dir/modules" || {
		echo "the binary lacks the module $module"
		exit 1
	}
done

# What the examples take from the environment.
export IDP_CLIENT_ID=example IDP_CLIENT_SECRET=example REDIS_PASSWORD=example MY_APP_SECRET=example
export REMOTE_CLIENT_ID=example REMOTE_CLIENT_SECRET=example
MCP_AUTH_KEY=$(head -c 32 /dev/urandom | base64)
export MCP_AUTH_KEY

while IFS= read -r caddyfile; do
	step "adapt, validate, fmt: $caddyfile"
	"$dir/caddy" adapt --adapter caddyfile --config "$caddyfile" >/dev/null
	"$dir/caddy" validate --adapter caddyfile --config "$caddyfile" >"$dir/log" 2>&1 || {
		cat "$dir/log"
		exit 1
	}
	"$dir/caddy" fmt "$caddyfile" | diff "$caddyfile" - || {
		echo "$caddyfile is not what caddy fmt makes of it"
		exit 1
	}
done < <(find examples -name Caddyfile -o -name '*.Caddyfile' | sort)
