"""Writes the tables of docs/recipes.md and docs/fields.md from the declared fields and the recipes: python -m docs.ledger."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from gensupcon_jax.configs import (
    cifar10,
    cifar100,
    cifar100_coarse,
    cifar100_lt,
    digit_pairs,
    digits,
    fashion_mnist,
    imagenet,
    photos,
    rotated_digits,
    variants,
)
from gensupcon_jax.configs.common import Changes
from gensupcon_jax.configs.fields import FIELDS, GROUPS
from gensupcon_jax.run.config_check import rule_of

DOCS = Path(__file__).parent
RECIPES = (
    cifar10,
    cifar100,
    cifar100_coarse,
    cifar100_lt,
    imagenet,
    fashion_mnist,
    digits,
    digit_pairs,
    rotated_digits,
    photos,
)
BEGIN, END = "<!-- written by python -m docs.ledger -->\n", "<!-- end -->\n"


def main() -> None:
    """Write both pages."""
    for path, tables in ((DOCS / "recipes.md", recipe_tables()), (DOCS / "fields.md", field_tables())):
        path.write_text(with_tables(path.read_text(), tables))


def with_tables(page: str, tables: str) -> str:
    """The page with these tables between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"a page has no lines {BEGIN.strip()} and {END.strip()}; the tables are written between them")
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def field_tables() -> str:
    """A section per group: every field with its default, what it may hold, its meaning, unit and source."""
    return "\n".join(
        f"## {group or 'The run'}\n\n{about}\n\n{_table(_FIELD_COLUMNS, map(_field_row, _fields_of(group)))}"
        for group, about in GROUPS.items()
    )


def recipe_tables() -> str:
    """The defaults, then a section per recipe with what its variants change, all with their sources."""
    defaults = ([_code(name), _code(repr(FIELDS[name].default)), FIELDS[name].source] for name in sorted(FIELDS))
    sections = [f"## Common defaults\n\n{_table(('field', 'default', 'source'), defaults)}"]
    return "\n".join([*sections, *map(_recipe_section, RECIPES)])


def departures(changes: Changes) -> Changes:
    """The changes of a recipe whose values are not the defaults."""
    return {name: change for name, change in changes.items() if change[0] != FIELDS[name].default}


_FIELD_COLUMNS = ("field", "default", "allowed", "meaning", "unit", "source", "may change")


def _fields_of(group: str) -> list[str]:
    return [name for name in FIELDS if name.rpartition(".")[0] == group]


def _field_row(name: str) -> list[str]:
    field, rule = FIELDS[name], rule_of(name)
    allowed = ", ".join(map(_code, rule.names)) or rule.words
    meaning = field.meaning.replace("<", "&lt;")
    return [_code(name), _code(repr(field.default)), allowed, meaning, field.unit, field.source, field.may_change]


def _recipe_section(recipe: ModuleType) -> str:
    if recipe in (digits, digit_pairs, rotated_digits, photos):  # without variants
        columns = {"value": departures(recipe.changes())}
    else:
        columns = {
            variant: departures(recipe.changes(variant)) for variant in getattr(recipe, "VARIANTS", variants.VARIANTS)
        }
    names = sorted({name for changes in columns.values() for name in changes})
    rows = ([_code(name), *_cells(name, columns), _sources(name, columns)] for name in names)
    title = recipe.__name__.rpartition(".")[2]
    table = _table(("field", *columns, "source"), rows)
    return f"## {title}\n\nWhere a cell is empty, the common default holds.\n\n{table}"


def _cells(name: str, columns: dict[str, Changes]) -> list[str]:
    return [_code(repr(changes[name][0])) if name in changes else "" for changes in columns.values()]


def _sources(name: str, columns: dict[str, Changes]) -> str:
    """The source of a row; where its cells have several, each with its variants."""
    variants_of: dict[str, list[str]] = {}
    for variant, changes in columns.items():
        if name in changes:
            variants_of.setdefault(changes[name][1], []).append(variant)
    if len(variants_of) == 1:
        return next(iter(variants_of))
    return "; ".join(f"{source} [{', '.join(names)}]" for source, names in variants_of.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    main()
