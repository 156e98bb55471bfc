# make run     fetch a generated file from a local server twice, the second time while things go wrong;
#              with URL="https://... https://...", fetch those instead
# make test    lint, type checks and all tests; ARGS="..." is passed on to pytest
# make lint    only lint and type checks
# make quick   the tests that need neither a server nor a clock
# make torture every case that make test samples, on both libcurls; takes hours. SEEDS=... random runs, starting with
#              SEED=...; CASES=... cases of the matrix
# make simulate  random schedules of the engine on simulated servers, clock and disk; SEEDS=... of them, starting with
#              SEED=...
# make setup   install what run and test need on this machine (they do this themselves)
# make bench   compare this project with others; ten minutes, results in build/bench/page. ARGS="..." replaces the
#              default arguments, as in "--minutes 9 --page build/bench/page --compare OLD.json"
# make clean   remove everything that the targets above have made, except downloads
#
# make wheels      the sdist, a wheel for each platform and the pure one, into wheelhouse/; PLATFORMS=here for this machine
# make wheel-test  build the wheels twice and compare; run all tests against this machine's wheel without a compiler
# make wheel-test-debian11  install the wheel with pip on Debian 11, without a compiler, and fetch with it; needs root
# make wheel-test-musl  build the wheel for musl and test it; ARGS=aarch64 for that one, under qemu-user
# make wheel-test-aarch64  build the wheel for aarch64 and test it under qemu-user; four minutes on two idle processors
# make windows     build the engine for Windows with zig and run it under Debian's wine; the first build takes minutes
# make fresh       make run and make test in a clean clone on a bare Debian
# make third-party  test against other people's suites and servers; downloads them, skips what it cannot get; ARGS="..."
# make coverage    report which lines of Python and Cython the tests run
# make debug       all tests, with an engine that checks its own invariants and counts the objects it creates
# make sanitize    all tests, checked for memory errors and undefined behaviour; ARGS=thread for data races
# make fuzz        fuzz each parser of files and server responses for TIME=... seconds (60); ARGS=... selects some
# make valgrind    a scripted set of transfers under valgrind's memcheck
# make mutants     break each guard in turn and check that a test fails; takes hours; ARGS="--only answer.pxd"
# make docs        build the site into site/
# make workflows   lint the workflows in .github/, and list what cibuildwheel would build
#
# Each target sets up what it needs. PYTHON=... chooses the interpreter.

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# What the installed package is built from. Directories are listed because their times change when a file is removed.
# Changes in src/ need no rebuild.
BUILT_FROM := setup.py pyproject.toml src/rangefetch/version.py $(shell find ext -name '.*' -prune -o -print)

# Tests wait more than they compute, so there are more workers than processors.
PROCESSORS := $(shell getconf _NPROCESSORS_ONLN)
WORKERS ?= $(shell echo $$(($(PROCESSORS) < 4 ? 8 * $(PROCESSORS) : 32)))
PARALLEL := --workers $(WORKERS)

SYSTEM_LIBCURL = $$($(BIN)/python -c 'import ctypes.util as c; print(c.find_library("curl") or "")')

# PYTHONPATH must not hide the package installed in the environment, which is the one under test. Hundreds of tests
# start a Python, which must not compile every module again each time.
unexport PYTHONPATH PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: run setup test torture simulate third-party quick lint bench clean wheels wheel-test wheel-test-aarch64 wheel-test-debian11 wheel-test-musl windows fresh coverage debug sanitize fuzz valgrind mutants docs \
    workflows

ifeq ($(origin URL),command line)
# Make passes URL to the shell as an environment variable, so its & and ? are not special.
run: $(VENV)/installed
	@mkdir -p downloads
	@set -f; $(BIN)/rangefetch -d downloads $$URL
else
run: $(VENV)/installed
	@$(BIN)/python benches/demo.py $(ARGS)
endif

