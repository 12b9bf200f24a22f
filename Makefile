# `make demo` and `make test` do everything on a fresh machine, from finding a Python to installing.
PYTHON := .venv/bin/python
STAMP := .venv/installed
PEERS := .venv-peers/installed

# What Python has compiled is kept: tests start many processes, each of which would compile torch and napari anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install display peers demo test lint docs checkpoint constraints clean

help:  ## Show what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## Make .venv with the package and its tools

$(STAMP): pyproject.toml constraints.txt scripts/bootstrap
	scripts/bootstrap
	@touch $@

display:
	@scripts/display

demo: install display  ## Open napari on the packaged slide, predicted; without a display write store and picture
	.venv/bin/napari-hyperst demo

peers: $(PEERS)  ## Make .venv-peers with the other tools that tests run on what we export

$(PEERS): $(STAMP) scripts/peers
	@scripts/peers && touch $@ || echo "the other tools could not be installed; the tests that run them are skipped" >&2

test: install display peers  ## Run the tests, the slow ones first
	OMP_NUM_THREADS=1 scripts/with-display $(PYTHON) -m pytest tests \
	    -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: install  ## Check style, types, the direction of imports and the manifest
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/npe2 validate napari-hyperst

docs: install  ## Build the documentation into docs/_build
	.venv/bin/sphinx-build -W -b html docs docs/_build

checkpoint: install  ## Train the bundled checkpoint again: make checkpoint SECTIONS=FOLDER
	scripts/train-checkpoint $(SECTIONS)

constraints: install  ## Compile constraints.txt anew
	.venv/bin/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.12 --upgrade \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file constraints.txt

clean:  ## Remove what was built, but not .venv
	rm -rf build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
