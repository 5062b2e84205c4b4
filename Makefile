# Every target makes .venv on first use and installs the locked dependencies into it.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help

help:            ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 20

demo: install    ## two access points exchange evidence on this machine (ARGS="--once --json")
	@$(BIN)/gateway demo $(ARGS)

# What starts processes of its own, or waits for a database, mostly waits: these lanes (rooms joined by +) run beside
# the rest, and their logs come afterwards.
QUICK := -m "not slow and not peer"
LANES := tests/failover tests/rollover+tests/interop+tests/contract+tests/security
test: install    ## the default test suite
ifneq ($(ARGS),)
	$(BIN)/python -m pytest -q $(QUICK) $(ARGS)
else
	@logs=$$(mktemp -d); beside=; \
	for lane in $(LANES); do \
	  log="$$logs/$$(echo $$lane | tr / -)"; \
	  { $(BIN)/python -m pytest -q $(QUICK) $$(echo $$lane | tr + ' '); echo $$? >"$$log.status"; } >"$$log" 2>&1 & \
	  beside="$$beside $$!"; \
	done; \
	trap 'kill $$beside 2>/dev/null; rm -rf "$$logs"' EXIT; \
	$(BIN)/python -m pytest -q $(QUICK) $(foreach room,$(subst +, ,$(LANES)),--ignore=$(room)); status=$$?; \
	wait $$beside; \
	for lane in $(LANES); do \
	  log="$$logs/$$(echo $$lane | tr / -)"; \
	  echo "--- $$lane"; cat "$$log"; test "$$(cat "$$log.status")" = 0 || status=1; \
	done; \
	exit $$status
endif

# A single test of a long suite may take longer than the limit of pyproject.toml.
LONG := --timeout 3600
test-all: install ## everything, long suites included; but see interop
	$(BIN)/python -m pytest -q $(LONG) -m "not peer" $(ARGS)

# Without ARGS the long form also puts its table into docs/interop.md. Maven takes phase4 from Maven Central.
FORM ?= full
interop: install ## against phase4, a foreign AS4 stack; needs JDK 17 and Maven (FORM=short: what CI runs)
	@for tool in javac mvn; do command -v $$tool >/dev/null || { \
	  echo "interop: $$tool is missing: install a JDK (17 or newer) and Maven" >&2; exit 1; }; done
	@echo "building the peer with Maven …" >&2
	@mvn -B -q -ntp -f tests/interop/peer/pom.xml package || { \
	  echo "interop: the peer cannot be built; without its artifacts nothing was tested" >&2; exit 1; }
	GATEWAY_INTEROP=$(FORM) $(BIN)/python -m pytest -q $(LONG) -m peer tests/interop $(ARGS)
ifeq ($(FORM)$(ARGS),full)
	@$(BIN)/python -m tests.interop.phase4_table
endif

# Its table also goes into docs/failover.md; a part of it writes its own lines anew.
failover: install ## the failure suite: real processes, databases and networks are killed and cut (ARGS: files of tests/failover)
	GATEWAY_FAILOVER=full GATEWAY_FAILOVER_PAGE=docs/failover.md $(BIN)/python -m pytest -q $(LONG) $(or $(ARGS),tests/failover)

rollover: install ## agreements, keys and certificates change again and again under load, while processes die
	GATEWAY_ROLLOVER=full $(BIN)/python -m pytest -q $(LONG) tests/rollover tests/interop/test_docs_agreement_update.py $(ARGS)

rehearsal: install ## a pair on this machine, as root: node lost, switchover, primary killed … (ARGS=--keep: stays up)
	@$(BIN)/python -m tests.failover.cluster $(ARGS)

wrapping: install ## signature wrapping: 20,000 mutants per fixture and more
	GATEWAY_WRAPPING=full $(BIN)/python -m pytest -q $(LONG) tests/security $(ARGS)

simulation: install ## thousands of seeds on a virtual clock, on every core: 3000 in some ten minutes on two (ARGS="--seeds 20000")
	@$(BIN)/python -m tests.simulation $(or $(ARGS),--seeds 3000)

bench: install   ## product against protocol floor, in one run; prints JSON
	@$(BIN)/python -m tests.bench $(ARGS)

lint: install    ## style and import floors
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q tests/rules

deb: install     ## the Debian package, into dist/
	@deploy/debian/build dist

image: ## the container image (needs docker)
	docker build -f deploy/container/Dockerfile -t oots-as4-gateway .

metrics-page: install ## write the table of docs/operators/metrics.md
	$(BIN)/python -m tests.deploy.observability

lock: install    ## refresh requirements.lock after a change of pyproject.toml
	$(BIN)/pip-compile --quiet --extra dev --generate-hashes --allow-unsafe --strip-extras \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml
	$(BIN)/python deploy/runtime_lock.py > deploy/requirements.lock

install: .venv/installed

# `--without-pip` because Debian ships Python without ensurepip; pip itself can install into any environment.
.venv/installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.x" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "pip is needed: install python3-pip" >&2; exit 1; }
	@echo "installing into .venv (first use) …" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes -r requirements.lock >&2
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . >&2
	@touch $@

clean:           ## remove what was made here
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis tests/interop/peer/target

.PHONY: help demo test test-all interop failover rollover rehearsal wrapping simulation bench lint deb image metrics-page lock install clean
