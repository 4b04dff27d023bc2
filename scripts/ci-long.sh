#!/usr/bin/env bash
# What takes too long for every change: the linters of Caddy, known
# vulnerabilities, fuzzing, the server leg of the MCP conformance suite, a flood
# of requests, benchmarks. All run, and the failed ones are named at the end.
source "$(dirname "$0")/env.sh"

failed=()
# try runs a command and remembers if it fails.
try() {
	local name=$1
	shift
	step "$name"
	"$@" || failed+=("$name")
}

golangci() {
	local module
	for module in "${modules[@]}"; do
		(cd "$module" && go tool -modfile="$root/tools/golangci/go.mod" golangci-lint run --config "$root/.golangci.yml" ./...) || return
	done
}

vulnerabilities() {
	local module
	for module in "${modules[@]}"; do
		(cd "$module" && tool govulncheck ./...) || return
	done
}

conformance() {
	(cd caddytest && go test -tags nobadger,nomysql,nopgx,conformance -run Conformance -count 1 -v .)
}

flood() {
	(cd caddytest && go test -tags nobadger,nomysql,nopgx,long -run '^TestFlood$' -count 1 -v .)
}

try golangci-lint golangci
try govulncheck vulnerabilities
try fuzzing scripts/fuzz.sh
try conformance conformance
try flood flood
try benchmarks scripts/bench.sh

if [ "${#failed[@]}" -gt 0 ]; then
	printf '\nfailed: %s\n' "${failed[*]}"
	exit 1
fi
step "all passed"
