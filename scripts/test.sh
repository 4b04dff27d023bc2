#!/usr/bin/env bash
# The one test command: formatting and static checks, all Go tests with the
# race detector (fuzz targets run their seeds, caddytest runs the npm
# clients), and a build with xcaddy. It installs gcc and npm packages if they
# are missing.
source "$(dirname "$0")/env.sh"

need gcc gcc # the race detector needs cgo
need redis-server redis-server # the tests of store/redis
need chromium chromium # the tests of the pages
need node nodejs
need npm npm
scripts/lint.sh

for module in "${modules[@]}"; do
	step "go test -race in $module"
	(cd "$module" && CGO_ENABLED=1 go test -race ./...)
done

scripts/smoke.sh
step "all passed"