setup: $(VENV)/tools
	@.ci/machine tests || echo "The tests that need it are skipped."

# Lint runs beside the tests, with nice, so that it takes what they leave of the processors; its output comes last. Then
# the tests of the engine run again on the system's libcurl, which on Debian is an older one that behaves differently.
test: setup
	@mkdir -p build
	@nice -n 19 $(MAKE) --no-print-directory lint >build/lint.log 2>&1 & lint=$$!; \
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS); tests=$$?; \
	wait $$lint; lint=$$?; cat build/lint.log; [ $$tests = 0 ] && [ $$lint = 0 ]
ifndef ARGS
	@library=$(SYSTEM_LIBCURL); [ -z "$$library" ] || \
	RANGEFETCH_LIBCURL=$$library RANGEFETCH_MATRIX=230 $(BIN)/python -m pytest $(PARALLEL) tests/engine tests/matrix
endif

# SEEDS is the number of random runs, SEED the first. CASES is the number of matrix cases, drawn by SEED, or a pattern
# that their names match.
SEEDS ?= 1000
SEED ?= 1
CASES ?= *
TORTURE := RANGEFETCH_TORTURE=1 RANGEFETCH_MATRIX='$(CASES)' RANGEFETCH_SEEDS=$(SEEDS) RANGEFETCH_SEED=$(SEED) \
    $(BIN)/python -m pytest $(PARALLEL) $(or $(ARGS),tests/matrix tests/torture tests/powerloss)

torture: setup
	$(TORTURE)
	@library=$(SYSTEM_LIBCURL); [ -z "$$library" ] || RANGEFETCH_LIBCURL=$$library $(TORTURE)
ifndef ARGS
	@$(MAKE) --no-print-directory wheel-test-aarch64
endif

# Failing schedules are minimised and written to build/simulator, together with the counts.
simulate: $(VENV)/tools
	@cd tests && ../$(BIN)/python -m simulator.campaign $(SEEDS) $(SEED)

# Downloads go to build/third-party and are reused by the next run. Fetching and unpacking a browser's source takes
# minutes.
THIRD_PARTY := RANGEFETCH_THIRD_PARTY=1 $(BIN)/python -m pytest -o faulthandler_timeout=800

# Servers packaged by Debian are installed with apt, after saying so.
third-party: setup
	@.ci/machine packages $$(PYTHONPATH=tests $(BIN)/python -m third_party.servers packages) || \
	echo "The servers in them are skipped."
	$(THIRD_PARTY) $(PARALLEL) $(or $(ARGS),tests/third_party)
ifndef ARGS
	@library=$(SYSTEM_LIBCURL); [ -z "$$library" ] || \
	RANGEFETCH_LIBCURL=$$library $(THIRD_PARTY) tests/third_party/test_curl_replies.py
endif

# Quick tests (support/quick.py) are all in tests/unit; collecting the other folders would take longer than running
# them.
quick: $(VENV)/tools
	@$(BIN)/python -m pytest --workers 2 -m quick tests/unit $(ARGS)

lint: $(VENV)/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint ext  # which looks there for pycodestyle
	$(BIN)/python .ci/compiler_warnings.py
	$(BIN)/mypy
	$(BIN)/mypy --platform win32  # only disk/posix.py may use names that Windows lacks
	MYPYPATH=benches $(BIN)/mypy --explicit-package-bases --disable-error-code import-not-found --disable-error-code import-untyped \
	    benches  # of peers
	MYPYPATH=tests $(BIN)/mypy --explicit-package-bases tests
	$(BIN)/python -m mypy.stubtest rangefetch._engine

bench: build/bench/installed
	build/bench/bin/python benches/compare.py $(or $(ARGS),--minutes 9 --page build/bench/page)

# PLATFORMS=... selects platforms from the table in .ci/wheels.py.
wheels: $(VENV)/packaging
	$(BIN)/python .ci/wheels.py $(PLATFORMS)

