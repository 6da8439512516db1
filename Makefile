# Every target sets itself up: the first call makes .venv in this folder, later calls start at once.
#   make train ARGS="--data shapes --minutes 1"
#   make test
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
BIN := .venv/bin
RUN := .venv/run.stamp
TEST := .venv/test.stamp
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: train test test-thorough mutants bench profile examples clean

train: $(RUN)                  # learn from one command: ARGS are numpyvit train's
	@$(BIN)/numpyvit train $(ARGS)

test: $(TEST)                  # ARGS are pytest's
	@$(BIN)/python -m pytest -q -n 2 $(ARGS)

test-thorough: $(TEST)         # ten times the examples, and the long campaigns
	@NUMPYVIT_THOROUGH=1 $(BIN)/python -m pytest -q -n 2 --hypothesis-profile=thorough $(ARGS)

mutants: $(TEST)               # seeded defects in the backward functions: the suite must notice every one; ARGS="--every 1" for all
	@$(BIN)/python tests/mutants.py $(ARGS)

bench: $(TEST)                 # side by side with PyTorch
	@$(BIN)/python tests/bench $(ARGS)

profile: $(TEST)               # one training step of MODEL, op by op
	@$(BIN)/python tests/bench profile $(MODEL) $(ARGS)

examples: $(RUN)
	@set -e; for script in examples/*.py; do echo "== $$script"; $(BIN)/python $$script; done

$(RUN): pyproject.toml
	@test -x $(BIN)/pip || { echo "first call: making .venv, about a minute"; $(PYTHON) -m venv .venv; }
	@$(PIP) -e ".[images,plots]"
	@touch $@

$(TEST): pyproject.toml $(RUN)
	@echo "first call: fetching the tests' packages (torch among them), some minutes"
	@$(PIP) -e ".[test]"
	@touch $@

clean:
	rm -rf .venv .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
