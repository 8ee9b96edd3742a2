"""Stratified, deterministic cuts of a validation or test split from the training images."""

from numbers import Real
from typing import Any

import numpy as np

from gensupcon_jax.errors import UserError

SPLIT_SEED = 0  # not the seed of the run: every run has the same validation and test images


def check_fractions(fractions: dict[str, Any]) -> None:
    """UserError for fractions outside 0..1, or that leave no training images; that of validation may be 0."""
    for where, fraction in fractions.items():
        is_number = isinstance(fraction, Real) and not isinstance(fraction, bool) and float(fraction) < 1
        if not is_number or float(fraction) < 0 or (fraction == 0 and where == "test"):
            lowest = "from 0" if where == "validation" else "above 0"
            raise UserError(
                f"{where}_fraction is {fraction!r}; allowed: a number {lowest} and below 1, or pass {where}=(images, labels)"
            )
    if sum(fractions.values()) >= 1:
        found = " and ".join(f"{where}_fraction {fraction:g}" for where, fraction in fractions.items())
        raise UserError(
            f"{found} sum to {sum(fractions.values()):g}; allowed: a sum below 1; the rest is the training split"
        )


def refuse_one_class(labels: np.ndarray, where: str) -> None:
    """UserError where all images with a label are of one class: it cannot be told from another; without labels there is none."""
    labeled = labels[labels >= 0] if labels.ndim == 1 else labels[labels.any(axis=1)]
    classes = np.unique(labeled if labels.ndim == 1 else labeled.argmax(1))
    if len(classes) == 1:
        raise UserError(
            f"{where} labels name class {classes[0]} as the most likely one in all {len(labeled)} images; "
            "allowed: 2 or more classes, each the most likely one of some image"
        )


def rare_class(classes: np.ndarray) -> str | None:
    """The problem of a class that has too few images for both sides of a cut, or None."""
    present, counts = np.unique(classes, return_counts=True)
    rare = present[counts < 2]
    others = f", as do {len(rare) - 1} more" if len(rare) > 1 else ""
    return f"class {rare[0]} has 1 image and needs 2{others}" if len(rare) else None


def cut_sizes(classes: np.ndarray) -> tuple[int, int]:
    """Smallest and largest size of a stratified cut: each side has at least as many images as there are classes."""
    num_present = len(np.unique(classes))
    return num_present, len(classes) - num_present


def cut_off(split: Any, size: int, where: str) -> tuple[Any, Any]:
    """(rest, part): `size` images cut from a split that has `classes` and `subset`; UserError where that is impossible.

    The part has labeled images only (class -1: none), unless there are none.
    """
    known = split.classes >= 0
    classes = split.classes[known] if known.any() else split.classes
    smallest, largest = cut_sizes(classes)
    problem = rare_class(classes)
    if not smallest <= size <= largest:
        problem = f"both sides need at least as many images as there are classes, {smallest}"
    if problem:
        what = "labeled images" if len(classes) < len(split.classes) else "images"
        raise UserError(
            f"{where} would be {size} of {len(classes)} {what}, but {problem}; "
            f"pass {where}=(images, labels), more images, or another {where}_fraction"
        )
    return cut(split, split.classes, size, known if known.any() else None)


def num_to_cut_from(classes: np.ndarray) -> int:
    """The number of images that a fraction of a split is of: of the labeled ones, unless there are none."""
    return int((classes >= 0).sum()) or len(classes)


def is_useless(classes: np.ndarray, label_kind: str) -> bool:
    """Whether a validation split would tell nothing: where no training image has a label."""
    return label_kind == "class" and not (classes >= 0).any()


def cut(split: Any, classes: np.ndarray, size: int, candidates: np.ndarray | None = None) -> tuple[Any, Any]:
    """(rest, part), stratified by class, each in the order of the split; candidates [example]: which may be of the part."""
    part = chosen(classes, size, candidates)
    return split.subset(np.flatnonzero(~part)), split.subset(np.flatnonzero(part))


def chosen(classes: np.ndarray, size: int, candidates: np.ndarray | None = None) -> np.ndarray:
    """Which images [example] a stratified choice of `size` of the candidates (None: of all) has: always the same ones."""
    numbers = np.arange(len(classes)) if candidates is None else np.flatnonzero(candidates)
    found = np.zeros(len(classes), bool)
    found[numbers] = stratified_part(classes[numbers], size)
    return found


def stratified_part(classes: np.ndarray, size: int) -> np.ndarray:
    """Which images, [example] bool, are the `size` of the stratified part: those of scikit-learn's `train_test_split`.

    Its import alone takes a second of every start, and another version of it could choose other test images. The stream of
    NumPy's RandomState is frozen.
    """
    random = np.random.RandomState(SPLIT_SEED)
    _, numbers, counts = np.unique(classes, return_inverse=True, return_counts=True)
    of_rest = _class_sizes(counts, len(classes) - size, random)
    of_part = _class_sizes(counts - of_rest, size, random)
    is_part = np.zeros(len(classes), bool)
    by_class = np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts)[:-1])
    for members, num_rest, num_part in zip(by_class, of_rest, of_part, strict=True):
        is_part[members[random.permutation(len(members))][num_rest : num_rest + num_part]] = True
    return is_part


def _class_sizes(counts: np.ndarray, size: int, random: np.random.RandomState) -> np.ndarray:
    """How many of each class: in proportion to their counts, rounded down, the rest by largest remainder, ties at random."""
    wanted = counts / counts.sum() * size
    sizes = np.floor(wanted)
    remainders, missing = wanted - sizes, int(size - sizes.sum())
    for value in np.unique(remainders)[::-1] if missing else ():
        tied = np.flatnonzero(remainders == value)
        chosen = random.choice(tied, size=min(len(tied), missing), replace=False)
        sizes[chosen] += 1
        missing -= len(chosen)
        if missing == 0:
            break
    return sizes.astype(int)
