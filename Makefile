# Two commands do all: `make demo` and `make test`. Each builds its own virtual environment the first time.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export TF_CPP_MIN_LOG_LEVEL = 3

.PHONY: demo test matrix bench fuzz crash faults damage deciding soak lint types layers check clean
.DEFAULT_GOAL := help

help:  ## what can be asked
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The stamp is older than what it was built from whenever a dependency changed, and only then.
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "building $(VENV) (a few minutes the first time; later runs start at once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready  ## kill a Lightning and a Keras run by SIGKILL, resume both, compare the bytes
	$(BIN)/python -m examples.demo

test: $(VENV)/.ready  ## the whole test suite
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

matrix: $(VENV)/.ready  ## every way to train, killed at several places: ours beside the framework's own (an hour or so)
	$(BIN)/python -m benchmarks.matrix --lanes $(JOBS)
	KERAS_BACKEND=torch $(BIN)/python -m benchmarks.matrix keras --lanes $(JOBS)
	KERAS_BACKEND=jax $(BIN)/python -m benchmarks.matrix keras --lanes $(JOBS)

bench: $(VENV)/.ready  ## what saving costs training: ours beside the frameworks' own and other libraries (hours)
	$(BIN)/python -m benchmarks.saving --record benchmarks/RESULTS.md

fuzz: $(VENV)/.ready  ## broken and hostile input for every reader (minutes)
	$(BIN)/python -m benchmarks.fuzz

crash: $(VENV)/.ready  ## killed at every file-system call, the power cut at every one, 1,000 crash-resume cycles (minutes)
	$(BIN)/python -m benchmarks.crash --lanes $(JOBS)

faults: $(VENV)/.ready  ## each system call of a resume and two saves fails, with each error; readers beside (minutes)
	$(BIN)/python -m benchmarks.faults

damage: $(VENV)/.ready  ## every byte of a snapshot's files flipped, every file cut, removed and swapped (minutes)
	$(BIN)/python -m benchmarks.damage --lanes $(JOBS)

deciding: $(VENV)/.ready  ## what judging, listing and a save's decision cost in a run of thousands (a minute)
	$(BIN)/python -m benchmarks.deciding

soak: $(VENV)/.ready  ## one training killed again and again, on a full disk now and then, watched (15 minutes)
	$(BIN)/python -m benchmarks.soak

lint: $(VENV)/.ready  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready  ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/.ready  ## who may import whom
	$(BIN)/lint-imports

check: lint types layers test  ## all that CI runs

clean:  ## remove the virtual environment and what runs left behind
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
