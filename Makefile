# Everything that a person or CI runs. Each target installs what it needs on a bare Debian machine.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Static binaries run in images without a C library. The target is named so that the flags do not reach proc macros,
# and every target below uses the same ones so that nothing is built twice.
HOST_TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
export CARGO_BUILD_TARGET := $(HOST_TARGET)
RUSTFLAGS_VARIABLE := CARGO_TARGET_$(shell echo $(HOST_TARGET) | tr 'a-z-' 'A-Z_')_RUSTFLAGS
export $(RUSTFLAGS_VARIABLE) := -C target-feature=+crt-static

# Programs of the project are taken from here once they are built: `cargo run -p` chooses other features of other crates, and
# compiles half of them anew.
BIN := target/$(HOST_TARGET)
TESTBED := $(BIN)/debug/testbed

.PHONY: help
help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: bootstrap
bootstrap: ## packages that the test bed needs
	@tests/bootstrap.sh

# The hub embeds the dashboard, and is compiled again with all that is linked to it when that is built: so it is built only when
# something of it has changed.
UI_PACKAGES := hub/ui/node_modules/.package-lock.json
UI_SITE := hub/ui/dist/site/index.html.br
UI_SOURCES := $(shell find hub/ui/src hub/ui/scripts) $(addprefix hub/ui/,index.html package.json tsconfig.json vite.config.ts)

$(UI_PACKAGES): hub/ui/package.json hub/ui/package-lock.json
	cd hub/ui && npm ci --no-audit --no-fund && touch node_modules/.package-lock.json

$(UI_SITE): $(UI_PACKAGES) $(UI_SOURCES)
	cd hub/ui && npm run build

.PHONY: ui
ui: $(UI_SITE) ## the dashboard, which the hub's binary holds when it is built afterwards (needs Node 20 and npm)

