# fsctl: `sudo make demo`, `sudo make test`, `make check`. Every target sets up what it needs first.
PYTHON := .venv/bin/python
# Fast ones first; what does not exist yet is left out.
CHECK_TESTS := $(wildcard tests/test_*.py tests/unit tests/rest tests/contract tests/properties)
ROOT_TESTS := $(wildcard tests/ovs tests/docs tests/faults tests/fuzz tests/agent tests/mininet tests/soak)
PYTEST_ARGS ?=

.PHONY: lock help setup setup-python root lint check test soak fuzz demo demo-agent bench clean

help:
	@echo 'sudo make demo    a chain of virtual routers, bypassed: measured before and after (5 minutes)'
	@echo 'sudo make demo-agent   routers that run OSPF (FRR) and delegate by themselves: cut, firewalled, killed (2 minutes)'
	@echo 'sudo make test    everything: lint, unit, properties, real Open vSwitch, real packets'
	@echo 'sudo make soak    20 minutes of an adversary at random, real packets (FSCTL_SOAK_SECONDS, FSCTL_SOAK_SEED, FSCTL_SOAK_ONLY)'
	@echo 'sudo make fuzz    a million requests at random against the whole controller (FSCTL_FUZZ_REQUESTS, FSCTL_FUZZ_SEED)'
	@echo '     make check   the part that needs neither root nor Open vSwitch (one minute)'
	@echo 'sudo make bench   collapse, rules per second, changes, restart, packet rates; beside ovs-ofctl, OVN, rest_router, Faucet'
	@echo 'sudo make xen-lab  routers as domUs on a real Xen host, emulated: the paper'"'"'s measurement (test-xen: its tests)'
	@echo 'sudo make vm-lab   the same chain as QEMU virtual machines (test-vm: its tests)'
	@echo '     make lock    pin the Python packages anew: requirements.lock, with hashes, and sbom.cdx.json'
	@echo 'sudo make setup   only install what is missing; `make clean` removes what make made'

setup:
	@tools/setup.sh all

setup-python:
	@tools/setup.sh venv

# After a change of setup.cfg, or to take newer packages in: requirements.lock, with hashes, and sbom.cdx.json.
lock:
	@tools/lock.sh

root:
	@[ "$$(id -u)" -eq 0 ] || { echo 'this needs root: sudo make $(MAKECMDGOALS)' >&2; exit 1; }

lint: setup-python
	@$(PYTHON) -m ruff check --quiet fsctl topologies tests
	@$(PYTHON) -m ruff format --quiet --check fsctl topologies tests
	@$(PYTHON) -m mypy --no-error-summary

check: setup-python lint
	@$(PYTHON) -m pytest $(CHECK_TESTS) $(PYTEST_ARGS)

test: root setup lint
	@$(PYTHON) -m pytest $(CHECK_TESTS) $(ROOT_TESTS) $(PYTEST_ARGS)

# An adversary against the whole controller, for 20 minutes; FSCTL_SOAK_SEED replays one, FSCTL_SOAK_ONLY=a,b draws these actions alone.
soak: root setup
	@FSCTL_SOAK_SECONDS=$${FSCTL_SOAK_SECONDS:-1200} $(PYTHON) -m pytest -s tests/soak $(PYTEST_ARGS)

# Requests at random; what is wrong is shown with the seed that replays it.
fuzz: root setup
	@FSCTL_FUZZ_SECONDS=$${FSCTL_FUZZ_SECONDS:-86400} $(PYTHON) -m pytest -s tests/fuzz $(PYTEST_ARGS)

demo: root setup
	@$(PYTHON) -m topologies.demo

demo-agent: root setup
	@tools/setup.sh frr
	@$(PYTHON) -m topologies.demo_agent

bench: root setup
	@$(PYTHON) -m topologies.experiments

clean:
	rm -rf .venv *.egg-info build dist results .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

include labs.mk
