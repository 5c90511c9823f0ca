# Everything a newcomer needs; the first use of any target builds .venv with the pinned versions.
#
#   make bench SUITE=glue [PROFILE=cpu] [MIRROR=dir] [ARGS="--jobs 2"]

PYTHON ?= python3
SUITE ?= smoke
PROFILE ?=
MIRROR ?=
ARGS ?=
REPORT ?=
SHOTS ?= build/browser
OLD ?=
NEW ?=
DATA ?=
TEXT ?=
LABEL ?=
REPOSITORY ?=
UV ?= uv

# User text reaches the recipes as environment variables, unexpanded by make and quoted in the
# shell, so that SUITE='glue; touch p' is just an unknown suite. ARGS is split into words only.
override SUITE := $(value SUITE)
override PROFILE := $(value PROFILE)
override MIRROR := $(value MIRROR)
override ARGS := $(value ARGS)
override REPORT := $(value REPORT)
override SHOTS := $(value SHOTS)
override OLD := $(value OLD)
override NEW := $(value NEW)
override DATA := $(value DATA)
override TEXT := $(value TEXT)
override LABEL := $(value LABEL)
override REPOSITORY := $(value REPOSITORY)
export SUITE PROFILE MIRROR ARGS REPORT SHOTS OLD NEW DATA TEXT LABEL REPOSITORY

SHELL := /bin/bash
# One more than cores: a test in three waits for a process that it started.
SPREAD := -n $(shell echo $$(($$(nproc) + 1))) --maxprocesses 5 --dist worksteal
PIP_FLAGS := --quiet --disable-pip-version-check
SELECT = set -f; set -- "$$SUITE"; \
	[ -z "$$PROFILE" ] || set -- "$$@" "--profile=$$PROFILE"; \
	[ -z "$$MIRROR" ] || set -- "$$@" "--mirror=$$MIRROR"

.PHONY: help bench try report versions reproduce memory-tables test test-all test-fast test-gpu test-browser site test-site overhead perf gpu-report lock lint check format clean
.DEFAULT_GOAL := help

help:  ## say what there is
	@echo 'make bench SUITE=glue   run a suite and write its report (PROFILE=, MIRROR=, ARGS=)'
	@echo 'make try DATA=my.csv TEXT=body LABEL=category   which method to use on rows of your own'
	@echo 'make report SUITE=glue  write the report of earlier results'
	@echo "make versions OLD='peft==0.20.0' NEW='peft==0.21.2' SUITE=smoke   compare two versions"
	@echo 'make reproduce SUITE=adalora-tuned   run some published rows again (ARGS="--sample 4")'
	@echo 'make test               run the tests, in ten minutes on two cores'
	@echo 'make test-all           run the slow ones too: real models, storms, clocks'
	@echo 'make test-fast          run those that need no torch and start no processes'
	@echo 'make check              format, lint and types, then the tests'
	@echo 'make test-gpu           the checks that only a CUDA machine can make'
	@echo 'make test-browser REPORT=path   use a page, or all of a folder, in Chromium (needs node; CHROMIUM=, SHOTS=)'
	@echo 'make site               evidence and docs as a static site, in build/site (REPOSITORY=URL)'
	@echo 'make test-site          use every page of it in Chromium (needs node; CHROMIUM=, SHOTS=)'
	@echo 'make memory-tables      predict docs/memory-tables.md again'
	@echo 'make overhead           measure what the meters cost (ARGS="--pairs 200")'
	@echo 'make perf               measure how fast peftmark is, in under an hour (ARGS="--quick")'
	@echo 'make gpu-report         measure on one GPU, in eight minutes (ARGS="--assets" says what to bring)'
	@echo 'make lock               pin the hashes of constraints.txt again (needs uv; UV=path)'
	@echo 'make format             format the code'
	@echo 'make clean              remove .venv, .venv-site and caches; results and reports stay'

.venv/.installed: pyproject.toml constraints.txt .ci/requirements.lock .ci/development.lock
	@echo 'Installing into .venv (a few minutes the first time) ...'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; use make PYTHON=...")'
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install $(PIP_FLAGS) --no-compile --require-hashes --no-deps \
	  -r .ci/requirements.lock -r .ci/development.lock
	@.venv/bin/python -m pip install $(PIP_FLAGS) --no-compile -c constraints.txt torch
	@.venv/bin/python -m pip install $(PIP_FLAGS) --no-compile --no-deps --no-build-isolation -e .
	@.venv/bin/python -m compileall -qq -j 0 .venv/lib || :  # on every core, where pip uses one
	@touch $@

