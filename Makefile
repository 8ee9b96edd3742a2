# Two commands for a fresh machine with Python >= 3.11: `make digits` and `make test`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: digits test lint format clean

digits: $(VENV)/.installed  ## Train on real images, judge the encoder, write a report.
	$(RUN) -m gensupcon_jax.main --config configs/digits.py --workdir runs/digits

test: $(VENV)/.installed $(VENV)/.planned  ## All tests.
	$(RUN) -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed  ## Style and common mistakes.
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/shellcheck launch/*.sh

format: $(VENV)/.installed  ## Write the style into the files.
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; found " + sys.version.split()[0] + ". Say which one to use: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[test,dev]"
	touch $@

# The TPU compiler, some 170 MB: only the tests of `plan` need it.
$(VENV)/.planned: $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[plan]"
	touch $@

clean:  ## Remove what was installed and built; runs stay.
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
