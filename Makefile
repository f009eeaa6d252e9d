# make demo          set up, then the main job on the embedded data: float -> .hbm
# make demo-control  the float model trained for QAT's extra steps, to compare with
# make test          set up, then the whole test suite
# make install       set up only (again after editing: tools import the installed package)
# make clean-demo    remove what the demo made

PYTHON ?= python3
WORKERS ?= 2
PYTEST_ARGS ?= -q --durations=10

VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := runtime lite demo tests fast onnx
PIN := -c requirements/constraints.txt

# A stamp's name holds a checksum of the contents that it stands for: nothing to do while they are
# the same, whatever git did to their times, and a removed file counts as a change.
checksum = $(shell find $(1) -type f -not -name '*.pyc' | LC_ALL=C sort | xargs cksum \
  | cksum | cut -d' ' -f1)
SOURCES := mmdet_bpu configs tools requirements \
  Makefile setup.py MANIFEST.in pyproject.toml model-index.yml
DEPENDENCIES := $(VENV)/.dependencies-$(call checksum,requirements Makefile)
PACKAGE := $(VENV)/.package-$(call checksum,$(SOURCES))
BYTECODE := $(VENV)/.bytecode-$(call checksum,requirements Makefile)
# pip would compile every file that it installs, which takes longer than all the rest of it.
PIP_INSTALL := -m pip install -q --no-compile
IMPORTED := hypothesis, numba, onnx, onnxruntime, pytest, sklearn.datasets, torch._dynamo

.PHONY: demo demo-control test install clean-demo

demo: install
	$(BIN)/python tools/demo.py

demo-control: install
	$(BIN)/python tools/demo.py --control

test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

clean-demo:
	rm -rf work_dirs/demo

install: $(BYTECODE)

# What commands and tests import is compiled here once, whatever the environment says.
$(BYTECODE): $(PACKAGE)
	@test -e $@ || { cd $(VENV) && PYTHONDONTWRITEBYTECODE= bin/python -W ignore -c \
	  'from mmdet_bpu.apis import *; import $(IMPORTED)'; }
	@rm -f $(VENV)/.bytecode-*
	@touch $@

$(PACKAGE): $(DEPENDENCIES)
	@rm -f $(VENV)/.package-*
	@echo 'installing mmdet_bpu into $(VENV)'
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# torch comes first and alone, so that no other package decides which build of it is taken.
$(DEPENDENCIES):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo 'error: Python 3.10 or newer is needed; name one: make PYTHON=python3.11 ...' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install -q pip; }
	@rm -f $(VENV)/.dependencies-* $(VENV)/.package-*
	@echo 'installing torch into $(VENV) (once, some minutes)'
	@$(BIN)/python $(PIP_INSTALL) $(PIN) torch
	@echo 'installing the other packages into $(VENV) (once, some minutes)'
	@$(BIN)/python $(PIP_INSTALL) $(PIN) $(REQUIREMENTS:%=-r requirements/%.txt)
	@touch $@
