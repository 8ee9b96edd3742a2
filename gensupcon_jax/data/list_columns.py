"""Which columns of a list hold the paths, the labels and the splits: named by the user, or known by their usual names."""

import fnmatch
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from gensupcon_jax.data.list_tables import Table
from gensupcon_jax.errors import UserError
from gensupcon_jax.text import listed, visible

# The usual names, compared without regard to case; the first that is there is taken.
PATH_COLUMNS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path", "image_file",
    "name",
)  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "class", "classes", "target", "category", "tags", "value")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")


class Named(NamedTuple):
    """The columns that the user names, as `dataset.path_column`, `label_columns` and `split_column`; None: the usual ones.

    labels: names with commas between them, or a sequence of names; p_* stands for all that begin with p_.
    """

    path: str | None = None
    labels: str | Sequence[str] | None = None
    split: str | None = None


class Columns(NamedTuple):
    """The names of the columns; unused: the other columns of the file.

    labels: several: one for each class; none: a list of paths alone.
    """

    path: str
    labels: tuple[str, ...]
    split: str | None
    unused: tuple[str, ...]


def path_column(table: Table, named: str | None, source: str) -> str:
    """The column of paths; UserError that lists the columns where none has a usual name."""
    found = _named(table, named, "dataset.path_column", source) if named else _usual(table, PATH_COLUMNS)
    if found is None:
        raise UserError(
            f"{source} has the columns {listed(table.columns, 8)}, and none of them is named {', '.join(PATH_COLUMNS[:3])} or "
            f"{PATH_COLUMNS[6]}; write these names into its first line, or name the column of paths with dataset.path_column"
        )
    return found


def choose_columns(table: Table, named: Named, source: str) -> Columns:
    """The columns of a list with labels; UserError for names that it does not have, and where no column can hold labels.

    Without a column of a usual name, all columns beside path and split are labels, one for each class, if they hold numbers.
    """
    path = path_column(table, named.path, source)
    split = (
        _named(table, named.split, "dataset.split_column", source)
        if named.split
        else _usual(table, SPLIT_COLUMNS, but=(path,))
    )
    rest = [name for name in table.columns if name not in (path, split)]
    labels = _label_columns(table, named.labels, rest, source)
    return Columns(path, labels, split, tuple(name for name in rest if name not in labels))


def described(columns: Columns, how: str) -> str:
    """What was read from where, in one sentence for the log."""
    labels = (
        f"labels: column {visible(columns.labels[0])}"
        if len(columns.labels) == 1
        else f"labels: {len(columns.labels)} columns, {listed(columns.labels, 3)}"
    )
    if not columns.labels:
        labels = "no column of labels"
    split = f"splits: column {visible(columns.split)}" if columns.split else "no column of splits"
    unused = f"; not used: {listed(columns.unused)}" if columns.unused else ""
    return f"paths: column {visible(columns.path)}; {labels}; {split}{unused} ({how})"


def _label_columns(
    table: Table, named: str | Sequence[str] | None, rest: Sequence[str], source: str
) -> tuple[str, ...]:
    if named is not None:
        return _named_labels(table, named, rest, source)
    if not rest:
        return ()  # a list of paths alone
    usual = _usual(table, LABEL_COLUMNS, among=rest)
    if usual is not None:
        return (usual,)
    if len(rest) > 1 and all(_is_numeric(table, name) for name in rest):
        return tuple(rest)
    raise UserError(
        f"{source} has the columns {listed(table.columns, 8)}, and none of them is named {LABEL_COLUMNS[0]}, "
        f"{LABEL_COLUMNS[2]} or {LABEL_COLUMNS[4]}; write one of these names into its first line, or name the column of labels, "
        "or one for each class, with dataset.label_columns"
    )


def _named_labels(table: Table, named: str | Sequence[str], rest: Sequence[str], source: str) -> tuple[str, ...]:
    texts = [named] if isinstance(named, str) and named in rest else named
    names = [name.strip() for name in texts.split(",")] if isinstance(texts, str) else [str(name) for name in texts]
    found: dict[str, None] = {}
    for name in names:
        matches = [name] if name in rest else [each for each in rest if fnmatch.fnmatchcase(each, name)]
        found |= dict.fromkeys(matches or [_named(table, name, "dataset.label_columns", source)])
    return tuple(found)


def _named(table: Table, name: str, field: str, source: str) -> str:
    """The column of this name, also in another case where that is clear."""
    if name in table.columns:
        return name
    alike = [each for each in table.columns if each.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    raise UserError(
        f"{field} is {name!r}, and {source} has the columns {listed(table.columns, 8)}; allowed: one of them"
    )


def _usual(
    table: Table, names: Iterable[str], *, among: Sequence[str] | None = None, but: Sequence[str] = ()
) -> str | None:
    by_lower = {
        name.lower(): name for name in reversed(tuple(table.columns if among is None else among)) if name not in but
    }
    return next((by_lower[name] for name in names if name in by_lower), None)


def _is_numeric(table: Table, name: str) -> bool:
    cells = table.columns[name]
    return isinstance(cells, np.ndarray) or all(_is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    """Whether a cell may stand for a share or for 0 and 1; an empty one may."""
    if cell.lower() in ("", "true", "false"):
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True
