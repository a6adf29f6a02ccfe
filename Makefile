# Everything a newcomer needs is a target here: `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CACHE := .cache
VENV := $(CACHE)/venv
BIN := $(VENV)/bin
UV := $(CACHE)/uv/bin/uv
export UV_CACHE_DIR := $(CURDIR)/$(CACHE)/uv/cache
export UV_PYTHON_DOWNLOADS := never
PACKAGES := protos services/vmm services/netd services/agent-gateway/guest services/agent-gateway cli
PROTOS := $(wildcard protos/nexus/*/v1/*.proto)

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	/usr/bin/python3 -m venv $(CACHE)/uv
	$(CACHE)/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

.PHONY: venv
venv: $(VENV)/.done ## Make the development environment
$(VENV)/.done: $(UV) requirements.lock pyproject.toml $(PACKAGES:%=%/pyproject.toml)
	$(UV) venv --quiet --allow-existing --python /usr/bin/python3 $(VENV)
	VIRTUAL_ENV=$(VENV) $(UV) pip sync --quiet --require-hashes requirements.lock
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	touch $@

.PHONY: lock
lock: $(UV) ## Resolve requirements.lock anew
	$(UV) pip compile --quiet --upgrade --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --no-emit-package nexus-protos --no-emit-package nexus-guest \
	  --group dev --all-extras $(PACKAGES:%=%/pyproject.toml) -o requirements.lock

.PHONY: protos
protos: venv ## Generate code from the protos
	cd protos && ../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. \
	  --plugin=protoc-gen-mypy=../$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=../$(BIN)/protoc-gen-mypy_grpc \
	  --mypy_out=quiet:. --mypy_grpc_out=quiet:. $(PROTOS:protos/%=%)
