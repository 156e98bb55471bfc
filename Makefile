# make run     fetch a generated file from a server of its own, or with URL="https://... https://..." those
# make test    lint, types and all tests
# make lint    the first half of that
# make bench   this project beside others; ARGS="..." are passed on
# make clean   remove all that the above have made, but not what was fetched
#
# make wheel       the sdist, a wheel for this machine and the pure one, into wheelhouse/
# make wheel-test  the same, built twice; and all tests against the wheel, where no compiler can be reached
# make fresh       a clean clone on a bare Debian: make run, make test
# make coverage    which lines of Python and of Cython the tests run
# make sanitize    the tests of the engine, watched for memory errors; ARGS=thread for data races
# make docs        the site, into site/
# make workflows   lint those of .github/
#
# Each sets up what it needs. PYTHON=... chooses the interpreter.

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# Directories too: a file that was removed shows only there.
SOURCES := setup.py pyproject.toml \
    $(shell find ext src \( -name __pycache__ -o -name '*.egg-info' -o -name '*.so' -o -name '.*' \) -prune -o -print)

# The package under test is the installed one, not the one that lies about in src/.
unexport PYTHONPATH

.DELETE_ON_ERROR:
.PHONY: run test lint bench clean wheel wheel-test fresh coverage sanitize docs workflows

ifeq ($(origin URL),command line)
# Make hands URL to the shell as a variable: there its & and ? are mere characters.
run: $(VENV)/installed
	@mkdir -p downloads
	@set -f; $(BIN)/rangefetch -d downloads $$URL
else
run: $(VENV)/installed
	@$(BIN)/python benches/demo.py $(ARGS)
endif

test: lint
	@missing=; PATH="$$PATH:/usr/sbin"; \
	command -v nginx >/dev/null || missing="nginx"; \
	command -v aria2c >/dev/null || missing="$$missing aria2"; \
	[ -z "$$missing" ] || $(call install,$$missing) || echo "The tests that need it are skipped."
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint ext  # which looks there for pycodestyle
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest rangefetch._engine

bench: $(VENV)/tools
	$(BIN)/python benches/compare.py $(ARGS)

wheel: $(VENV)/packaging
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/wheel

wheel-test: wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" REPRODUCE=1 .ci/wheel-test $(ARGS)

fresh:
	.ci/fresh

coverage: $(VENV)/base
	$(BIN)/python .ci/lines.py $(ARGS)

sanitize: $(VENV)/base
	PYTHON=$(BIN)/python .ci/sanitize $(ARGS)

docs: $(VENV)/docs
	$(BIN)/python .ci/pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

workflows: $(VENV)/base
	@$(BIN)/python -m pip install --quiet --group workflows
	$(BIN)/zizmor --offline --no-progress .github

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +

# The environment grows in three steps, each with a stamp: pip, the package, the tools for tests and lint.
$(VENV)/base:
	@$(find_python); \
	if [ -z "$$python$(PYTHON)" ]; then $(call install,python3 python3-venv python3-dev gcc); $(find_python); fi; \
	[ -n "$$python" ] || { echo "Python 3.11 or later is needed; PYTHON=... says which." >&2; exit 1; }; \
	missing=; name="$${python##*/}"; \
	$$python -c 'import ensurepip, venv' 2>/dev/null || missing="$$name-venv"; \
	$(find_header) || missing="$$missing $$name-dev gcc"; \
	[ -z "$$missing" ] || $(call install,$$missing) || exit 1; \
	$$python -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

# What was built before is removed: setuptools would put files that are no longer in src/ into the package.
$(VENV)/installed: $(VENV)/base $(SOURCES)
	@echo "building and installing into $(VENV)"
	@rm -rf build/lib* build/bdist*
	@$(BIN)/python -m pip install --quiet .
	@touch $@

$(VENV)/tools: $(VENV)/installed pyproject.toml
	@echo "installing the tools for tests and lint"
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/packaging: $(VENV)/base pyproject.toml
	@$(BIN)/python -m pip install --quiet --group packaging
	@touch $@

$(VENV)/docs: $(VENV)/installed pyproject.toml
	@$(BIN)/python -m pip install --quiet --group docs
	@touch $@

# $(call install,PACKAGES): as root on Debian install them, else say in one line how.
define install
{ set -- $(1); \
  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
    echo "installing $$*"; \
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$$@" >/dev/null; \
  else \
    echo "This machine lacks $$*; on Debian: sudo apt-get install $$*" >&2; false; \
  fi; }
endef

# Sets $python to the name of the first one that is new enough, else to nothing.
define find_python
for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11) ""; do \
    [ -n "$$python" ] && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
done
endef

# Whether a compiler finds Python.h, and what that includes from the C library.
define find_header
echo '#include <Python.h>' | gcc -E -x c - -o /dev/null \
    -I"$$($$python -c 'import sysconfig; print(sysconfig.get_path("include"))')" 2>/dev/null
endef
