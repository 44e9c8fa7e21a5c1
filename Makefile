# make demo: translate a sample clip.  make test: run the tests.  Both make their own virtual environment.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
LOG = $(VENV)/pip.log
TORCH_READY = $(VENV)/.ready-torch
USER_READY = $(VENV)/.ready
READY = $(VENV)/.ready-for-tests
# More than cores: tests of live sessions wait most of the time.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 1) + 1)))
# What pytest is given besides: TESTS="-m 'not slow'", TESTS=tests/test_cli.py
TESTS ?=
# Another index for torch alone: https://download.pytorch.org/whl/cpu spares Linux 2.5 GB of CUDA.
TORCH_INDEX ?=

# What tests need besides a user's extras. Engines of other extras are tested as far as they go without their hardware.
USED = cpu,demo
TESTED = cpu,demo,int8,bench,onnx,tensorrt-rtx,kernels,beat,dev

# What torch pins is torch's: pinned here too, it would clash with every other build of torch.
OF_TORCH = ^(nvidia-|cuda-|triton|torchvision)
LOCKED = --extra all --extra gpu --extra tensorrt-rtx --extra dev
UV = $(BIN)/uv pip compile --no-config --universal --fork-strategy fewest --python-version 3.11

.PHONY: demo test lint style types types-win32 types-darwin format lock clean

demo: $(USER_READY)
	$(BIN)/python -m gnr_video.demo out

test: $(READY)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

lint: style types types-win32 types-darwin

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# A cache for each, or every one would begin anew.
types-win32 types-darwin: types-%: $(READY)
	$(BIN)/mypy --platform $* --cache-dir .mypy_cache/$*

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# UPGRADE=--upgrade takes the newest versions; without it those of today stay where they can.
lock: $(READY)
	grep -vE '$(OF_TORCH)' constraints.txt > $(VENV)/lock.txt
	$(UV) --quiet --no-header --no-annotate $(UPGRADE) $(LOCKED) -o $(VENV)/lock.txt pyproject.toml
	(echo '# The versions that the tests run with (`make lock`): pip install -c constraints.txt -e ".[cpu]"'; \
		grep -vE '$(OF_TORCH)' $(VENV)/lock.txt) > constraints.txt

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2> /dev/null || \
		{ echo "error: Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1 | grep Python || echo not there): make PYTHON=python3.12 demo"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "error: no virtual environment could be made in $(VENV): on Debian and Ubuntu, sudo apt-get install python3-venv; or is the disk full?"; exit 1; }

define install
	@rm -f $(LOG)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --log $(LOG) -c constraints.txt $(1) || { \
		if grep -q 'No space left' $(LOG); then why='the disk is full'; \
		elif grep -qE '(NewConnection|NameResolution|ConnectTimeout|ReadTimeout)Error|Network is unreachable' $(LOG); then \
			why='the package index does not answer: is the network there?'; \
		elif grep -qE 'Failed (to build|building)|Could not build' $(LOG); then \
			why='a package has no wheel for this system, and there is no compiler for it (Debian, Ubuntu: sudo apt-get install build-essential)'; \
		else why='see above'; fi; \
		echo "error: the installation into $(VENV) failed: $$why; all of it is in $(LOG)"; exit 1; }
endef

$(TORCH_READY): $(VENV)/bin/python constraints.txt
	$(if $(TORCH_INDEX),$(call install,--index-url $(TORCH_INDEX) torch))
	@touch $@

$(USER_READY): $(TORCH_READY) pyproject.toml constraints.txt
	@echo "installing $(USED) into $(VENV)"
	$(call install,-e '.[$(USED)]')
	@touch $@

$(READY): $(TORCH_READY) pyproject.toml constraints.txt
	@echo "installing $(TESTED) into $(VENV)"
	$(call install,-e '.[$(TESTED)]')
	@# The heads of LPIPS and axe's script are files in these wheels; their code, and so torchvision and Playwright, are not
	@# needed.
	$(call install,--no-deps lpips axe-playwright-python==0.1.8)
	@touch $@ $(USER_READY)

clean:
	rm -rf $(VENV) out runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
