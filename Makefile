# The project's verbs. A bare `make` prints them.
# Everything runs in a virtual environment of its own (.venv); PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
SIM_SECONDS ?= 60
MINUTES ?= 10
AGENTS ?= 200
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := $(shell find csrc src -name '*.c' -o -name '*.h' -o -name '*.py' -o -name '*.sh' 2>/dev/null)

help:
	@echo "make demo       708 processes on real work, beside a file-per-message bus"
	@echo "make test       all tests (Python, C, C under sanitizers, models at small bounds)"
	@echo "make bench      benchmarks beside other ways to carry messages; shared context, coordination, the swarm"
	@echo "make verify     the whole sweeps: every instruction, larger models (hours)"
	@echo "make test-c     the C tests alone;  make test-asan, make test-tsan: under sanitizers"
	@echo "make models     the SPIN models at small bounds"
	@echo "make sim        the core under a simulated kernel, SIM_SECONDS=60"
	@echo "make soak       $(AGENTS) processes stopped, killed and started again for MINUTES=$(MINUTES), with ledgers"
	@echo "make endure     a swarm for minutes: messages, and a mixed load under deaths and pauses; MINUTES=$(MINUTES)"
	@echo "make wakes      wake-ups on one processor without the safety tick, for MINUTES=$(MINUTES)"
	@echo "make fuzz       libFuzzer changes words of a bus under its users, for MINUTES=$(MINUTES); needs clang"
	@echo "make coverage   branches of the C core that the tests take; LIST=--list names the others"
	@echo "make lint       ruff, mypy, compiler warnings of gcc and clang"
	@echo "make install    the package into $(VENV)"
	@echo "make wheel      a wheel in dist/"
	@echo "make clean      remove what was built"

