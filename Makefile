# `make help` lists the targets. Everything runs in .venv, which any target sets up when it is missing or stale.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed
# The script that unpacks CIFAR-10 images into a directory, where such an archive is at hand.
CIFAR10_UNPACK ?= ../shared/data/unpack
# The demo's budget, of the base network's FLOPs: tight, so that channels in the wrong places show.
BUDGET ?= 7%

# Tests run side by side, with one thread each.
WORKERS ?= 2
# Where scripts lie that import their neighbours by name alone: mypy is run in each.
SCRIPTS := scripts benchmarks $(addprefix benchmarks/,kills peers study tasks)

.PHONY: help setup lint format types types-of-scripts test quick lowest docs docs-links demo smoke smoke-tasks clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(SETUP) ## create .venv and install the package with its development tools

$(SETUP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $(SETUP)

lint: $(SETUP) ## check style (ruff) and types (mypy, strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(SETUP) ## format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(SETUP) ## check types alone, those of scripts and benchmarks as well
	$(BIN)/mypy
	$(MAKE) --no-print-directory types-of-scripts

types-of-scripts: $(SETUP)
	@for place in $(SCRIPTS); do echo "mypy $$place"; MYPYPATH=$$place $(BIN)/mypy $$place/*.py || exit 1; done

test: lint types-of-scripts ## check style and types, then run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal

quick: lint ## the same without slow tests: processes, kills, whole jobs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow"

lowest: ## run the quick tests with the oldest versions that pyproject.toml admits (torch: a download of GB)
	$(PYTHON) -m venv build/lowest
	$(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
	  | sed 's/>=/==/' > build/lowest/constraints.txt
	build/lowest/bin/pip install --quiet --constraint build/lowest/constraints.txt --editable . \
	  hypothesis pytest pytest-xdist scipy
	OMP_NUM_THREADS=1 build/lowest/bin/pytest -n $(WORKERS) --dist worksteal -m "not slow" --ignore tests/docs

docs: $(SETUP) ## build the site into build/site; any warning or broken link within it is an error
	rm -rf build/site
	$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet --builder html docs build/site
	@echo "open build/site/index.html"

docs-links: $(SETUP) ## ask every other site that the pages link to; needs a network
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder linkcheck docs build/links

demo: $(SETUP) ## run the whole job on the embedded digits
	$(BIN)/autoslim run --recipe digits --flops $(BUDGET) --retrain-base

smoke: $(SETUP) ## run all stages on CIFAR-10 images
	@if [ -f $(CIFAR10_UNPACK) ]; then bash $(CIFAR10_UNPACK) data; \
	elif [ ! -d data/cifar10-jpeg ]; then \
	  echo "put CIFAR-10 images into data/cifar10-jpeg/{train,test}/<class>/, or set CIFAR10_UNPACK"; exit 2; fi
	$(BIN)/python scripts/smoke.py

smoke-tasks: $(SETUP) ## run all stages of recipes of other tasks than classification on generated images
	$(BIN)/python scripts/smoke_tasks.py

clean: ## remove caches and what autoslim made from recipes (recipes, latency tables and your own files stay)
	$(PYTHON) scripts/clean.py
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
