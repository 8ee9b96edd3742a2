"""The labels of a list: a class, several labels or a number in a cell, or a column for each class; the order of the classes."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from gensupcon_jax.data.list_tables import Table, quoted
from gensupcon_jax.errors import UserError
from gensupcon_jax.text import counted, listed, visible

SEPARATORS = ("|", ";", ",")  # between the labels in a cell; the first that any cell contains
_SUM_TOLERANCE = 0.01  # of shares that were rounded when they were written
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
_MISSING_WORDS = ("nan", "na", "n/a", "null", "none", "?", "-", "unknown", "unlabeled", "unlabelled")


class Labels(NamedTuple):
    """The labels of some rows.

    classes [row]: the most likely class, -1 without a label.  rows [row, class]: distributions, or 0 and 1 where an image has
    several labels; None where each has one class.  values [row]: the labels that are numbers, of a single class.  notes: what a
    user may not expect.
    """

    class_names: tuple[str, ...]
    classes: Int[np.ndarray, "row"]
    rows: Float[np.ndarray, "row class"] | None
    notes: tuple[str, ...] = ()
    values: Float[np.ndarray, "row"] | None = None

    def are_equal(self, one: int, other: int) -> bool:
        """Whether two rows have the same label."""
        found = next(each for each in (self.values, self.rows, self.classes) if each is not None)
        return bool(np.array_equal(found[one], found[other]))


def read_labels(
    table: Table,
    columns: Sequence[str],
    kind: str,
    *,
    in_training: Bool[np.ndarray, "row"],
    used: Bool[np.ndarray, "row"],
) -> Labels:
    """The labels in these columns; kind: `dataset.label_kind`.  Classes are those of the training rows.

    Rows that are not used are read as rows without a label. Raises UserError, with the place in the file, for labels that do not
    parse and for classes that training does not have.
    """
    if not columns and kind == "class":
        return Labels((), np.full(len(used), -1, np.int32), None)
    if not columns:
        raise UserError(f"the list has no column of labels; allowed with dataset.label_kind {kind}: one or more")
    if kind == "value":
        return _values(table, columns, used)
    if len(columns) > 1:
        return _of_columns(table, columns, kind, used)
    texts = [text if is_used else "" for text, is_used in zip(table.texts(columns[0]), used, strict=True)]
    if kind == "several":
        return _several_in_a_cell(table, columns[0], texts, in_training)
    _refuse_fractions(texts, columns[0])
    texts = _as_whole_numbers(texts)
    names = in_order({text for text, trains in zip(texts, in_training, strict=True) if trains and text})
    numbers = {"": -1} | {name: number for number, name in enumerate(names)}
    _refuse_unknown([(text,) for text in texts], numbers, names, table)
    classes = np.array([numbers[text] for text in texts], np.int32)
    return Labels(names, classes, None, (*_odd_names(names), *_hidden_lists(names, columns[0])))


def _values(table: Table, columns: Sequence[str], used: Bool[np.ndarray, "row"]) -> Labels:
    needed = "allowed with dataset.label_kind value: a number for each image"
    if len(columns) > 1:
        raise UserError(
            f"the labels stand in {len(columns)} columns, {listed(columns)}; {needed}, in one column: name it with "
            "dataset.label_columns"
        )
    values = table.numbers(columns[0], needed)
    empty = np.flatnonzero(np.isnan(values) & used)
    if len(empty):
        raise UserError(
            f"{counted(len(empty), 'row')} without a number in column {visible(columns[0])}, first {table.place(int(empty[0]))}; "
            f"{needed}: add it, or remove the row"
        )
    if used.any() and np.ptp(values[used]) == 0:  # here, as the images are not yet decoded
        raise UserError(
            f"all {int(used.sum())} numbers in column {visible(columns[0])} are {values[used][0]:g}; allowed: different ones"
        )
    return Labels(("value",), np.zeros(len(values), np.int32), None, values=values)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes: by their numbers where all are whole numbers, else by their letters.

    >>> in_order(["10", "3"]), in_order(["10", "3", "b"])
    (('3', '10'), ('10', '3', 'b'))
    """
    names = sorted(names)
    if all(_WHOLE.fullmatch(name) for name in names):
        names.sort(key=lambda name: int(name.partition(".")[0]))
    return tuple(names)


def numbers_hint(names: Iterable[str]) -> str:
    """What to change where the names of classes, all whole numbers, are meant as numbers; empty for other names.

    >>> numbers_hint(["18", "64"]), numbers_hint(["18", "old"])
    ('; where labels are numbers to predict, such as ages: dataset.label_kind=value', '')
    """
    if not all(_WHOLE.fullmatch(name) for name in names):
        return ""
    return "; where labels are numbers to predict, such as ages: dataset.label_kind=value"


def _as_whole_numbers(texts: list[str]) -> list[str]:
    """The texts without ".0" where all are whole numbers: pandas writes 3 so in a column with an empty cell."""
    if not all(_WHOLE.fullmatch(text) for text in texts if text):
        return texts
    return [text.partition(".")[0] for text in texts]


def _refuse_fractions(texts: Sequence[str], column: str) -> None:
    """UserError where labels are measured numbers rather than classes."""
    distinct = {text for text in texts if text}
    if len(distinct) < 3 or not all(_is_decimal(text) for text in distinct):
        return
    fractions = [text for text in distinct if not _WHOLE.fullmatch(text)]
    if fractions:
        raise UserError(
            f"column {visible(column)} holds numbers with fractions, such as {min(fractions)}, {len(distinct)} different ones; "
            "allowed with dataset.label_kind class: names or whole numbers, or one column for each class "
            "(dataset.label_columns); dataset.label_kind=value trains on the numbers"
        )


def _is_decimal(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) is not None


