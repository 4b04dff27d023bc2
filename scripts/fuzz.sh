#!/usr/bin/env bash
# Runs every fuzz target of the root module, and those that need go-sdk, for
# FUZZ_TIME (default 30s), one after the other, and fails when one finds
# something. The comparison of JSON-RPC parsers gets FUZZ_TIME_RPC (default
# FUZZ_TIME if that is set, else 5m).
source "$(dirname "$0")/env.sh"

found=0
# fuzz runs the targets of the packages that the arguments name, in a module.
fuzz() {
	local module=$1 package target time
	shift
	while IFS= read -r package; do
		while IFS= read -r target; do
			found=$((found + 1))
			time=${FUZZ_TIME:-30s}
			case $target in FuzzAppendMessages | FuzzGoSDK) time=${FUZZ_TIME_RPC:-${FUZZ_TIME:-5m}} ;; esac
			step "$target in $package for $time"
			(cd "$module" && go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package")
		done < <(cd "$module" && go test -list '^Fuzz' "$package" | grep '^Fuzz' || true)
	done < <(cd "$module" && go list "$@")
}

fuzz . ./...
fuzz caddytest ./peek
[ "$found" -gt 0 ] || {
	echo "no fuzz target was found"
	exit 1
}
echo "$found fuzz targets without a finding"