lock: .venv/.installed  ## write the hashes of constraints.txt again (needs uv: make lock UV=path)
	@.ci/lock "$(UV)"

bench: .venv/.installed  ## run a suite
	@$(SELECT); exec .venv/bin/peftmark run "$$@" $$ARGS

try: .venv/.installed  ## which method to use on rows of one's own
	@set -f; set -- -- "$$DATA"; \
	[ -z "$$LABEL" ] || set -- "--label=$$LABEL" "$$@"; \
	[ -z "$$TEXT" ] || set -- "--text=$$TEXT" "$$@"; \
	exec .venv/bin/peftmark try $$ARGS "$$@"

report: .venv/.installed  ## report on earlier results
	@$(SELECT); exec .venv/bin/peftmark report "$$@" $$ARGS

versions: .venv/.installed  ## run a suite with two versions of a library, in turns
	@$(SELECT); exec .venv/bin/peftmark versions "$$@" --old "$$OLD" --new "$$NEW" $$ARGS

reproduce: .venv/.installed  ## run some published rows again
	@set -f; set -- "$$SUITE"; [ -z "$$MIRROR" ] || set -- "$$@" "--mirror=$$MIRROR"; \
	exec .venv/bin/peftmark reproduce "$$@" $$ARGS

test: .venv/.installed  ## run the tests; none of them looks at a clock
	@.venv/bin/python -m pytest -m 'not gpu and not slow' $(SPREAD)

test-all: .venv/.installed  ## run the slow tests too
	@.venv/bin/python -m pytest -m 'not gpu' $(SPREAD)

test-fast: .venv/.installed  ## the tests that need no torch and start no processes
	@PEFTMARK_TESTS=fast .venv/bin/python -m pytest -m 'not heavy and not slow' \
	  tests/unit tests/test_layers.py -n 2 --dist worksteal

test-gpu: .venv/.installed
	@.venv/bin/python -m pytest -m gpu

memory-tables: .venv/.installed  ## predict docs/memory-tables.md again, in more than twenty minutes on two cores
	@.venv/bin/python -m peftmark.docgen.memory_page

tests/browser/node_modules/.installed: tests/browser/package-lock.json
	@cd tests/browser && npm ci --loglevel=error --no-audit --no-fund >/dev/null
	@touch $@

test-browser: tests/browser/node_modules/.installed  ## open REPORT in Chromium, offline, and use it
	@set -f; exec node tests/browser/check.mjs "$$SHOTS" "$$REPORT" $$ARGS

# The site's generator has an environment of its own, so that peftmark's doesn't grow by it.
.venv-site/.installed: .ci/site.lock
	@$(PYTHON) -m venv .venv-site
	@.venv-site/bin/python -m pip install $(PIP_FLAGS) --no-compile --require-hashes --no-deps \
	  -r .ci/site.lock
	@touch $@

site: .venv/.installed .venv-site/.installed  ## write build/site; pages ask the network for nothing
	@.venv/bin/python -m peftmark.site --mkdocs .venv-site/bin/mkdocs --repository "$$REPOSITORY"

test-site: tests/browser/node_modules/.installed  ## open every page of build/site in Chromium, offline
	@set -f; exec node tests/browser/site.mjs "$$SHOTS" build/site $$ARGS

overhead: .venv/.installed  ## measure the meters themselves
	@set -f; exec env OMP_NUM_THREADS=1 .venv/bin/python -m peftmark.lab.measure.overhead $$ARGS

perf: .venv/.installed  ## measure peftmark against scripts, a bare loop and the machine
	@set -f; exec .venv/bin/python -m peftmark.perf $$ARGS

gpu-report: .venv/.installed  ## measure on one GPU what peftmark takes there, in eight minutes
	@set -f; exec .venv/bin/python -m peftmark.perf.gpu_report $$ARGS

lint: .venv/.installed  ## format, lint and types
	@.venv/bin/ruff format --check bench tests
	@.venv/bin/ruff check bench tests
	@.venv/bin/mypy

check: lint test

format: .venv/.installed
	@.venv/bin/ruff format bench tests
	@.venv/bin/ruff check --fix bench tests

clean:
	@rm -rf .venv .venv-site .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
	@find bench tests -name __pycache__ -type d -prune -exec rm -rf {} +
