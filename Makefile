# Everything sets itself up: a virtual environment in .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-slow check bench clean

demo: .venv/.ready
	$(BIN)/esr demo

test: .venv/.ready
	$(BIN)/python -m pytest

test-slow: .venv/.ready
	$(BIN)/python -m pytest -m slow

check: .venv/.ready
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/ruff format --check src tests tools benchmarks
	$(BIN)/mypy
	$(BIN)/python tools/check_docs.py

bench: .venv/.ready
	$(BIN)/python benchmarks/verdict_length.py
	$(BIN)/python benchmarks/calibration.py
	$(BIN)/python benchmarks/coverage.py

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "esr needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,judge,train]'
	touch $@

clean:
	rm -rf .venv demo-study
