# Everything here runs under a plain POSIX shell. `make help` lists the targets.
# Environments are made from hash-locked files, by uv: requirements/README.md says which file is for what.

SIZE ?= small
PYTEST_ARGS ?=
IMAGE ?= riskmill-worker
BASE_IMAGE ?= public.ecr.aws/docker/library/python:3.13-slim

PYTHON = .venv/bin/python
# A uv that runs: ours if it is there, else one on PATH. It is run to find out: a pyenv shim may exist and yet fail.
UV = $$(if .tools/bin/uv --version >/dev/null 2>&1; then echo .tools/bin/uv; else echo uv; fi)
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.13 --generate-hashes \
	--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

.PHONY: help setup ods check format test demo kernel example image lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1#/p' Makefile | while IFS='#' read -r name what; do printf '  make %-9s %s\n' "$$name" "$$what"; done

setup: .venv/.stamp .venv-sam/.stamp ## make the environments (instant when nothing changed)

ods: .venv-ods/.stamp ## install ods-tools, with which import-oed checks OED files (`make test` does it too)

check: setup ## lint, format, types, template, state machines, house rules
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/cfn-lint template.yaml templates/*.yaml
	$(PYTHON) -m pytest -q -p no:cacheprovider tests/unit/test_template.py tests/unit/test_house_rules.py

format: setup ## format the code, and repair what ruff can
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

test: setup ods ## run all tests; what cannot run here is skipped, named and explained at the end
	$(PYTHON) -m pytest -rs --no-fold-skipped $(PYTEST_ARGS)

demo: setup ## the whole system on this machine: deploy, compute a portfolio, show figures and a report
	.venv/bin/riskmill demo

# `make setup` builds it for this machine; this also builds the other architecture's, where there is a cross compiler.
# sam build and the worker's image copy what is built here: each platform loads its own, or computes with numpy alone.
kernel: setup ## build the compiled kernel, for x86-64 and arm64 as far as there are compilers
	$(PYTHON) setup.py --quiet build_ext --inplace
	@.venv/bin/riskmill version

example: setup ## build the example portfolio (SIZE=small|full)
	$(PYTHON) examples/us_nat_cat/build.py --size $(SIZE)

# The other platform is built too where the daemon's builder can (buildx with emulation).
image: ## build the Fargate worker's image (BASE_IMAGE=..., IMAGE=...)
	@docker info >/dev/null 2>&1 || { echo "make image: no Docker daemon answers (docker info fails): start one, or set DOCKER_HOST"; exit 1; }
	docker build --build-arg "BASE_IMAGE=$(BASE_IMAGE)" -f fargate/worker/Dockerfile -t "$(IMAGE)" .
	@case "$$(docker version --format '{{.Server.Arch}}')" in amd64) other=arm64 ;; *) other=amd64 ;; esac; \
	if docker buildx inspect 2>/dev/null | grep -q "linux/$$other"; then \
		docker buildx build --platform "linux/$$other" --build-arg "BASE_IMAGE=$(BASE_IMAGE)" \
			-f fargate/worker/Dockerfile -t "$(IMAGE):$$other" --load .; \
	else \
		echo "make image: built for the daemon's own platform; linux/$$other needs buildx with emulation (qemu)"; \
	fi

# UPGRADE=1 takes new versions; without it, only what an .in file asks for changes.
# The layer (the worker installs the same file) is constrained to dev.txt, so that tests run what is deployed.
lock: .tools/.stamp ## compile the hash-locked requirement files (UPGRADE=1 for new versions)
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) requirements/dev.in -o requirements/dev.txt
	$(COMPILE) requirements/sam.in -o requirements/sam.txt
	$(COMPILE) requirements/ods.in -o requirements/ods.txt
	$(COMPILE) requirements/peers.in -o requirements/peers.txt
	$(COMPILE) requirements/peers-engine.in -o requirements/peers-engine.txt
	$(COMPILE) requirements/layer.in -c requirements/dev.txt -o layers/dependencies/requirements.txt

clean: ## remove what can be made again, but the environments
	rm -f layers/domain/riskmill/models/_kernel.*.bin
	rm -rf .aws-sam build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './.venv*' -not -path './.tools/*' -exec rm -rf {} +

# ----------------------------------------------------------------------------------------------------------------------
# Environments. A stamp is older than a file that it is made from -> the environment is brought up to date.
# ----------------------------------------------------------------------------------------------------------------------

.tools/.stamp: requirements/uv.txt
	@if uv --version >/dev/null 2>&1; then mkdir -p .tools; else \
		for python in python3.13 python3 /usr/bin/python3; do \
			"$$python" -m venv .tools >/dev/null 2>&1 && break; \
		done; \
		.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt || { \
			echo "make setup: no uv, and none could be installed: install uv, or a python3 with the venv and pip modules"; exit 1; }; \
	fi
	@touch $@

.venv/.stamp: requirements/dev.txt pyproject.toml setup.py layers/domain/riskmill/models/_kernel.c .python-version .tools/.stamp
	@$(call environment,.venv,requirements/dev.txt)
	@$(UV) pip install --quiet --python .venv --no-deps --no-build-isolation -e .
	@touch $@

.venv-sam/.stamp: requirements/sam.txt .python-version .tools/.stamp
	@$(call environment,.venv-sam,requirements/sam.txt)
	@touch $@

.venv-ods/.stamp: requirements/ods.txt .python-version .tools/.stamp
	@$(call environment,.venv-ods,requirements/ods.txt)
	@touch $@

# An environment whose interpreter is gone or is not 3.13 is made anew; else it is kept and only its packages change.
define environment
"$(1)/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null || \
	$(UV) venv --quiet --clear --python 3.13 "$(1)" || { \
	echo "make setup: no Python 3.13 found and uv could not download one: install Python 3.13 (pyenv install 3.13)"; exit 1; }; \
echo "setting up $(1) from $(2)"; \
$(UV) pip sync --quiet --python "$(1)" --require-hashes "$(2)"
endef
