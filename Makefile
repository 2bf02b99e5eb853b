# Everything runs in .venv, which is made when it is first needed and made again only when its inputs change.
# All paths are relative, so the folder may have any name.

PYTHON ?= python3
RUN := .venv/bin/python
SEED ?= 2018
# Percent of lines and branches that the tests must reach at least; they reach 95 (2026-11-27).
COVERAGE := 94
TEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist worksteal --randomly-seed=$(SEED)
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help train test test-all test-browser test-faults test-attack test-gpu coverage docs lint clean

help:  ## Show these commands
	@echo "make train      Train on the sample photographs: three to five minutes on two CPU cores"
	@echo "make test       Run the tests in two processes and in random order; SEED=7 gives another order"
	@echo "make test-all   Run the tests, the slow ones too"
	@echo "make test-browser  Test the web page in headless Chromium, which is installed if apt-get may"
	@echo "make test-faults  Kill, break and fill up: 15 minutes on two CPU cores"
	@echo "make coverage   Run the tests of make test with their coverage, which must not fall"
	@echo "make docs       Build the documentation as site/, every warning an error"
	@echo "make test-gpu   Test on the CUDA device, where there is one"
	@echo "make test-attack  Hostile models, files and requests, and signals: under 15 minutes on two CPU cores"
	@echo "make lint       Check style, types and layers"
	@echo "make clean      Remove .venv and caches; outputs/ stays"

train: .venv/core.stamp
	@$(RUN) train.py experiment=quickstart

test: .venv/dev.stamp
	@echo "Two processes, in the random order of SEED=$(SEED)"
	@$(TEST) -m "not slow and not browser"

test-all: .venv/dev.stamp
	@echo "Two processes, in the random order of SEED=$(SEED)"
	@$(TEST) -m "not faults and not browser"

test-browser: .venv/dev.stamp
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; } || \
		{ echo "make test-browser needs chromium and chromedriver; run: sudo apt-get install chromium chromium-driver"; exit 1; }
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q -m browser tests/demo/test_demo_browser.py

test-faults: .venv/dev.stamp
	@$(TEST) --durations=0 tests/test_faults.py tests/training/test_ddp.py

coverage: .venv/dev.stamp
	@$(TEST) -m "not slow and not browser" --cov --cov-report=term --cov-fail-under=$(COVERAGE)

docs: .venv/docs.stamp
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

test-gpu: .venv/dev.stamp
	@$(RUN) -m pytest -q -m gpu tests/test_gpu.py

test-attack: .venv/dev.stamp
	@$(TEST) --durations=10 tests/test_attack.py tests/test_attack_signals.py tests/weights/test_weights_refused.py \
		tests/demo/test_demo_server.py tests/inference/test_inpaint_hostile.py tests/data/test_bad_images.py

lint: .venv/dev.stamp
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(RUN) -c "from importlinter.cli import lint_imports_command as lint; lint()"

.venv/python.stamp: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gicinpaint needs Python 3.11 or newer, got " + sys.version.split()[0] + "; run make PYTHON=python3.12")'
	@test -x $(RUN) || { echo "Creating .venv"; $(PYTHON) -m venv .venv; }
	@$(INSTALL) setuptools
	@touch $@

.venv/core.stamp: .venv/python.stamp pyproject.toml
	@echo "Installing gicinpaint and the tested versions of its dependencies"
	@$(INSTALL) --editable .
	@touch $@

.venv/dev.stamp: .venv/python.stamp pyproject.toml
	@echo "Installing gicinpaint, the tested versions of its dependencies and the test tools"
	@$(INSTALL) --editable ".[dev]"
	@touch .venv/core.stamp $@

.venv/docs.stamp: .venv/python.stamp pyproject.toml
	@echo "Installing gicinpaint and the tools of its documentation"
	@$(INSTALL) --editable ".[docs]"
	@touch .venv/core.stamp $@

clean:
	@rm -rf .venv build dist site src/gicinpaint.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
