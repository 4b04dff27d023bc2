#!/usr/bin/env bash
# Formatting, vet and staticcheck of all modules. The linters that take longer
# are in ci-long.sh.
source "$(dirname "$0")/env.sh"

# As xcaddy builds, so that all three can use what one of them has compiled.
export CGO_ENABLED=0 GOFLAGS="$GOFLAGS -trimpath"

step gofumpt
unformatted=$(tool gofumpt -l .)
if [ -n "$unformatted" ]; then
	printf 'gofumpt would change these files (go tool -modfile=tools/go.mod gofumpt -w FILE):\n%s\n' "$unformatted"
	exit 1
fi

for module in "${modules[@]}"; do
	step "go vet and staticcheck in $module"
	(
		cd "$module"
		go vet ./...
		tool staticcheck ./...
	)
done
