# pairmill: image-caption lists from the web to training-ready tokens. `make help` lists the targets.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
STAMP  := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help install peers demo test test-exhaustive lint bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## the environment, in .venv (the other targets do this by themselves)

# constraints.txt pins every package to the version this was tested with.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo "pairmill needs Python 3.10 to 3.12; name one: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "no venv in this Python; on Debian: apt-get install python3-venv"; exit 1; }
	$(PIP) --editable '.[pipeline,serve]'
	@touch $@

# What only tests need: pytest, ruff, stock webdataset, Beam's Dataflow parts for checking the graph, and the dVAE of
# openai/DALL-E for parity (without torchvision, which it names but does not import).
$(DEV_STAMP): $(STAMP)
	$(PIP) --editable '.[pipeline,serve,gcp,dev]'
	$(PIP) --no-deps DALL-E==0.1
	@touch $@

# The peers, for parity tests and benchmarks; those whose image tokenizers are read here without what only training needs.
# Of torchvision, open_clip takes what is plain Python; 0.15.2 is the last that imports beside any other torch.
peers: $(DEV_STAMP) ## the peers' own code, servers of S3's and Google's interfaces; without it the tests beside it skip themselves, but OpenAI's
	$(PIP) --no-deps taming-transformers-rom1504 diffusers dalle-pytorch einops
	$(PIP) --no-deps open_clip_torch timm torchvision regex
	$(PIP) img2dataset
	$(PIP) -e '.[gcp,s3]' 'moto[s3]' flask flask-cors gcp-storage-emulator  # servers that stand in for the clouds

demo: $(STAMP) ## the whole way on the sample: lists, shards, statistics, a trained model, pictures; in demo/
	$(BIN)/python sample/demo.py --output '$(DEMO)'

test: $(DEV_STAMP) ## the tests, as many at once as there are cores
	$(BIN)/python -m pytest -n logical --dist loadfile

test-exhaustive: $(DEV_STAMP) ## the tests, with everything random repeated many times; takes an hour or so
	$(BIN)/python -m pytest --exhaustive

lint: $(DEV_STAMP) ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Each script says in its head which peers it runs beside, and how to install those that need an environment of their own.
bench: $(DEV_STAMP) ## the numbers of the README; CAPTIONS=FILE adds languages, PICTURES='*.tar' look-alikes, dVAE
	$(BIN)/python -m benchmarks.select
	$(BIN)/python -m benchmarks.fetch
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.stream
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.generate
	$(if $(CAPTIONS),$(BIN)/python -m benchmarks.language $(CAPTIONS))
	$(if $(PICTURES),$(BIN)/python -m benchmarks.duplicates '$(PICTURES)')
	$(if $(PICTURES),$(BIN)/python -m benchmarks.reconstruction '$(PICTURES)')

clean: ## removes the environment and the demo's output
	rm -rf $(VENV) $(DEMO)
