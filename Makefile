# make demo    simulate, train, evaluate and render in about seven minutes on two CPU cores
# make check   lint, types and the quick tests: two minutes on two cores
# make test    lint, types and all tests
# make docs    the documentation as a site, in site/
# make install the environment alone, in .venv
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := data_tools svg experiments
# Each process of the tests computes on one core; more threads than cores would wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --durations 20

.PHONY: demo check test docs install lint clean

demo: install
	$(BIN)/svg-quickstart $(ARGS)

check: install lint
	$(PYTEST) -m "not slow"

test: install lint
	$(PYTEST)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check $(PACKAGES)

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or later is needed, this is ' + sys.version)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable '.[sim,video,lerobot,stream,export,docs,notebook,dev]'
	touch $@

clean:
	rm -rf .venv build site *.egg-info