# A hub without its dashboard says so on its page, so a machine without Node builds one.
.PHONY: ui-if-node
ui-if-node:
	@if [ "$$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ]; then \
	   if $(MAKE) -s --no-print-directory $(UI_PACKAGES); then $(MAKE) -s --no-print-directory ui; \
	   else echo "the packages of the dashboard cannot be had: the hub is built without it"; fi; \
	 else echo "Node.js 20 or later is not installed: the hub is built without its dashboard"; fi

.PHONY: browser
browser:
	@command -v chromium >/dev/null || { apt-get update -qq && \
	   apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || \
	   echo "Chromium cannot be installed: the dashboard is not tried in it"

.PHONY: ui-test
ui-test: ui browser ## the dashboard in Chromium (installed if missing): every screen in both themes, with keys alone, by axe
	cargo test --workspace --test hub_tests dashboard_contract::
	cargo test --workspace --test hub_tests dashboard_pages:: -- --ignored --nocapture

.PHONY: binaries
binaries: ## fleet-spoke, fleet-hub, fleet and testbed
	cargo build --workspace --bins

# Without what only tests, benchmarks and releases need.
.PHONY: demo-binaries
demo-binaries:
	cargo build --workspace $(addprefix --bin=,fleet-spoke fleet-hub fleet testbed demo)

.PHONY: demo
demo: bootstrap ui-if-node demo-binaries ## two clusters back up into one repository, one of them a PostgreSQL that is written to
	$(TESTBED) up --name demo --clusters a,b
	$(BIN)/debug/demo

.PHONY: demo-down
demo-down: ## removes the demo and all that it started
	@if [ -x $(TESTBED) ]; then $(TESTBED) down --name demo; else echo "nothing to remove"; fi

.PHONY: test
test: bootstrap ui-if-node browser binaries lint test-fast ## formatting, lints, generated files, all tests without clusters, and most of those with
	tests/run.sh

.PHONY: long
long: bootstrap binaries ## tests on clusters that take more than a minute and a half each: alerts, left-over locks, upgrade (half an hour)
	tests/run.sh long

.PHONY: faults
faults: bootstrap binaries ## every fault in the middle of deleting, judged by the storage's log, and every kill around a hook (over an hour)
	tests/run.sh faults

.PHONY: rights
rights: bootstrap binaries ## that the operator uses each of its rights and no other, and that no secret shows in any log or object
	tests/run.sh rights

.PHONY: backends
backends: bootstrap binaries ## Azure by Azurite (needs npm) and Google's storage by fake-gcs-server, on real pods
	tests/run.sh backends

.PHONY: charts-test
charts-test: bootstrap binaries ## the Helm charts: lint, unit tests with every refusal, rules, pods; then on two clusters, README's commands first
	tests/charts.sh
	tests/run.sh charts

.PHONY: install-test
install-test: bootstrap binaries ## the commands of README's "Install with Helm", out of README, on two new clusters, timed
	tests/run.sh charts install

# A commit of the version before; the last tag unless it is given.
PREVIOUS ?=
.PHONY: upgrade-test
upgrade-test: bootstrap ## to this version from the one before (PREVIOUS=COMMIT) and back, on two clusters, while backups and a prune run
	tests/previous.sh $(PREVIOUS)
	$(MAKE) binaries
	for way in upgrade helm-upgrade; do FLEET_PREVIOUS=$$(tests/previous.sh $(PREVIOUS)) tests/run.sh $$way || exit 1; done

.PHONY: images
images: ui binaries ## images of operator and hub, with SBOM and provenance; REGISTRY=registry.example.org/backup pushes them
	deploy/images/build.sh

.PHONY: release
release: bootstrap ui binaries ## all that a release has, into target/release-files, and read again from there (docs/release.md)
	$(TESTBED) build --charts
	deploy/release.sh
	@command -v minisign >/dev/null || apt-get install -y -qq minisign >/dev/null
	cargo test --workspace --test release -- --ignored --nocapture

.PHONY: manifests
manifests: binaries ## deploy/spoke/30-deployment.yaml and deploy/hub/20-hub.yaml out of the charts
	$(TESTBED) build --charts
	deploy/charts/render.sh

.PHONY: test-fast
test-fast: restic ## what runs without clusters
	PATH="$(CURDIR)/.testbed/bin:$$PATH" tests/fast.sh

.PHONY: restic
restic: bootstrap binaries
	$(TESTBED) build

.PHONY: lint
lint: binaries ## formatting, clippy, licences, generated files
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(BIN)/debug/crdgen --check deploy
	@if command -v cargo-deny >/dev/null; then cargo deny check licenses bans sources; \
	 else echo "cargo-deny is not installed: licences and bans are not checked (cargo install cargo-deny --locked)"; fi

.PHONY: bench
bench: bootstrap restic ## figures against goals, written to docs/benchmarks.md (about an hour; PARTS="lease link" measures these)
	cargo build --release -p spoke -p hub -p cli --features spoke/jemalloc,hub/jemalloc
	$(BIN)/debug/bench $(PARTS)

SPOKES ?= 1000
.PHONY: bench-fleet
bench-fleet: binaries ## a hub with SPOKES simulated clusters of 100 resources (5 minutes; with 1000 or 10000 it is written to docs/benchmarks.md)
	cargo build --release -p spoke -p hub -p cli --features spoke/jemalloc,hub/jemalloc
	$(BIN)/debug/bench fleet --spokes $(SPOKES)

.PHONY: gen
gen: binaries ## generated files
	$(BIN)/debug/crdgen deploy
	FLEET_WRITE_DOCS=1 cargo test -q --workspace --test hub_tests --test spoke_tests -- dashboard_contract:: observability:: settings::
	FLEET_WRITE_DOCS=1 cargo test -q --workspace --test crds_tests --test documents -- reference:: values::
	FLEET_WRITE_DOCS=1 cargo test -q --workspace --lib --bins the_page_is
