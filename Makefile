# make submission    dist/submission.zip from the committed model or RUN=folder, verified and graded
# make test          the tests
# make help          all targets

.DEFAULT_GOAL := help
DATA ?=
ZIP ?= dist/submission.zip
TRAIN ?=
LABELS ?=
DATA_LABELS ?=
MINUTES ?= 30
RUN ?= runs/auto
REFUSE_LABELS = test -z "$(LABELS)" || test -n "$(TRAIN)" || { \
	echo "error: LABELS=file is about TRAIN=folder; for DATA give DATA_LABELS=file"; exit 2; }
GIVEN_LABELS = $(if $(DATA_LABELS),--labels "$(DATA_LABELS)")
GIVEN_RUN := $(filter command environment,$(origin RUN))
WEIGHTS ?=
# The folder of the interpreter that runs everything. `make BIN=folder …` takes an environment of your own.
BIN := .venv/bin
SUPPORTED := (3, 10) <= sys.version_info < (3, 14)
# The first of these that runs, is supported and can create environments; `make PYTHON=/path/to/python …` overrides it.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.10 python3; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(not $(SUPPORTED))' 2>/dev/null && { echo $$p; break; }; done)
# Only .venv is created and updated without being asked. An environment of your own is checked, and changed by `setup`.
OWN := $(filter-out .venv/bin,$(BIN))
NVIDIA := $(filter 1,$(GPU))
READY := $(if $(OWN),packages,$(if $(NVIDIA),.venv/ready-gpu,.venv/ready))
READY_TEST := $(if $(OWN),packages,.venv/ready-test)
MODULES := tensorflow keras numpy PIL yaml requests sklearn matplotlib psutil tqdm imblearn keras_tuner
PIP := "$(BIN)/python" -m pip install --quiet --disable-pip-version-check
# Two builds of TensorFlow have files of the same names, so an environment keeps the build that it has.
BUILD = $(shell "$(BIN)/python" -c 'import importlib.metadata as m; print(*{d.name.replace("_", "-") for d in m.distributions()} & {"tensorflow", "tensorflow-cpu"})' 2>/dev/null)
VERSIONS := $(shell sed -nE 's/^tensorflow-cpu([^;]*);.*/\1/p' requirements.txt)
TENSORFLOW = $(if $(NVIDIA),tensorflow[and-cuda]$(VERSIONS),$(if $(filter tensorflow,$(BUILD)),tensorflow$(VERSIONS)))

.PHONY: help setup submission competition test lint structure docs bench clean
.PHONY: install packages  # steps of the others, not listed by help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  DATA=folder   labelled images, one folder for each class; or any folder, with DATA_LABELS=file.csv"
	@echo "  TITLE=…       make competition: the title; TEXT=file.md and LOGO=file.png are shown on its pages"
	@echo "  CLASSES=dir   make competition: class folders of the training images, whose numbers the classes have"
	@echo "  TRAIN=folder  make submission trains on these images first, for MINUTES=30, into RUN=runs/auto"
	@echo "  LABELS=file   CSV file with the labels of TRAIN, if it has no class folders"
	@echo "  RUN=folder    make submission packs this run; without RUN and TRAIN the committed model"
	@echo "  WEIGHTS=file  make submission TRAIN=folder starts from these backbone weights instead of downloading them"
	@echo "  GPU=1         install TensorFlow's GPU build (Linux, NVIDIA) instead of the CPU build"

setup: $(if $(OWN),install,$(READY))  ## create the environment .venv, or install what that of BIN=folder lacks
	@"$(BIN)/python" -c 'import sys, importlib.metadata as m; print("ready     $(BIN): Python", sys.version.split()[0], \
		*sorted(f"{d.name} {d.version}" for d in m.distributions() if d.name.replace("_", "-") in ("tensorflow", "tensorflow-cpu", "keras")))'

# An existing .venv is kept: packages are installed into it, and nothing is deleted.
.venv/ready .venv/ready-gpu: requirements.txt requirements-base.txt
	@test -e .venv/bin/python || test -L .venv/bin/python || { python="$(PYTHON)"; \
		test -n "$$python" || { echo "error: no Python 3.10 to 3.13 with venv found; on Debian or Ubuntu: apt install python3 python3-venv, else PYTHON=/path/to/python"; exit 2; }; \
		"$$python" -c 'import sys; sys.exit(not $(SUPPORTED))' 2>/dev/null || { echo "error: PYTHON must be Python 3.10 to 3.13, got $$python; give another one"; exit 2; }; \
		"$$python" -m venv --without-pip .venv || { echo "error: $$python cannot create .venv; on Debian or Ubuntu: apt install python3-venv"; exit 2; }; }
	@$(MAKE) --no-print-directory install
	@touch .venv/ready $@

