PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One pinned torch for everybody. Linux without a GPU: TORCH_INDEX=URL takes PyTorch's own index of CPU builds.
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
JOBS ?= 2

.PHONY: help setup test test-slow check docs density format reproduce study study2 study2-report study2-grid study-models study-check paper fuzz bench gpu-bundle gpu-accept clean

help:  ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

setup: $(VENV)/.ready  ## Make a virtual environment here and install everything into it.

test: setup  ## Run the tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: setup  ## Run the tests that take minutes.
	$(BIN)/python -m pytest -m slow

check: setup  ## Formatting, lint, types, docs, tests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) docs
	$(MAKE) test

docs: setup  ## Build the documentation as a site in site/.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

density: setup  ## Print how densely the code is written.
	$(BIN)/python tests/helpers/density.py hybridbatch

format: setup  ## Put the code into the project's format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

reproduce: setup  ## Train and score three mixes on the atlas; report in experiments/reproduce.
	$(BIN)/hybridbatch reproduce

# Folder with local copies of the evaluation data of the study (docs/data.md).
DATA_ROOT ?=
ROOT := $(if $(DATA_ROOT),--data-root $(DATA_ROOT))
STUDY := experiments/study

# Sweeps of the same targets, reported as one; then those of others.
SAME := grid languages control batch baselines distillation
OTHER := wide

study: setup  ## Run what is missing of the study (hours) and write its reports: make study DATA_ROOT=FOLDER
	$(BIN)/hybridbatch prepare --config $(STUDY)/data.yaml $(ROOT)
	for sweep in $(SAME) $(OTHER); do $(BIN)/hybridbatch scale-sweep --config $(STUDY)/$$sweep.yaml $(ROOT) || exit; done
	$(BIN)/hybridbatch report $(SAME:%=$(STUDY)/%) $(ROOT)
	for sweep in $(OTHER); do $(BIN)/hybridbatch report $(STUDY)/$$sweep $(ROOT) || exit; done

MODELS := $(STUDY)/models
TRAINED := arb,zho,eng,deu,hin,rus,spa,tha,tur
SCORED := $(foreach what,official bitext passages,$(addsuffix /$(what),untrained mix-0 mix-0.5 mix-1))

study-models: setup  ## Score three models of the study on what its cells do not keep; asks the hub for XQuADRetrieval.
	for mix in 0 0.5 1; do \
	  $(BIN)/hybridbatch train --config $(MODELS)/train.yaml --mix $$mix --out $(MODELS)/runs/mix-$$mix || exit; \
	done
	for each in $(filter-out mix-0/passages,$(SCORED)); do \
	  start=$(MODELS)/runs/$${each%/*}; test $${each%/*} = untrained && start=e5-small-q4; \
	  $(BIN)/hybridbatch eval $$start --config $(MODELS)/$${each#*/}.yaml --trained-languages $(TRAINED) \
	    --out $(MODELS)/$$each $(ROOT) || exit; \
	done
	$(BIN)/python $(MODELS)/passages.py && echo $(MODELS)/passages.md

STUDY2 := experiments/study2
# Folder that translate_squadshifts.py wrote, for experiment E.
TRANSLATED ?=

# Sweeps of the same targets, reported as one; then those of others.
SAME2 := B B-baselines B-mimo C-mkqa C-teacher C-order D D-fixed
OTHER2 := B-wide

study2: setup  ## Go on with the study's second edition (days): make study2 DATA_ROOT=FOLDER [TRANSLATED=FOLDER]
	$(BIN)/python $(STUDY2)/crossfit.py $(ROOT)
	$(MAKE) study2-report
	test -z "$(TRANSLATED)" || $(BIN)/python $(STUDY2)/recipe.py search $(TRANSLATED)
	test -z "$(TRANSLATED)" || $(BIN)/python $(STUDY2)/recipe.py accept $(TRANSLATED) $(ROOT)
	test -z "$(TRANSLATED)" || $(BIN)/python $(STUDY2)/recipe.py accept $(TRANSLATED) $(ROOT) --attempt 2
	$(BIN)/python $(STUDY2)/forecast_first_edition.py $(ROOT)
	$(MAKE) study2-grid
	$(MAKE) study2-report

