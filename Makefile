# make demo   install into .venv and run the demo
# make test   install into .venv and run the tests
# make check  lint, format, types
PYTHON ?= python3
VENV ?= .venv
# With an NVIDIA GPU the ordinary builds; without one a fixed pair whose CPU build pip can find on many mirrors.
# Other builds: make demo TORCH="torch==X torchvision==Y" PIP_TORCH="pip options for torch"
ifeq ($(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu),gpu)
TORCH ?= torch torchvision
else
TORCH ?= torch==2.13.0 torchvision==0.28.0
endif
PIP_TORCH ?=
TRANSFORMERS ?= transformers
WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.lostattn-installed

.PHONY: demo test test-oldest check format clean

demo: $(STAMP)
	$(BIN)/lostattn demo --out lostattn-demo --force
	@echo "The command is $(BIN)/lostattn; source $(BIN)/activate puts it on the path."

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS)

# the oldest transformers that is supported
test-oldest:
	$(MAKE) test VENV=.venv-oldest TRANSFORMERS=transformers==5.19.0

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and by itself: otherwise pip would take it, with gigabytes of CUDA, as somebody's dependency
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_TORCH) $(firstword $(TORCH))
	$(BIN)/python -c "import torch; print('torch==' + torch.__version__.split('+')[0])" > $(VENV)/torch.txt
	$(BIN)/pip install --quiet $(PIP_TORCH) -c $(VENV)/torch.txt $(TORCH)
	$(BIN)/pip install --quiet -c $(VENV)/torch.txt "$(TRANSFORMERS)" -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf .venv .venv-oldest build dist *.egg-info lostattn-demo
