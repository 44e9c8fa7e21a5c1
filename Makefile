# make demo: translate a sample clip.  make test: run the tests.  Both make their own virtual environment.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
USER_READY = $(VENV)/.ready
READY = $(VENV)/.ready-for-tests
WORKERS ?= auto

# What tests need besides a user's extras. Engines of other extras are tested as far as they go without their hardware.
USED = cpu,demo
TESTED = cpu,demo,int8,bench,onnx,tensorrt-rtx,kernels,beat,dev

# What torch pins is torch's: pinned here too, it would clash with every other build of torch.
OF_TORCH = ^(nvidia-|cuda-|triton|torchvision)
LOCKED = --extra all --extra gpu --extra tensorrt-rtx --extra dev
UV = $(BIN)/uv pip compile --no-config --universal --fork-strategy fewest --python-version 3.11

.PHONY: demo test lint format lock clean

demo: $(USER_READY)
	$(BIN)/python -m gnr_video.demo out

test: $(READY)
	$(BIN)/python -m pytest --numprocesses $(WORKERS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32
	$(BIN)/mypy --platform darwin

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
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "error: Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1): make PYTHON=python3.12 demo"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "error: no virtual environment could be made in $(VENV): on Debian and Ubuntu, sudo apt-get install python3-venv; or is the disk full?"; exit 1; }

define install
	@echo "installing $(1) into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]' || \
		{ echo "error: the installation failed, see above: is the network there, and the disk not full? (df -h .)"; exit 1; }
endef

$(USER_READY): $(VENV)/bin/python pyproject.toml constraints.txt
	$(call install,$(USED))
	@touch $@

$(READY): $(VENV)/bin/python pyproject.toml constraints.txt
	$(call install,$(TESTED))
	@# The heads of LPIPS are files in this wheel; its code, and so torchvision, is not needed.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps lpips
	@touch $@ $(USER_READY)

clean:
	rm -rf $(VENV) out runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
