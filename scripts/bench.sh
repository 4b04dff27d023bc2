#!/usr/bin/env bash
# All benchmarks, several times each so that benchstat can compare. Arguments
# go to go test, as in: scripts/bench.sh -benchtime 10s
source "$(dirname "$0")/env.sh"

for module in "${modules[@]}"; do
	step "benchmarks in $module"
	(cd "$module" && go test -run '^$' -bench . -benchmem -count "${BENCH_COUNT:-3}" "$@" ./...)
done
