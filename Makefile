# make submission    dist/submission.zip from the committed model, verified and graded
# make test          the tests
# make help          all targets

.DEFAULT_GOAL := help
DATA ?=
ZIP ?= dist/submission.zip
TRAIN ?=
MINUTES ?= 30
RUN ?= runs/auto
WEIGHTS ?=
BIN := .venv/bin
# The first of these that runs and is new enough; `make PYTHON=/path/to/python …` overrides it.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: help setup submission competition test lint structure docs bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  DATA=folder   labelled images, one folder for each class"
	@echo "  TRAIN=folder  make submission trains on these images first, for MINUTES=30, into RUN=runs/auto"
	@echo "  GPU=1         install TensorFlow's GPU build (Linux, NVIDIA) instead of the CPU build"

setup: .venv/ready  ## create the environment .venv from the package index

.venv/ready: requirements.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 to 3.12 found; install one (apt install python3 python3-venv) or give PYTHON=/path"; exit 2; }
	@echo "setting up .venv with $$($(PYTHON) --version): the downloads are about 400 MB"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "error: no venv module; on Debian or Ubuntu: apt install python3-venv"; exit 2; }
ifeq ($(GPU),1)
	@sed -E 's/^tensorflow-cpu(~=[0-9.]+);.*/tensorflow[and-cuda]\1/; /^tensorflow~=/d' requirements.txt > .venv/requirements-gpu.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .venv/requirements-gpu.txt
else
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
endif
	@touch $@

.venv/ready-test: .venv/ready requirements-test.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

submission: .venv/ready  ## build dist/submission.zip and grade it (DATA=folder to score it)
ifneq ($(TRAIN),)
	@$(BIN)/python -m training auto --data "$(TRAIN)" --minutes $(MINUTES) --out "$(RUN)" $(if $(WEIGHTS),--backbone-weights "$(WEIGHTS)")
	@$(BIN)/python build_submission.py --run "$(RUN)" --out $(ZIP)
else
	@$(BIN)/python build_submission.py --out $(ZIP)
endif
	@echo
	@$(BIN)/python grade_submission.py $(ZIP) $(if $(DATA),--data "$(DATA)" --html dist/grade.html) --json dist/grade.json
	@echo "ready     $(ZIP)"

competition: .venv/ready  ## build dist/competition.zip for Codabench from the images in DATA=folder
	@test -n "$(DATA)" || { echo "error: DATA=folder is required: a folder with one folder of images for each class"; exit 2; }
	@$(BIN)/python -m competition "$(DATA)"

test: .venv/ready-test  ## run the tests but the slow ones
	@$(BIN)/python -m pytest -q -n auto --dist loadfile tests

lint: .venv/ready-test  ## check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy .

structure: .venv/ready  ## measure function length, parameters, import order and recipe depth
	@$(BIN)/python -m docs.structure

docs: .venv/ready  ## write the measured numbers into the documentation
	@$(BIN)/python -m docs.structure --picture docs/img/architecture.png
	@$(BIN)/python -m docs.fill

bench: .venv/ready  ## run the benchmarks (half an hour on an idle machine)
	@$(BIN)/python -m benchmarks.inference
	@$(BIN)/python -m benchmarks.memory
	@$(BIN)/python -m benchmarks.grading
	@$(BIN)/python -m benchmarks.images
	@$(BIN)/python -m benchmarks.training $(if $(DATA),--data "$(DATA)")

clean:  ## remove dist and caches; keeps .venv and runs
	@rm -rf dist .pytest_cache .ruff_cache .mypy_cache; find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
