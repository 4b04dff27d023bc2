#!/usr/bin/env bash
# CPU time per request and requests/s of a Caddy with this plugin, beside the
# TypeScript SDK, plain reverse_proxy and respond; then the Go benchmarks of the
# packages, briefly (BENCH_TIME each, BENCH_COUNT times). Arguments go to the
# first (-help lists them) and leave out the second, as in:
# scripts/bench.sh -run guard -profile 5s. Logs, stores and profiles are in
# bench-results.
source "$(dirname "$0")/env.sh"

need node nodejs
need npm npm
results=$root/bench-results
mkdir -p "$results"

step "building"
(cd bench/npm && npm ci --no-progress >/dev/null)
go build -o "$results/caddy" ./cmd/caddy
(cd bench && go build -o "$results/bench" .)

"$results/bench" -caddy "$results/caddy" -npm bench/npm -dir "$results" "$@"
[ "$#" -eq 0 ] || exit 0

need redis-server redis-server # the benchmark of store/redis
step "Go benchmarks"
while IFS= read -r package; do
	go test -run '^$' -bench . -benchmem -benchtime "${BENCH_TIME:-200ms}" -count "${BENCH_COUNT:-1}" "$package" | grep ^Bench
done < <(grep -rl --include='*_test.go' '^func Benchmark' . --exclude-dir=bench --exclude-dir=node_modules | xargs -n1 dirname | sort -u)
