# Squint's index of commands. `make` alone explains it.
#
# Every environment is built from a lock file with hashes; a stamp file inside it, keyed on the lock, makes the second
# run quick. `serve` and `test` share .venv: the test lock is the serve lock and more.

PYTHON ?= python3
VENV := .venv
MODELS_VENV := .venv-models
GPU_VENV := .venv-gpu
RUN := $(VENV)/bin
# What asks a service from outside mostly waits, and brings clients that do not bear with everything else in one process:
# it has a process of its own, beside the other tests. What is sensitive to a busy machine comes last.
OUTSIDE := tests/e2e tests/deploy tests/chaos
INSIDE := tests/contract tests/models tests/unit $(wildcard tests/test_*.py)
LOCKS := serve dev models serve-gpu otel
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: docs help serve test check lock proto fuzz chaos soak bench image peers models-env test-models gpu-check clean
MAKEFLAGS += --no-print-directory

help: ## this list
	@echo "Squint answers classify, detect and segment for images. Two commands matter:"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(VENV)/serve.stamp ## install what is missing and start the service (options: make serve ARGS="--http-port 9000")
	@exec $(RUN)/squint serve $(ARGS)

test: $(VENV)/dev.stamp ## install what is missing and run the tests (options: make test ARGS="-k config")
ifdef ARGS
	@$(RUN)/python -m pytest $(ARGS)
else
	@told=$$(mktemp); failed=0; \
	$(RUN)/python -m pytest $(INSIDE) >$$told 2>&1 & inside=$$!; \
	trap 'kill $$inside 2>/dev/null || true; rm -f $$told' EXIT; \
	$(RUN)/python -m pytest $(OUTSIDE) || failed=1; \
	wait $$inside || failed=1; cat $$told; exit $$failed
endif

check: $(VENV)/dev.stamp ## lint, format, types, the walls of the architecture, and the documents
	@failed=0; \
	$(RUN)/ruff check . || failed=1; \
	$(RUN)/ruff format --check . || failed=1; \
	$(RUN)/mypy || failed=1; \
	$(RUN)/python -m pytest -q tests/test_architecture.py tests/test_docs.py tests/test_dependencies.py || failed=1; \
	exit $$failed

fuzz: $(VENV)/dev.stamp ## thousands of hostile inputs against a running service; minutes
	@$(RUN)/python -m pytest -m fuzz $(ARGS)
	@$(RUN)/python -m pytest -s --full tests/e2e/test_hostile.py $(ARGS)

chaos: $(VENV)/dev.stamp ## kill the service's processes under load, at full length; minutes
	@$(RUN)/python -m pytest -s -m chaos --full $(ARGS)

soak: $(VENV)/dev.stamp ## long runs that look for leaks
	@$(RUN)/python -m pytest -s -m soak $(ARGS)

bench: $(VENV)/dev.stamp ## measure times and memory against their budgets
	@$(RUN)/python -m pytest -m bench -s $(ARGS)

image: $(VENV)/dev.stamp ## carry out every step of the Dockerfile in a clean folder, and run what comes of it; minutes, as root
	@$(RUN)/python -m pytest -s -m image $(ARGS)

peers: $(VENV)/dev.stamp ## Squint beside other servers, in one run; an hour and more (loadtest/peers/README.md)
	@$(RUN)/python -m loadtest.peers $(ARGS)

models-env: $(MODELS_VENV)/models.stamp ## the environment for training and export (torch; several GB)

test-models: $(MODELS_VENV)/models.stamp ## the tests that need torch
	@$(MODELS_VENV)/bin/python -m pytest -m torch $(ARGS)

gpu-check: $(GPU_VENV)/gpu.stamp ## build, check and time everything on a GPU, into one report; an hour and more (docs/gpu.md)
	@$(GPU_VENV)/bin/python -m tests.gpu $(ARGS)

docs: $(VENV)/dev.stamp ## write the reference part of docs/configuration.md from the table of settings
	@$(RUN)/python -m squint.reference

