"""docs/recipes.md, the ledger, says what the configs hold, and where every value comes from."""

import re

import pytest

from gensupcon_jax.configs import cifar10, cifar100, common, digits, fashion_mnist, imagenet, variants
from gensupcon_jax.store.workdir import flatten
from tests import ROOT

PAGE = (ROOT / "docs/recipes.md").read_text()
SECTIONS = dict(re.findall(r"^## ([\w ]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SOURCES = re.compile(r"(paper|authors' code|ours)\b")
DEFAULTS = flatten(common.get_config().to_dict())


def rows_of(section):
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")
    ]
    return {row[0]: row[1:] for row in rows}


def test_every_default_stands_there_with_its_source():
    rows = rows_of(SECTIONS["Common defaults"])
    assert {name: cells[0] for name, cells in rows.items()} == {name: repr(value) for name, value in DEFAULTS.items()}
    assert all(SOURCES.match(cells[-1]) for cells in rows.values())


@pytest.mark.parametrize("recipe", [cifar10, cifar100, imagenet, fashion_mnist, digits], ids=lambda r: r.__name__)
def test_every_departing_value_stands_there_with_its_source(recipe):
    rows = rows_of(SECTIONS[recipe.__name__.split(".")[-1]])
    configs = [recipe.get_config()] if recipe is digits else [recipe.get_config(name) for name in variants.VARIANTS]
    flat = [flatten(config.to_dict()) for config in configs]
    expected = {
        name: ["" if config[name] == default else repr(config[name]) for config in flat]
        for name, default in DEFAULTS.items()
        if any(config[name] != default for config in flat)
    }
    assert {name: cells[:-1] for name, cells in rows.items()} == expected
    assert all(SOURCES.match(cells[-1]) for cells in rows.values())
