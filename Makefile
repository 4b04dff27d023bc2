# Every target is a short script or one go command; read them to see more.

.PHONY: run test bench build lint ci-long

# An MCP server behind mcp_auth, with everything that it takes to try it.
run:
	go run -C examples ./quickstart

# All that a change has to pass.
test:
	scripts/test.sh

bench:
	scripts/bench.sh

# A Caddy binary with this plugin: ./caddy
build:
	scripts/build.sh caddy

lint:
	scripts/lint.sh

# What takes too long for every change: all linters, fuzzing, conformance.
ci-long:
	scripts/ci-long.sh
