# make compare: set everything up and run the main job; make test: the tests; make lint: checks.
# make gpu-test: what needs a GPU, with the torch that $(PYTHON) has; writes $(GPU_REPORT).
# make gpu-wheels: fetch what such a machine lacks beside torch, if it has no network.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

WHEELS := .wheels
# torch, numpy, matplotlib, rich and pytest are taken to be there.
TRAVELLING := annotated-doc annotated-types pydantic pydantic_core shellingham simpy typer typing-inspection typing_extensions
PINNED = $(foreach name,$(TRAVELLING),$(shell grep -i '^$(name)==' constraints.txt))
PLATFORM ?= --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64
GPU_REPORT ?= twinline-out/gpu-report.md

.PHONY: compare test lint clean gpu-test gpu-wheels

compare: $(VENV)/.runtime
	$(BIN)/twinline compare

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu-wheels:
	$(PYTHON) -m pip download --disable-pip-version-check --no-deps --only-binary=:all: \
		$(PLATFORM) -d $(WHEELS) $(PINNED)
	@ls -1 $(WHEELS)/*.whl

# Wheels that travelled are unpacked beside the project; the machine's own packages stay.
gpu-test:
	@if ls $(WHEELS)/*.whl >/dev/null 2>&1; then \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
			--upgrade --target $(WHEELS)/site $(WHEELS)/*.whl; fi
	GPU_REPORT=$(GPU_REPORT) PYTHONPATH=$(WHEELS)/site:.:runtime \
		$(PYTHON) -m pytest -rs --durations=10 tests/gpu

clean:
	rm -rf $(VENV) $(WHEELS) twinline-out twinline-validate build *.egg-info

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