study2-report: setup  ## Write FINDINGS.md and the reports of all experiments from the runs there are; recompute them with other code.
	$(BIN)/python $(STUDY2)/report_grid.py
	$(BIN)/python $(STUDY2)/report_A.py
	$(BIN)/python $(STUDY2)/recompute.py

study2-grid: setup  ## Run what is missing of experiments B to D (days on two cores), forecasts first, and report them.
	$(BIN)/hybridbatch prepare --config $(STUDY2)/data.yaml $(ROOT)
	$(BIN)/hybridbatch prepare --config $(STUDY2)/data-mkqa.yaml $(ROOT)
	$(BIN)/hybridbatch scale-sweep --config $(STUDY2)/B.yaml --predict $(STUDY)/grid $(ROOT)
	for sweep in $(filter-out B,$(SAME2)) $(OTHER2); do \
	  $(BIN)/hybridbatch scale-sweep --config $(STUDY2)/$$sweep.yaml $(ROOT) || exit; \
	done
	$(BIN)/hybridbatch report $(SAME2:%=$(STUDY2)/%) $(ROOT)
	for sweep in $(OTHER2); do $(BIN)/hybridbatch report $(STUDY2)/$$sweep $(ROOT) || exit; done

EDITION ?= study
SWEEP ?= $(if $(filter study2,$(EDITION)),B,grid)
CHECKED = experiments/$(EDITION)/$(SWEEP)
# The file of `prepare` settings whose output the sweep names as its data.
CHECKED_DATA = $(or $(shell grep -lx "out: $$(sed -n 's/^data: //p' $(CHECKED).yaml)" experiments/$(EDITION)/data*.yaml),\
  $(error no data*.yaml in experiments/$(EDITION) makes the data of $(CHECKED).yaml))
study-check: setup  ## Do a random cell of a study again and compare: make study-check DATA_ROOT=FOLDER [EDITION=study2] [SWEEP=C-mkqa]
	$(BIN)/hybridbatch prepare --config $(CHECKED_DATA) $(ROOT)
	OMP_NUM_THREADS=1 $(BIN)/hybridbatch scale-sweep check $(CHECKED) $(ROOT) --exact --seed $$(date +%s)

MODEL ?= xlm-r
SCALE ?= 1
paper: setup  ## Run the experiment of arXiv:2408.10536 and put its tables beside ours: make paper [MODEL=labse] [SCALE=0.01]
	$(BIN)/hybridbatch reproduce --config experiments/paper/$(MODEL).yaml --scale $(SCALE) $(ROOT)

FUZZ ?= --seconds 120
fuzz: setup  ## Damage files of every kind and see that commands tell: make fuzz [FUZZ='--count 20000 --seed 1'].
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(FUZZ)

bench: setup  ## Run the benchmarks that need no other data; JSON in benchmarks/results.
	$(BIN)/python benchmarks/run.py

# Folder of what a machine with a GPU and no network needs: make gpu-bundle, carry it there, make gpu-accept.
BUNDLE ?= build/gpu-bundle

gpu-bundle: setup  ## Pack a cut encoder and real texts for gpu-accept: make gpu-bundle [WHEELS="NAME==VERSION ..."]
	$(BIN)/hybridbatch prepare
	PYTHONPATH=. $(BIN)/python benchmarks/gpu_bundle.py $(BUNDLE) $(WHEELS:%=--wheel %)

# The Python of this checkout, or the one that has a torch with CUDA: make gpu-accept GPU_PYTHON=python3
GPU_PYTHON ?= $(BIN)/python
# Without a GPU: make gpu-accept ACCEPT="--device cpu --small" ACCEPTED=build/gpu-accept.json
ACCEPT ?=
ACCEPTED ?= benchmarks/results/gpu-accept.json
gpu-accept:  ## Check speed and numbers on one GPU in ten minutes; JSON in benchmarks/results.
	PYTHONPATH=$(CURDIR):$(PYTHONPATH) $(GPU_PYTHON) benchmarks/gpu_accept.py $(ACCEPT) \
	  $(if $(or $(wildcard $(BUNDLE)),$(filter command% environment%,$(origin BUNDLE))),--bundle $(BUNDLE)) --out $(ACCEPTED)

clean:  ## Remove the virtual environment, caches and prepared data.
	rm -rf $(VENV) data .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
