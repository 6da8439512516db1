# Every target sets itself up: the first call makes .venv in this folder, later calls start at once.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
BIN := .venv/bin
RUN := .venv/run.stamp
TEST := .venv/test.stamp
INTEROP := .venv/interop.stamp
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help train test test-thorough test-interop mutants bench profile examples clean

help:           ## print this list
	@echo "usage: make TARGET [ARGS=\"…\"]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1 \2/p' $(MAKEFILE_LIST) | awk '{name = $$1; $$1 = ""; printf "  %-14s%s\n", name, $$0}'

train: $(RUN)           ## train a vision transformer on CIFAR-10 for 30 minutes; ARGS="--data shapes --minutes 1" needs no download
	@$(BIN)/numpyvit train $(ARGS)

test: $(TEST)           ## prove the gradients and everything else; ARGS are pytest's
	@$(BIN)/python -m pytest -q -n 2 $(ARGS)

test-thorough: $(TEST)  ## the same with ten times the examples and the long campaigns, about 15 minutes
	@NUMPYVIT_THOROUGH=1 $(BIN)/python -m pytest -q -n 2 --hypothesis-profile=thorough $(ARGS)

test-interop: $(INTEROP)  ## weights in and out of timm, transformers and torchvision themselves
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q tests/interop.py $(ARGS)

mutants: $(TEST)        ## seeded defects in the backward functions, which the suite has to notice; ARGS="--every 1" for all
	@$(BIN)/python tests/mutants.py $(ARGS)

bench: $(TEST)          ## speed and memory side by side with PyTorch
	@$(BIN)/python tests/bench $(ARGS)

profile: $(TEST)        ## one training step of MODEL, op by op
	@$(BIN)/python tests/bench profile $(MODEL) $(ARGS)

examples: $(RUN)        ## run all scripts of examples/
	@set -e; for script in examples/*.py; do echo "== $$script"; $(BIN)/python $$script; done

$(RUN): pyproject.toml
	@test -x $(BIN)/pip || { echo "first call: making .venv, about a minute"; $(PYTHON) -m venv .venv; }
	@$(PIP) -e ".[images,plots]"
	@touch $@

$(TEST): pyproject.toml $(RUN)
	@echo "first call: fetching the tests' packages (torch among them), some minutes"
	@$(PIP) -e ".[test]"
	@touch $@

$(INTEROP): $(TEST)
	@echo "first call: fetching timm, transformers and torchvision, some minutes"
	@$(PIP) "transformers>=5,<6"
	@$(PIP) --no-deps timm torchvision   # without theirs: any torchvision does, tests/interop.py defines what it lacks
	@touch $@

clean:          ## remove .venv and everything that is built
	rm -rf .venv .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
