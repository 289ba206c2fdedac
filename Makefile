# Taskyard: every target does its own set-up. `make` alone lists them.
.DEFAULT_GOAL := help
PY := .venv/bin/python
JOBS ?= 4

.PHONY: help setup demo test check chaos conformance bench dist lock clean
help:  ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## Make .venv from the lock file (also makes its own uv)
	@scripts/setup

demo: setup  ## Run the main job on embedded servers; KEEP=1 leaves them up until Ctrl-C
	@$(PY) -m scripts.demo $(if $(KEEP),--keep)

# Tests start hundreds of processes: without its bytecode each would compile our sources anew, for a second or so.
test: export PYTHONDONTWRITEBYTECODE =
test: setup  ## Run all tests on real Valkey, PostgreSQL and SQLite
	@$(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: setup  ## Formatting, lint, types, layers
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy .
	@.venv/bin/lint-imports --no-cache

chaos: setup  ## Long runs with random kills
	@$(PY) -m pytest -m chaos --timeout=1800 $(ARGS)

conformance: setup  ## Run Celery's and kombu's own integration tests on our transport and on kombu's
	@$(PY) -m scripts.conformance $(ARGS)

bench: setup  ## Measure, and print the machine and a table
	@$(PY) -m bench $(ARGS)

dist: setup  ## Build the wheel and the source distribution into dist/
	@$(PY) -m hatchling build -d dist

lock: setup  ## Pin all packages again (names, versions, hashes; no addresses)
	@scripts/lock

clean:  ## Remove what the targets made
	rm -rf .venv .run build dist .mypy_cache .ruff_cache
