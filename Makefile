# make compare: set everything up and run the main job; make test: the tests; make lint: checks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: compare test lint clean

compare: $(VENV)/.runtime
	$(BIN)/twinline compare

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) twinline-out twinline-validate build *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Twinline needs Python 3.11 or newer; try: make PYTHON=python3.12 compare"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Each stamp: what has been installed since its inputs changed.
$(VENV)/.runtime: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing Twinline and PyTorch into $(VENV) (once; a minute or more)"
	$(PIP) -e '.[runtime]'
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(PIP) -e '.[runtime,test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) -e '.[runtime,test,dev]'
	@touch $@
