# All that a machine with Python 3.11, pip and make needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LAVA := lava-nc==0.10.0
STAMP := $(VENV)/.installed

.PHONY: setup demo test check interop mapping clean

setup: $(STAMP)

# lava-nc's metadata excludes Python 3.11 and pip has no override for one package, so it gets its own line.
$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[train,lava,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --ignore-requires-python --no-deps $(LAVA)
	touch $(STAMP)

# Train two small networks, compile them, run them on every device, compare and count.
demo: setup
	$(BIN)/python benchmarks/digits.py --seeds 0 --output demo

# Every check; CI runs this.
test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python -m pytest -q -n auto

# Hundreds of networks that five frameworks write, each in an environment of its own, read back; see docs/interop.md.
INTEROP := build/interop
interop: setup
	$(BIN)/python benchmarks/interop.py environments $(INTEROP)
	$(BIN)/python benchmarks/interop.py draw $(INTEROP) --first 1000 --count 60
	$(BIN)/python benchmarks/interop.py read $(INTEROP) --page docs/interop.md

# Mappings of hundreds of random networks: what must hold, and costs beside other mappers'; see docs/mapping.md.
mapping: setup
	$(BIN)/python benchmarks/mapping/properties.py --count 400
	$(BIN)/python benchmarks/mapping/compare.py --first 1000 --count 30

clean:
	rm -rf build dist demo *.egg-info
