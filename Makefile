PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = anatomy_export tests benchmarks
PARALLEL = -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test lint format test-optimum test-clients clean

demo: $(VENV)/.installed
	$(BIN)/anatomy-export --model bert --slice --force
	$(BIN)/anatomy plan show exports/bert-slice/plan.json

test: lint
	$(BIN)/pytest $(PARALLEL)

lint: $(VENV)/.installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy anatomy_export benchmarks/*.py
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

test-optimum: .venv-optimum/.installed
	.venv-optimum/bin/pytest $(PARALLEL)

# What needs more than Python: a browser. It says what is missing, and what was therefore not tested.
test-clients: $(VENV)/.clients
	$(BIN)/pytest tests/clients

# The versions pinned in constraints*.txt need this much; the package itself runs on Python 3.10 when pip installs it.
CHECK_PYTHON = @$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit("Error: $(PYTHON) is Python %d.%d, the \
pinned versions need 3.11 or later; next step: make PYTHON=python3.11, or pip install \".[cpu]\"" % v[:2] \
if v < (3, 11) else 0)'

$(VENV)/.installed: setup.cfg constraints.txt
	$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[cpu,dev]"
	touch $@

$(VENV)/.clients: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[cpu,dev,clients]"
	touch $@

.venv-optimum/.installed: setup.cfg constraints-optimum.txt
	$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-optimum
	.venv-optimum/bin/pip install --quiet -c constraints-optimum.txt -e ".[gpu,optimum,dev]"
	touch $@

clean:
	rm -rf $(VENV) .venv-optimum exports build dist
