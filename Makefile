# Two commands for a fresh machine with Python 3.11, 3.12 or 3.13: `make digits` and `make test`. `make help` lists the others.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
PYTEST := $(RUN) -m pytest -n 2 --dist worksteal

.PHONY: digits quick test browser test-stacks test-timm lint format docs requirements clean help

digits: $(VENV)/.installed  ## Train on real images, evaluate the encoder, write a report.
	$(RUN) -m gensupcon_jax.main --config configs/digits.py --workdir runs/digits

quick: $(VENV)/.installed  ## Some tests of every part, within 4 minutes on 2 cores.
	$(PYTEST) -m "not slow"

test: $(VENV)/.installed $(VENV)/.planned  ## All tests.
	$(PYTEST)

browser:  ## Chromium, for the tests of the pages, unless it is there.
	.ci/browser

test-stacks:  ## `make quick` on every other Python that the package supports, and which of them are not on this machine.
	PYTHON=$(PYTHON) .ci/stacks

test-timm: $(VENV)/.installed $(VENV)-timm/.installed  ## timm loads what `export --format hub` writes, and its features are ours.
	TIMM_PYTHON=$(abspath $(VENV)-timm)/bin/python $(RUN) -m pytest tests/weights/test_hub.py

lint: $(VENV)/.installed  ## Style, types and common mistakes.
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(RUN)
	$(VENV)/bin/shellcheck launch/*.sh .ci/browser .ci/run .ci/stacks

format: $(VENV)/.installed  ## Write the style into the files.
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: $(VENV)/.docs  ## The documentation site, without a network: open site/index.html.
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@! grep -rlE '<(script|link rel="?stylesheet)[^>]+https?://' site --include='*.html' || (echo "error: these pages load something from elsewhere" >&2; exit 1)

requirements:  ## Write requirements.txt from pyproject.toml.
	$(PYTHON) .ci/requirements.py > requirements.txt

$(VENV)/.installed: pyproject.toml
	$(PYTHON) .ci/python_version.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[test,dev]"
	touch $@

# PyTorch for CPUs, some 200 MB: the usual one brings 3 GB for CUDA. timm without torchvision, which it needs for augmentation only.
TIMM_PIP := $(VENV)-timm/bin/python -m pip install --quiet --disable-pip-version-check
$(VENV)-timm/.installed:
	$(PYTHON) -m venv $(VENV)-timm
	$(TIMM_PIP) --no-deps --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu
	$(TIMM_PIP) torch==2.13.0+cpu numpy pillow huggingface_hub safetensors pyyaml
	$(TIMM_PIP) --no-deps timm==1.0.31
	touch $@

# The TPU compiler, some 170 MB: only the tests of `plan` need it.
$(VENV)/.planned: $(VENV)/.installed
	$(PIP) --editable ".[plan]"
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) --editable ".[docs]"
	touch $@

clean:  ## Remove what was installed and built; runs stay.
	rm -rf .venv .venv-* build site *.egg-info .pytest_cache .ruff_cache

help:  ## This list.
	@sed -n 's/^\([a-z-]*\):.*##  */\1	/p' $(MAKEFILE_LIST) | expand -t 16
