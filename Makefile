# Two commands do everything on a fresh machine: `make demo` and `make test`.
# A stamp per kind of installation, newer than pyproject.toml, keeps a second call from installing anything.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps

.PHONY: demo test check lint types docs clean

demo: $(STAMPS)/run
	$(BIN)/python examples/demo.py

# Files side by side, one per core; a file's tests share what they set up. A worker needs some 2 GB.
test: check
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: lint types

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/dev
	$(BIN)/pyright

docs: $(STAMPS)/dev
	$(BIN)/python -m pytest docs README.md

clean:
	rm -rf $(VENV) demo

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "regraft needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(STAMPS)/run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[openvino]'
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	mkdir -p $(STAMPS) && touch $@ $(STAMPS)/run