def _refuse_unknown(
    labels: Sequence[Sequence[str]], numbers: dict[str, int], names: Sequence[str], table: Table
) -> None:
    unknown: dict[str, int] = {}
    for row, each in enumerate(labels):
        for label in each:
            if label not in numbers:
                unknown.setdefault(label, row)
    if unknown:
        where = [f"{label} ({table.place(row)})" for label, row in unknown.items()]
        raise UserError(
            f"{counted(len(unknown), 'label')} of validation or test images {'is' if len(unknown) == 1 else 'are'} no class of "
            f"training: {listed(where)}; allowed: {listed(names, 8)}"
        )


def _several_in_a_cell(table: Table, column: str, texts: Sequence[str], in_training: Bool[np.ndarray, "row"]) -> Labels:
    separator = next((each for each in SEPARATORS if any(each in text for text in texts)), None)
    cells = [
        list(dict.fromkeys(filter(None, (part.strip() for part in text.split(separator))))) if separator else [text]
        for text in texts
    ]
    cells = [[label for label in cell if label] for cell in cells]
    names = in_order({label for cell, trains in zip(cells, in_training, strict=True) if trains for label in cell})
    numbers = {name: number for number, name in enumerate(names)}
    _refuse_unknown(cells, numbers, names, table)
    rows = np.zeros((len(cells), len(names)), np.float32)
    for row, cell in enumerate(cells):
        rows[row, [numbers[label] for label in cell]] = 1
    how = (
        f"the labels in a cell of {visible(column)} are separated by {separator}"
        if separator
        else f"no cell of {visible(column)} has several labels, separated by {' or '.join(SEPARATORS)}"
    )
    return Labels(names, _most_likely(rows), rows, (how, *_odd_names(names)))


def _of_columns(table: Table, columns: Sequence[str], kind: str, used: Bool[np.ndarray, "row"]) -> Labels:
    needed = "allowed: 0 or 1 for each class" if kind == "several" else "allowed: a share from 0 to 1 for each class"
    values = np.stack([table.numbers(column, needed) for column in columns], axis=1)
    is_empty = np.isnan(values).all(axis=1) | ~used
    values = np.where(is_empty[:, None], 0, np.nan_to_num(values, nan=0.0))
    if kind == "several":
        is_other = np.asarray(~np.isin(values, (0, 1)).all(axis=1))
        _refuse(is_other, values, table, columns, "are not 0 and 1", needed)
        rows = values.astype(np.float32)
        return Labels(tuple(columns), _most_likely(rows), rows)
    sums = values.sum(axis=1)
    wrong = ~is_empty & ((values < 0).any(axis=1) | (np.abs(sums - 1) > _SUM_TOLERANCE))
    if wrong.any() and np.isin(values, (0, 1)).all():
        needed = "allowed with dataset.label_kind several: any number of ones; with class: a single one"
    _refuse(wrong, values, table, columns, "are not shares that sum to 1", needed)
    rows = (values / np.where(is_empty, 1, sums)[:, None]).astype(np.float32)
    if np.isin(rows, (0, 1)).all():
        return Labels(tuple(columns), _most_likely(rows), None)
    return Labels(tuple(columns), _most_likely(rows), rows, _ties(rows))


def _refuse(
    wrong: Bool[np.ndarray, "row"],
    values: Float[np.ndarray, "row class"],
    table: Table,
    columns: Sequence[str],
    what: str,
    needed: str,
) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        found = listed([f"{column} {value:g}" for column, value in zip(columns, values[row], strict=True)])
        raise UserError(
            f"the labels of {counted(int(wrong.sum()), 'row')} {what}, first {table.place(row)} (sum {values[row].sum():g}: "
            f"{found}); {needed}; the columns of labels: dataset.label_columns"
        )


def _most_likely(rows: Float[np.ndarray, "row class"]) -> Int[np.ndarray, "row"]:
    """The most likely class of each row; -1 where there is no label."""
    if not rows.shape[1]:
        return np.full(len(rows), -1, np.int32)
    return np.where(rows.any(axis=1), rows.argmax(axis=1), -1).astype(np.int32)


def _ties(rows: Float[np.ndarray, "row class"]) -> tuple[str, ...]:
    largest = rows.max(axis=1, keepdims=True)
    num_tied = int((((rows == largest) & (largest > 0)).sum(axis=1) > 1).sum())
    if not num_tied:
        return ()
    return (f"two or more most likely classes in {counted(num_tied, 'row')}; an evaluation takes the first of them",)


def _odd_names(names: Sequence[str]) -> tuple[str, ...]:
    """Notes on names of classes that may be mistakes."""
    notes = []
    missing = [name for name in names if name.lower() in _MISSING_WORDS]
    if missing:
        notes.append(f"{listed(missing)} is a class by its name; an image without a label has an empty cell")
    by_form: dict[str, list[str]] = {}
    for name in names:
        form = " ".join(name.casefold().split())
        by_form.setdefault(form.lstrip("0") or form if form.isdecimal() else form, []).append(name)
    alike = [" and ".join(each) for each in by_form.values() if len(each) > 1]
    if alike:
        notes.append(f"different classes with names that are almost the same: {listed(alike)}")
    return tuple(notes)


def _hidden_lists(names: Sequence[str], column: str) -> tuple[str, ...]:
    """A note where cells seem to hold several labels, as their parts are classes too."""
    known = set(names)
    found = [
        name
        for name in names
        for separator in SEPARATORS
        if separator in name and sum(part.strip() in known for part in name.split(separator)) > 1
    ]
    if not found:
        return ()
    return (
        f"{quoted(found[0])} in {visible(column)} is one class, although its parts are classes too; "
        "dataset.label_kind=several takes them as several labels",
    )
