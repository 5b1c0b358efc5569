# Ringbook: every set-up step lives here. A fresh machine needs Python 3.11 to 3.13, make and the
# package registry; nothing else is asked for, and nothing outside this folder is touched.
#
#   .venv/                    the project's own environment, made on first use
#   requirements.lock         what `make run` installs: exact versions with hashes
#   requirements-test.lock    the same plus the test and lint tools
#
# The stamps .venv/.ready-run and .venv/.ready-test say which lock is installed; while they are newer
# than their lock and pyproject.toml, set-up is a no-op.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

VENV := .venv
PY := $(VENV)/bin/python
LOCK_FLAGS := --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
              --python-version 3.11 --quiet
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A folder that was copied or moved keeps an environment whose paths point elsewhere; one whose Python
# was removed does not start. Either is made anew.
VENV_GOOD := $(shell grep -qsF " $(CURDIR)/$(VENV)" $(VENV)/pyvenv.cfg && $(PY) -c '' 2>/dev/null \
                     && echo yes)
ifneq ($(VENV_GOOD),yes)
.PHONY: $(VENV)/.made
endif

# The Python of your shell comes first if it is in range, then the newest; PYTHON=... overrides. Each
# candidate is started, because a name on PATH may be a shim of a version that is not there, and a
# Python without ensurepip cannot make an environment.
define FIND_PYTHON
found=; seen=; \
for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
  command -v "$$candidate" >/dev/null 2>&1 || continue; \
  version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) \
    || continue; \
  case "$$version" in \
    3.11|3.12|3.13) \
      if "$$candidate" -c 'import venv, ensurepip' 2>/dev/null; then found=$$candidate; break; \
      else seen="$$seen $$candidate (its venv module is missing: on Debian install python3-venv),"; \
      fi ;; \
    *) seen="$$seen $$candidate ($$version)," ;; \
  esac; \
done; \
if [ -z "$$found" ]; then \
  seen=$${seen:- no Python at all}; \
  echo "Ringbook needs Python 3.11, 3.12 or 3.13; found:$${seen%,}" >&2; \
  echo "Install one of them, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
  exit 1; \
fi
endef

# $(call INSTALL,lock file). uv is used only when it is there and works; pip is the reference.
define INSTALL
if [ -z "$(NO_UV)" ] && uv --version >/dev/null 2>&1 \
   && uv pip install --quiet --python $(PY) --require-hashes -r $(1); then \
  echo "      (with uv)"; \
else \
  $(PY) -m pip install --require-hashes --progress-bar on -r $(1); \
fi
endef

.PHONY: help run test check chaos test-all soak bench lock format clean distclean

help:  ## show this list
	@echo "Ringbook: make <target>"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' Makefile

run: $(VENV)/.ready-run  ## set everything up, start the exchange with generated flow (Ctrl-C stops it)
	@$(PY) run.py demo

test: $(VENV)/.ready-test  ## lint, types, all tests that need no outside server (<= 10 min)
	@$(PY) tests/tier.py $(or $(TIER),test)

check: $(VENV)/.ready-test  ## before every commit: format, lint, types, tidy, fast tests (<= 2 min)
	@$(PY) tests/tier.py check

chaos: $(VENV)/.ready-test  ## simulated seeds and real kills, as CI runs them (some minutes)
	@$(PY) -m pytest -p no:xdist -q -m "chaos and not soak"

test-all: $(VENV)/.ready-test  ## everything but soak, and a skipped test is a failure
	@$(PY) tests/tier.py test-all

soak: $(VENV)/.ready-test  ## the long runs, by hand
	@$(PY) tests/tier.py soak

bench: $(VENV)/.ready-test  ## all benchmarks with their floors and ratios
	@$(PY) run.py bench all

format: $(VENV)/.ready-test  ## rewrite the sources in the project's format
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

lock:  ## resolve the locks anew (needs uv; they carry hashes and no index address)
	@uv --version >/dev/null 2>&1 || { echo "make lock needs uv on PATH (pip install uv)" >&2; exit 1; }
	uv pip compile $(LOCK_FLAGS) --upgrade pyproject.toml --group build -o requirements.lock
	uv pip compile $(LOCK_FLAGS) --upgrade pyproject.toml --group build --extra test --extra dev \
	  -c requirements.lock -o requirements-test.lock
	@! grep -n '://' requirements.lock requirements-test.lock

clean:  ## remove caches and build leftovers, keep .venv
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .cache .reports build dist *.egg-info
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	@rm -f $(VENV)/.ready-run $(VENV)/.ready-test

distclean: clean  ## clean, and remove .venv
	@rm -rf $(VENV)

$(VENV)/.made:
	@$(FIND_PYTHON); \
	if [ "$(VENV_GOOD)" = yes ]; then echo "[1/3] $(VENV) is there: $$($(PY) --version)"; else \
	  echo "[1/3] making $(VENV) with $$found ($$("$$found" --version 2>&1))"; \
	  "$$found" -m venv --clear $(CURDIR)/$(VENV); \
	fi
	@touch $@

# Both stamps install into the one environment; the test lock was resolved under the run lock as a
# constraint, so they never disagree about a version.
$(VENV)/.ready-run: $(VENV)/.made requirements.lock pyproject.toml
	@echo "[2/3] installing requirements.lock (first time: about 310 MB on disk, a minute or two)"
	@$(call INSTALL,requirements.lock)
	@echo "[3/3] linking the project into $(VENV)"
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat \
	  -e .
	@touch $@

$(VENV)/.ready-test: $(VENV)/.made requirements-test.lock pyproject.toml
	@echo "[2/3] installing requirements-test.lock (first time: about 600 MB on disk, some minutes)"
	@$(call INSTALL,requirements-test.lock)
	@echo "[3/3] linking the project into $(VENV)"
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat \
	  -e .
	@touch $@
