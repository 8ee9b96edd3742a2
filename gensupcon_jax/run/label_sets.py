"""Sets of labels as classes: how the report groups images that have several labels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

NONE = "no label"


class LabelSets(NamedTuple):
    """The sets of labels that occur, each a class: names, and number of the set by its labels."""

    names: tuple[str, ...]
    numbers: dict[bytes, int]

    def of(self, rows: Shaped[np.ndarray, "image label"]) -> Int[np.ndarray, "image"]:
        """The number of the set of each image; of a mixed image those labels count that have at least half."""
        return np.array([self.numbers[key] for key in _keys(rows)], np.int64)

    def one_hot(self, rows: Shaped[np.ndarray, "image label"]) -> Float[np.ndarray, "image set"]:
        """The same as rows with a 1 at the set."""
        return np.eye(len(self.names), dtype=np.float32)[self.of(rows)]


def label_sets(all_rows: Sequence[Shaped[np.ndarray, "_ label"]], label_names: Sequence[str]) -> LabelSets:
    """The sets in these rows of 0 and 1, in the order of their labels; the set without labels comes last.

    >>> label_sets([np.array([[0, 1], [1, 1], [0, 0], [1, 0]])], ["sea", "sun"]).names
    ('sea', 'sea + sun', 'sun', 'no label')
    """
    keys = {key for rows in all_rows for key in _keys(rows)}
    members = {key: tuple(np.flatnonzero(np.frombuffer(key, bool)).tolist()) for key in keys}
    ordered = sorted(keys, key=lambda key: (not members[key], members[key]))
    names = tuple(" + ".join(label_names[label] for label in members[key]) or NONE for key in ordered)
    return LabelSets(names, {key: number for number, key in enumerate(ordered)})


def _keys(rows: Shaped[np.ndarray, "image label"]) -> list[bytes]:
    return [row.tobytes() for row in np.ascontiguousarray(rows >= 0.5)]