wheel-test: wheels
	@.ci/machine packages musl || echo "What musl's linker says is not tested."
	PATH="$(CURDIR)/$(BIN):$$PATH" REPRODUCE=1 .ci/wheel-test $(PARALLEL) $(ARGS)

# Its system and wheels are kept in build/aarch64.
wheel-test-aarch64: $(VENV)/tools $(VENV)/packaging
	$(BIN)/python .ci/wheels.py -o build/aarch64/wheels manylinux_2_28_aarch64
	PYTHON=$(BIN)/python WHEELS=build/aarch64/wheels .ci/aarch64 $(ARGS)

# Their systems and wheels are kept in build/debian11 and build/musl.
wheel-test-debian11: $(VENV)/tools $(VENV)/packaging
	$(BIN)/python .ci/wheels.py -o build/debian11/wheels manylinux_2_28_x86_64
	PYTHON=$(BIN)/python WHEELS=build/debian11/wheels .ci/debian11

wheel-test-musl: $(VENV)/tools $(VENV)/packaging
	$(BIN)/python .ci/wheels.py -o build/musl/wheels musllinux_1_2_x86_64 musllinux_1_2_aarch64
	PYTHON=$(BIN)/python WHEELS=build/musl/wheels .ci/musl $(ARGS)

# What it needs is kept in build/windows.
windows: $(VENV)/tools
	@.ci/machine packages wine wine64
	RANGEFETCH_WINDOWS=1 $(BIN)/python -m pytest $(or $(ARGS),tests/windows)

fresh:
	.ci/fresh

coverage: $(VENV)/base
	$(BIN)/python .ci/lines.py $(ARGS)

debug: $(VENV)/base
	PYTHON=$(BIN)/python WORKERS=$(WORKERS) .ci/sanitize checks $(ARGS)

sanitize: $(VENV)/base
	PYTHON=$(BIN)/python WORKERS=$(WORKERS) .ci/sanitize $(ARGS)

fuzz: $(VENV)/installed
	@.ci/machine packages clang libclang-rt-14-dev
	@$(BIN)/python -m pip install --quiet --group fuzz
	PYTHON=$(BIN)/python .ci/fuzz $(or $(TIME),60) $(ARGS)

valgrind: $(VENV)/tools
	@.ci/machine packages valgrind
	PYTHON=$(BIN)/python .ci/valgrind

mutants: $(VENV)/base
	$(BIN)/python .ci/mutants.py $(ARGS)

docs: $(VENV)/docs
	$(BIN)/python .ci/pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

workflows: $(VENV)/base
	@$(BIN)/python -m pip install --quiet --group workflows
	$(BIN)/python .ci/workflows.py

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +

# The environment is built in three steps, each with a stamp file: pip, the package, the tools for tests and lint.
$(VENV)/base:
	@$(find_python); \
	.ci/machine build $$python || exit 1; \
	$(find_python); \
	[ -n "$$python" ] || { echo "Python 3.11 or later is needed; PYTHON=... says which." >&2; exit 1; }; \
	$$python -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

# An editable install: Python reads src/ in place, and the engine is built into it.
$(VENV)/installed: $(VENV)/base $(BUILT_FROM)
	@echo "building and installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable .
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

# The peers are installed in a separate environment, so that nothing else can depend on them.
build/bench/installed: $(VENV)/installed benches/peers.txt
	@echo "installing the peers into build/bench"
	@$(BIN)/python -m venv build/bench
	@build/bench/bin/python -m pip install --quiet --editable .
	@sed '/^#/d' benches/peers.txt | while read -r peer; do \
	    build/bench/bin/python -m pip install --quiet "$$peer" || echo "$$peer cannot be installed"; \
	done
	@touch $@

# Sets $python to the first interpreter that is new enough, or to the empty string.
define find_python
for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11) ""; do \
    [ -n "$$python" ] && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
done
endef
