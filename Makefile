# make install    an environment of its own in .venv
# make demo       segment a CT:  make demo CT=leg.nii.gz OUT=result
# make test       all tests:     make test ARGS="-k surface"
# make benchmark  times, beside the naive way
# make package    the archive for Slicer's "Install extension from file":  make package SLICER=5.10
# make clean      remove the environment and what the others made

VENV := .venv
CT ?= Resources/SampleData/sample_ct.nii.gz
OUT ?= demo
ARGS ?=
SLICER ?= 5.12
SLICER_DIR ?= Testing/slicer/cmake
DIST ?= dist
TORCH := torch==2.13.0
TORCHVISION := torchvision==0.28.0
CPU_WHEELS := https://download.pytorch.org/whl/cpu

# The first Python from 3.10 to 3.12 that really runs; name another with `make PYTHON=...`.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3 python; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& { echo $$python; break; }; done)

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install -qq --disable-pip-version-check
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-tests

.PHONY: install demo test benchmark package clean

install: $(STAMP)

$(STAMP): requirements/base.txt requirements/no-deps.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "FemurSeg needs Python 3.10, 3.11 or 3.12; name one: make PYTHON=..."; exit 1; }
	@echo "Making $(VENV) with $(PYTHON) ..."
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@# With a GPU torch comes as it is on PyPI. Without, the much smaller CPU build is tried first.
	@if nvidia-smi >/dev/null 2>&1; then $(PIP) $(TORCH) $(TORCHVISION); \
	else $(PIP) --timeout 5 --retries 0 --index-url $(CPU_WHEELS) $(TORCH) $(TORCHVISION) 2>/dev/null \
	|| $(PIP) $(TORCH); fi
	@$(PIP) -r requirements/base.txt
	@$(PIP) --no-deps -r requirements/no-deps.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# What only the tests need: pytest, and Slicer's own core with Qt (1.2 GB) for the panel.
$(TEST_STAMP): $(STAMP) requirements/dev.txt requirements/slicer.txt
	@echo "Adding what the tests need ..."
	@$(PIP) -r requirements/dev.txt -r requirements/slicer.txt
	@touch $@

demo: $(STAMP)
	$(VENV)/bin/femurseg segment "$(CT)" --out "$(OUT)"
	@echo "See $(OUT)/overview.png, $(OUT)/coronal.png, $(OUT)/axial.png and $(OUT)/result.json."

test: $(TEST_STAMP)
	@$(RUN) -m pytest $(ARGS)

benchmark: $(STAMP)
	@for script in Testing/benchmarks/*.py; do echo "== $$script"; $(RUN) "$$script" || exit 1; done

# Scripts are the same on every system, so no build of Slicer is needed, only the layout of its folders. With a build
# (SLICER_DIR=...) Slicer's own rules pack, as macOS needs.
package: BUILD := build/slicer-$(SLICER)
package:
	@rm -rf $(BUILD) && mkdir -p $(DIST)
	@cmake -S . -B $(BUILD) -DSlicer_DIR=$(abspath $(SLICER_DIR)) -DSlicer_VERSION=$(SLICER) \
	-DCPACK_PACKAGE_DIRECTORY=$(abspath $(DIST)) >$(DIST)/package.log
	@cmake --build $(BUILD) --target package >>$(DIST)/package.log
	@rm -rf $(DIST)/_CPack_Packages
	@ls -1 $(DIST)/*FemurSeg*

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache
	find FemurSegLib FemurSeg Testing -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