proto: $(VENV)/dev.stamp ## generate the code for the messages in service/proto
	@$(RUN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. $$(find service/proto -name '*.proto')

lock: $(VENV)/uv.stamp ## resolve the requirements again and write the lock files
	@compile="$(RUN)/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --group build \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links"; \
	$$compile --extra serve -o requirements/serve.lock; \
	$$compile --extra serve --extra dev -c requirements/serve.lock -o requirements/dev.lock; \
	$$compile --extra serve --extra dev --extra models -c requirements/dev.lock -o requirements/models.lock; \
	$$compile --extra serve-gpu -c requirements/serve.lock -o requirements/serve-gpu.lock; \
	$$compile --extra otel -c requirements/dev.lock -o requirements/otel.lock; \
	wc -l $(LOCKS:%=requirements/%.lock)

clean: ## remove the environments and every cache below this folder
	rm -rf $(VENV) $(MODELS_VENV) $(GPU_VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist ./*.egg-info service/decoder/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments ------------------------------------------------------------------------------------------------

# $(call venv,DIRECTORY): a virtual environment with pip, or one line that says what is missing.
define venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    || { echo "squint: needs Python 3.11 or newer; '$(PYTHON)' is not (name another one: make PYTHON=python3.12)" >&2; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
    || { echo "squint: '$(PYTHON)' has no venv module (on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }; \
test -x $(1)/bin/pip || $(PYTHON) -m venv $(1)
endef

# The project itself, editable: a plain path file, so that starting a process imports no finder. What is written in C is
# compiled then, where there is a compiler.
PACKAGED := pyproject.toml $(wildcard service/decoder/native/*)
PIP_FLAGS := -q --disable-pip-version-check
PROJECT := $(PIP_FLAGS) --no-deps --no-index --no-build-isolation --config-settings editable_mode=compat -e .

# $(call install,LOCK): into $(VENV) exactly what the lock names, wheels only, every one with its hash. The first time
# the download goes apart, to tell how long each of the two takes; later only what is missing is fetched.
define install
lock="$(PIP_FLAGS) --no-deps --only-binary :all: --require-hashes -r requirements/$(1).lock"; begin=$$SECONDS; \
if test -e $(VENV)/serve.stamp; then \
    echo "installing what is missing of requirements/$(1).lock ..."; \
    $(RUN)/pip install $$lock; took="installed in"; \
else \
    wheels=$$(mktemp -d); trap 'rm -rf "$$wheels"' EXIT; \
    echo "downloading requirements/$(1).lock ..."; \
    $(RUN)/pip download $$lock -d $$wheels; \
    took="downloaded $$(du -sm $$wheels | cut -f1) MB in $$((SECONDS - begin)) s, installed in"; begin=$$SECONDS; \
    echo "installing ..."; \
    $(RUN)/pip install $$lock --no-index --find-links $$wheels; \
fi; \
$(RUN)/pip install $(PROJECT); \
test "$$(uname -m)" != x86_64 || ls service/decoder/_baseline*.so >/dev/null 2>&1 \
    || echo "no C compiler: everything works, JPEGs take half as long again to decode (docs/images.md)"; \
echo "$(VENV): $$took $$((SECONDS - begin)) s; holds $$(du -sm $(VENV) | cut -f1) MB"
endef

$(VENV)/serve.stamp: requirements/serve.lock $(PACKAGED)
	@$(call venv,$(VENV)); $(call install,serve); touch $@

$(VENV)/dev.stamp: requirements/dev.lock $(PACKAGED)
	@$(call venv,$(VENV)); $(call install,dev); touch $(VENV)/serve.stamp $@

$(VENV)/uv.stamp: $(VENV)/serve.stamp
	@$(RUN)/pip install $(PIP_FLAGS) uv && touch $@

# uv, because plain pip may prefer a build of torch without the operators that torchvision was built for.
$(MODELS_VENV)/models.stamp: requirements/models.lock $(PACKAGED)
	@$(call venv,$(MODELS_VENV)); begin=$$SECONDS; \
	$(MODELS_VENV)/bin/pip install $(PIP_FLAGS) uv; \
	$(MODELS_VENV)/bin/uv pip install --python $(MODELS_VENV)/bin/python --require-hashes -r requirements/models.lock; \
	$(MODELS_VENV)/bin/pip install $(PROJECT); \
	echo "models: installed in $$((SECONDS - begin)) s; $(MODELS_VENV) now holds $$(du -sm $(MODELS_VENV) | cut -f1) MB"; \
	touch $@

# As the models environment, with the GPU build of ONNX Runtime in place of the CPU's: both install one package. Where its
# wheel cannot be had, everything else is checked, and the report says so.
$(GPU_VENV)/gpu.stamp: requirements/models.lock requirements/serve-gpu.lock $(PACKAGED)
	@$(call venv,$(GPU_VENV)); begin=$$SECONDS; \
	$(GPU_VENV)/bin/pip install $(PIP_FLAGS) uv; \
	$(GPU_VENV)/bin/uv pip install --python $(GPU_VENV)/bin/python --require-hashes -r requirements/models.lock; \
	$(GPU_VENV)/bin/pip install $(PROJECT); \
	wheels=$$(mktemp -d); trap 'rm -rf "$$wheels"' EXIT; \
	awk '/^onnxruntime-gpu==/ {p = 1} p {print} p && !/\\$$/ {exit}' requirements/serve-gpu.lock > $$wheels/lock; \
	if $(GPU_VENV)/bin/pip download $(PIP_FLAGS) --no-deps --only-binary :all: --require-hashes -r $$wheels/lock -d $$wheels; then \
	    $(GPU_VENV)/bin/pip uninstall $(PIP_FLAGS) -y onnxruntime; \
	    $(GPU_VENV)/bin/pip install $(PIP_FLAGS) --no-deps --no-index $$wheels/*.whl; \
	else echo "onnxruntime-gpu cannot be had: ONNX Runtime is checked on the CPU alone"; fi; \
	$(GPU_VENV)/bin/pip install $(PIP_FLAGS) --no-deps --only-binary :all: 'nvidia-nvjpeg>=13.2' \
	    || echo "nvidia-nvjpeg cannot be had: nvJPEG is taken from CUDA's libraries, if they are there"; \
	echo "GPU check: installed in $$((SECONDS - begin)) s; $(GPU_VENV) now holds $$(du -sm $(GPU_VENV) | cut -f1) MB"; \
	touch $@
