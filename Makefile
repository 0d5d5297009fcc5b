# `make demo` and `make test` are all a newcomer needs; both install what is missing first (scripts/setup).
BIN := .venv/bin

# Without bytecode each worker of pytest, and each agent and controller that a test starts, compiles everything again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup check test test-openstack test-browser matrix mutants vms chaos soak fleet fuzz bench bench-fleet bench-openstack demo docs reference lock sbom packages test-packages clean

setup:
	@scripts/setup

check: setup
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 -m "not lab" --ignore tests/matrix

# LABS: how many labs stand side by side (each of its own hosts, with a test file of its own).
LABS ?= 2

test: check
	$(BIN)/pytest -s tests/matrix
	$(BIN)/pytest -n $(LABS) --dist loadfile --durations 20 -m lab

# The `cinder` and `neutron` providers against real Keystone, Neutron and Cinder, which it installs into .cache.
test-openstack:
	@scripts/setup openstack
	STERNA_WITH_OPENSTACK=1 $(BIN)/pytest $(if $(CASE),-k "$(CASE)") tests/openstack

# The web UI in Debian's Chromium, over a simulated fleet: each page wide and narrow, light and dark, with axe; and by
# the keyboard alone. Pictures: out/browser.
test-browser:
	@scripts/setup browser
	STERNA_WITH_BROWSER=1 $(BIN)/pytest $(if $(CASE),-k "$(CASE)") tests/browser

demo: setup
	$(BIN)/python -m sterna.lab.demo

# Every single fault, every pair (or STERNA_PAIRS of them, evenly spread), 2,000 stories: hours. `make test` plays a
# sample (STERNA_SEED).
matrix: setup
	STERNA_MATRIX=1 STERNA_STORIES=2000 $(BIN)/pytest -s tests/matrix tests/saga/test_power_cuts.py

# Takes one safeguard at a time out of the product: the matrix must notice.
mutants: setup
	$(BIN)/python -m tests.matrix.mutants

# VMs as people define them, planned and moved for real, all files of both hosts looked at: 200 random ones, or one of each
# kind (KINDS=1), beside `virsh migrate`. JOBS: labs side by side. To replay one: make vms SEED=1 ONLY=17
vms: setup
	$(BIN)/python -m tests.random_vms $(if $(KINDS),--kinds) $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) \
		$(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS))

# Real faults on real hosts, on two labs side by side (JOBS=1: on one). To replay one: make chaos CASE='bus dies, copying'
chaos: setup
	$(BIN)/python -m tests.chaos $(if $(JOBS),--jobs $(JOBS)) $(if $(CASE),"$(CASE)")

# Many guests move while real faults strike at random: make soak MINUTES=30 GUESTS=8 SEED=1 DATABASE=postgresql. The
# faults are a function of these, so a run can be replayed.
soak: setup
	$(BIN)/python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(GUESTS),--guests $(GUESTS)) \
		$(if $(SEED),--seed $(SEED)) $(if $(DATABASE),--database $(DATABASE)) $(if $(CONTROLLERS),--controllers $(CONTROLLERS))

# Real controllers, nats-server and database over a simulated fleet, with faults (docs/contributing/testing.md); no lab.
# All scenarios, or one: make fleet SCENARIO=rack-lost HOSTS=1000 VMS=10000 POSTGRES=1 SEED=2
fleet: setup
	$(BIN)/python -m bench.fleetsim $(SCENARIO) $(if $(HOSTS),--hosts $(HOSTS)) $(if $(VMS),--vms $(VMS)) \
		$(if $(SEED),--seed $(SEED)) $(if $(COMPRESS),--compress $(COMPRESS)) $(if $(POSTGRES),--postgres)

# Any request that the API's document allows, and others, to the API of a lab, as each role and as nobody (Schemathesis).
fuzz:
	@scripts/setup fuzz
	$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
		$(if $(ROLE),--role $(ROLE))

# Sterna against `virsh migrate`, interleaved in one run: ratios, never absolute numbers. All experiments take long;
# EXPERIMENT names one (docs/lab-notebook/benchmarks.md); TLS=1 encrypts everything, of both.
bench: setup
	$(BIN)/python -m bench $(EXPERIMENT) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(TLS),--tls)

# The planner of fleet operations against Nova's and KubeVirt's rules, in simulated fleets of 1,000 hosts. Needs no lab.
bench-fleet: setup
	$(BIN)/python -m bench.fleet $(EXPERIMENT)

# The network blackout of ports that real Open vSwitch agents wire, against Nova's order and other ways to hand them over;
# and with agents that come late (both plugs).
bench-openstack:
	@scripts/setup openstack
	$(BIN)/python -m tests.openstack.blackout $(EXPERIMENT) $(if $(ROUNDS),--rounds $(ROUNDS))

# The documents as a site, in out/site. Wrong links and anchors are errors. Nothing is loaded from elsewhere.
docs:
	@scripts/setup docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The site is in out/site. With search: $(BIN)/python -m http.server --bind 127.0.0.1 --directory out/site"

# The pages of docs/reference that are made from the code. `make check` fails while they are not up to date.
reference: setup
	$(BIN)/python -m tests.unit.reference_pages

lock:
	scripts/lock

# The list of what an installation has, with licences (CycloneDX): after `make lock`, then `make reference`.
sbom:
	scripts/sbom

# The wheel, and Debian packages for the distribution of this machine, of the last commit, in out/packages.
packages:
	packaging/build

# Builds them twice and compares; installs, upgrades and purges them in a root that debootstrap makes. As root. ONCE=1:
# takes what is in out/packages. RELEASE=trixie: a root of that release.
test-packages:
	ONCE=$(ONCE) packaging/test $(RELEASE)

clean:
	rm -rf .venv .cache .lab* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache out
