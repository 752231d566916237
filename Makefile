# Every target sets up what it needs in .venv; the second call finds the stamp and is fast.
#
#   make demo [AUDIO=yours.wav]    see it work          make check    ruff, mypy
#   make test                      default suite        make docs     regenerate the generated pages
#   make cards                     result cards of nano and of MODELS="…" into docs/cards
#   make setup                     .venv/bin/ossicle    make matrix   the slow suite
#   make gpu                       what needs CUDA

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ossicle-ready
EXTRAS ?= train,data,eval,serve,ui,acoustic,dev
WORKERS ?= 2
AUDIO ?=

# Real recordings and reference numbers, when a checkout has them beside it (docs/data.md).
ifneq ($(wildcard ../shared/data/.),)
export OSSICLE_DATA ?= $(abspath ../shared/data)
endif
ifneq ($(wildcard ../shared/golden/.),)
export OSSICLE_GOLDEN ?= $(abspath ../shared/golden)
endif

# Tests start many processes: each would compile torch and transformers anew where Python may keep nothing.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fix docs cards matrix gpu clean

help:
	@sed -n 's/^#   //p' Makefile

$(READY): pyproject.toml constraints.txt .ci/setup
	@EXTRAS="$(EXTRAS)" sh .ci/setup $(VENV)
	@touch $@

setup: $(READY)
	@echo "Ready. Next: $(BIN)/ossicle --help"

demo: $(READY)
	@$(BIN)/ossicle demo $(if $(AUDIO),"$(AUDIO)")

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

matrix: $(READY)
	@EXTRAS="$(EXTRAS),ray,captions" sh .ci/setup $(VENV)
	@failed=0; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "slow and not alone and not gpu and not network" || failed=1; \
	$(BIN)/python -m pytest -m "slow and alone and not gpu and not network" || failed=1; \
	exit $$failed

gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/generate.py

cards: $(READY)
	$(BIN)/python docs/cards.py $(or $(MODELS),nano)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
