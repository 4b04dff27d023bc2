# Sourced by the other scripts: goes to the root of the repository and sets
# what they share.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The modules of this repository, each with its own go.mod.
# shellcheck disable=SC2034
modules=(. examples caddytest bench)

# What xcaddy builds with: Caddy without databases that nobody here needs.
export GOFLAGS="${GOFLAGS:-} -tags=nobadger,nomysql,nopgx"
export GOWORK=off

# step says what comes next.
step() { printf '\n== %s\n' "$*"; }

# need installs a Debian package unless its command is there.
need() {
	local command=$1 package=$2
	command -v "$command" >/dev/null && return
	step "installing $package"
	local sudo=()
	[ "$(id -u)" = 0 ] || sudo=(sudo)
	"${sudo[@]}" apt-get update -q
	"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$package"
}

# tool runs a program of tools/go.mod, in the current folder.
tool() { go tool -modfile="$root/tools/go.mod" "$@"; }
root=$PWD
