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

# npm brings Node 22 for this one platform; go test does not say what it skips.
if [ "$(uname -sm)" != "Linux x86_64" ] && ! node -e 'process.exit(parseInt(process.versions.node) < 22 ? 1 : 0)'; then
	step "NOT RUN: the MCP conformance suite of the client (TestConformanceClient), which needs Node 22 in the path"
	step "all else passed"
	exit
fi
step "all passed"
