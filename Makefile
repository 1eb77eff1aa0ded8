# make demo    simulate, train, evaluate and render in about seven minutes on two CPU cores
# make test    lint and all tests
# make install the environment alone, in .venv
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test install lint clean

demo: install
	$(BIN)/svg-quickstart $(ARGS)

test: install lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: .venv/installed

.venv/installed: setup.py
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or later is needed, this is ' + sys.version)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable '.[sim,video,dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
