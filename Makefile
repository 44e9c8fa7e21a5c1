# make demo: translate a sample clip.  make test: run the tests.  Both make their own virtual environment.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test lint format clean

demo: $(READY)
	$(BIN)/python -m gnr_video.demo out

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[cpu,int8,bench,onnx,tensorrt-rtx,kernels,beat,dev]'
	# The heads of LPIPS are files in this wheel; its code, and so torchvision, is not needed.
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps lpips
	touch $(READY)

clean:
	rm -rf $(VENV) out runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
