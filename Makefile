# `make run` and `make test` are all that a newcomer needs; both install what is missing.
#
# They build with the dev profile: from scratch it is ready long before a release build, the two share it, and
# the cost of a lease is Chromium's either way. `make run PROFILE=release` is for production and for figures;
# the benchmarks build a release by themselves.

PROFILE ?= dev
CONFIG ?= examples/pool.toml
MINUTES ?= 2
SECONDS ?= 60
CARGO ?= cargo

.PHONY: help run fleet test faults tools tools-quick ops lint format bench bench-visit long-visit bench-work bench-fleet bench-dashboard soak fuzz package docs chromium clients tmux faketime nats cargo-deny clean

help: ## List what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

run: chromium ## Install Chromium if there is none, build, and serve on ws://127.0.0.1:3000
	$(CARGO) run --locked --profile $(PROFILE) -p pool-cli -- run --config $(CONFIG)

fleet: chromium ## Serve as a fleet of three nodes on this machine, with a NATS server, to play with
	PROFILE=$(PROFILE) scripts/fleet

test: chromium clients tmux faketime nats cargo-deny ## Install what the tests need and run everything that CI runs
	scripts/test

faults: chromium clients faketime ## Every client by the hundred, what breaks, and what an attacker tries
	scripts/test e2e clients faults

tools-quick: chromium ## The tools for which little has to be installed
	scripts/install-clients tools-quick
	scripts/test tools-quick

tools: chromium ## The tools with which people drive a Chromium, unmodified, each beside a plain Chromium
	scripts/install-clients tools
	scripts/test tools

ops: chromium ## Check what is in ops/: alerts, dashboard, systemd, Docker, Kubernetes, a fleet, HAProxy
	scripts/check-ops

lint: ## Formatting, clippy with warnings as errors, licences and, with a network, advisories
	scripts/lint

format: ## Format the code
	$(CARGO) fmt --all

bench: chromium ## pool-core beside its peers, and leases beside launching a Chromium for each client
	$(CARGO) bench --locked -p pool-core
	$(CARGO) build --locked --release -p pool-cli
	for engine in shell chromium; do for lease in exclusive shared; do \
	  target/release/pool-cli bench --engine $$engine --lease $$lease || exit; \
	done; done

bench-visit: chromium ## Many URLs: each --isolation of pool-cli visit beside puppeteer-cluster and Crawlee's browser-pool
	scripts/install-clients bench-visit
	$(CARGO) build --locked --release -p pool-cli
	node tests/bench-visit/run.mjs --pool-cli target/release/pool-cli

long-visit: chromium ## A visit of thousands of pages that is killed again and again: memory, and nothing lost or twice
	$(CARGO) build --locked --release -p pool-cli
	node tests/bench-visit/long.mjs --pool-cli target/release/pool-cli

bench-work: chromium clients ## PDFs by request, beside launching a Chromium for each with Puppeteer, and under load
	$(CARGO) build --locked --release -p pool-cli
	node tests/bench-work/run.mjs --pool-cli target/release/pool-cli

bench-fleet: chromium clients nats ## Leases of another node of a fleet, beside leases of the client's own node
	$(CARGO) build --locked --release -p pool-cli
	node tests/bench-fleet/run.mjs --pool-cli target/release/pool-cli

bench-dashboard: chromium clients ## Leases with ten dashboards open and with none, and the pool's CPU with one
	$(CARGO) build --locked --release -p pool-cli
	POOL_CLI=target/release/pool-cli node tests/clients/dashboard-cost.mjs

soak: chromium clients ## Clients, bursts and faults for a while: make soak MINUTES=30
	MINUTES=$(MINUTES) scripts/soak

fuzz: ## Every fuzz target for a while: make fuzz SECONDS=300
	SECONDS_EACH=$(SECONDS) scripts/fuzz

docs: ## Build the site of the documentation in target/docs/book
	scripts/docs build

package: chromium ## Build what users install (crates, program, Debian package, image, SBOM) and try each
	PROFILE=$(PROFILE) scripts/package

chromium:
	@scripts/install-chromium

clients:
	@scripts/install-clients clients

tmux faketime:
	@scripts/install-package $@

nats:
	@scripts/install-nats

cargo-deny:
	@scripts/install-cargo-deny

clean: ## Remove what was built and installed here; Chromium stays
	$(CARGO) clean
	rm -rf tests/*/node_modules tests/*/.venv tests/tools/*/node_modules tests/tools/*/.venv
