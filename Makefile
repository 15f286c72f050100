# Two commands for newcomers: `make quickstart` and `make test`. Both need Python 3.11 or newer, make and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: quickstart test docs format bench-check audit-deps lock model clean

quickstart: $(INSTALLED)
	$(BIN)/smplora quickstart

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy
	$(BIN)/python -m pytest

# The site, in site/; warnings are errors
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The ratios of benchmarks/results/ measured anew, some 20 minutes; fails where one is worse
bench-check: $(INSTALLED)
	$(BIN)/python scripts/bench_check.py

# Licences and known vulnerabilities of what is installed
audit-deps: $(INSTALLED)
	$(BIN)/python scripts/audit_deps.py

# requirements.lock: versions with hashes, for CPython 3.11 on Linux
lock: $(INSTALLED)
	$(BIN)/python scripts/lock.py

# Rebuild the bundled model, about 15 minutes on 2 cores
model: $(INSTALLED)
	$(BIN)/python scripts/build_tiny_model.py

clean:
	rm -rf $(VENV) runs

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("smplora needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (PyTorch and friends, 1 to 5 minutes) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
