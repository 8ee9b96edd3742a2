"""A long-tailed version of a data set: an exponential profile over the classes, of the training images only."""

import dataclasses

import numpy as np
from jaxtyping import Int64

from gensupcon_jax.data.cuts import SPLIT_SEED
from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.errors import UserError


def with_long_tail(dataset: Dataset, factor: float | int) -> Dataset:
    """The data set with fewer training images of later classes: the first has `factor` times as many as the last.

    Class k keeps as many images as `long_tail_sizes` of the mean number per class says (or all that it has), always the same
    ones, drawn at random. Images without a label, validation and test splits stay as they are. Raises UserError if a class would
    keep none.
    """
    classes, num_classes = dataset.train.classes, dataset.num_classes
    known = classes >= 0
    counts = np.bincount(classes[known], minlength=num_classes)
    sizes = np.minimum(counts, long_tail_sizes(int(counts.sum()) // num_classes, num_classes, factor))
    emptied = np.flatnonzero((sizes < 1) & (counts > 0))
    if len(emptied):
        found = f"class {emptied[0]} would keep none of its {counts[emptied[0]]} images"
        largest = counts.sum() // num_classes
        raise UserError(
            f"dataset.imbalance_factor is {factor:g}, but {found}; allowed: above 1 up to {largest}, or None"
        )
    random_bits = np.random.Philox(key=[SPLIT_SEED, 0]).random_raw(len(classes))
    by_class = np.lexsort((random_bits, classes))
    class_of = classes[by_class]
    rank = np.arange(len(by_class)) - np.searchsorted(class_of, class_of)
    kept = np.sort(by_class[(class_of < 0) | (rank < sizes[class_of])])
    note = (
        f"dataset.imbalance_factor is {factor:g}: {sizes.max()} to {sizes[counts > 0].min()} training images per class, "
        f"{len(kept)} of {len(classes)} in all"
    )
    return dataclasses.replace(dataset, train=dataset.train.subset(kept), notes=(*dataset.notes, note))


def long_tail_sizes(largest: int, num_classes: int, factor: float | int) -> Int64[np.ndarray, "class"]:
    """Images of each class: largest x factor^(-k / (C - 1)), rounded down (long-tailed CIFAR, arXiv 1901.05555).

    >>> long_tail_sizes(500, 3, 100).tolist()
    [500, 50, 5]
    """
    exact = largest * float(factor) ** (-np.arange(num_classes) / max(num_classes - 1, 1))
    return np.floor(exact + 1e-9).astype(np.int64)  # 500 / 100 is 5 despite its rounding
