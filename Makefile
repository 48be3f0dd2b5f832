# pairmill: image-caption lists from the web to training-ready tokens. `make help` lists the targets.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
STAMP  := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
CONSTRAINTS ?= constraints.txt
EDITABLE ?= --editable
PLAIN := .venv-plain
FRESH := .venv-constraints

.DEFAULT_GOAL := help
.PHONY: help install peers peer-code engines demo test test-exhaustive plain plain-demo lint bench constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## the environment, in .venv (the other targets do this by themselves)

# constraints.txt pins every package to the version this was tested with.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo "pairmill needs Python 3.10 to 3.12; name one: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "no venv in this Python; on Debian: apt-get install python3-venv"; exit 1; }
	$(PIP) $(EDITABLE) '.[pipeline,serve]'
	@touch $@

# What only tests need: pytest, ruff, stock webdataset, Beam's Dataflow parts for checking the graph, and the dVAE of
# openai/DALL-E for parity (without torchvision, which it names but does not import).
$(DEV_STAMP): $(STAMP)
	$(PIP) --editable '.[pipeline,serve,gcp,scores,personal,dev]'
	$(PIP) --no-deps DALL-E==0.1
	@touch $@

# The peers, for parity tests and benchmarks. The image tokenizers and dalle-pytorch come without what only their
# training scripts need. Of torchvision, open_clip takes what is plain Python.
# benchmarks.stream's peers want versions that clash with pairmill's: a folder of their own, which only it sees.
STREAM_PEERS := $(VENV)/stream-peers
peers: $(DEV_STAMP) ## the peers' own code, servers of S3's and Google's interfaces; without it the tests beside it skip themselves, but OpenAI's
	$(PIP) --no-deps taming-transformers-rom1504 diffusers dalle-pytorch einops axial-positional-embedding rotary-embedding-torch
	$(PIP) --no-deps open_clip_torch timm torchvision regex
	$(PIP) --no-deps torchmetrics lightning-utilities scikit-image lazy-loader lpips torch-fidelity
	$(PIP) --no-deps transformers typer shellingham  # loads what `pairmill export` writes
	$(PIP) img2dataset indexed_bzip2 'httpx[http2]'
	$(PIP) -e '.[gcp,s3,remote]' 'moto[s3]' flask flask-cors gcp-storage-emulator  # servers that stand in for the clouds
	$(PIP) --upgrade --target $(STREAM_PEERS) --no-deps mosaicml-streaming litdata lightning-utilities torchvision \
	  transformers catalogue huggingface-hub regex boto3 botocore s3transfer jmespath python-snappy cramjam zstd Brotli \
	  paramiko oci azure-storage-blob azure-storage-file-datalake google-cloud-storage

# Image tokenizers whose code is in no package: repositories at one commit each. They come from PEERS_FROM, which may
# be a folder of clones. Of what they import, tests need einops alone.
PEERS_FROM ?= https://github.com
PEER_CODE := $(VENV)/peers
peer-code: $(DEV_STAMP) ## the code of LlamaGen, Open-MAGVIT2 and TiTok, from their repositories; without it the tests beside it skip themselves
	$(PIP) --no-deps einops
	@clone() { test -d $(PEER_CODE)/$$1 || { git clone --quiet $(PEERS_FROM)/$$2/$$1 $(PEER_CODE)/$$1.new \
	    && git -C $(PEER_CODE)/$$1.new checkout --quiet $$3 && mv $(PEER_CODE)/$$1.new $(PEER_CODE)/$$1; }; }; \
	  clone LlamaGen FoundationVision ce98ec41803a74a90ce68c40ababa9eaeffeb4ec \
	  && clone SEED-Voken TencentARC b9a17eac8e2c0779c12a5429b0bfd6c502788484 \
	  && clone 1d-tokenizer bytedance 942a96fbdd873780179d1b78d5462911528bf8c8

# Beam's portable runner Prism, of the version of apache-beam: tests/engines run jobs through it, the way that Flink, Spark
# and Dataflow take. It is built from Go's modules.
BEAM := $(shell sed -n 's/^apache-beam==//p' constraints.txt)
PRISM_STAMP := $(VENV)/.installed-prism-$(BEAM)
engines: $(PRISM_STAMP) ## Beam's portable runner Prism, built with Go in some minutes; without it the tests beside it skip themselves

$(PRISM_STAMP): | $(STAMP)
	@command -v go > /dev/null || { echo "no Go here: install it (https://go.dev/dl), then run make engines again"; exit 1; }
	GOBIN='$(abspath $(BIN))' go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM)
	@touch $@

demo: $(STAMP) ## the whole way on the sample: lists, shards, statistics, a trained model, pictures; in demo/
	$(BIN)/python sample/demo.py --output '$(DEMO)'

# Compiled modules are kept, also where the environment says otherwise: the tests start a hundred processes.
test: $(DEV_STAMP) ## the tests, in two processes for each core: they often wait, for servers, children and clocks
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --timeout 600 \
	    --processes $$($(BIN)/python -c 'import os; print(os.cpu_count() * 2)')

test-exhaustive: $(DEV_STAMP) ## the tests, with everything random repeated many times; takes an hour or so
	$(BIN)/python -m pytest --exhaustive

# An environment of what the README installs and no more, where nothing of dev hides a missing requirement. It is made
# anew when the requirements change: one that is no longer named must go. The package is copied, as for a user.
$(PLAIN)/.installed-plain: setup.cfg pyproject.toml constraints.txt
	rm -rf $(PLAIN) build
	$(MAKE) install VENV=$(PLAIN) EDITABLE=
	@touch $@

plain: $(PLAIN)/.installed-plain ## what the README installs, by itself: each module imported, each command run once
	rm -rf build
	$(PLAIN)/bin/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .  # the code of now
	$(PLAIN)/bin/python tests/end_to_end/plain_install.py

plain-demo: plain ## the demo in that environment
	$(PLAIN)/bin/python sample/demo.py --output '$(DEMO)'

lint: $(DEV_STAMP) ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Each script says in its head which peers it runs beside, and how to install those that need an environment of their own.
bench: $(DEV_STAMP) ## the numbers of docs/benchmarks.md; CAPTIONS=FILE adds languages, PICTURES='*.tar' look-alikes, dVAE
	$(BIN)/python -m benchmarks.select
	$(BIN)/python -m benchmarks.fetch
	$(BIN)/python -m benchmarks.encode
	PYTHONPATH='$(STREAM_PEERS)' $(BIN)/python -m benchmarks.stream
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.generate
	$(BIN)/python -m benchmarks.handwritten
	$(BIN)/python -m benchmarks.score million
	$(if $(CAPTIONS),$(BIN)/python -m benchmarks.language $(CAPTIONS))
	$(if $(PICTURES),$(BIN)/python -m benchmarks.duplicates '$(PICTURES)')
	$(if $(PICTURES),$(BIN)/python -m benchmarks.reconstruction '$(PICTURES)')

# The newest versions of everything that the targets above install, but for lines of constraints.txt marked `# held:`.
constraints: ## constraints.txt anew, from a fresh environment; then run the tests
	rm -rf $(FRESH) build && mkdir build
	grep '# held:' constraints.txt > build/held.txt || true
	$(MAKE) peers VENV=$(FRESH) CONSTRAINTS=build/held.txt
	$(FRESH)/bin/python .ci/constraints.py constraints.txt $(FRESH)/stream-peers > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf $(FRESH)

clean: ## removes the environments and the demo's output
	rm -rf $(VENV) $(PLAIN) $(FRESH) $(DEMO) build