install:
	@"$(BIN)/python" -c 'import sys; sys.exit(not $(SUPPORTED))' 2>/dev/null || { echo "error: $(BIN)/python must be Python 3.10 to 3.13; rename its folder, or give BIN=folder"; exit 2; }
	@"$(BIN)/python" -c 'import pip' 2>/dev/null || "$(BIN)/python" -m ensurepip >/dev/null || { echo "error: $(BIN)/python has no pip; on Debian or Ubuntu: apt install python3-venv"; exit 2; }
	@test "$(NVIDIA)$(BUILD)" != 1tensorflow-cpu || { echo "error: $(BIN) has TensorFlow's CPU build, and GPU=1 needs a new environment; rename the old one"; exit 2; }
	@echo "installing packages into $(BIN), up to $(if $(NVIDIA),3 GB,400 MB) of downloads"
	@$(PIP) $(if $(TENSORFLOW),"$(TENSORFLOW)" -r requirements-base.txt,-r requirements.txt)

packages:
	@"$(BIN)/python" -c 'import sys, importlib.util as u; n = [n for n in "$(MODULES)".split() if not u.find_spec(n)]; \
		sys.exit("error: $(BIN)/python lacks %s; make setup BIN=$(BIN)" % ", ".join(n) if n else 0)'

.venv/ready-test: $(READY) requirements-test.txt
	@$(PIP) -r requirements-test.txt
	@touch $@

submission: $(READY)  ## build dist/submission.zip and grade it (DATA=folder to score it, RUN=folder to pack a run)
	@$(REFUSE_LABELS)
	@test -z "$(DATA_LABELS)" || test -n "$(DATA)" || { echo "error: DATA_LABELS=file is about DATA=folder; give DATA as well"; exit 2; }
ifneq ($(TRAIN),)
	@"$(BIN)/python" -m training auto --data "$(TRAIN)" $(if $(LABELS),--labels "$(LABELS)") --minutes $(MINUTES) --out "$(RUN)" \
		$(if $(WEIGHTS),--backbone-weights "$(WEIGHTS)")
	@"$(BIN)/python" build_submission.py --run "$(RUN)" --out "$(ZIP)"
else
	$(if $(GIVEN_RUN),,@test ! -d "$(RUN)/best" || echo "note      this packs the committed model; RUN=$(RUN) packs yours")
	@"$(BIN)/python" build_submission.py $(if $(GIVEN_RUN),--run "$(RUN)") --out "$(ZIP)"
endif
	@echo
	@"$(BIN)/python" grade_submission.py "$(ZIP)" $(if $(DATA),--data "$(DATA)" $(GIVEN_LABELS) --html dist/grade.html) \
		--json dist/grade.json
	@echo "ready     $(ZIP)"

competition: $(READY)  ## build dist/competition.zip for Codabench from the images in DATA=folder
	@$(REFUSE_LABELS)
	@test -n "$(DATA)" || { echo "error: DATA=folder is required: one folder of images for each class, or any folder with DATA_LABELS=file.csv"; exit 2; }
	@"$(BIN)/python" -m competition "$(DATA)" $(GIVEN_LABELS) $(if $(TITLE),--title "$$TITLE") $(if $(TEXT),--text "$$TEXT") \
		$(if $(LOGO),--logo "$$LOGO") $(if $(CLASSES),--classes "$$CLASSES")

test: $(READY_TEST)  ## run the tests but the slow ones
	@"$(BIN)/python" -m pytest -q -n auto --dist loadfile tests

lint: $(READY_TEST)  ## check style and types
	@"$(BIN)/ruff" check . && "$(BIN)/ruff" format --check . && "$(BIN)/mypy" .

structure: $(READY)  ## measure function length, parameters, import order and recipe depth
	@"$(BIN)/python" -m docs.structure

docs: $(READY)  ## write the measured numbers into the documentation
	@"$(BIN)/python" -m docs.structure --picture docs/img/architecture.png
	@"$(BIN)/python" -m docs.fill

bench: $(READY)  ## run the main benchmarks (over an hour on an idle machine)
	@"$(BIN)/python" -m benchmarks.inference
	@"$(BIN)/python" -m benchmarks.memory
	@"$(BIN)/python" -m benchmarks.grading
	@"$(BIN)/python" -m benchmarks.images
	@"$(BIN)/python" -m benchmarks.training $(if $(DATA),--data "$(DATA)")

clean:  ## remove dist and caches; keeps .venv and runs
	@rm -rf dist .pytest_cache .ruff_cache .mypy_cache; find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