$(STAMP): pyproject.toml setup.py $(SOURCES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[test]'
	@touch $@

install: $(STAMP)

demo: $(STAMP)
	@$(BIN)/cfnshm demo

test: $(STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest tests

bench: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[bench]'
	@$(MAKE) -s -C csrc ../build/c/plain-gcc-O2/tool_bench
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks $(BENCH)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks.core
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks.context
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks.swarm

STEPS := test_step test_step_life test_step_context test_step_sync test_step_spill
verify: $(STAMP)
	$(MAKE) -s -C csrc all
	for t in $(STEPS); do build/c/plain-gcc-O2/$$t --all || exit 1; done
	build/c/plain-gcc-O2/test_step_pairs --seconds 1800
	$(MAKE) -s -C csrc OPT=-O0 all && for t in $(STEPS); do build/c/plain-gcc-O0/$$t --all || exit 1; done
	$(MAKE) -s -C csrc OPT=-O3 all && for t in $(STEPS); do build/c/plain-gcc-O3/$$t --all || exit 1; done
	if command -v clang >/dev/null; then $(MAKE) -s -C csrc CC=clang all && \
	  for t in $(STEPS); do build/c/plain-clang-O2/$$t --all || exit 1; done; fi
	$(MAKE) soak wakes fuzz
	build/c/plain-gcc-O2/cfnsim --seconds $(SIM_SECONDS)
	$(PYTHON) csrc/mutants/run.py --slow --table csrc/mutants/table.md
	$(PYTHON) csrc/models/run.py --profile full

test-c:
	$(MAKE) -s -C csrc test
test-asan:
	$(MAKE) -s -C csrc VARIANT=asan test
test-tsan:
	$(MAKE) -s -C csrc VARIANT=tsan ../build/c/tsan-gcc-O2/test_threads
	build/c/tsan-gcc-O2/test_threads
models:
	$(PYTHON) csrc/models/run.py --profile small

sim:
	$(MAKE) -s -C csrc ../build/c/plain-gcc-O2/cfnsim
	build/c/plain-gcc-O2/cfnsim --seconds $(SIM_SECONDS)

# The ledgers go when they hold no complaint.
soak:
	@$(MAKE) -s -C csrc ../build/c/plain-gcc-O2/tool_soak
	@echo "make soak MINUTES=$(MINUTES) AGENTS=$(AGENTS), commit $$(git rev-parse --short HEAD 2>/dev/null || echo unknown), Linux $$(uname -r | cut -d- -f1), $$(nproc) processors"
	@folder=$$(mktemp -d) && build/c/plain-gcc-O2/tool_soak run --agents $(AGENTS) --minutes $(MINUTES) --dir $$folder/ledgers \
	  && rm -rf $$folder || { echo "the ledgers are kept in $$folder/ledgers"; exit 1; }

endure: $(STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks.endurance --minutes $(MINUTES)

wakes:
	@$(MAKE) -s -C csrc OUT=../build/c/plain-gcc-O2-CFN_NO_TICK CFLAGS=-DCFN_NO_TICK ../build/c/plain-gcc-O2-CFN_NO_TICK/tool_wakes
	@echo "make wakes MINUTES=$(MINUTES), commit $$(git rev-parse --short HEAD 2>/dev/null || echo unknown), Linux $$(uname -r | cut -d- -f1), $$(nproc) processors"
	@build/c/plain-gcc-O2-CFN_NO_TICK/tool_wakes --minutes $(MINUTES)

fuzz:
	@$(MAKE) -s -C csrc VARIANT=asan CC=clang ../build/c/asan-clang-O2/fuzzer
	@mkdir -p build/corpus
	build/c/asan-clang-O2/fuzzer -max_total_time=$$(( $(MINUTES) * 60 )) -max_len=2048 -timeout=20 -print_final_stats=1 build/corpus

# Children that are killed count nothing; what is in csrc/sim and csrc/tests is not counted. The C tests, the simulator
# and the Python tests (over the binding and the command) are added up by csrc/coverage.py.
COV := build/c/cov-gcc-O0
COUNT := CFLAGS="--coverage -fprofile-update=atomic -D_exit=exit" LDFLAGS=--coverage
GCOVR := ../$(BIN)/gcovr -r . --gcov-ignore-parse-errors=all --exclude-throw-branches -f base/ -f mem/ -f sync/ -f msg/ -f agent/
coverage: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check gcovr 'setuptools>=77'
	@rm -rf $(COV)
	@$(MAKE) -s -C csrc VARIANT=cov OPT=-O0 all
	@$(COUNT) $(BIN)/python setup.py -q build_py --build-lib $(COV)/python >/dev/null 2>&1
	@$(COUNT) $(BIN)/python setup.py -q build_ext --build-temp $(COV)/objects --build-lib $(COV)/python >/dev/null 2>&1
	@for t in $(COV)/test_*[!.o]; do echo "$$t"; case $$t in *step*) $$t --seconds 20;; *) $$t;; esac >/dev/null || exit 1; done
	@$(COV)/cfnsim --seconds $(SIM_SECONDS) >/dev/null
	@folder=$$(mktemp -d) && $(COV)/tool_soak run --agents 20 --minutes 0.1 --dir $$folder/ledgers >/dev/null && rm -rf $$folder
	@PATH="$(abspath $(COV)):$(abspath $(BIN)):$$PATH" PYTHONPATH=$(abspath $(COV))/python \
	  $(BIN)/python -m pytest -q --no-header tests --ignore=tests/test_core.py --ignore=tests/test_demo.py --ignore=tests/test_readme.py
	@cd csrc && $(GCOVR) --exclude-directories '.*/sim' --json ../$(COV)/core.json ../$(COV) 2>/dev/null
	@cd csrc && $(GCOVR) --json ../$(COV)/sim.json ../$(COV)/sim 2>/dev/null
	@$(BIN)/python csrc/coverage.py $(LIST) $(COV)/core.json $(COV)/sim.json

lint: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[lint]'
	$(BIN)/ruff check src tests benchmarks examples setup.py csrc/models csrc/mutants csrc/coverage.py
	$(BIN)/mypy
	$(MAKE) -s -C csrc all
	@if command -v clang >/dev/null; then $(MAKE) -s -C csrc CC=clang all; fi

wheel: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf build dist $(VENV) src/*.egg-info .pytest_cache .mypy_cache .ruff_cache

.PHONY: help install demo test bench verify test-c test-asan test-tsan models sim soak endure wakes fuzz coverage lint wheel clean
