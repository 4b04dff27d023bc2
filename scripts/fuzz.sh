#!/usr/bin/env bash
# Runs every fuzz target of the root module for FUZZ_TIME (default 30s), one
# after the other, and fails when one finds something.
source "$(dirname "$0")/env.sh"

found=0
while IFS= read -r package; do
	while IFS= read -r target; do
		found=$((found + 1))
		step "$target in $package for ${FUZZ_TIME:-30s}"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZ_TIME:-30s}" "$package"
	done < <(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true)
done < <(go list ./...)
[ "$found" -gt 0 ] || {
	echo "no fuzz target was found"
	exit 1
}
echo "$found fuzz targets without a finding"
