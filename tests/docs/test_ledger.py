"""docs/recipes.md and docs/fields.md say what the configs hold, and where every value comes from."""

import re

import pytest

from docs import ledger
from gensupcon_jax.configs import (
    cifar10,
    cifar100,
    cifar100_coarse,
    cifar100_lt,
    common,
    digits,
    fashion_mnist,
    imagenet,
    variants,
)
from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.text import flatten
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


def test_the_pages_are_what_the_command_writes():
    for name, tables in (("recipes.md", ledger.recipe_tables()), ("fields.md", ledger.field_tables())):
        page = (ROOT / "docs" / name).read_text()
        assert page == ledger.with_tables(page, tables), f"docs/{name} is out of date; run python -m docs.ledger"


def test_every_default_stands_there_with_its_source():
    rows = rows_of(SECTIONS["Common defaults"])
    assert {name: cells[0] for name, cells in rows.items()} == {name: repr(value) for name, value in DEFAULTS.items()}
    assert all(SOURCES.match(cells[-1]) for cells in rows.values())


def test_every_departing_value_stands_there_with_its_source():
    for recipe in (cifar10, cifar100, cifar100_coarse, cifar100_lt, imagenet, fashion_mnist, digits):
        rows = rows_of(SECTIONS[recipe.__name__.split(".")[-1]])
        names = () if recipe is digits else getattr(recipe, "VARIANTS", variants.VARIANTS)
        configs = [recipe.get_config(name) for name in names] or [recipe.get_config()]
        flat = [flatten(config.to_dict()) for config in configs]
        expected = {
            name: ["" if config[name] == default else repr(config[name]) for config in flat]
            for name, default in DEFAULTS.items()
            if any(config[name] != default for config in flat)
        }
        assert {name: cells[:-1] for name, cells in rows.items()} == expected
        assert all(SOURCES.match(cells[-1]) for cells in rows.values())


def test_cells_of_a_row_with_several_sources_say_which_is_whose():
    row = rows_of(SECTIONS["cifar10"])["optimizer.learning_rate"]
    assert row == [
        "",
        "",
        "",
        "0.05",
        "0.8",
        "",
        "5.0",
        "ours, as GPaCo (arXiv 2209.12400, its code) [gpaco]; ours, as SupContrast's main_ce.py [cross_entropy]; "
        "authors' code [linear_probe]",
    ]


def test_every_field_stands_in_its_group_with_what_it_may_hold():
    page = (ROOT / "docs/fields.md").read_text()
    rows = rows_of(page)
    assert list(rows) == list(FIELDS)
    assert rows["dataset.memory_limit"] == [
        "2048.0",
        "a number from 0",
        "data sets with images of one size, up to this total, are kept in memory and cropped on the device",
        "MiB",
        "ours",
        "if the content is the same",
    ]
    assert rows["dataset.num_threads"][-1] == "yes"
    assert rows["seed"][-1] == "no"
    assert "tfds:&lt;name>" in rows["dataset.name"][2]  # not an HTML tag


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="has no lines"):
        ledger.with_tables("# Recipes\n", "| a |\n")
