# make demo | test | test-thorough | test-environments | lint | gate | bench | report-results | clean
#
# PYTHON=python3.12  interpreter to build the virtual environment with (3.10 or newer; the pinned
#                    versions are known to work with 3.11)
# TORCH=skip         keep the torch that PYTHON already has, such as one built for your CUDA; the
#                    virtual environment then sees PYTHON's packages
# VENV=.venv         where the virtual environment goes
# JOBS=2             test processes
# PIP_ARGS=          more arguments for pip install

PYTHON ?= python3.11
TORCH ?= pinned
VENV ?= .venv
JOBS ?= 2
PIP_ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.installed
STAMP := $(shell date +%Y%m%d-%H%M%S)

.DEFAULT_GOAL := help
.PHONY: help demo test test-thorough test-environments lint gate bench report-results clean

help:
	@echo "make demo    run the quickstart matrix on small models that ship here"
	@echo "make test    run the tests, in about three minutes"
	@echo "make test-thorough    run those with real pipelines, compilers and processes"
	@echo "make test-environments  test the worker and OneDiff's backends under their own, older torch: gigabytes, slow"
	@echo "make lint    ruff and mypy"
	@echo "make gate    compare exact counts of the built-in backends with baselines/ci-cpu"
	@echo "make report-results  write REPORT.md from the records in reports/results"
	@echo "make bench   measure the harness itself: truth and overhead"
	@echo "make clean   remove what make built; runs/ stays"
	@echo "Variables are explained at the top of the Makefile."

ifeq ($(TORCH),skip)
VENV_ARGS := --system-site-packages
PINS := grep -v '^torch==' constraints.txt
else
VENV_ARGS :=
PINS := cat constraints.txt
endif

$(READY): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "make: $(PYTHON) is not on the PATH; install it or run make PYTHON=python3.12 ..."; exit 1; }
	test -x "$(BIN)/python" || "$(PYTHON)" -m venv $(VENV_ARGS) "$(VENV)"
	$(PINS) > "$(VENV)/constraints.txt"
	"$(BIN)/python" -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) \
	  -c "$(VENV)/constraints.txt" -e ".[worker,backends,report,dev]"
	touch "$(READY)"

# A separate folder each time, so that a demo always runs in full and keeps earlier ones.
demo: $(READY)
	"$(BIN)/bench" run configs/quickstart.yaml --out "runs/demo-$(STAMP)" --report

# One thread each: otherwise test processes that share cores wait for each other inside OpenMP.
test: $(READY)
	OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n $(JOBS) --dist loadfile

test-thorough: $(READY)
	OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n $(JOBS) --dist loadfile -m "thorough and not slow"

test-environments: $(READY)
	PYTHON="$(BIN)/python" scripts/test_environments.sh

lint: $(READY)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

gate: $(READY)
	"$(BIN)/bench" gate configs/ci-cpu.yaml --baseline ci-cpu --fail-on counts --quiet

bench: $(READY)
	"$(BIN)/python" scripts/bench_harness.py

report-results: $(READY)
	"$(BIN)/python" -m reports.publish

clean:
	rm -rf "$(VENV)" .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
