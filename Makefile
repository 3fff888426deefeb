# Every target builds what it needs into .venv; nothing outside the checkout is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is compiled: the core, and the Python modules on a request's way (pyproject.toml lists them).
SOURCES := $(shell find sidecar -name '*.pyx' -o -name '*.pxd') $(shell sed -n 's/^sources = \["\(.*\.py\)"\]/\1/p' pyproject.toml)

# The tests start thousands of interpreters, which need not compile the same again: not even where this is set.
export PYTHONDONTWRITEBYTECODE :=

# Most tests wait most of the time, so one more than there are processors run at one time, a file in one process.
TOGETHER := $(BIN)/python -m pytest -m 'not alone' --dist loadfile --no-loadscope-reorder --numprocesses $(shell expr $$(nproc) + 1)
ALONE := $(BIN)/python -m pytest -m alone

# What the binary is made of.
PACKED := $(shell find sidecar -name '*.py') $(addprefix packaging/,binary.py entry.py launcher.c sidecar.spec)
BINARY := dist/sidecar

.PHONY: build run test check fmt bench binary deb manual clean

build: $(VENV)/.built          ## the installed command, .venv/bin/sidecar

$(VENV)/.python: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	touch $@

$(VENV)/.built: $(VENV)/.python $(SOURCES) packaging/backend.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	$(BIN)/python -m compileall -q sidecar
	touch $@

$(VENV)/.dev: $(VENV)/.built
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	touch $@

run: $(VENV)/.built            ## serve conf.d in front of the built-in demo upstream
	$(BIN)/sidecar run --conf conf.d --with-demo

test: $(VENV)/.dev $(BINARY)   ## the whole suite, then the end-to-end part with the binary
	$(TOGETHER)
	$(ALONE)
	$(TOGETHER) tests/e2e --command $(BINARY)
	$(ALONE) tests/e2e --command $(BINARY)

check: $(VENV)/.dev            ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fmt: $(VENV)/.dev              ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev            ## CPU per request beside the neighbours that are installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python -m tests.bench

binary: $(BINARY)              ## one executable that needs nothing of the machine, dist/sidecar

$(BINARY): $(VENV)/.built $(PACKED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group binary
	rm -rf build/binary
	$(BIN)/python -m PyInstaller --log-level WARN --noconfirm --distpath build/binary --workpath build/pyinstaller packaging/sidecar.spec
	$(BIN)/python packaging/binary.py build/binary/sidecar $@

deb: $(BINARY)                 ## the Debian package, beside the binary
	$(BIN)/python packaging/deb.py $(BINARY)

manual: $(VENV)/.built         ## the reference of every option
	$(BIN)/sidecar manual

clean:
	rm -rf $(VENV) build dist *.egg-info
	find sidecar -name '*.so' -delete -o -name '*.c' -delete
