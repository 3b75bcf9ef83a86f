# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-slow check bench clean

help:
	@echo "make demo       set up, train DCT-MoE on the embedded phantom for a few minutes, write one picture"
	@echo "make test       set up, run the default tests (under 5 minutes on 2 cores)"
	@echo "make test-slow  the slow and the multi-process tests"
	@echo "make check      ruff and mypy"
	@echo "make bench      print the performance figures as JSON"
	@echo "make clean      remove caches and the demo's output; keeps .venv, models, data and your runs"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.runtime: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.development: requirements-dev.txt requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@ $(VENV)/.runtime

demo: $(VENV)/.runtime
	$(BIN)/python scripts/demo.py

test: $(VENV)/.development
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

test-slow: $(VENV)/.development
	$(BIN)/python -m pytest -m "slow or distributed"

check: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.development
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf output/demo .pytest_cache .mypy_cache .ruff_cache
	find common scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
