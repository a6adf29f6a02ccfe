# Everything a newcomer needs is a target here: `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CACHE := .cache
VENV := $(CACHE)/venv
BIN := $(VENV)/bin
UV := $(CACHE)/uv/bin/uv
export UV_CACHE_DIR := $(CURDIR)/$(CACHE)/uv/cache
export UV_PYTHON_DOWNLOADS := never
# Tests start Python a thousand times: what it compiles, it keeps.
unexport PYTHONDONTWRITEBYTECODE
BUF := $(CACHE)/npm/node_modules/.bin/buf
GUEST := $(CACHE)/guest
# On each core, a pytest with a network of its own; who has done its part takes from the other's.
PARALLEL := --numprocesses=auto --dist=worksteal
PACKAGES := protos services/vmm services/netd services/netd/dns services/agent-gateway/guest services/agent-gateway cli
PROTOS := $(wildcard protos/nexus/*/v1/*.proto)

.NOTPARALLEL: # tests share the machine, and `up` makes the environment itself

.PHONY: help
help: ## Show this help
	@echo 'From a fresh clone, as root on Debian 12: `make up`, then `make test`. More in README.md.'
	@awk -F ':.*## ' '/^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ To use it
.PHONY: up
up: | /usr/bin/python3 ## Bring it all up: guest image, dev host, services, and the VM `hello`
	@/usr/bin/python3 deploy/up.py

.PHONY: down
down: ## Stop what `make up` started; VMs and their disks stay
	@/usr/bin/python3 deploy/devhost/devhost.py stop

.PHONY: clean
clean: ## Stop, and remove all that was built, VMs and their disks too
	@/usr/bin/python3 deploy/devhost/devhost.py clean
	rm -rf $(CACHE)

.PHONY: install
install: venv ## Put Nexus on this machine, or below DESTDIR
	@test -d $(GUEST)/bin || $(MAKE) --no-print-directory guest
	@/usr/bin/python3 deploy/install.py --cache $(CACHE) --guest $(GUEST) $(if $(DESTDIR),--destdir "$(DESTDIR)")

##@ To test it
.PHONY: test
test: check-protos lint unit integration system ## Run everything; nothing may be skipped

.PHONY: check-protos
check-protos: venv $(BUF) ## Lint the protos and compare the generated code with them
	cd protos && ../$(BUF) lint
	rm -rf $(CACHE)/protos && mkdir -p $(CACHE)/protos
	$(call generate,../$(CACHE)/protos)
	diff -r --exclude='*.proto' --exclude=__pycache__ protos/nexus $(CACHE)/protos/nexus

.PHONY: lint
lint: venv ## Check format, style and types
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

.PHONY: unit
unit: venv ## Run the unit and contract tests
	$(BIN)/pytest --quiet $(PARALLEL) tests/unit tests/contract

.PHONY: integration
integration: venv ## Run the tests with real processes, sockets and network namespaces
	$(BIN)/pytest --quiet $(PARALLEL) tests/integration

.PHONY: system
system: up ## Run the tests in the dev host, with real microVMs
	$(BIN)/pytest --quiet tests/system --ignore=tests/system/crash

.PHONY: crash
crash: up ## Kill services, VMs and the power of the dev host at POINTS points of SEED
	NEXUS_CRASH_SEED=$(or $(SEED),310) NEXUS_CRASH_FIRST=$(or $(FIRST),0) NEXUS_CRASH_POINTS=$(or $(POINTS),200) \
	  $(BIN)/pytest --quiet -rP tests/system/crash

.PHONY: bench
bench: bench-net bench-vmm up ## Measure Nexus against the raw thing, here and in the dev host
	$(BIN)/python tests/bench/run.py

.PHONY: bench-net
bench-net: venv ## Measure netd against CNI, at 10 and at 4,000 ports, on this machine
	$(BIN)/python tests/bench/netd.py

.PHONY: bench-vmm
bench-vmm: venv ## Measure vmm with 1,000 VMs, 200 live ones and 100 watchers, on this machine
	$(BIN)/python tests/bench/vmm.py

##@ To change it
.PHONY: fmt
fmt: venv ## Format the code
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

.PHONY: docs
docs: venv ## Write the parts of the manual that are generated
	$(BIN)/python deploy/manual.py

# Generates the code of all protos into the folder $(1), given from protos/.
define generate
cd protos && ../$(BIN)/python -m grpc_tools.protoc -I. --python_out=$(1) --grpc_python_out=$(1) \
  --plugin=protoc-gen-mypy=../$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=../$(BIN)/protoc-gen-mypy_grpc \
  --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS:protos/%=%)
endef

.PHONY: protos
protos: venv ## Generate code from the protos
	$(call generate,.)

$(BUF): | packages
	npm install --silent --no-fund --no-audit --prefix $(CACHE)/npm @bufbuild/buf@1.75.0

.PHONY: venv
venv: $(VENV)/.done ## Make the development environment
$(VENV)/.done: $(UV) requirements.lock pyproject.toml $(PACKAGES:%=%/pyproject.toml)
	$(UV) venv --quiet --allow-existing --python /usr/bin/python3 $(VENV)
	VIRTUAL_ENV=$(VENV) $(UV) pip sync --quiet --compile-bytecode --require-hashes requirements.lock
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	touch $@

.PHONY: lock
lock: $(UV) ## Resolve requirements.lock anew
	$(UV) pip compile --quiet --upgrade --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --no-emit-package nexus-protos --no-emit-package nexus-guest \
	  --group dev --all-extras $(PACKAGES:%=%/pyproject.toml) -o requirements.lock

.PHONY: guest
guest: packages ## Build what guests boot from; `make up` does it too
	@/usr/bin/python3 deploy/guest/build.py --out $(GUEST)

.PHONY: packages
packages: | /usr/bin/python3 ## Install the Debian packages that building and testing need
	@/usr/bin/python3 deploy/packages.py

$(UV): | packages
	/usr/bin/python3 -m venv $(CACHE)/uv
	$(CACHE)/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

/usr/bin/python3:
	apt-get update --quiet
	apt-get install --yes --quiet python3
