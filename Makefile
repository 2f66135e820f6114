# Needs make and a Python >= 3.11; every target fetches the rest itself, by hash, into this folder.
.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench torture fuzz mutants lock build audit reproduce verify-release fork venv clean

# The first name that really runs: a version manager's shim may be found and still have nothing behind it.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$name" -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys.executable)' 2>/dev/null && break; \
	done)
PYTHON := $(PYTHON)
VERSION := $(shell $(or $(PYTHON),false) -c 'import platform; print(platform.python_version())' 2>/dev/null)

UV := .bootstrap/bin/uv
# The stamp carries the version, so that PYTHON=python3.12 lays the environment anew.
STAMP := .venv/.ready-$(VERSION)
BIN := .venv/bin
# The release before this one, apart from everything: its store is imported, its clients and its speed are compared.
PREVIOUS := .venvs/0.2.0/.ready
TYPED := $(wildcard src tests benchmarks tools)

export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
unexport VIRTUAL_ENV

help: ## list the targets (PYTHON=... picks the interpreter)
	@echo 'usage: make TARGET [PYTHON=$(PYTHON)]'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

demo: ## see a blocked wait return when a real test run fails
	@if $(MAKE) --no-print-directory venv; then \
		exec $(BIN)/waitbus demo; \
	else \
		echo 'No environment could be made: running the demo with $(PYTHON) alone.' >&2; \
		PYTHONPATH=src exec $(PYTHON) -m waitbus demo; \
	fi

test: lint $(PREVIOUS) ## lint, then the suite on every Python >= 3.11 found, with coverage on one (ARGS=-kwire picks)
	@$(BIN)/python -m tools.suite --uv $(UV) -- $(ARGS)

lint: venv ## ruff, mypy --strict, the import rule, the lock in step with pyproject.toml
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy --no-error-summary $(TYPED)
	@echo '$(BIN)/lint-imports'; said=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$said"; exit 1; }
	$(UV) lock --check --offline --quiet

format: venv ## lay out the code and apply ruff's safe fixes
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

bench: venv $(PREVIOUS) ## print the figures of benchmarks/
	@$(UV) sync --frozen --quiet --group bench --python $(PYTHON)
	@$(BIN)/python -m benchmarks

torture: venv ## kill the hub and producers at random; nothing may be lost or repeated
	@$(BIN)/python -m tests.torture

fuzz: venv ## the property tests with many more examples
	@$(BIN)/python -m tests.fuzz

mutants: venv ## put one fault at a time into a copy of the product; a test must see each (ARGS='wire --sample 50')
	@UV_PROJECT_ENVIRONMENT=.venvs/mutants $(UV) sync --frozen --quiet --no-default-groups --group=test --group=mutants \
		--python $(PYTHON)
	@.venvs/mutants/bin/python -m tests.mutants $(ARGS)

lock: venv ## update the locks after a change of pyproject.toml, and the files exported from them (UPGRADE=1: newest)
	$(UV) lock $(if $(UPGRADE),--upgrade)
	for script in packaging/*.py; do $(UV) lock --script "$$script" $(if $(UPGRADE),--upgrade) || exit 1; done
	$(BIN)/python -m tools.lock $(UV)

build: venv ## the sdist, the wheel, their SBOMs and SHA256SUMS, byte for byte reproducible, into dist/
	@$(BIN)/python -m tools.build dist

audit: venv ## check workflows, locks, licences, tree and release, a line each (STRICT=1: nothing may be skipped)
	@UV_PROJECT_ENVIRONMENT=.venvs/audit $(UV) sync --frozen --quiet --all-groups --all-extras --python $(PYTHON)
	@.venvs/audit/bin/python -m tools.audit --uv $(UV) $(if $(OSV),--osv $(OSV)) $(if $(STRICT),--strict)

reproduce: venv ## build the last commit in many ways, which must give the same bytes (COMMIT=..., STRICT=1: all of them)
	@$(BIN)/python -m tools.reproduce --uv $(UV) $(if $(STRICT),--strict) $(COMMIT)

verify-release: venv ## check who vouches for a published file, then build it again (FILE=... SUMS=SHA256SUMS REF=v0.3.0)
	@test -n '$(FILE)' || { echo 'name the file: make verify-release FILE=waitbus-0.3.0-py3-none-any.whl' >&2; exit 2; }
	@$(BIN)/waitbus verify-release '$(FILE)' $(if $(SUMS),--sums '$(SUMS)') $(FLAGS); looked=$$?; \
		PYTHON='$(PYTHON)' packaging/rebuild.sh $(if $(REF),--ref '$(REF)') '$(FILE)'; rebuilt=$$?; \
		case " $$looked $$rebuilt " in *' 76 '*) exit 76 ;; *' 0 '*) exit 0 ;; esac; exit $$rebuilt

fork: ## give the repository another name, in every file that holds it (TO=OWNER/NAME)
	@$(or $(PYTHON),python3) -m tools.fork $(TO)

venv: $(STAMP)

clean: ## remove what the other targets made
	rm -rf .venv .venvs .bootstrap .coverage .coverage.* htmlcov dist \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(UV): packaging/bootstrap.txt
	@test -n '$(VERSION)' || { echo 'No Python >= 3.11 runs here: install one (Debian: apt install python3-venv)' \
		'or name it: make PYTHON=/path/to/python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'This Python cannot make environments: install its venv package (Debian: apt install python3-venv).' >&2; \
		exit 1; }
	@echo 'Setting up: fetching uv ...' >&2
	@$(PYTHON) -m venv --clear .bootstrap
	@.bootstrap/bin/python -m pip install --quiet --quiet --disable-pip-version-check --retries 1 \
		--require-hashes --no-deps --only-binary :all: -r packaging/bootstrap.txt
	@touch $@

$(STAMP): $(UV) uv.lock pyproject.toml src/waitbus/__init__.py
	@echo 'Setting up: .venv with Python $(VERSION) and the tools of uv.lock ...' >&2
	@$(UV) sync --frozen --quiet --python $(PYTHON)
	@touch $@

$(PREVIOUS): $(UV) packaging/previous.py.lock
	@echo 'Setting up: waitbus 0.2.0 in an environment of its own ...' >&2
	@$(UV) venv --quiet --clear --python $(PYTHON) .venvs/0.2.0
	@VIRTUAL_ENV=.venvs/0.2.0 $(UV) sync --frozen --quiet --no-build --script packaging/previous.py --active
	@touch $@
