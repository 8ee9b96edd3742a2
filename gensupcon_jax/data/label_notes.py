"""Sentences on labels of arrays that are allowed, but perhaps not meant: ties, and classes without training images."""

import numpy as np
from jaxtyping import Shaped

from gensupcon_jax.text import counted, listed

_SAME = 1e-5  # entries that differ by less than this share are one value, rounded


def label_notes(
    labels: dict[str, Shaped[np.ndarray, "example ..."]], names: tuple[str, ...], kind: str
) -> tuple[str, ...]:
    """Sentences on columns that count from 1, on tied distributions, and on classes that only validation or test has.

    labels: by split, class numbers, or a row over the classes of these names.  kind: `dataset.label_kind`.
    """
    trained = _present(labels["train"])
    notes = [_first_column_note(labels)]
    notes += [_tie_note(split, rows, names) for split, rows in labels.items() if rows.ndim == 2 and kind == "class"]
    notes += [_untrained_note(split, each, trained, names) for split, each in labels.items() if split != "train"]
    return tuple(note for note in notes if note is not None)


def _first_column_note(labels: dict[str, np.ndarray]) -> str | None:
    """Where one-hot rows were made of class numbers from 1: only their first column is empty."""
    if any(each.ndim == 1 for each in labels.values()):
        return None
    used = np.any([(rows > 0).any(0) for rows in labels.values()], axis=0)
    if used[0] or not used[1:].all() or len(used) < 3:
        return None
    return (
        f"no image has the first of {len(used)} classes, and each of the others has images: where class numbers from 1 were "
        "turned into rows, leave the first column out (labels[:, 1:])"
    )


def _tie_note(split: str, rows: np.ndarray, names: tuple[str, ...]) -> str | None:
    highest = rows.max(1, keepdims=True)
    tied = np.flatnonzero(((rows >= highest * (1 - _SAME)).sum(1) > 1) & (highest[:, 0] > 0))
    if not len(tied):
        return None
    first = rows[tied[0]]
    classes = np.flatnonzero(first >= first.max() * (1 - _SAME))
    which = " and ".join(names[index] for index in classes[:2]) + (" and others" if len(classes) > 2 else "")
    return (
        f"{split} labels: {len(tied)} of {len(rows)} rows have no single most likely class, first row {tied[0]} "
        f"({first.max():.3g} for {which}); where one class counts, in the evaluation and in stratified cuts, it is the first of "
        f"them. To change that, remove these images, or raise one entry of each row"
    )


def _untrained_note(split: str, labels: np.ndarray, trained: np.ndarray, names: tuple[str, ...]) -> str | None:
    missing = np.setdiff1d(_present(labels), trained)
    if not len(missing):
        return None
    having = np.isin(labels, missing) if labels.ndim == 1 else (labels[:, missing] > 0).any(1)
    of_those = int(having.sum())
    which = "the class" if len(missing) == 1 else f"{len(missing)} classes"
    return (
        f"no training image has {which} {listed(names[index] for index in missing)} of {split}: {counted(of_those, 'image')} of "
        f"{split} cannot be predicted right; add training images, or remove those from {split}"
    )


def _present(labels: np.ndarray) -> np.ndarray:
    """The classes that some image has; of distributions also in part."""
    present = np.unique(labels) if labels.ndim == 1 else np.flatnonzero((labels > 0).any(0))
    return present[present >= 0]
