# demo · test · check · protos · bench. Everything runs in .venv, made on first use.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0
export PYTHONSAFEPATH := 1

.PHONY: help demo test check protos bench clean
help:
	@echo "make demo    serve, record, train, canary and promote on this machine; ends in out/demo/report.html"
	@echo "make test    every test"
	@echo "make check   format, lint, types, layering, generated code"
	@echo "make bench   every benchmark, into out/bench"
	@echo "make protos  generate protos/gen"

$(STAMP): pyproject.toml constraints.txt tools/setup.sh
	@PYTHON="$(PYTHON)" tools/setup.sh "$(VENV)"
	@touch $@

demo: $(STAMP)
	@$(BIN)/aurora demo

test: $(STAMP)
	@$(BIN)/pytest

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/protos.py --check

protos: $(STAMP)
	@$(BIN)/python tools/protos.py

bench: $(STAMP)
	@for name in engine swap capture buffer; do \
	    echo "bench: $$name"; PYTHONPATH=. $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

clean:
	rm -rf $(VENV) out
