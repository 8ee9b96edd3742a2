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
    """UserError where all images with a label are of one class: nothing can be learned or evaluated."""
    classes = np.unique(labels if labels.ndim == 1 else labels.argmax(1))
    classes = classes[classes >= 0]
    if not len(classes):
        raise UserError(f"none of the {len(labels)} {where} images has a label; allowed: images of 2 or more classes")
    if len(classes) < 2:
        raise UserError(
            f"{where} labels name class {classes[0]} as the most likely one in all {len(labels)} images; "
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

    Images without a label, of class -1, stay in the rest.
    """
    labeled = np.flatnonzero(split.classes >= 0)
    classes = split.classes[labeled]
    smallest, largest = cut_sizes(classes)
    problem = rare_class(classes)
    if not smallest <= size <= largest:
        problem = f"both sides need at least as many images as there are classes, {smallest}"
    if problem:
        raise UserError(
            f"{where} would be {size} of {len(classes)} images, but {problem}; "
            f"pass {where}=(images, labels), more images, or another {where}_fraction"
        )
    rest, part = _cut_rows(classes, size)
    without = np.flatnonzero(split.classes < 0)
    return split.subset(np.sort(np.concatenate([labeled[rest], without]))), split.subset(labeled[part])


def cut(split: Any, classes: np.ndarray, size: int) -> tuple[Any, Any]:
    """(rest, part), stratified by class, each in the order of the split."""
    rest, part = _cut_rows(classes, size)
    return split.subset(rest), split.subset(part)


def _cut_rows(classes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the rest and of the part."""
    from sklearn.model_selection import train_test_split

    rest, part = train_test_split(np.arange(len(classes)), test_size=size, stratify=classes, random_state=SPLIT_SEED)
    return np.sort(rest), np.sort(part)
